//! Patterns of `match()` and `search()`: I-Regexp (RFC 9485), checked against its grammar and handed to `regex`, whose time is linear.
//!
//! `^` and `$` outside of brackets are refused: RFC 9485 takes them for characters, most engines for anchors, and whoever reads a
//! policy should not have to know which. `match()` looks at the whole string anyway.

use regex::{Regex, RegexBuilder};

/// The most groups inside of each other.
const DEPTH_MAX: usize = 64;
/// The most memory that a compiled pattern may take.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// A compiled pattern.
pub(super) struct Regexp(Regex);

impl Regexp {
    /// `whole`: the pattern must match the whole text, as for `match()`.
    ///
    /// # Errors
    /// Not an I-Regexp, an anchor, or too large.
    pub(super) fn parse(pattern: &str, whole: bool) -> Result<Regexp, String> {
        let mut translation = Translation {
            rest: pattern,
            out: String::with_capacity(2 * pattern.len()),
        };
        translation.alternatives(0)?;
        if !translation.rest.is_empty() {
            return Err(fault("an unmatched `)`"));
        }
        let text = match whole {
            true => format!(r"\A(?:{})\z", translation.out),
            false => translation.out,
        };
        RegexBuilder::new(&text)
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .map(Regexp)
            .map_err(|_| fault("too large"))
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

fn fault(what: &str) -> String {
    format!("the pattern is not one of RFC 9485: {what}")
}

/// A pattern on its way into the syntax of `regex`, where every character is written by its number.
struct Translation<'p> {
    rest: &'p str,
    out: String,
}

impl Translation<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let taken = chars.next();
        self.rest = chars.as_str();
        taken
    }

    fn takes(&mut self, c: char) -> bool {
        let is = self.peek() == Some(c);
        if is {
            self.take();
        }
        is
    }

    fn literal(&mut self, c: char) {
        self.out += &format!("\\x{{{:X}}}", u32::from(c));
    }

    /// `i-regexp`
    fn alternatives(&mut self, depth: usize) -> Result<(), String> {
        loop {
            while !matches!(self.peek(), None | Some('|' | ')')) {
                self.atom(depth)?;
                self.quantifier()?;
            }
            if !self.takes('|') {
                return Ok(());
            }
            self.out.push('|');
        }
    }

    fn atom(&mut self, depth: usize) -> Result<(), String> {
        match self.take() {
            Some('(') if depth == DEPTH_MAX => Err(fault("too many groups inside of each other")),
            Some('(') => {
                self.out += "(?:";
                self.alternatives(depth + 1)?;
                if !self.takes(')') {
                    return Err(fault("an unmatched `(`"));
                }
                self.out.push(')');
                Ok(())
            }
            Some('.') => {
                self.out += r"[^\n\r]";
                Ok(())
            }
            Some('\\') => match self.category()? {
                true => Ok(()),
                false => {
                    let c = self.escaped()?;
                    self.literal(c);
                    Ok(())
                }
            },
            Some('[') => self.class(),
            Some('^' | '$') => Err(
                "`^` and `$` are refused in a pattern: RFC 9485 takes them for characters, most engines for anchors; match() looks at \
                 the whole string, and [$] is the character"
                    .to_owned(),
            ),
            Some(c @ ('*' | '+' | '?' | ']' | '{' | '}')) => {
                Err(fault(&format!("`{c}` has no place where it stands")))
            }
            Some(c) => {
                self.literal(c);
                Ok(())
            }
            None => Err(fault("it ends too early")),
        }
    }

    fn quantifier(&mut self) -> Result<(), String> {
        match self.peek() {
            Some(c @ ('*' | '+' | '?')) => {
                self.take();
                self.out.push(c);
            }
            Some('{') => {
                let end = self.rest.find('}').ok_or_else(|| fault("an open `{`"))?;
                let range = &self.rest[1..end];
                let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
                let (from, to) = range.split_once(',').unwrap_or((range, ""));
                if from.is_empty() || !digits(from) || !digits(to) {
                    return Err(fault("a wrong count in `{}`"));
                }
                self.out += &self.rest[..=end];
                self.rest = &self.rest[end + 1..];
            }
            _ => {}
        }
        Ok(())
    }

    /// Behind a backslash: true if a category such as `\p{Lu}` was taken.
    fn category(&mut self) -> Result<bool, String> {
        let Some(sign @ ('p' | 'P')) = self.peek() else {
            return Ok(false);
        };
        let wrong = || fault("a wrong category");
        let rest = self.rest[1..].strip_prefix('{').ok_or_else(wrong)?;
        let (category, rest) = rest.split_once('}').ok_or_else(wrong)?;
        let (major, minor) = category.split_at_checked(1).ok_or_else(wrong)?;
        let minors = match major {
            "L" => "lmotu",
            "M" => "cen",
            "N" => "dlo",
            "P" => "cdefios",
            "Z" => "lps",
            "S" => "ckmo",
            "C" => "cfno",
            _ => return Err(wrong()),
        };
        if minor.len() > 1 || !minors.contains(minor) {
            return Err(wrong());
        }
        self.out += &format!("\\{sign}{{{category}}}");
        self.rest = rest;
        Ok(true)
    }

    /// `SingleCharEsc`, behind its backslash.
    fn escaped(&mut self) -> Result<char, String> {
        match self.take() {
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some(c @ ('('..='+' | '-' | '.' | '?' | '['..='^' | '{'..='}')) => Ok(c),
            _ => Err(fault("an escape that it does not have")),
        }
    }

    /// `charClassExpr`, behind its bracket.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.takes('^') {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let open = || fault("an open `[`");
            match self.peek().ok_or_else(open)? {
                ']' if !first => {
                    self.take();
                    self.out.push(']');
                    return Ok(());
                }
                // A hyphen for itself stands first or last.
                '-' => {
                    self.take();
                    if !first && self.peek() != Some(']') {
                        return Err(fault("a `-` in the middle of `[]`"));
                    }
                    self.literal('-');
                }
                _ => self.class_element()?,
            }
            first = false;
        }
    }

    /// `CCE1`
    fn class_element(&mut self) -> Result<(), String> {
        let Some(from) = self.class_char(true)? else {
            return Ok(());
        };
        self.literal(from);
        let mut ahead = self.rest.chars();
        if ahead.next() == Some('-') && ahead.next() != Some(']') {
            self.take();
            let Some(to) = self.class_char(false)? else {
                return Err(fault("a wrong range in `[]`"));
            };
            if to < from {
                return Err(fault("a wrong range in `[]`"));
            }
            self.out.push('-');
            self.literal(to);
        }
        Ok(())
    }

    /// `None`: it was a category.
    fn class_char(&mut self, categories: bool) -> Result<Option<char>, String> {
        match self.take() {
            Some('\\') if categories && self.category()? => Ok(None),
            Some('\\') => self.escaped().map(Some),
            Some('-' | '[' | ']') | None => {
                Err(fault("a character in `[]` that needs a backslash"))
            }
            Some(c) => Ok(Some(c)),
        }
    }
}
