//! `fieldveil config`: the settings as the agent would go by them, and their language's schema.

use super::{ConfigCommand, ConfigShowArgs, Exit, Output, RunArgs, run, trouble};
use crate::settings::{Origin, Settings, Shown, Step, Word, common, name, schema};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use serde_json::{Map, Value, json};
use std::io::{self, Write};

/// Where the column of origins begins at the latest.
const COLUMN_MAX: usize = 72;

/// `fieldveil config COMMAND`.
///
/// # Errors
/// Standard output cannot be written.
pub fn command(command: ConfigCommand, output: Output) -> io::Result<Exit> {
    match command {
        ConfigCommand::Show(args) => show(*args, output),
        ConfigCommand::Schema => {
            writeln!(io::stdout().lock(), "{:#}", schema::settings())?;
            Ok(Exit::Success)
        }
    }
}

/// The arguments of `config show` that stood on the command line, rather than in the environment.
pub(super) fn typed(matches: &ArgMatches) -> Vec<String> {
    let Some(show) = matches
        .subcommand_matches("config")
        .and_then(|config| config.subcommand_matches("show"))
    else {
        return Vec::new();
    };
    let typed = |id: &&str| show.value_source(id) == Some(ValueSource::CommandLine);
    let ids = show.ids().map(clap::Id::as_str);
    ids.filter(typed).map(str::to_owned).collect()
}

fn show(args: ConfigShowArgs, output: Output) -> io::Result<Exit> {
    let arguments = RunArgs::augment_args(clap::Command::new("run"));
    let given = |id: &str| {
        let argument = arguments.get_arguments().find(|one| one.get_id() == id);
        let flag = argument.and_then(clap::Arg::get_long).unwrap_or(id);
        let variable = argument.and_then(clap::Arg::get_env);
        match variable {
            Some(variable) if !args.typed.iter().any(|typed| typed == id) => {
                Origin::Environment(variable.to_string_lossy().into_owned())
            }
            _ => Origin::Flag(format!("--{flag}")),
        }
    };
    let overrides = args.run.overrides(run::is_set);
    let words = match Settings::load_with_origins(&overrides, &given, run::read) {
        Ok((_, words)) => words,
        Err(found) => {
            trouble::findings(&found, output)?;
            return Ok(Exit::Configuration);
        }
    };
    let mut out = io::stdout().lock();
    match (output, args.origin) {
        (Output::Json, true) => {
            let all: Vec<Value> = words.iter().map(as_json).collect();
            writeln!(out, "{}", json!({"ok": true, "settings": all}))?;
        }
        (Output::Json, false) => {
            writeln!(out, "{}", json!({"ok": true, "settings": document(&words)}))?;
        }
        (_, origin) => out.write_all(file(&words, origin).as_bytes())?,
    }
    Ok(Exit::Success)
}

fn as_json(word: &Word) -> Value {
    let origin = |origin: &Origin| match origin {
        Origin::Default => json!({"from": "default"}),
        Origin::File { file, line, column } => {
            json!({"from": "file", "file": &**file, "line": line, "column": column})
        }
        Origin::Environment(variable) => json!({"from": "environment", "variable": variable}),
        Origin::Flag(flag) => json!({"from": "flag", "flag": flag}),
    };
    json!({
        "word": word.name(),
        "value": value(&word.value),
        "secret": word.value == Shown::Secret,
        "origin": origin(&word.origin),
        "over": word.over.as_ref().map(origin),
    })
}

/// The value as JSON; `null` for a secret.
pub fn value(shown: &Shown) -> Value {
    match shown {
        Shown::Text(text) => json!(text),
        Shown::Number(number) => json!(number),
        Shown::Switch(on) => json!(on),
        Shown::Secret => Value::Null,
    }
}

/// What a file of settings can say of them, as the one document that it would be.
pub fn document(words: &[Word]) -> Value {
    let mut whole = Value::Object(Map::new());
    for word in words.iter().filter(|word| word.writable) {
        let mut at = &mut whole;
        for step in &word.path {
            at = match step {
                Step::Word(name) => {
                    if !at.is_object() {
                        *at = Value::Object(Map::new());
                    }
                    &mut at[name.as_str()]
                }
                Step::Item(index) => {
                    if !at.is_array() {
                        *at = Value::Array(Vec::new());
                    }
                    if let Value::Array(items) = at {
                        items.resize((index + 1).max(items.len()), Value::Null);
                    }
                    &mut at[*index]
                }
            };
        }
        *at = value(&word.value);
    }
    whole
}

/// A file of settings, with comments behind the values where origins are wanted, and for what no file can say.
pub fn file(words: &[Word], origins: bool) -> String {
    let mut lines: Vec<(String, Option<String>)> = Vec::new();
    let mut before: &[Step] = &[];
    for word in words {
        let shared = common(before, &word.path);
        let over = word.over.as_ref();
        let over = over.map_or(String::new(), |over| format!(", over {over}"));
        let origin = format!("{}{over}", word.origin);
        let text = match &word.value {
            Shown::Text(text) => scalar(text),
            Shown::Number(number) => number.to_string(),
            Shown::Switch(on) => on.to_string(),
            Shown::Secret => "******".to_owned(),
        };
        if !word.writable {
            let below = name(&word.path[shared..]);
            let line = format!("{}# {below}: {text} ({origin})", "  ".repeat(shared));
            lines.push((line, None));
            continue;
        }
        let Some((last, above)) = word.path.split_last() else {
            continue;
        };
        let mut lead = "  ".repeat(shared);
        for (depth, step) in above.iter().enumerate().skip(shared) {
            match step {
                Step::Item(_) => lead += "- ",
                Step::Word(name) => {
                    lines.push((format!("{lead}{}:", scalar(name)), None));
                    lead = "  ".repeat(depth + 1);
                }
            }
        }
        let line = match last {
            Step::Item(_) => format!("{lead}- {text}"),
            Step::Word(name) => format!("{lead}{}: {text}", scalar(name)),
        };
        lines.push((line, Some(origin)));
        before = &word.path;
    }
    let width = |line: &(String, Option<String>)| line.0.chars().count();
    let column = lines.iter().map(width).max().unwrap_or(0).min(COLUMN_MAX);
    let mut whole = String::new();
    for (line, origin) in &lines {
        match origin.as_ref().filter(|_| origins) {
            Some(origin) => whole += &format!("{line:<column$}  # {origin}\n"),
            None => whole += &format!("{line}\n"),
        }
    }
    whole
}

/// A text of YAML in one line: plain where it can be nothing else, in double quotes otherwise.
fn scalar(text: &str) -> String {
    let bytes = text.as_bytes();
    let begins = bytes
        .first()
        .is_some_and(|first| first.is_ascii_alphanumeric() || *first == b'/');
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._/:@+-".contains(byte);
    let word = matches!(text, "null" | "Null" | "NULL" | "true" | "false");
    if begins && bytes.iter().all(plain) && !text.ends_with(':') && !word {
        return text.to_owned();
    }
    // A string of JSON is one of YAML.
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Overrides;

    const FILE: &str = "\
listeners:
  - {name: out, bind: 127.0.0.1:8080, upstreams: {\"*.partner.example\": api}}
upstreams:
  api: {url: https://API.example.com, tls: {ca: ca.pem}}
kms:
  local: {type: keyring, dir: keyring}
keys:
  cards:
    seal_with: [local/cards, local/cards-2]
    lease: 300s
admin: {bind: 127.0.0.1:9901, token_file: /run/secrets/admin}
policy: {dir: policies}
";

    #[track_caller]
    fn words(text: &'static str, overrides: Overrides) -> Vec<Word> {
        let given = |id: &str| match id {
            "admin" => Origin::Environment("FIELDVEIL_ADMIN".to_owned()),
            id => Origin::Flag(format!("--{id}")),
        };
        let (_, words) = Settings::load_with_origins(&overrides, &given, |_| Ok(text.to_owned()))
            .expect("sound");
        words
    }

    fn with_file() -> Overrides {
        Overrides {
            config: Some("etc/a.yaml".into()),
            passphrase_in_environment: true,
            ..Overrides::default()
        }
    }

    #[test]
    fn each_value_says_where_it_came_from() {
        let overrides = Overrides {
            admin: Some("127.0.0.1:9999".to_owned()),
            admin_token_in_environment: true,
            log_level: Some(crate::settings::LogLevel::Debug),
            ..with_file()
        };
        let shown = file(&words(FILE, overrides), true);
        for line in [
            "policy:",
            "  dir: etc/policies  # etc/a.yaml:12:15",
            "  look_every: 5s  # default",
            "listeners:",
            "  - name: out  # etc/a.yaml:2:12",
            "    bind: 127.0.0.1:8080  # etc/a.yaml:2:23",
            "    http2: true  # default",
            "    upstreams:",
            "      \"*.partner.example\": api  # etc/a.yaml:2:72",
            "    url: https://api.example.com  # etc/a.yaml:4:14",
            "    # unlock.passphrase: ****** (environment FIELDVEIL_KEYRING_PASSPHRASE)",
            "      - local/cards-2  # etc/a.yaml:9:30",
            "    lease: 5m  # etc/a.yaml:10:12",
            "  bind: 127.0.0.1:9999  # environment FIELDVEIL_ADMIN, over etc/a.yaml:11:15",
            "  # token: ****** (environment FIELDVEIL_ADMIN_TOKEN, over etc/a.yaml:11:43)",
            "  level: debug  # flag --log_level",
        ] {
            // As it is but for the column.
            let plain = |one: &str| match one.split_once("  # ") {
                Some((value, origin)) if !value.trim().is_empty() => {
                    format!("{}  # {origin}", value.trim_end())
                }
                _ => one.to_owned(),
            };
            let found = shown.lines().any(|one| plain(one) == line);
            assert!(found, "{line}\n{shown}");
        }
        assert!(!shown.contains("/run/secrets/admin"), "{shown}");
    }

    #[test]
    fn without_a_file() {
        let overrides = Overrides {
            upstream: Some("http://127.0.0.1:9000".into()),
            seal: vec!["$..ssn".into()],
            data_dir: Some("data".into()),
            admin: Some("127.0.0.1:0".into()),
            ..Overrides::default()
        };
        let words = words("", overrides);
        let all: Vec<String> = words
            .iter()
            .filter(|word| word.origin != Origin::Default)
            .map(|word| format!("{} {:?} {}", word.name(), value(&word.value), word.origin))
            .collect();
        let expected = [
            "policy.seal[0] String(\"$..ssn\") flag --seal",
            "upstreams.api.url String(\"http://127.0.0.1:9000\") flag --upstream",
            "kms.local.type String(\"keyring\") flag --data_dir",
            "kms.local.dir String(\"data/keyring\") flag --data_dir",
            "kms.local.unlock.key_file String(\"data/keyring.key\") flag --data_dir",
            "keys.*.seal_with[0] String(\"local/(the key's name)\") flag --data_dir",
            "admin.bind String(\"127.0.0.1:0\") environment FIELDVEIL_ADMIN",
            "admin.token_file String(\"data/admin.token\") flag --data_dir",
        ];
        assert_eq!(all, expected);
        assert!(file(&words, false).starts_with("# policy.seal[0]: \"$..ssn\" (flag --seal)\n"));
    }

    #[test]
    fn texts_that_yaml_would_take_for_something_else_are_quoted() {
        for (text, shown) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("/run/a.sock", "/run/a.sock"),
            ("[::1]:80", "\"[::1]:80\""),
            ("", "\"\""),
            ("null", "\"null\""),
            ("a b", "\"a b\""),
            ("a:", "\"a:\""),
            ("é\n", "\"é\\n\""),
        ] {
            assert_eq!(scalar(text), shown);
        }
    }
}
