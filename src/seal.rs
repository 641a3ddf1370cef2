//! XAES-256-GCM and AES-256-SIV over one value: the only place where plaintext becomes ciphertext and back.
//!
//! It alone names `aes_gcm` and `aws_lc_rs`. The values of suite 1 go through aws-lc-rs, which is in the tree through rustls and takes
//! two thirds of the time on short values, a quarter on long ones; data keys are wrapped with `aes-gcm`, and the tests hold the two
//! against each other. It knows no JSON, pads nothing and draws no randomness: nonces are arguments. What it refuses leaves nothing
//! behind in the output, and all refusals are one word. Expanded keys are wiped when dropped.

use crate::dek::{Dek, Kid, Suite};
use aes::Aes256Enc;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes_siv::aead::AeadInOut;
use aes_siv::siv::Aes256Siv;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of the XAES-256-GCM nonce: the first 12 are a body's, the last 12 a value's.
pub const NONCE_LEN: usize = 24;

/// Bytes that sealing adds to a plaintext: the tag of suite 1, the SIV of suite 2.
pub const TAG_LEN: usize = 16;

/// An expanded key of AES-256-GCM (NIST SP 800-38D).
type Gcm = LessSafeKey;

/// A token or its context is not what was sealed. One word for every reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

/// XAES-256-GCM's subkey (C2SP XAES-256-GCM; NIST SP 800-108r1 in counter mode with AES-CMAC), N the nonce's first 12 bytes:
///
/// ```text
/// K_x = AES-CMAC(K, 00 01 58 00 || N) || AES-CMAC(K, 00 02 58 00 || N)
/// ```
///
/// Both messages are one whole block M, whose CMAC (NIST SP 800-38B) is E_K(M xor K1), K1 being E_K(0) doubled in GF(2^128). Written so
/// it expands K once and costs three blocks.
fn subkey(key: &[u8; 32], nonce_prefix: &[u8; 12]) -> Gcm {
    let cipher = Aes256Enc::new(key.into());
    let mut l = Zeroizing::new([0; 16]);
    cipher.encrypt_block((&mut *l).into());
    let l = Zeroizing::new(u128::from_be_bytes(*l));
    let k1 = Zeroizing::new((*l << 1) ^ ((*l >> 127) * 0x87));

    let mut subkey = Zeroizing::new([0; 32]);
    for (half, counter) in subkey.as_chunks_mut().0.iter_mut().zip(1..) {
        let mut m = [0; 16];
        m[..4].copy_from_slice(&[0, counter, b'X', 0]);
        m[4..].copy_from_slice(nonce_prefix);
        *half = (u128::from_be_bytes(m) ^ *k1).to_be_bytes();
        cipher.encrypt_block(half.into());
    }
    let subkey = UnboundKey::new(&AES_256_GCM, &*subkey).expect("32 bytes are a key");
    Gcm::new(subkey)
}

/// Seals up to 4,096 values of one body under one DEK: the XAES subkey is derived once from 12 fresh random bytes.
pub struct Sealer {
    gcm: Gcm,
}

impl Sealer {
    /// `prefix`: 12 fresh random bytes, the nonce's first half in every token that this sealer makes.
    pub fn new(dek: &Dek, prefix: [u8; 12]) -> Sealer {
        Sealer {
            gcm: subkey(dek.expose_xaes(), &prefix),
        }
    }

    /// `C || T = AES-256-GCM(K_x, tail, aad, P)`: encrypts `buf[from..]` in place and appends the 16-byte tag. `tail`: 12 fresh
    /// random bytes, one per value.
    ///
    /// # Panics
    /// If `from` is beyond the end of `buf`, or the plaintext over GCM's 64 GiB.
    pub fn seal(&self, tail: [u8; 12], aad: &[u8], buf: &mut Vec<u8>, from: usize) {
        let tag = self
            .gcm
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(tail),
                Aad::from(aad),
                &mut buf[from..],
            )
            .expect("a plaintext in memory is below 64 GiB");
        buf.extend_from_slice(tag.as_ref());
    }
}

/// AES-SIV-CMAC-512 (RFC 5297 section 2.6) with one component of associated data: `buf[from..]` becomes SIV || ciphertext.
///
/// # Panics
/// If `from` is beyond the end of `buf`.
pub fn siv_seal(dek: &Dek, aad: &[u8], buf: &mut Vec<u8>, from: usize) {
    let plaintext = from..buf.len();
    buf.resize(plaintext.end + TAG_LEN, 0);
    buf.copy_within(plaintext, from + TAG_LEN);
    let (siv, text) = buf[from..].split_at_mut(TAG_LEN);
    let tag = Aes256Siv::new(dek.expose_siv().into())
        .encrypt_inout_detached([aad], text.into())
        .expect("one component of associated data is below 127");
    siv.copy_from_slice(&tag);
}

/// Opens the tokens of a body: remembers the last XAES subkey, so that values sealed together cost one derivation.
#[derive(Default)]
pub struct Opener {
    last: Option<(Kid, [u8; 12], Gcm)>,
}

impl Opener {
    /// Remembers nothing yet.
    pub fn new() -> Opener {
        Opener::default()
    }

    /// Opens `sealed` into `out` (appended; nothing is left there on refusal). `nonce`: exactly in suite 1.
    ///
    /// # Errors
    /// [`Refused`], whatever is wrong: key, nonce, associated data, ciphertext, tag or length.
    pub fn open(
        &mut self,
        dek: &Dek,
        suite: Suite,
        nonce: Option<&[u8; NONCE_LEN]>,
        aad: &[u8],
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        match (suite, nonce) {
            (Suite::Xaes256Gcm, Some(nonce)) => {
                let (text, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(Refused)?;
                let (prefix, tail) = nonce.split_at(12);
                let tail = Nonce::try_assume_unique_for_key(tail).map_err(|_| Refused)?;
                let gcm = self.subkey(dek, prefix.try_into().map_err(|_| Refused)?);
                append_if_genuine(text, out, |buf| {
                    gcm.open_separate_gather(tail, Aad::from(aad), text, tag, buf)
                        .is_ok()
                })
            }
            (Suite::Aes256Siv, None) => {
                let (siv, text) = sealed.split_first_chunk::<TAG_LEN>().ok_or(Refused)?;
                let mut cipher = Aes256Siv::new(dek.expose_siv().into());
                append_if_genuine(text, out, |buf| {
                    cipher
                        .decrypt_inout_detached([aad], buf.into(), siv.into())
                        .is_ok()
                })
            }
            _ => Err(Refused),
        }
    }

    fn subkey(&mut self, dek: &Dek, prefix: [u8; 12]) -> &Gcm {
        if !matches!(&self.last, Some((kid, last, _)) if *kid == dek.kid() && *last == prefix) {
            self.last = None;
        }
        let (_, _, gcm) = self
            .last
            .get_or_insert_with(|| (dek.kid(), prefix, subkey(dek.expose_xaes(), &prefix)));
        gcm
    }
}

/// Opens one value; [`Opener`] is for several. `out` is appended to; nothing is left there on refusal.
pub fn open(
    dek: &Dek,
    suite: Suite,
    nonce: Option<&[u8; NONCE_LEN]>,
    aad: &[u8],
    sealed: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Refused> {
    Opener::new().open(dek, suite, nonce, aad, sealed, out)
}

/// Appends `text`, decrypted in place, to `out`; takes it away again where `decrypt` says that it is not genuine.
fn append_if_genuine(
    text: &[u8],
    out: &mut Vec<u8>,
    decrypt: impl FnOnce(&mut [u8]) -> bool,
) -> Result<(), Refused> {
    let from = out.len();
    out.extend_from_slice(text);
    if decrypt(&mut out[from..]) {
        return Ok(());
    }
    out[from..].zeroize();
    out.truncate(from);
    Err(Refused)
}

/// AES-256-GCM (NIST SP 800-38D): `ciphertext || 16-byte tag`. For wrapping keys under keys (`kms::keyring`), never for
/// values. A nonce must not repeat under one key.
pub fn gcm256_seal(key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    // With room for the tag: a vector that grows leaves a copy of the plaintext behind.
    let mut sealed = Vec::with_capacity(plaintext.len() + TAG_LEN);
    sealed.extend_from_slice(plaintext);
    let tag = aes_gcm::Aes256Gcm::new(key.into())
        .encrypt_inout_detached(nonce.into(), aad, sealed.as_mut_slice().into())
        .expect("a message far below 64 GiB");
    sealed.extend_from_slice(&tag);
    sealed
}

/// The inverse of [`gcm256_seal`]; what it gives is wiped when dropped.
pub fn gcm256_open(
    key: &[u8; 32],
    nonce: &[u8; 12],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let (text, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(Refused)?;
    let mut plaintext = Zeroizing::new(text.to_vec());
    aes_gcm::Aes256Gcm::new(key.into())
        .decrypt_inout_detached(
            nonce.into(),
            aad,
            plaintext.as_mut_slice().into(),
            tag.into(),
        )
        .map_err(|_| Refused)?;
    Ok(plaintext)
}

#[cfg(test)]
mod tests;
