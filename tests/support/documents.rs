//! JSON documents nobody would write: odd white space, escapes in names and values, numbers in every spelling, duplicate names.
//!
//! From a seed, so that a failure can be had again. Values of members named `ssn` carry one of [`SECRETS`].

/// A small generator of random numbers (splitmix64); the same numbers on every machine.
pub struct Luck(u64);

impl Luck {
    /// Takes `FIELDVEIL_SEED`, or the clock; the seed is printed.
    pub fn new(what: &str) -> Luck {
        let seed = match std::env::var("FIELDVEIL_SEED") {
            Ok(text) => text.parse().expect("FIELDVEIL_SEED is a number"),
            Err(_) => std::time::SystemTime::UNIX_EPOCH
                .elapsed()
                .expect("after 1970")
                .as_nanos() as u64,
        };
        println!("{what}: FIELDVEIL_SEED={seed}");
        Luck(seed)
    }
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Another one, which goes its own way.
    pub fn fork(&mut self) -> Luck {
        Luck(self.next())
    }
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    fn of<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.below(from.len())]
    }
}

/// What must never be seen upstream: long enough that no token spells it by chance.
pub const SECRETS: [&str; 2] = ["TOPSECRET-078-05", "73107310731073107310"];

/// The spellings of `ssn`.
const SSN: [&str; 5] = [
    r"ssn",
    r"\u0073sn",
    r"s\u0073\u006e",
    r"\u0073\u0073\u006E",
    r"ss\u006e",
];
const NAMES: [&str; 16] = [
    "a",
    "b",
    "name",
    "id",
    "",
    " ",
    "SSN",
    "ssn ",
    "ssns",
    r"ssn\u0000",
    r#"\""#,
    r"\\",
    r"a\/b",
    "ä€😀",
    r"\ud83d\ude00",
    r"\ud800",
];
const SPACE: [&str; 8] = [" ", "\n", "\t", "\r\n", "  ", "        ", "\n    \t", "\r"];
const PIECES: [&str; 18] = [
    "a",
    "xyz",
    " ",
    r"\n",
    r"\u0000",
    r"\u001F",
    r"\\",
    r"\/",
    "/",
    r#"\""#,
    "é",
    "日本",
    "😀",
    r"\uD83D\uDE00",
    r"\udead",
    "fv1~",
    "~",
    "\u{7f}\u{ffff}",
];
const NUMBERS: [&str; 18] = [
    "0",
    "-0",
    "1",
    "-1",
    "1.0",
    "-0.0",
    "1e5",
    "1E+5",
    "1e-5",
    "1.50",
    "9007199254740993",
    "123456789012345678901234567890",
    "1e400",
    "-1e-400",
    "0.1000",
    "0e0",
    "3.141592653589793238462643383279",
    "1E400000000000",
];

/// One document. Nested at most six deep.
pub fn document(luck: &mut Luck) -> String {
    let mut out = String::new();
    blank(luck, &mut out);
    if luck.one_in(40) {
        scalar(luck, &mut out);
    } else {
        container(luck, 6, false, &mut out);
    }
    blank(luck, &mut out);
    out
}

fn blank(luck: &mut Luck, out: &mut String) {
    while luck.one_in(3) {
        *out += luck.of(&SPACE);
    }
}

fn container(luck: &mut Luck, depth: usize, secret: bool, out: &mut String) {
    let object = luck.below(3) > 0;
    out.push(if object { '{' } else { '[' });
    blank(luck, out);
    let members = luck.below(5);
    for index in 0..members {
        if index > 0 {
            out.push(',');
            blank(luck, out);
        }
        let mut classified = secret;
        if object {
            let name = match luck.one_in(3) {
                true => {
                    classified = true;
                    luck.of(&SSN)
                }
                false => luck.of(&NAMES),
            };
            *out += "\"";
            *out += name;
            *out += "\"";
            blank(luck, out);
            out.push(':');
            blank(luck, out);
        }
        value(luck, depth - 1, classified, out);
        blank(luck, out);
    }
    out.push(if object { '}' } else { ']' });
}

fn value(luck: &mut Luck, depth: usize, secret: bool, out: &mut String) {
    if depth > 0 && luck.one_in(3) {
        container(luck, depth, secret, out);
    } else if secret {
        match luck.below(8) {
            0 => *out += SECRETS[1],
            1 => *out += luck.of(&["true", "false", "null", "\"\"", "0", "{}", "[]"]),
            _ => {
                // First, so that no value is of the tokens' reserved form by chance: that would be refused.
                *out += "\"";
                *out += SECRETS[0];
                text(luck, out);
                *out += "\"";
            }
        }
    } else {
        scalar(luck, out);
    }
}

fn text(luck: &mut Luck, out: &mut String) {
    while luck.below(3) > 0 {
        *out += luck.of(&PIECES);
    }
}

fn scalar(luck: &mut Luck, out: &mut String) {
    match luck.below(6) {
        0 => *out += luck.of(&["true", "false", "null"]),
        1 | 2 => *out += luck.of(&NUMBERS),
        _ => {
            *out += "\"";
            text(luck, out);
            *out += "\"";
        }
    }
}
