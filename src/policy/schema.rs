//! The policy language as a JSON Schema (draft 2020-12), for editors: completion, help and the coarser mistakes.
//!
//! It takes the reader's own limits and choices of words; a test holds its words against those that the reader knows, so that
//! neither has one that the other lacks. What words mean together (names that refer to something, paths that parse) only
//! `fieldveil policy check` can tell.

use super::callers::LEVELS;
use super::sides::{ATTITUDES, SIGNED};
use super::written::{MODES, UNMATCHED};
use super::{
    BINDS_MAX, CALLER_BYTES_MAX, CALLERS_MAX, CLASSES_MAX, ENVIRONMENTS_MAX, FORMERLY_MAX,
    METHODS_MAX, NAME_CHARS_MAX, PATTERN_BYTES_MAX, ROUTES_MAX, RULES_MAX, TENANT_BYTES_MAX,
};
use crate::mask::{FIXED_CHARS_MAX, KEEP_MAX};
use serde_json::{Map, Value, json};

/// Letters, digits, `.`, `_` and `-`, the first a letter or digit.
const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9._-]*$";

/// A mapping of known words.
///
/// Each word: its name, with `!` behind it where it is required; what it is for; the schema of its value.
pub fn mapping(what: &str, words: &[(&str, &str, Value)]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (word, help, schema) in words {
        let name = word.strip_suffix('!').unwrap_or(word);
        if name.len() < word.len() {
            required.push(name);
        }
        let mut schema = schema.clone();
        if let Value::Object(members) = &mut schema {
            members.insert("description".to_owned(), json!(help));
        }
        properties.insert(name.to_owned(), schema);
    }
    json!({
        "type": "object",
        "description": what,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// One of some words.
pub fn choice<T>(choices: &[(&'static str, T)]) -> Value {
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    json!({"enum": words})
}

/// Exactly one of some words of a mapping.
fn one_of(words: &[&str]) -> Value {
    let each = words.iter().map(|word| json!({"required": [word]}));
    each.collect()
}

/// The schema of a policy file.
pub fn policy() -> Value {
    let name = || json!({"type": "string", "pattern": NAME, "maxLength": NAME_CHARS_MAX});
    let pattern = || json!({"type": "string", "minLength": 1, "maxLength": PATTERN_BYTES_MAX});
    let text = || json!({"type": "string"});
    let reference = |to: &str| json!({"$ref": format!("#/$defs/{to}")});
    let metadata = mapping(
        "About this policy",
        &[("name!", "The policy's name, unique over all files", name())],
    );
    let mut tenant = mapping(
        "Where the tenant of a request is found; declared and missing: the request is refused",
        &[
            ("header", "A header", text()),
            (
                "host",
                "A label of the host, counted from the left, from 1",
                json!({"type": "integer", "minimum": 1, "maximum": 127}),
            ),
            ("path", "A parameter of the path template", text()),
            (
                "value",
                "The same for every request",
                json!({"type": "string", "minLength": 1, "maxLength": TENANT_BYTES_MAX}),
            ),
        ],
    );
    tenant["oneOf"] = one_of(&["header", "host", "path", "value"]);
    let mut caller = mapping(
        "How it is known who asks; missing: nobody that a rule names",
        &[
            ("header", "A header: what the client says of itself", text()),
            (
                "peer",
                "The user at the other end of a Unix socket",
                json!({"enum": ["uid"]}),
            ),
            (
                "mtls",
                "The name in the client's certificate",
                json!({"enum": ["san"]}),
            ),
        ],
    );
    caller["oneOf"] = one_of(&["header", "peer", "mtls"]);
    let keep = || json!({"type": "integer", "minimum": 1, "maximum": KEEP_MAX});
    let mut mask = mapping(
        "What is shown of a value where it is revealed masked",
        &[
            ("keep_first", "So many characters of the beginning", keep()),
            ("keep_last", "So many characters of the end", keep()),
            (
                "fixed",
                "Always this text",
                json!({"type": "string", "minLength": 1, "maxLength": FIXED_CHARS_MAX}),
            ),
        ],
    );
    mask["oneOf"] = one_of(&["keep_first", "keep_last", "fixed"]);
    let reveal = mapping(
        "Who sees how much of what the rule opens",
        &[
            (
                "default!",
                "For everybody who is not named, and for nobody in particular",
                choice(&LEVELS),
            ),
            (
                "callers",
                "By the caller's name",
                json!({
                    "type": "object",
                    "maxProperties": CALLERS_MAX,
                    "propertyNames": {"type": "string", "minLength": 1, "maxLength": CALLER_BYTES_MAX},
                    "additionalProperties": choice(&LEVELS),
                }),
            ),
        ],
    );
    let class = mapping(
        "A kind of data",
        &[
            (
                "key!",
                "The key's name; the settings say which KMS key is behind it",
                name(),
            ),
            (
                "formerly",
                "Names that the class had before: their tokens still open",
                json!({"type": "array", "items": name(), "maxItems": FORMERLY_MAX}),
            ),
            (
                "sealed",
                "What happens to a token that is found where this class is sealed",
                json!({"enum": ["keep", "refuse"]}),
            ),
            (
                "scrutiny",
                "How carefully it is to be handled",
                json!({"enum": ["normal", "high"]}),
            ),
            (
                "mode",
                "Equal values get different tokens, or (which shows that they are equal, and needs a store) the same",
                json!({"enum": ["randomised", "deterministic"]}),
            ),
            (
                "mask",
                "What is shown of a value where it is revealed masked",
                mask,
            ),
        ],
    );
    let matching = mapping(
        "Which requests; an absent word takes everything",
        &[
            (
                "host",
                "api.example.com, or *.example.com for one label more; with a port if it matters",
                text(),
            ),
            (
                "methods",
                "In upper case",
                json!({"type": "array", "minItems": 1, "maxItems": METHODS_MAX, "items": {"type": "string", "pattern": "^[A-Z-]{1,32}$"}}),
            ),
            (
                "path",
                "A template: /v1/customers/{id}, /v1/files/{rest*}",
                pattern(),
            ),
        ],
    );
    let mut bind = mapping(
        "A value that tokens are bound to",
        &[
            ("sibling", "A member of the same object", pattern()),
            ("root", "One place in the document", pattern()),
            ("path", "A parameter of the route's path", pattern()),
            ("header", "A header of the request", pattern()),
            ("query", "A query parameter of the request", pattern()),
        ],
    );
    bind["oneOf"] = one_of(&["sibling", "root", "path", "header", "query"]);
    let mut selector = mapping(
        "Values outside of the JSON body, or in JSON within a string",
        &[
            ("header", "A header, each line of it", pattern()),
            ("query", "A query parameter, of requests", pattern()),
            ("form", "A field of a form", pattern()),
            ("part", "A text part of a multipart form", pattern()),
            ("json", "Strings that hold JSON, by JSONPath", pattern()),
            (
                "then",
                "Of `json`: values within that JSON, by JSONPath",
                pattern(),
            ),
        ],
    );
    selector["oneOf"] = one_of(&["header", "query", "form", "part", "json"]);
    selector["anyOf"] = json!([{"required": ["json", "then"]}, {"not": {"anyOf": [{"required": ["json"]}, {"required": ["then"]}]}}]);
    let mut rule = mapping(
        "What happens to the values that a path selects",
        &[
            (
                "at!",
                "A JSONPath (RFC 9535), or where else in the message",
                json!({"anyOf": [pattern(), reference("selector")]}),
            ),
            ("seal", "Seals them in this class", text()),
            ("open", "Opens tokens of this class, or of all (*)", text()),
            (
                "pass",
                "Leaves them, and all within them, knowingly as they are",
                json!({"const": true}),
            ),
            (
                "bind",
                "What tokens are bound to, by names of your choice",
                json!({"type": "object", "maxProperties": BINDS_MAX, "additionalProperties": reference("bind")}),
            ),
        ],
    );
    rule["properties"]["reveal"] = reveal;
    rule["properties"]["gather"] = json!({
        "type": "boolean",
        "description": "In streams, tokens are found within texts, also where they come in pieces",
    });
    rule["oneOf"] = one_of(&["seal", "open", "pass"]);
    let rules = json!({"type": "array", "maxItems": RULES_MAX, "items": reference("rule")});
    let unclaimed = || {
        (
            "unclaimed",
            "Numbers, texts, true, false and null that no rule names",
            choice(&ATTITUDES),
        )
    };
    let stray = || {
        (
            "stray",
            "Tokens at places that no rule seals or opens",
            choice(&ATTITUDES),
        )
    };
    let signed = || {
        (
            "signed",
            "Requests that are signed over a body which rules would change: refuse them, or change them, so that the signature is false",
            choice(&SIGNED),
        )
    };
    let others = || {
        [
            (
                "plaintext",
                "Values at the opening place of a class that are no token",
                choice(&ATTITUDES),
            ),
            (
                "unopened",
                "Tokens at opening places that do not open: leave them, put null there, or refuse the body",
                // YAML's null is the word here.
                json!({"enum": ["leave", "null", null, "reject"]}),
            ),
            (
                "near_miss",
                "Members, fields and header fields whose names are those of a sealing rule but for their spelling",
                choice(&ATTITUDES),
            ),
        ]
    };
    let side = |what: &str, words: &[(&'static str, &'static str, Value)]| {
        let words: Vec<_> = words.iter().cloned().chain(others()).collect();
        mapping(what, &words)
    };
    let in_order = "In order: on one value the first rule that applies wins";
    let request = side(
        "The rules for requests",
        &[
            unclaimed(),
            stray(),
            signed(),
            ("rules", in_order, rules.clone()),
        ],
    );
    let response = side(
        "The rules for responses",
        &[unclaimed(), ("rules", in_order, rules)],
    );
    let mode = || {
        (
            "mode",
            "observe: count what would happen, change nothing",
            choice(&MODES),
        )
    };
    let route = mapping(
        "Where classified data travels",
        &[
            ("name!", "Unique over all files", name()),
            mode(),
            (
                "caller",
                "How it is known who asks; instead of the policy's",
                reference("caller"),
            ),
            ("match!", "Which requests", reference("match")),
            ("request", "The rules for requests", reference("request")),
            ("response", "The rules for responses", reference("response")),
        ],
    );
    let changed = mapping(
        "What differs for a route",
        &[
            mode(),
            (
                "request",
                "What differs for requests",
                side("For requests", &[unclaimed(), stray(), signed()]),
            ),
            (
                "response",
                "What differs for responses",
                side("For responses", &[unclaimed()]),
            ),
        ],
    );
    let unmatched = || {
        (
            "unmatched",
            "Traffic to a named host that no route takes",
            choice(&UNMATCHED),
        )
    };
    let environment = mapping(
        "What differs in an environment",
        &[
            unmatched(),
            (
                "routes",
                "By the routes' names",
                json!({"type": "object", "additionalProperties": changed}),
            ),
        ],
    );
    let mut schema = mapping(
        "What is classified, and where it travels",
        &[
            (
                "apiVersion!",
                "The version of the language",
                json!({"const": "fieldveil/v1"}),
            ),
            ("kind!", "What this file is", json!({"const": "Policy"})),
            ("metadata!", "About this policy", metadata),
            ("tenant", "Where the tenant of a request is found", tenant),
            ("caller", "How it is known who asks", reference("caller")),
            unmatched(),
            (
                "classes",
                "The kinds of classified data, by name",
                json!({"type": "object", "maxProperties": CLASSES_MAX, "propertyNames": name(), "additionalProperties": reference("class")}),
            ),
            (
                "routes!",
                "Where it travels, in order: the first that matches wins",
                json!({"type": "array", "minItems": 1, "maxItems": ROUTES_MAX, "items": reference("route")}),
            ),
            (
                "environments",
                "What differs in an environment, by name",
                json!({"type": "object", "maxProperties": ENVIRONMENTS_MAX, "propertyNames": name(), "additionalProperties": environment}),
            ),
        ],
    );
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["$id"] = json!("urn:fieldveil:schema:policy:v1");
    schema["title"] = json!("fieldveil policy");
    schema["$defs"] = json!({
        "bind": bind, "caller": caller, "class": class, "match": matching, "request": request, "response": response,
        "route": route, "rule": rule, "selector": selector,
    });
    schema
}
