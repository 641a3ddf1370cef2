//! The wrapped-DEK record: one DEK, wrapped under one to four KEKs, any of which opens it (FORMAT.md, Record).
//!
//! Structure only: which KMS a blob belongs to and what is in it is that KMS's affair.

use super::TokenError;
use sha2::{Digest, Sha256};

/// The longest record, in bytes.
pub const RECORD_MAX: usize = 4096;

/// The most wrappings in a record.
pub const WRAPPINGS_MAX: usize = 4;

/// The longest blob of one wrapping, in bytes.
pub const BLOB_MAX: usize = 2048;

/// First 8 bytes of SHA-256(KEK URI).
pub type KekId = [u8; 8];

/// The DEK under one KEK: which, and the KMS's blob.
pub type Wrapping<'a> = (KekId, &'a [u8]);

/// The id of the KEK with this URI: its identity, apart from the address where it is reached, without a version.
pub fn kek_id(uri: &str) -> KekId {
    let digest: [u8; 32] = Sha256::digest(uri.as_bytes()).into();
    *digest.first_chunk().expect("8 of 32 bytes")
}

/// A record whose structure was checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// `record = u8 count (1 to 4) || wrapping*`, `wrapping = 8 bytes KEK id || u16be length (1 to 2048) || blob`, at most 4096
    /// bytes, filled exactly. Anything else is malformed.
    pub fn parse(bytes: &'a [u8]) -> Result<Record<'a>, TokenError> {
        let (&count, mut rest) = bytes.split_first().ok_or(TokenError::Malformed)?;
        if bytes.len() > RECORD_MAX || !(1..=WRAPPINGS_MAX).contains(&usize::from(count)) {
            return Err(TokenError::Malformed);
        }
        for _ in 0..count {
            let ((_, blob), behind) = split_wrapping(rest).ok_or(TokenError::Malformed)?;
            if !(1..=BLOB_MAX).contains(&blob.len()) {
                return Err(TokenError::Malformed);
            }
            rest = behind;
        }
        if rest.is_empty() {
            Ok(Record { bytes })
        } else {
            Err(TokenError::Malformed)
        }
    }

    /// The record of these wrappings, in this order. Malformed where [`Record::parse`] would refuse it.
    pub fn build(wrappings: &[Wrapping<'_>]) -> Result<Box<[u8]>, TokenError> {
        let count = u8::try_from(wrappings.len()).map_err(|_| TokenError::Malformed)?;
        let mut bytes = vec![count];
        for (kek, blob) in wrappings {
            let len = u16::try_from(blob.len()).map_err(|_| TokenError::Malformed)?;
            bytes.extend_from_slice(kek);
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(blob);
        }
        Record::parse(&bytes)?;
        Ok(bytes.into_boxed_slice())
    }

    /// The record as it stands in the token.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The wrappings in their order.
    pub fn wrappings(self) -> impl Iterator<Item = Wrapping<'a>> + use<'a> {
        let mut rest = &self.bytes[1..];
        std::iter::from_fn(move || {
            let (wrapping, behind) = split_wrapping(rest)?;
            rest = behind;
            Some(wrapping)
        })
    }
}

/// The first wrapping and what follows it.
fn split_wrapping(bytes: &[u8]) -> Option<(Wrapping<'_>, &[u8])> {
    let (&kek, rest) = bytes.split_first_chunk()?;
    let (&len, rest) = rest.split_first_chunk()?;
    let (blob, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(len)))?;
    Some(((kek, blob), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(bytes: &[u8]) {
        assert_eq!(Record::parse(bytes), Err(TokenError::Malformed));
    }

    fn wrapping(blob_len: usize) -> Vec<u8> {
        let mut bytes = b"kek-id-8".to_vec();
        bytes.extend_from_slice(&u16::try_from(blob_len).unwrap().to_be_bytes());
        bytes.extend(std::iter::repeat_n(7, blob_len));
        bytes
    }

    fn record(count: u8, blobs: &[usize]) -> Vec<u8> {
        let mut bytes = vec![count];
        blobs.iter().for_each(|&len| bytes.extend(wrapping(len)));
        bytes
    }

    #[test]
    fn what_was_built_reads_back() {
        let one: &[u8] = &[1; 2048];
        let cases: [&[(KekId, &[u8])]; 3] = [
            &[(*b"first-id", b"x")],
            &[(*b"first-id", one), (*b"other-id", &one[..2000])],
            &[
                (*b"aaaaaaaa", b"1"),
                (*b"bbbbbbbb", b"22"),
                (*b"aaaaaaaa", b"333"),
                (*b"dddddddd", b"4444"),
            ],
        ];
        for wrappings in cases {
            let built = Record::build(wrappings).unwrap();
            let parsed = Record::parse(&built).unwrap();
            assert_eq!(parsed.wrappings().collect::<Vec<_>>(), wrappings);
            assert_eq!(parsed.bytes(), &*built);
        }
    }

    #[test]
    fn what_would_not_parse_is_not_built() {
        let kek = *b"kek-id-8";
        let many = vec![(kek, &b"x"[..]); 257];
        let long = vec![0; 70_000];
        let cases: [&[(KekId, &[u8])]; 7] = [
            &[],
            &many[..5],
            &many,
            &[(kek, b"")],
            &[(kek, &long[..2049])],
            &[(kek, &long)],
            &[(kek, &long[..2048]), (kek, &long[..2048])],
        ];
        for wrappings in cases {
            assert_eq!(
                Record::build(wrappings),
                Err(TokenError::Malformed),
                "{} wrappings",
                wrappings.len()
            );
        }
    }

    #[test]
    fn structure_is_exact() {
        refused(b"");
        refused(&record(0, &[]));
        refused(&record(0, &[4]));
        refused(&record(5, &[4; 5]));
        refused(&record(255, &[4; 4]));
        refused(&record(1, &[0]));
        refused(&record(1, &[2049]));
        refused(&record(2, &[4]));
        refused(&record(1, &[4, 4]));
        refused(&record(2, &[2048, 2028]));
        assert_eq!(record(2, &[2048, 2027]).len(), RECORD_MAX);
        assert!(Record::parse(&record(2, &[2048, 2027])).is_ok());
        let whole = record(2, &[3, 5]);
        assert!(Record::parse(&whole).is_ok());
        (0..whole.len()).for_each(|cut| refused(&whole[..cut]));
    }

    #[test]
    fn kek_ids_are_the_head_of_sha_256() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            kek_id("abc"),
            [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea]
        );
        assert_ne!(
            kek_id("keyring:demo/payments"),
            kek_id("keyring:demo/payment")
        );
    }
}
