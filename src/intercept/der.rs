//! The few facts of a certificate that nobody else tells us, read from its DER (RFC 5280 section 4.1): its subject's one common
//! name, and its end.

use std::time::{Duration, SystemTime};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTF8: u8 = 0x0c;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// What is read.
pub(super) struct Facts {
    /// The subject, where that is one common name and nothing else.
    pub(super) name: String,
    pub(super) good_until: SystemTime,
}

/// `None`: it is no certificate, or its subject is something else than one common name.
pub(super) fn facts(certificate: &[u8]) -> Option<Facts> {
    let whole = Reader(certificate).only(SEQUENCE)?;
    let mut tbs = Reader(Reader(whole).next_of(SEQUENCE)?);
    // Version, serial number, algorithm, issuer.
    for _ in 0..4 {
        tbs.next()?;
    }
    let mut validity = Reader(tbs.next_of(SEQUENCE)?);
    validity.next()?;
    let good_until = moment(validity.next()?)?;
    let subject = Reader(tbs.next_of(SEQUENCE)?).only(SET)?;
    let mut attribute = Reader(Reader(subject).only(SEQUENCE)?);
    if attribute.next_of(OID)? != COMMON_NAME {
        return None;
    }
    let name = attribute.only(UTF8)?;
    Some(Facts {
        name: std::str::from_utf8(name).ok()?.to_owned(),
        good_until,
    })
}

/// Elements, one behind the other: tag, length, content.
struct Reader<'d>(&'d [u8]);

impl<'d> Reader<'d> {
    fn next(&mut self) -> Option<(u8, &'d [u8])> {
        let [tag, first, rest @ ..] = self.0 else {
            return None;
        };
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = digits
                    .iter()
                    .fold(0, |length, digit| length << 8 | usize::from(*digit));
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }

    fn next_of(&mut self, wanted: u8) -> Option<&'d [u8]> {
        self.next()
            .filter(|(tag, _)| *tag == wanted)
            .map(|(_, content)| content)
    }

    /// The one element that there is.
    fn only(mut self, wanted: u8) -> Option<&'d [u8]> {
        let content = self.next_of(wanted)?;
        self.0.is_empty().then_some(content)
    }
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 section 4.1.2.5).
fn moment((tag, text): (u8, &[u8])) -> Option<SystemTime> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| {
        digits
            .iter()
            .fold(0, |number, digit| number * 10 + i64::from(digit - b'0'))
    };
    let (year, rest) = match tag {
        UTC_TIME if digits.len() == 12 => match number(&digits[..2]) {
            year @ 0..50 => (2000 + year, &digits[2..]),
            year => (1900 + year, &digits[2..]),
        },
        GENERALIZED_TIME if digits.len() == 14 => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|at| number(&rest[at..at + 2]));
    // Days since 1970 by counting years from March, so that a leap day is the last.
    let (years, months) = match month {
        1..=2 => (year - 1, month + 9),
        3..=12 => (year, month - 3),
        _ => return None,
    };
    let days = years * 365 + years / 4 - years / 100 + years / 400 + (months * 153 + 2) / 5 + day
        - 1
        - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        for (tag, text, seconds) in [
            (UTC_TIME, "700101000000Z", 0),
            (UTC_TIME, "000229235959Z", 951_868_799),
            (GENERALIZED_TIME, "20500301000000Z", 2_529_705_600),
            (UTC_TIME, "261122041500Z", 1_795_320_900),
        ] {
            let found = moment((tag, text.as_bytes())).expect("a moment");
            let found = found.duration_since(SystemTime::UNIX_EPOCH).expect("later");
            assert_eq!(found.as_secs(), seconds, "{text}");
        }
        for bad in [
            "",
            "Z",
            "7001010000Z",
            "700101000000",
            "70010100000xZ",
            "701301000000Z",
        ] {
            assert!(moment((UTC_TIME, bad.as_bytes())).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_is_cut_off_anywhere_is_no_certificate() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let whole = made.cert.der();
        assert_eq!(facts(whole).expect("facts").name, "rcgen self signed cert");
        for cut in 0..whole.len() {
            assert!(facts(&whole[..cut]).is_none());
        }
    }
}
