//! Names of fields, parameters and parts as frameworks read them: `user[ssn]`, `user.ssn`, `ssn[]` and ` ssn` are `ssn` to one or another.
//!
//! Nothing is decided here: only what is watched for.

use crate::scan::fold::{fold, spellings};

/// The most words of one name that are compared (PHP reads as many); one of more is nearly any.
const WORDS_MAX: usize = 64;

/// What a name is watched for as.
#[derive(Debug, Default)]
pub(super) struct Alike {
    /// As a whole, folded.
    whole: Vec<String>,
    /// Word by word: each in its spellings, folded.
    words: Vec<Vec<String>>,
}

impl Alike {
    pub(super) fn of(name: &str) -> Alike {
        let mut whole = spellings(name);
        if !name.contains('[') {
            whole.push(underscored(&fold(name)));
        }
        let words = words(name).map(spellings).collect();
        Alike { whole, words }
    }

    /// Nothing is watched for.
    pub(super) fn is_empty(&self) -> bool {
        self.whole.is_empty()
    }

    /// Of a header field, whose name is a token: nobody parts it.
    pub(super) fn has_whole(&self, name: &Seen<'_>) -> bool {
        (self.whole.iter()).any(|known| known == name.whole || *known == name.underscored)
    }

    /// Of a field, parameter or part.
    pub(super) fn has(&self, name: &Seen<'_>) -> bool {
        let alike = |words: &[&str]| {
            let mut pairs = words.iter().zip(&self.words);
            pairs.all(|(word, known)| known.iter().any(|known| known == word))
        };
        let within = || !self.words.is_empty() && name.words.windows(self.words.len()).any(alike);
        self.has_whole(name) || name.words.len() > WORDS_MAX || within()
    }
}

/// A name that came, folded.
pub(super) struct Seen<'n> {
    whole: &'n str,
    underscored: String,
    words: Vec<&'n str>,
}

impl<'n> Seen<'n> {
    pub(super) fn of(folded: &'n str) -> Seen<'n> {
        Seen {
            whole: folded.trim_matches(is_blank),
            underscored: underscored(folded),
            words: words(folded).take(WORDS_MAX + 1).collect(),
        }
    }
}

/// White space and control characters: at the ends of a name, readers drop them.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}

/// Between brackets, dots and colons, and before a NUL, where readers in C stop. Indexes, and what is empty, say nothing.
fn words(name: &str) -> impl Iterator<Item = &str> {
    let words = name.split(['[', ']', '.', ':', '\0']);
    let index = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    (words.map(|word| word.trim_matches(is_blank))).filter(move |word| !index(word))
}

/// As PHP has it: `card.number`, `card number` and `card[number` are `card_number`, and what stands in brackets is another name.
fn underscored(name: &str) -> String {
    let outer = match name.contains(']') {
        true => name.split('[').next().unwrap_or_default(),
        false => name,
    };
    outer.trim_matches(is_blank).replace([' ', '.', '['], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: &str, near: &[&str], others: &[&str]) {
        let alike = Alike::of(rule);
        let has = |name: &&&str| alike.has(&Seen::of(&fold(name)));
        let missed: Vec<_> = near.iter().filter(|name| !has(name)).collect();
        let wrong: Vec<_> = others.iter().filter(has).collect();
        assert_eq!((missed, wrong), (vec![], vec![]), "{rule}");
    }

    #[test]
    fn names_are_read_as_frameworks_read_them() {
        check(
            "ssn",
            &[
                "ssn[]",
                "ssn[0]",
                "SSN[ 0 ]",
                "user[ssn]",
                "user[0][ssn][]",
                "user[ssn",
                "user.ssn",
                "user.Ssn[3]",
                "[0].ssn",
                "form:ssn",
                "filter[ssn][eq]",
                "\u{ff3b}ssn\u{ff3d}",
                " ssn",
                "\r\nssn",
                "ssn\u{a0}\t",
                "ssn\0",
                "ssn\0x",
                "\u{200b} \u{200b}ssn",
            ],
            &[
                "",
                "[]",
                "0",
                "user",
                "ssn2",
                "s sn",
                "s[s]n",
                "user[ssns]",
                "user-ssn",
            ],
        );
        check(
            "card_number",
            &[
                "card.number",
                "card number",
                "card[number",
                "card.number[]",
                "order[cardNumber]",
            ],
            &["card[number]", "card", "number"],
        );
        check(
            "user[ssn]",
            &["user.ssn", "users[user][0][SSN]", "User[ssn][]"],
            &["ssn", "user", "user[x][ssn]"],
        );
        check("ssn[]", &["ssn", "ssn[1]", "SSN"], &["[]", "ss"]);
        check(
            "full name",
            &["full_name", "Full Name"],
            &["full", "fullname"],
        );
        // Names of nothing but brackets and indexes have no words.
        check("0", &[" 0"], &["a", "1", "[]", ""]);
        check("\u{200b}", &[], &["a", "1"]);
    }

    #[test]
    fn a_name_of_more_words_than_are_compared_is_nearly_any() {
        check(
            "ssn",
            &[&"a.".repeat(WORDS_MAX + 1), &"a.".repeat(1 << 20)],
            &[&"a.".repeat(WORDS_MAX)],
        );
    }
}
