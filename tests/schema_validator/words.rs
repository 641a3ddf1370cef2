//! The words of a schema, and those of a reader.

use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Every mapping of known words in a schema, with the path of an example of it; `type=KIND` says which of several it is.
pub fn mappings(
    schema: &Value,
    at: &Value,
    path: Vec<String>,
    out: &mut Vec<(Vec<String>, BTreeSet<String>)>,
) {
    let at = match at["$ref"]
        .as_str()
        .and_then(|to| to.strip_prefix("#/$defs/"))
    {
        Some(name) => &schema["$defs"][name],
        None => at,
    };
    if path.len() > 14 {
        return;
    }
    let below = |name: &str| [path.clone(), vec![name.to_owned()]].concat();
    for one in at["anyOf"].as_array().into_iter().flatten() {
        // Mappings that their `type` tells apart.
        let name = one["$ref"]
            .as_str()
            .and_then(|to| to.strip_prefix("#/$defs/"));
        let Some(name) = name else { continue };
        if let Some(kind) = schema["$defs"][name]["properties"]["type"]["const"].as_str() {
            mappings(schema, one, below(&format!("type={kind}")), out);
        }
    }
    if at["additionalProperties"] == json!(false) {
        let words = at["properties"].as_object().expect("words");
        out.push((path.clone(), words.keys().cloned().collect()));
        for (word, value) in words {
            mappings(schema, value, below(word), out);
        }
    } else if at["additionalProperties"].is_object() {
        mappings(schema, &at["additionalProperties"], below("*"), out);
    }
    if at["items"].is_object() {
        mappings(schema, &at["items"], below("0"), out);
    }
}

/// The words that the reader knows in the mapping at `path`, as its finding about another one tells.
pub fn known(
    path: &[String],
    load: &dyn Fn(&str) -> Vec<fieldveil::diagnostic::Diagnostic>,
) -> BTreeSet<String> {
    let mut document = json!({"qqqqqqqqqqqqqqqqqqqqqqqq": 1});
    for step in path.iter().rev() {
        if let Some(kind) = step.strip_prefix("type=") {
            document["type"] = json!(kind);
            continue;
        }
        document = match step.as_str() {
            "0" => json!([document]),
            "*" => json!({"x": document}),
            word => json!({word: document}),
        };
    }
    let found = load(&document.to_string());
    let about = found.iter().find(|one| one.message.contains("qqqqqqqq"));
    let hint = about
        .and_then(|one| one.hint.as_deref())
        .unwrap_or_default();
    let words = hint.strip_prefix("known here: ").unwrap_or_default();
    words.split(", ").map(str::to_owned).collect()
}
