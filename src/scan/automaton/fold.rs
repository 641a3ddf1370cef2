//! Names that are the same to a reader that is less exact than JSON: what they have in common, and how else they may be written.
//!
//! Go's `encoding/json`, for one, takes `SSN` and `\u{17f}sn` for `ssn`. Nothing is decided here: only what is watched for.

/// The name in lower case, look-alikes of ASCII characters replaced by them, invisible characters left out.
pub fn fold(name: &str) -> String {
    let mut folded = String::with_capacity(name.len());
    for c in name.chars().filter(|c| !is_invisible(*c)) {
        match c {
            '\u{ff01}'..='\u{ff5e}' => {
                let narrow = u8::try_from(u32::from(c) - 0xFEE0).unwrap_or(b'?');
                folded.push(char::from(narrow).to_ascii_lowercase());
            }
            // Long s; the Kelvin sign is `k` in lower case anyway.
            '\u{17f}' => folded.push('s'),
            c => folded.extend(c.to_lowercase()),
        }
    }
    folded
}

/// Other spellings of a name, folded: joined words, and words with `_` or `-` between them.
pub fn spellings(name: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        let humps = before.is_lowercase() || before.is_ascii_digit();
        if matches!(c, '_' | '-') || (c.is_uppercase() && humps) {
            words.push(String::new());
        }
        if !matches!(c, '_' | '-')
            && let Some(word) = words.last_mut()
        {
            word.push(c);
        }
        before = c;
    }
    // `_id` and `id` are two names in many a service.
    let mut spellings = vec![fold(name)];
    if words.len() > 1 && words.iter().all(|word| !word.is_empty()) {
        spellings.extend(["", "_", "-"].map(|between| fold(&words.join(between))));
    }
    spellings.retain(|spelling| !spelling.is_empty());
    spellings
}

/// Zero-width and formatting characters.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_careless_reader_does_not_see_is_folded_away() {
        for name in [
            "ssn",
            "SSN",
            "\u{17f}sN",
            "s\u{200b}sn",
            "\u{feff}ssn",
            "\u{ff53}\u{ff33}n",
        ] {
            assert_eq!(fold(name), "ssn", "{name:?}");
        }
        assert_eq!(fold("to\u{212a}en"), "token");
        assert_eq!(fold("GR\u{d6}SSE"), "gr\u{f6}sse");
        assert_eq!(fold("\u{200b}"), "");
        assert_ne!(fold("ssn"), fold("snn"));
    }

    #[test]
    fn words_are_joined_in_the_usual_ways() {
        let all = ["card_number", "cardnumber", "card_number", "card-number"];
        assert_eq!(spellings("card_number"), all);
        assert_eq!(spellings("Card-Number")[1..], all[1..]);
        assert_eq!(spellings("cardNumber")[1..], all[1..]);
        assert_eq!(spellings("ssn"), ["ssn"]);
        assert_eq!(spellings("_id"), ["_id"]);
        assert_eq!(spellings("SSN"), ["ssn"]);
        assert_eq!(spellings("\u{200b}"), [""; 0]);
    }
}
