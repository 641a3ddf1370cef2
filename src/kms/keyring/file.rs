//! The keyring's file, version 1: a header in clear, and the master keys encrypted. `docs/keyring.md`
//! describes it byte by byte. Canonical or refused: what is accepted would be written the same.

use super::{Random, Trouble, Unlock};
use crate::arena::{Arena, Slot};
use crate::dek::Material;
use crate::seal::{gcm256_open, gcm256_seal};
use std::collections::BTreeMap;
use zeroize::{Zeroize, Zeroizing};

const MAGIC: &[u8] = b"fieldveil keyring v1\n";
const MAGIC_ANY: &[u8] = b"fieldveil keyring v";
const NAME_LEN_MAX: usize = 64;
const SALT_LEN: usize = 16;
const KEK_LEN: usize = 32;

/// A keyring with more is not of this program's making.
const KEYS_MAX: u32 = 4096;
const VERSIONS_MAX: u32 = 16_384;

/// Parameters of Argon2id (RFC 9106).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Cost {
    /// Memory, in KiB: from 8 MiB to 1 GiB.
    pub memory_kib: u32,
    /// Passes over the memory: 1 to 16.
    pub passes: u32,
    /// Lanes: 1 to 16. They are computed one after another.
    pub lanes: u32,
}

impl Cost {
    /// The second recommended option of RFC 9106 section 4.
    pub const DEFAULT: Cost = Cost {
        memory_kib: 64 * 1024,
        passes: 3,
        lanes: 4,
    };

    /// The least that is accepted: below it a guesser has too easy a time.
    pub const LEAST: Cost = Cost {
        memory_kib: 8 * 1024,
        passes: 1,
        lanes: 1,
    };

    /// The most: a file must not make the agent take all memory or minutes before it is authenticated.
    pub const MOST: Cost = Cost {
        memory_kib: 1024 * 1024,
        passes: 16,
        lanes: 16,
    };

    fn is_bounded(self) -> bool {
        (Cost::LEAST.memory_kib..=Cost::MOST.memory_kib).contains(&self.memory_kib)
            && (Cost::LEAST.passes..=Cost::MOST.passes).contains(&self.passes)
            && (Cost::LEAST.lanes..=Cost::MOST.lanes).contains(&self.lanes)
    }
}

/// What stands in clear at the beginning: the name, and how the rest is locked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    pub name: String,
    lock: Lock,
    salt: [u8; SALT_LEN],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lock {
    Passphrase(Cost),
    KeyFile,
}

impl Header {
    pub fn new(
        name: &str,
        unlock: &Unlock,
        cost: Cost,
        random: &Random,
    ) -> Result<Header, Trouble> {
        check_name(name)?;
        let mut salt = [0; SALT_LEN];
        random(&mut salt).map_err(Trouble::Random)?;
        let lock = match unlock {
            Unlock::Passphrase(_) if cost.is_bounded() => Lock::Passphrase(cost),
            Unlock::Passphrase(_) => return Err(Trouble::Damaged("has costs out of bounds")),
            Unlock::Key(_) => Lock::KeyFile,
        };
        Ok(Header {
            name: name.to_owned(),
            lock,
            salt,
        })
    }

    pub fn unlock_word(&self) -> (&'static str, Option<Cost>) {
        match self.lock {
            Lock::Passphrase(cost) => ("passphrase", Some(cost)),
            Lock::KeyFile => ("key-file", None),
        }
    }

    /// `magic || u8 length || name || u8 lock || [memory, passes, lanes as u32be] || salt`
    fn print(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(self.name.len() as u8);
        bytes.extend(self.name.as_bytes());
        match self.lock {
            Lock::Passphrase(cost) => {
                bytes.push(1);
                for number in [cost.memory_kib, cost.passes, cost.lanes] {
                    bytes.extend(number.to_be_bytes());
                }
            }
            Lock::KeyFile => bytes.push(2),
        }
        bytes.extend(self.salt);
        bytes
    }

    /// The header, and what follows it.
    pub fn parse(bytes: &[u8]) -> Result<(Header, &[u8]), Trouble> {
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            return Err(if bytes.starts_with(MAGIC_ANY) {
                Trouble::OtherFormat
            } else {
                Trouble::Damaged("is not a keyring")
            });
        };
        let mut rest = Reader(rest);
        let short = Trouble::Damaged("is cut short");
        let parsed = (|| {
            let length = rest.array::<1>()?[0];
            let name = rest.take(usize::from(length))?;
            let kind = rest.array::<1>()?[0];
            let cost = match kind {
                1 => Some(Cost {
                    memory_kib: rest.number()?,
                    passes: rest.number()?,
                    lanes: rest.number()?,
                }),
                _ => None,
            };
            Some((name, kind, cost, *rest.array::<SALT_LEN>()?))
        })();
        let (name, kind, cost, salt) = parsed.ok_or(short)?;
        let lock = match (kind, cost) {
            (1, Some(cost)) if cost.is_bounded() => Lock::Passphrase(cost),
            (1, _) => return Err(Trouble::Damaged("asks for costs out of bounds")),
            (2, _) => Lock::KeyFile,
            _ => return Err(Trouble::Damaged("has an unknown kind of lock")),
        };
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|name| check_name(name).is_ok())
            .ok_or(Trouble::Damaged("has an impossible name"))?
            .to_owned();
        Ok((Header { name, lock, salt }, rest.0))
    }

    /// The key that the rest is encrypted under: Argon2id(passphrase, salt), or
    /// HKDF-SHA-256(ikm = key file, salt, info = "fieldveil/keyring/v1").
    pub fn file_key(&self, unlock: &Unlock, arena: &Arena) -> Result<Slot, Trouble> {
        let (slot, derived) = arena
            .hold(|bytes| {
                let out = &mut bytes[..KEK_LEN];
                match (self.lock, unlock) {
                    (Lock::Passphrase(cost), Unlock::Passphrase(text)) => {
                        stretch(text, &self.salt, cost, out)
                    }
                    (Lock::KeyFile, Unlock::Key(key)) => {
                        hkdf::Hkdf::<sha2::Sha256>::new(Some(&self.salt), &key[..])
                            .expand(b"fieldveil/keyring/v1", out)
                            .map_err(|_| Trouble::Memory)
                    }
                    (Lock::Passphrase(_), Unlock::Key(_)) => {
                        Err(Trouble::OtherUnlock("a passphrase"))
                    }
                    (Lock::KeyFile, Unlock::Passphrase(_)) => {
                        Err(Trouble::OtherUnlock("a key file"))
                    }
                }
            })
            .map_err(|_| Trouble::Memory)?;
        derived.map(|()| slot)
    }

    /// The whole file: `header || 12-byte nonce || AES-256-GCM(body) and tag`, the header being the associated data.
    pub fn seal(
        &self,
        contents: &Contents,
        file_key: &Slot,
        random: &Random,
    ) -> Result<Vec<u8>, Trouble> {
        let mut file = self.print();
        let mut nonce = [0; 12];
        random(&mut nonce).map_err(Trouble::Random)?;
        let sealed = gcm256_seal(first_32(file_key), &nonce, &file, &contents.print());
        file.extend(nonce);
        file.extend(sealed);
        Ok(file)
    }

    /// The inverse of [`Header::seal`], given what follows the header.
    pub fn open(&self, rest: &[u8], file_key: &Slot, arena: &Arena) -> Result<Contents, Trouble> {
        let (nonce, sealed) = rest
            .split_first_chunk::<12>()
            .ok_or(Trouble::Damaged("is cut short"))?;
        let body = gcm256_open(first_32(file_key), nonce, &self.print(), sealed)
            .map_err(|_| Trouble::WontOpen)?;
        Contents::parse(&body, arena)
    }
}

fn stretch(passphrase: &[u8], salt: &[u8], cost: Cost, out: &mut [u8]) -> Result<(), Trouble> {
    use argon2::{Algorithm, Argon2, Block, Params, Version};
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(out.len()))
        .map_err(|_| Trouble::Damaged("asks for costs out of bounds"))?;
    let mut blocks = Vec::new();
    blocks
        .try_reserve_exact(params.block_count())
        .map_err(|_| Trouble::Memory)?;
    blocks.resize(params.block_count(), Block::default());
    let stretched = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(passphrase, salt, out, &mut blocks);
    // The working memory tells the key to whoever finds it.
    for block in &mut blocks {
        block.as_mut().zeroize();
    }
    stretched.map_err(|_| Trouble::Memory)
}

/// Names of keyrings and keys: they stand in URIs, settings and files.
fn check_name(name: &str) -> Result<(), Trouble> {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = (1..=NAME_LEN_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| word(byte) || b"-_.".contains(&byte))
        && name.bytes().next().is_some_and(word);
    if good {
        Ok(())
    } else {
        Err(Trouble::BadName(name.chars().take(NAME_LEN_MAX).collect()))
    }
}

fn first_32(slot: &Slot) -> &[u8; KEK_LEN] {
    slot.expose()
        .first_chunk()
        .expect("a slot is longer than a key")
}

/// The master keys, by name.
pub struct Contents {
    pub keys: BTreeMap<String, Kek>,
}

/// One master key: its versions from 1 on.
pub struct Kek {
    versions: Vec<Version>,
}

pub struct Version {
    pub number: u32,
    /// Seconds since 1970.
    pub created: u64,
    material: Slot,
}

impl Version {
    pub fn expose(&self) -> &[u8; KEK_LEN] {
        first_32(&self.material)
    }

    fn random(
        number: u32,
        arena: &Arena,
        random: &Random,
        created: u64,
    ) -> Result<Version, Trouble> {
        let (material, filled) = arena
            .hold(|bytes| random(&mut bytes[..KEK_LEN]))
            .map_err(|_| Trouble::Memory)?;
        filled.map_err(Trouble::Random)?;
        Ok(Version {
            number,
            created,
            material,
        })
    }
}

impl Kek {
    /// The version that wraps.
    pub fn current(&self) -> &Version {
        self.versions
            .last()
            .expect("a key has a version from the start")
    }

    pub fn version(&self, number: u32) -> Option<&Version> {
        self.versions
            .get(usize::try_from(number.checked_sub(1)?).ok()?)
    }
}

impl Contents {
    pub fn new(
        name: &str,
        keys: &[&str],
        arena: &Arena,
        random: &Random,
        created: u64,
    ) -> Result<Contents, Trouble> {
        check_name(name)?;
        let mut contents = Contents {
            keys: BTreeMap::new(),
        };
        for key in keys {
            contents.add(key, arena, random, created)?;
        }
        Ok(contents)
    }

    pub fn add(
        &mut self,
        key: &str,
        arena: &Arena,
        random: &Random,
        created: u64,
    ) -> Result<(), Trouble> {
        check_name(key)?;
        if self.keys.contains_key(key) {
            return Err(Trouble::KeyExists(key.to_owned()));
        }
        if self.keys.len() >= KEYS_MAX as usize {
            return Err(Trouble::Full("is full: it cannot hold more keys"));
        }
        let versions = vec![Version::random(1, arena, random, created)?];
        self.keys.insert(key.to_owned(), Kek { versions });
        Ok(())
    }

    pub fn rotate(
        &mut self,
        key: &str,
        arena: &Arena,
        random: &Random,
        created: u64,
    ) -> Result<u32, Trouble> {
        let kek = self
            .keys
            .get_mut(key)
            .ok_or_else(|| Trouble::UnknownKey(key.chars().take(NAME_LEN_MAX).collect()))?;
        let number = kek.current().number + 1;
        if number > VERSIONS_MAX {
            return Err(Trouble::Full(
                "is full: it cannot hold more versions of that key",
            ));
        }
        kek.versions
            .push(Version::random(number, arena, random, created)?);
        Ok(number)
    }

    /// Another copy in the arena.
    pub fn copy(&self, arena: &Arena) -> Result<Contents, Trouble> {
        Contents::parse(&self.print(), arena)
    }

    /// `u32be keys || (u8 length || name || u32be versions || (u64be created || 32 bytes)*)*`, names ascending.
    fn print(&self) -> Zeroizing<Vec<u8>> {
        let lengths = self
            .keys
            .iter()
            .map(|(name, kek)| 1 + name.len() + 4 + kek.versions.len() * (8 + KEK_LEN));
        // With room for all of it: a vector that grows leaves copies behind.
        let mut body = Zeroizing::new(Vec::with_capacity(4 + lengths.sum::<usize>()));
        body.extend((self.keys.len() as u32).to_be_bytes());
        for (name, kek) in &self.keys {
            body.push(name.len() as u8);
            body.extend(name.as_bytes());
            body.extend((kek.versions.len() as u32).to_be_bytes());
            for version in &kek.versions {
                body.extend(version.created.to_be_bytes());
                body.extend(version.expose());
            }
        }
        body
    }

    fn parse(body: &[u8], arena: &Arena) -> Result<Contents, Trouble> {
        let odd = || Trouble::Damaged("decrypts to something that is no keyring");
        let mut rest = Reader(body);
        let count = rest
            .number()
            .filter(|count| *count <= KEYS_MAX)
            .ok_or_else(odd)?;
        let mut keys: BTreeMap<String, Kek> = BTreeMap::new();
        for _ in 0..count {
            let length = rest.array::<1>().ok_or_else(odd)?[0];
            let name = rest.take(usize::from(length)).ok_or_else(odd)?;
            let name = std::str::from_utf8(name).map_err(|_| odd())?;
            check_name(name).map_err(|_| odd())?;
            if keys
                .last_key_value()
                .is_some_and(|(last, _)| last.as_str() >= name)
            {
                return Err(odd());
            }
            let count = rest
                .number()
                .filter(|count| (1..=VERSIONS_MAX).contains(count))
                .ok_or_else(odd)?;
            let mut versions = Vec::new();
            for number in 1..=count {
                let created = u64::from_be_bytes(*rest.array().ok_or_else(odd)?);
                let key: &[u8; KEK_LEN] = rest.array().ok_or_else(odd)?;
                let (material, ()) = arena
                    .hold(|bytes| bytes[..KEK_LEN].copy_from_slice(key))
                    .map_err(|_| Trouble::Memory)?;
                versions.push(Version {
                    number,
                    created,
                    material,
                });
            }
            keys.insert(name.to_owned(), Kek { versions });
        }
        if rest.0.is_empty() {
            Ok(Contents { keys })
        } else {
            Err(odd())
        }
    }
}

/// Takes bytes from the front. None: there are not so many.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        self.take(N)?.first_chunk()
    }

    fn number(&mut self) -> Option<u32> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }
}
