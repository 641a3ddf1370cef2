//! The language of test files as a JSON Schema (draft 2020-12), for editors. A test holds its words against the reader's.

use super::{CASES_MAX, COUNTED, ITEMS_MAX, LEFT, POLICIES_MAX};
use crate::error::TABLE;
use crate::policy::schema::mapping;
use serde_json::{Value, json};

/// The schema of a test file.
pub fn schema() -> Value {
    let text = || json!({"type": "string"});
    let many = |item: Value, max: usize| json!({"anyOf": [item, {"type": "array", "items": item, "maxItems": max}]});
    let scalar = || json!({"type": ["string", "number", "boolean"]});
    let headers = || json!({"type": "object", "maxProperties": ITEMS_MAX, "additionalProperties": many(scalar(), ITEMS_MAX)});
    let codes: Vec<&str> = TABLE.iter().map(|row| row.word).collect();
    let code = || json!({"enum": codes});
    let head = || {
        vec![
            (
                "method",
                "The method; without it POST with a body, else GET",
                text(),
            ),
            ("host", "The upstream's host", text()),
            ("path", "Path and query, as they are sent", text()),
            (
                "headers",
                "Headers by name; a list makes several lines",
                headers(),
            ),
            (
                "caller",
                "Who asks, wherever the policy takes that from; else what the headers say",
                text(),
            ),
        ]
    };
    let body = || {
        [
            (
                "body",
                "A mapping or a list is written as JSON, a text is sent as it stands; {$token: …} is a token",
                json!({}),
            ),
            (
                "form",
                "A form's fields by name, sent percent-encoded; a list sends several of one name",
                json!({"type": "object", "maxProperties": ITEMS_MAX, "additionalProperties": many(scalar(), ITEMS_MAX)}),
            ),
            (
                "records",
                "A stream's records, each like a body, written as the content type says; {$split: …} is a text in several of them",
                json!({"type": "array", "maxItems": ITEMS_MAX}),
            ),
            ("file", "A file with the body, beside this file", text()),
        ]
    };
    let paths = || many(text(), ITEMS_MAX);
    let counted: serde_json::Map<String, Value> = COUNTED
        .into_iter()
        .chain(LEFT)
        .map(|word| (word.to_owned(), json!({"type": "integer", "minimum": 0})))
        .collect();
    let seen = |same: &[&str]| {
        let mut seen = mapping(
            "What one side sees of the body",
            &[
                ("same", "Byte for byte as this body", json!({"enum": same})),
                (
                    "sealed",
                    "Paths at which tokens stand; by class",
                    json!({"anyOf": [paths(), {"type": "object", "additionalProperties": paths()}]}),
                ),
                ("clear", "Paths at which none stand", paths()),
                ("absent", "Paths that select nothing", paths()),
                (
                    "equals",
                    "Values by path",
                    json!({"type": "object", "maxProperties": ITEMS_MAX}),
                ),
                (
                    "joined",
                    "Texts by path: what the path selects in all records, put together",
                    json!({"type": "object", "maxProperties": ITEMS_MAX, "additionalProperties": scalar()}),
                ),
                (
                    "counted",
                    "How often by word",
                    json!({"type": "object", "properties": counted, "additionalProperties": false}),
                ),
            ],
        );
        seen["minProperties"] = json!(1);
        seen
    };
    let mut expect = mapping(
        "What is expected",
        &[
            ("route", "The route that takes the request", text()),
            (
                "unmatched",
                "No route takes it, and it passes",
                json!({"const": true}),
            ),
            (
                "refused",
                "The agent answers itself, with this code",
                code(),
            ),
            (
                "cut",
                "The agent ends the answer, which flows, before its end, for this code",
                code(),
            ),
            ("would_refuse", "An observing route would have", code()),
            ("upstream", "What the upstream sees", seen(&["request"])),
            (
                "client",
                "What the client sees",
                seen(&["request", "answer"]),
            ),
        ],
    );
    expect["minProperties"] = json!(1);
    let words = ["body", "form", "records", "file"];
    let pairs = words.iter().enumerate().flat_map(|(at, one)| {
        let others = words[at + 1..].iter();
        others.map(move |other| json!({"required": [one, other]}))
    });
    let both = json!({"anyOf": pairs.collect::<Vec<_>>()});
    let mut request = mapping(
        "What the application sends",
        &[head(), body().to_vec()].concat(),
    );
    request["not"] = both.clone();
    let status = json!({"type": "integer", "minimum": 200, "maximum": 599});
    let mut answer = vec![
        ("status", "The status; 200 unless it is said", status),
        (
            "headers",
            "Headers by name; a list makes several lines",
            headers(),
        ),
    ];
    answer.extend(body());
    let mut response = mapping("What the upstream answers; without it, it echoes", &answer);
    response["not"] = both;
    let case = mapping(
        "A request, and what is expected of it",
        &[
            ("name!", "Unique in this file", text()),
            ("request!", "What the application sends", request),
            (
                "response",
                "What the upstream answers; without it, it echoes",
                response,
            ),
            ("expect!", "What is expected", expect),
        ],
    );
    let defaults = mapping(
        "What the cases have in common",
        &[(
            "request",
            "Words of requests that have none of their own",
            mapping("Of requests", &head()),
        )],
    );
    let size = || json!({"type": "string", "pattern": "^(0|[1-9][0-9]*)(B|KiB|MiB|GiB)$"});
    let limits = mapping(
        "Of the listener",
        &[
            ("held_body", "Bytes of a body that is held", size()),
            ("record", "Bytes of one record of a stream", size()),
            (
                "window",
                "Bytes that a document over held_body keeps undecided; 0B: it is refused",
                size(),
            ),
        ],
    );
    let mut schema = mapping(
        "Tests of a policy",
        &[
            (
                "apiVersion!",
                "The version of the language",
                json!({"const": "fieldveil/v1"}),
            ),
            ("kind!", "What this file is", json!({"const": "PolicyTest"})),
            (
                "policies",
                "Files of policies beside this one; without it, the one of its own name",
                many(text(), POLICIES_MAX),
            ),
            ("environment", "Of the policies", text()),
            ("limits", "The listener's, as in the settings", limits),
            ("defaults", "What the cases have in common", defaults),
            (
                "cases!",
                "The tests",
                json!({"type": "array", "minItems": 1, "maxItems": CASES_MAX, "items": case}),
            ),
        ],
    );
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["$id"] = json!("urn:fieldveil:schema:policy-test:v1");
    schema["title"] = json!("fieldveil policy test");
    schema
}
