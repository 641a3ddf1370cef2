//! Strings and numbers, byte by byte where they are cut, eight or sixteen bytes at a time where they are not.

use super::Kind;

/// Where in a string a chunk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Plain,
    /// Behind a backslash.
    Escape,
    /// So many hexadecimal digits are missing.
    Hex(u8),
    /// So many continuation bytes are missing, the next one within these bounds (RFC 3629 section 4).
    Continuation {
        missing: u8,
        low: u8,
        high: u8,
    },
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// True in the high bit of each byte that ends a plain run (a quote, a backslash, a control character, a byte of more than seven
/// bits); above the lowest such byte it may err, since a subtraction borrows there.
#[inline(always)]
fn specials(word: u64) -> u64 {
    // Exchanges 0x20 and 0x22, so that the quote stands directly above the control characters: one comparison for both.
    let quote_or_control = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
    (quote_or_control | backslash | word) & HIGHS
}

/// How many of the sixteen bytes come before the first that ends a plain run. For most strings and names that is their length, got
/// without a branch that depends on it.
#[inline(always)]
fn plain_of(sixteen: &[u8; 16]) -> usize {
    let word = u128::from_le_bytes(*sixteen);
    let (low, high) = (specials(word as u64), specials((word >> 64) as u64));
    ((u128::from(high) << 64 | u128::from(low)).trailing_zeros() / 8) as usize
}

/// The first byte from `at` on that ends a plain run, or one that stands less than sixteen bytes before the end.
#[inline(always)]
fn plain_run(b: &[u8], mut at: usize) -> usize {
    while let Some(sixteen) = b.get(at..).and_then(<[u8]>::first_chunk) {
        let plain = plain_of(sixteen);
        at += plain;
        if plain < 16 {
            break;
        }
    }
    at
}

/// Behind the closing quote of the string that goes on at `at`, and which kind it is. `None` where the chunk ends, and for strings that
/// hold more than ASCII, escapes of one character and characters of two bytes.
#[inline(always)]
pub(super) fn whole_string(b: &[u8], mut at: usize) -> Option<(usize, Kind)> {
    let mut kind = Kind::Plain;
    loop {
        at = plain_run(b, at);
        match *b.get(at)? {
            b'"' => return Some((at + 1, kind)),
            0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7F => at += 1,
            b'\\' => match b.get(at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                    kind = Kind::Escaped;
                    at += 2;
                }
                _ => return None,
            },
            0xC2..=0xDF if matches!(b.get(at + 1)?, 0x80..=0xBF) => at += 2,
            _ => return None,
        }
    }
}

/// As [`whole_string`], for a member's name: `None` for whatever is not plain ASCII, which is looked at more closely.
#[inline(always)]
pub(super) fn whole_name(b: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at = plain_run(b, at);
        match *b.get(at)? {
            b'"' => return Some(at + 1),
            0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7F => at += 1,
            _ => return None,
        }
    }
}

/// Behind the spaces that begin at `at`. Indentation comes in runs of any length, told without a branch for each.
#[inline(always)]
pub(super) fn spaces(b: &[u8], mut at: usize) -> usize {
    while let Some(eight) = b.get(at..).and_then(<[u8]>::first_chunk) {
        let others = u64::from_le_bytes(*eight) ^ (ONES * u64::from(b' '));
        at += (others.trailing_zeros() / 8) as usize;
        if others != 0 {
            break;
        }
    }
    at
}

/// Behind the number that starts at `at` and has no exponent; `None` for any other, and where the chunk ends.
#[inline(always)]
pub(super) fn whole_number(b: &[u8], at: usize) -> Option<usize> {
    let from = at + usize::from(b[at] == b'-');
    let mut at = digits(b, from);
    // Few numbers begin with a zero, but how many digits one has is anybody's guess: the order spares a branch.
    if at == from || (b[from] == b'0' && at > from + 1) {
        return None;
    }
    if *b.get(at)? == b'.' {
        let point = at;
        at = digits(b, at + 1);
        if at == point + 1 {
            return None;
        }
    }
    match b.get(at)? {
        b'e' | b'E' | b'.' => None,
        _ => Some(at),
    }
}

/// Behind the decimal digits that begin at `at`.
#[inline(always)]
fn digits(b: &[u8], mut at: usize) -> usize {
    while let Some(eight) = b.get(at..).and_then(<[u8]>::first_chunk) {
        // A digit is 0 to 9 then, and only of another byte does the sum reach the high bit, or that bit is there already.
        let values = u64::from_le_bytes(*eight) ^ (ONES * u64::from(b'0'));
        let others = (values.wrapping_add(ONES * 0x76) | values) & HIGHS;
        at += (others.trailing_zeros() / 8) as usize;
        if others != 0 {
            return at;
        }
    }
    while b.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

/// Goes on in a string, `i` at its next byte. True: the string has ended, `i` is behind its quote. False: the chunk has.
#[inline(never)]
pub(super) fn string(
    b: &[u8],
    i: &mut usize,
    text: &mut Text,
    escaped: &mut bool,
) -> Result<bool, &'static str> {
    if !cut(b, i, text)? {
        return Ok(false);
    }
    loop {
        *i = plain_run(b, *i);
        match b.get(*i) {
            Some(b'"') => {
                *i += 1;
                return Ok(true);
            }
            Some(0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7F) => *i += 1,
            Some(c) => {
                *escaped |= *c == b'\\';
                if !special(b, i, text)? {
                    return Ok(false);
                }
            }
            None => return Ok(false),
        }
    }
}

/// An escape, a character of several bytes, or a fault. False: the chunk ended in it.
fn special(b: &[u8], i: &mut usize, text: &mut Text) -> Result<bool, &'static str> {
    let lead = b[*i];
    let bounds = |missing, low, high| Text::Continuation { missing, low, high };
    *text = match lead {
        b'\\' => Text::Escape,
        0x00..=0x1F => return Err("a control character in a string"),
        0xC2..=0xDF => bounds(1, 0x80, 0xBF),
        0xE0 => bounds(2, 0xA0, 0xBF),
        0xE1..=0xEC | 0xEE..=0xEF => bounds(2, 0x80, 0xBF),
        0xED => bounds(2, 0x80, 0x9F),
        0xF0 => bounds(3, 0x90, 0xBF),
        0xF1..=0xF3 => bounds(3, 0x80, 0xBF),
        0xF4 => bounds(3, 0x80, 0x8F),
        _ => return Err("a byte that is not UTF-8"),
    };
    *i += 1;
    cut(b, i, text)
}

/// Goes on in an escape or a character. True: it is whole, `text` is plain again. False: the chunk ended.
fn cut(b: &[u8], i: &mut usize, text: &mut Text) -> Result<bool, &'static str> {
    while *text != Text::Plain {
        let Some(&c) = b.get(*i) else {
            return Ok(false);
        };
        *text = match *text {
            Text::Escape => match c {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Text::Plain,
                b'u' => Text::Hex(4),
                _ => return Err("an escape that JSON does not have"),
            },
            Text::Hex(missing) if c.is_ascii_hexdigit() => match missing {
                1 => Text::Plain,
                more => Text::Hex(more - 1),
            },
            Text::Hex(_) => return Err("an escape without four hexadecimal digits"),
            Text::Continuation { missing, low, high } if (low..=high).contains(&c) => match missing
            {
                1 => Text::Plain,
                more => Text::Continuation {
                    missing: more - 1,
                    low: 0x80,
                    high: 0xBF,
                },
            },
            Text::Continuation { .. } => return Err("a byte that is not UTF-8"),
            Text::Plain => Text::Plain,
        };
        *i += 1;
    }
    Ok(true)
}

/// Where in a number a chunk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Start,
    Minus,
    /// Behind a leading zero.
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Number {
    /// True where what was seen is a whole number.
    pub(super) fn may_end(self) -> bool {
        use Number::{ExponentDigits, Fraction, Integer, Zero};
        matches!(self, Zero | Integer | Fraction | ExponentDigits)
    }
}

/// Goes on in a number. True: it has ended, `i` is behind it. False: the chunk has.
#[inline(never)]
pub(super) fn number(b: &[u8], i: &mut usize, number: &mut Number) -> Result<bool, &'static str> {
    use Number::*;
    let mut at = *i;
    let done = loop {
        let Some(&c) = b.get(at) else {
            break Ok(false);
        };
        *number = match (*number, c) {
            (Start, b'-') => Minus,
            (Start | Minus, b'0') => Zero,
            (Start | Minus, b'1'..=b'9') => {
                while b.get(at + 1).is_some_and(u8::is_ascii_digit) {
                    at += 1;
                }
                Integer
            }
            (Integer, b'0'..=b'9') => Integer,
            (Zero | Integer, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Integer | Fraction, b'e' | b'E') => Exponent,
            (Exponent, b'+' | b'-') => ExponentSign,
            (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => ExponentDigits,
            (Zero, b'0'..=b'9') => break Err("a number with a leading zero"),
            (whole, _) if whole.may_end() => break Ok(true),
            _ => break Err("an incomplete number"),
        };
        at += 1;
    };
    *i = at;
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a reader that takes one byte after the other says.
    fn plainly(b: &[u8], plain: impl Fn(u8) -> bool) -> usize {
        b.iter().take_while(|c| plain(**c)).count()
    }

    fn is_plain(c: u8) -> bool {
        (0x20..0x80).contains(&c) && c != b'"' && c != b'\\'
    }

    #[test]
    fn each_byte_at_each_place_of_a_run_is_told_apart() {
        for place in 0..16 {
            for c in 0..=255 {
                for behind in [b'x', 0x00, 0x1F, b'"', 0xFF] {
                    let mut sixteen = [b'a'; 16];
                    sixteen[place..].fill(behind);
                    sixteen[place] = c;
                    assert_eq!(plain_of(&sixteen), plainly(&sixteen, is_plain));
                    let mut numbers = sixteen;
                    numbers[..place].fill(b'7');
                    assert_eq!(
                        digits(&numbers, 0),
                        plainly(&numbers, |c| c.is_ascii_digit())
                    );
                    numbers[..place].fill(b' ');
                    // Near the end it may stop early: the scanner goes on byte by byte.
                    if place < 8 {
                        assert_eq!(spaces(&numbers, 0), plainly(&numbers[..16], |c| c == b' '));
                    }
                }
            }
        }
    }

    #[track_caller]
    fn check_number(text: &str, end: Option<usize>) {
        for behind in ["", ",", "]                ", " 0000000000000000000"] {
            let b = [text, behind].concat();
            let expected = end.filter(|end| *end < b.len());
            assert_eq!(whole_number(b.as_bytes(), 0), expected, "{b}");
        }
    }

    #[test]
    fn numbers_are_whole_or_left_to_the_slow_way() {
        for good in [
            "0",
            "-0",
            "7",
            "-12",
            "0.5",
            "10.25",
            "123456789012345678",
            "-0.000000001",
        ] {
            check_number(good, Some(good.len()));
        }
        for other in [
            "-", "01", "-00", "1.", ".5", "1e5", "1.5E+1", "1.2.3", "-x", "--1",
        ] {
            check_number(other, None);
        }
    }

    proptest! {
        #[test]
        fn a_whole_string_is_what_the_slow_way_finds(
            pieces in proptest::collection::vec(prop_oneof![
                "[ -~]{0,20}".prop_map(String::into_bytes),
                Just("é".as_bytes().to_vec()), Just("€".as_bytes().to_vec()),
                Just(b"\\n".to_vec()), Just(b"\\u00e9".to_vec()), Just(b"\"".to_vec()),
                Just(b"\x1f".to_vec()), Just(b"\xc3".to_vec()), Just(b"\\".to_vec()),
            ], 0..8),
        ) {
            let b = [pieces.concat(), b"\"".to_vec(), vec![b' '; 20]].concat();
            if let Some((end, kind)) = whole_string(&b, 0) {
                let (mut i, mut text, mut escaped) = (0, Text::Plain, false);
                prop_assert_eq!(string(&b, &mut i, &mut text, &mut escaped), Ok(true));
                prop_assert_eq!(end, i);
                prop_assert_eq!(kind == Kind::Escaped, escaped);
            }
        }
    }
}
