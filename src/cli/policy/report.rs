//! Findings in the formats that other programs read: workflow commands of GitHub, SARIF 2.1.0, JUnit XML.

use crate::diagnostic::{Diagnostic, Severity};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The cases of one file, for JUnit.
pub(super) struct Suite<'r> {
    pub file: &'r str,
    pub cases: Vec<SuiteCase<'r>>,
}

pub(super) struct SuiteCase<'r> {
    pub name: &'r str,
    pub line: usize,
    pub failures: Vec<&'r Diagnostic>,
}

/// One workflow command a finding: an annotation at its place in the file.
pub(super) fn github(found: &[&Diagnostic], out: &mut dyn Write) -> io::Result<()> {
    let data = |text: &str| {
        text.replace('%', "%25")
            .replace('\r', "%0D")
            .replace('\n', "%0A")
    };
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    for one in found {
        let command = match one.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "notice",
        };
        let hint = one.hint.as_ref().map(|hint| format!("\n{hint}"));
        writeln!(
            out,
            "::{command} file={},line={},col={},endColumn={},title={}::{}{}",
            property(&one.file),
            one.line,
            one.column,
            one.column + one.width,
            property(one.code),
            data(&one.message),
            data(&hint.unwrap_or_default()),
        )?;
    }
    Ok(())
}

/// One document with all findings (OASIS SARIF 2.1.0).
pub(super) fn sarif(found: &[&Diagnostic], out: &mut dyn Write) -> io::Result<()> {
    let rules: BTreeMap<&str, Value> = found
        .iter()
        .map(|one| (one.code, json!({"id": one.code})))
        .collect();
    let result = |one: &&Diagnostic| {
        let level = match one.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "note",
        };
        let text = match &one.hint {
            Some(hint) => format!("{}\n{hint}", one.message),
            None => one.message.clone(),
        };
        json!({
            "ruleId": one.code,
            "level": level,
            "message": {"text": text},
            "locations": [{"physicalLocation": {
                "artifactLocation": {"uri": uri(&one.file)},
                "region": {"startLine": one.line, "startColumn": one.column, "endColumn": one.column + one.width},
            }}],
        })
    };
    let document = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "fieldveil",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.into_values().collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": found.iter().map(result).collect::<Vec<_>>(),
        }],
    });
    writeln!(out, "{document:#}")
}

/// A path as a relative reference (RFC 3986 section 4.2).
fn uri(path: &str) -> String {
    let mut uri = String::new();
    for byte in path.strip_prefix("./").unwrap_or(path).bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                uri.push(char::from(byte));
            }
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

/// One document: a suite a file, a case a case.
pub(super) fn junit(suites: &[Suite<'_>], out: &mut dyn Write) -> io::Result<()> {
    let failed = |suite: &Suite<'_>| {
        let failed = suite.cases.iter().filter(|case| !case.failures.is_empty());
        failed.count()
    };
    let tests: usize = suites.iter().map(|suite| suite.cases.len()).sum();
    let failures: usize = suites.iter().map(failed).sum();
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    writeln!(
        out,
        "<testsuites name=\"fieldveil\" tests=\"{tests}\" failures=\"{failures}\">"
    )?;
    for suite in suites {
        writeln!(
            out,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\">",
            xml(suite.file),
            suite.cases.len(),
            failed(suite)
        )?;
        for case in &suite.cases {
            write!(
                out,
                "    <testcase classname=\"{}\" name=\"{}\" file=\"{}\" line=\"{}\"",
                xml(suite.file),
                xml(case.name),
                xml(suite.file),
                case.line
            )?;
            let Some(first) = case.failures.first() else {
                writeln!(out, "/>")?;
                continue;
            };
            let all: Vec<String> = case.failures.iter().map(|one| one.render(false)).collect();
            writeln!(
                out,
                ">\n      <failure type=\"{}\" message=\"{}\">{}</failure>\n    </testcase>",
                xml(first.code),
                xml(&first.message),
                xml(&all.join("\n\n"))
            )?;
        }
        writeln!(out, "  </testsuite>")?;
    }
    writeln!(out, "</testsuites>")
}

/// Text of XML 1.0: what its characters cannot be is shown as U+FFFD.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push_str("&#9;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::{Source, Span};

    fn finding() -> Diagnostic {
        Source::new("./a b,c.yaml", "x\nyy: zz\n")
            .diagnostic("not-sealed", Span::new(6, 8), "50% \"<b>\" & x\u{7}")
            .hint("line\ntwo")
    }

    fn text(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).expect("memory can be written");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn annotations_are_one_line_each() {
        let warning = finding().severity(Severity::Warning);
        let shown = text(|out| github(&[&finding(), &warning], out));
        assert_eq!(
            shown,
            "::error file=./a b%2Cc.yaml,line=2,col=5,endColumn=7,title=not-sealed::50%25 \"<b>\" & x\u{7}%0Aline%0Atwo\n\
             ::warning file=./a b%2Cc.yaml,line=2,col=5,endColumn=7,title=not-sealed::50%25 \"<b>\" & x\u{7}%0Aline%0Atwo\n"
        );
    }

    #[test]
    fn sarif_is_one_document() {
        let info = finding().severity(Severity::Info);
        let shown = text(|out| sarif(&[&finding(), &info], out));
        let document: Value = serde_json::from_str(&shown).expect("JSON");
        let run = &document["runs"][0];
        assert_eq!(
            run["tool"]["driver"]["rules"],
            json!([{"id": "not-sealed"}])
        );
        assert_eq!(run["results"][1]["level"], "note");
        let place = &run["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "a%20b%2Cc.yaml");
        assert_eq!(
            place["region"],
            json!({"startLine": 2, "startColumn": 5, "endColumn": 7})
        );
        assert!(text(|out| sarif(&[], out)).contains("\"results\": []"));
    }

    #[test]
    fn junit_escapes_what_xml_cannot_hold() {
        let finding = finding();
        let suites = [Suite {
            file: "a.yaml",
            cases: vec![
                SuiteCase {
                    name: "good",
                    line: 1,
                    failures: Vec::new(),
                },
                SuiteCase {
                    name: "<bad>",
                    line: 7,
                    failures: vec![&finding],
                },
            ],
        }];
        let shown = text(|out| junit(&suites, out));
        for expected in [
            "<testsuites name=\"fieldveil\" tests=\"2\" failures=\"1\">\n",
            "<testcase classname=\"a.yaml\" name=\"good\" file=\"a.yaml\" line=\"1\"/>\n",
            "name=\"&lt;bad&gt;\" file=\"a.yaml\" line=\"7\">\n",
            "<failure type=\"not-sealed\" message=\"50% &quot;&lt;b&gt;&quot; &amp; x\u{fffd}\">",
        ] {
            assert!(shown.contains(expected), "{expected}\n{shown}");
        }
    }
}
