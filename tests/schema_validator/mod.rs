//! As much of JSON Schema (draft 2020-12) as the exported schemas use; an unknown keyword is an error, so that none is passed over.

mod words;
mod yaml;

use serde_json::{Map, Value};
pub use words::{known, mappings};
pub use yaml::read as as_json;

/// Errors: where, and by which keyword.
pub fn validate(schema: &Value, document: &Value) -> Result<(), String> {
    check(schema, schema, document, "$")
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Value::Object(keywords) = schema else {
        return Err(format!("{at}: a schema is an object"));
    };
    for (keyword, operand) in keywords {
        if !holds(root, keywords, keyword, operand, value, at)? {
            return Err(format!("{at}: {keyword}"));
        }
    }
    Ok(())
}

fn holds(
    root: &Value,
    schema: &Map<String, Value>,
    keyword: &str,
    operand: &Value,
    value: &Value,
    at: &str,
) -> Result<bool, String> {
    let number = || operand.as_u64().expect("a number");
    let fits = |schema: &Value| check(root, schema, value, at).is_ok();
    let all = || operand.as_array().expect("a list").iter();
    let length = |len: usize| len as u64;
    Ok(match keyword {
        "$schema" | "$id" | "$defs" | "title" | "description" | "default" => true,
        "$ref" => {
            let name = operand.as_str().and_then(|to| to.strip_prefix("#/$defs/"));
            check(root, &root["$defs"][name.expect("a reference")], value, at)?;
            true
        }
        "type" => {
            let is = |kind: &Value| match kind.as_str().expect("a type") {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                "boolean" => value.is_boolean(),
                other => panic!("type {other}"),
            };
            match operand {
                Value::Array(kinds) => kinds.iter().any(is),
                kind => is(kind),
            }
        }
        "const" => value == operand,
        "enum" => all().any(|one| one == value),
        "oneOf" => all().filter(|one| fits(one)).count() == 1,
        "anyOf" => all().any(fits),
        "not" => !fits(operand),
        "minimum" => value.as_u64().is_none_or(|n| n >= number()),
        "maximum" => value.as_u64().is_none_or(|n| n <= number()),
        "minLength" => value
            .as_str()
            .is_none_or(|s| length(s.chars().count()) >= number()),
        "maxLength" => value
            .as_str()
            .is_none_or(|s| length(s.chars().count()) <= number()),
        "pattern" => value
            .as_str()
            .is_none_or(|text| matches(operand.as_str().expect("a pattern"), text)),
        "minItems" => value.as_array().is_none_or(|a| length(a.len()) >= number()),
        "maxItems" => value.as_array().is_none_or(|a| length(a.len()) <= number()),
        "minProperties" => value
            .as_object()
            .is_none_or(|o| length(o.len()) >= number()),
        "maxProperties" => value
            .as_object()
            .is_none_or(|o| length(o.len()) <= number()),
        "required" => value.as_object().is_none_or(|members| {
            all().all(|word| members.contains_key(word.as_str().expect("a word")))
        }),
        "items" => {
            for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                check(root, operand, item, &format!("{at}[{index}]"))?;
            }
            true
        }
        "propertyNames" => {
            for name in value
                .as_object()
                .into_iter()
                .flat_map(|members| members.keys())
            {
                check(
                    root,
                    operand,
                    &Value::from(name.as_str()),
                    &format!("{at}.{name}"),
                )?;
            }
            true
        }
        "properties" => {
            for (name, schema) in operand.as_object().expect("words") {
                if let Some(member) = value.get(name) {
                    check(root, schema, member, &format!("{at}.{name}"))?;
                }
            }
            true
        }
        "additionalProperties" => {
            let known = schema.get("properties").and_then(Value::as_object);
            for (name, member) in value.as_object().into_iter().flatten() {
                if known.is_some_and(|known| known.contains_key(name)) {
                    continue;
                }
                match operand {
                    Value::Bool(false) => return Err(format!("{at}: unknown word {name}")),
                    schema => check(root, schema, member, &format!("{at}.{name}"))?,
                }
            }
            true
        }
        other => panic!("keyword {other}"),
    })
}

/// The patterns that the schemas have.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern {
        "^[A-Za-z0-9][A-Za-z0-9._-]*$" => {
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            text.bytes().all(fits)
                && text
                    .bytes()
                    .next()
                    .is_some_and(|b| b.is_ascii_alphanumeric())
        }
        "^[A-Z-]{1,32}$" => {
            (1..=32).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')
        }
        "^(0|[1-9][0-9]*)(ms|s|m|h|d)$" => is_amount(text, &["ms", "s", "m", "h", "d"]),
        "^(0|[1-9][0-9]*)(B|KiB|MiB|GiB)$" => is_amount(text, &["B", "KiB", "MiB", "GiB"]),
        other => panic!("pattern {other}"),
    }
}

fn is_amount(text: &str, units: &[&str]) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    units.contains(&unit) && !number.is_empty() && (number == "0" || !number.starts_with('0'))
}
