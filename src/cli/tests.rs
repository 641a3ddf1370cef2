//! What may be typed, and what may not.

use super::*;
use crate::settings::ADMIN_TOKEN_VARIABLE;
use clap::CommandFactory;

#[track_caller]
fn parse(line: &[&str]) -> Result<Cli, Exit> {
    Cli::parsed(std::iter::once("fieldveil").chain(line.iter().copied()))
        .and_then(Cli::with_a_fit_output)
        .map_err(|error| usage(&error))
}

#[test]
fn the_command_tree_is_sound() {
    Cli::command().debug_assert();
}

/// Every command and flag is on the page.
#[test]
fn the_page_in_the_docs_is_complete() {
    let page = include_str!("../../docs/cli.md");
    fn walk(command: &clap::Command, name: &str, page: &str) {
        assert!(
            page.contains(&format!("`{name}`")) || page.contains(&format!("## {name}")),
            "{name}"
        );
        for argument in command
            .get_arguments()
            .filter(|argument| !argument.is_hide_set())
        {
            let shown = match argument.get_long() {
                Some(long) => format!("--{long}"),
                None => argument.get_id().to_string().to_uppercase(),
            };
            assert!(page.contains(&shown), "{name} {shown}");
        }
        for command in command.get_subcommands() {
            walk(command, &format!("{name} {}", command.get_name()), page);
        }
    }
    walk(&Cli::command(), "fieldveil", page);
}

#[test]
fn what_can_be_typed() {
    let run = parse(&[
        "run",
        "--upstream",
        "http://a",
        "--seal",
        "$..a",
        "--seal",
        "$..b=pan",
        "--open",
        "$..*",
    ]);
    let Ok(Cli {
        command: Command::Run(run),
        output: Output::Text,
    }) = run
    else {
        panic!("{run:?}")
    };
    assert_eq!(run.seal, ["$..a", "$..b=pan"]);
    assert_eq!(run.open, ["$..*"]);
    let overrides = run.overrides(|variable| variable == ADMIN_TOKEN_VARIABLE);
    assert!(overrides.admin_token_in_environment && !overrides.passphrase_in_environment);
    for line in [
        &["demo"][..],
        &["demo", "--listen", "127.0.0.1:0", "--full"],
        &["keyring", "add", "--dir", "d", "cards"],
        &["--output", "json", "policy", "check", "a", "b"],
        &[
            "policy",
            "check",
            "a",
            "--output",
            "json",
            "--environment",
            "production",
        ],
        &[
            "policy", "check", "a", "--deny", "warnings", "--output", "sarif",
        ],
        &["policy", "test", "a", "--output", "junit"],
        &["policy", "test", "a", "--filter", "x", "-v"],
        &["policy", "explain", "--policy", "p", "a/b", "-H", "a: b"],
        &["policy", "coverage", "--policy", "p", "b.json"],
        &[
            "policy", "coverage", "--policy", "p", "b.json", "--output", "sarif",
        ],
        &["policy", "diff", "a", "b"],
        &["policy", "schema"],
        &["policy", "schema", "test"],
        &["token", "inspect"],
        &["token", "inspect", "fv1~~", "--class", "ssn"],
        &["keyring", "init", "--dir", "d", "--key-file", "f", "cards"],
        &["keyring", "status", "--dir", "d"],
        &[
            "keyring",
            "rotate",
            "--dir",
            "d",
            "--passphrase-file",
            "f",
            "cards",
        ],
        &["seal", "--policy", "p", "--data-dir", "d", "-H", "a=b"],
        &["open", "--config", "f", "--on-error", "leave", "--quiet"],
        &["open", "--config", "f", "--caller", "billing"],
        &["seal", "--on-error", "skip", "--rejects", "r"],
        &["store", "init", "--config", "f"],
        &["store", "verify", "--config", "f", "--backup", "b"],
        &["store", "convert", "--config", "f", "--to", "g", "-q"],
        &[
            "store",
            "delete",
            "--config",
            "f",
            "000102030405060708090a0b0c0d0e0f",
            "-y",
        ],
        &["config", "show", "--origin", "--config", "f"],
        &["config", "schema"],
        &["completions", "zsh"],
        &["doctor", "--config", "f", "--output", "json"],
        &["man", "--dir", "d"],
        &["probe", "ready", "--config", "f"],
        &[
            "probe",
            "live",
            "--probes",
            "127.0.0.1:9902",
            "--output",
            "json",
        ],
        &["run", "--config", "f"],
        &["run"],
    ] {
        assert!(parse(line).is_ok(), "{line:?}: {:?}", parse(line));
    }
}

/// Which arguments stood on the command line is known of `config show`.
#[test]
fn flags_are_told_from_the_environment() {
    let shown = parse(&["config", "show", "--log-level", "warn", "--listen", "a:1"]);
    let Ok(Cli {
        command: Command::Config(ConfigCommand::Show(show)),
        ..
    }) = shown
    else {
        panic!("{shown:?}")
    };
    assert_eq!(show.run.listen.as_deref(), Some("a:1"));
    for (id, typed) in [("log_level", true), ("listen", true), ("upstream", false)] {
        assert_eq!(show.typed.iter().any(|one| one == id), typed, "{id}");
    }
}

#[test]
fn mistakes_are_64_and_help_is_0() {
    for line in [
        &[][..],
        &["nonsense"],
        &["policy"],
        &["policy", "check"],
        &["policy", "check", "a", "--deny", "infos"],
        &["policy", "diff", "a"],
        &["policy", "diff", "a", "b", "--output", "junit"],
        &[
            "policy",
            "coverage",
            "--policy",
            "p",
            "--fail-under",
            "101",
            "b",
        ],
        &["policy", "explain", "a/b"],
        &["token", "inspect", "--output", "sarif"],
        &["run", "--policies", "d", "--seal", "$"],
        &["run", "--admin-token", "x"],
        &["demo", "--listen", "nowhere"],
        &["seal", "--on-error", "leave"],
        &["seal", "--header", "nothing"],
        &["seal", "--caller", "billing"],
        &["store", "delete", "--config", "f", "3F"],
        &["store", "delete", "--config", "f", "--yes"],
        &["config", "show", "--origin", "default"],
        &["config", "schema", "settings"],
        &["config", "schema", "--output", "junit"],
        &["completions", "tcsh"],
        &["probe"],
        &["probe", "ready", "--probes", "somewhere:9902"],
        &[
            "keyring",
            "status",
            "--dir",
            "d",
            "--key-file",
            "a",
            "--passphrase-file",
            "b",
        ],
        &["keyring", "rotate", "--dir", "d"],
        &["--output", "xml", "demo"],
    ] {
        assert_eq!(parse(line).err(), Some(Exit::Usage), "{line:?}");
    }
    for line in [
        &["--help"][..],
        &["run", "--help"],
        &["--version"],
        &["help", "policy", "check"],
    ] {
        assert_eq!(parse(line).err(), Some(Exit::Success), "{line:?}");
    }
    assert_eq!(Exit::Configuration as u8, 78);
}
