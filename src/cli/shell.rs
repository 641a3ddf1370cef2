//! `fieldveil completions` and `fieldveil man`: what shells and `man` want to know of the command line, made from itself.

use super::{Cli, CompletionsArgs, Exit, ManArgs};
use clap::CommandFactory;
use std::io::{self, Write};

/// The program's name, for shells.
const NAME: &str = "fieldveil";

/// Prints a shell's completions.
///
/// # Errors
/// `out` cannot be written.
pub fn completions(args: &CompletionsArgs, out: &mut dyn Write) -> io::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    out.write_all(&script)?;
    Ok(Exit::Success)
}

/// Prints the first manual page, or writes all of them into a directory and prints their names.
///
/// # Errors
/// `out` or the directory cannot be written.
pub fn man(args: &ManArgs, out: &mut dyn Write) -> io::Result<Exit> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        out.write_all(&page)?;
        return Ok(Exit::Success);
    };
    std::fs::create_dir_all(dir)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    pages(&command, &mut |name, page| {
        let path = dir.join(format!("{name}.1"));
        std::fs::write(&path, page)?;
        writeln!(out, "{}", path.display())
    })?;
    Ok(Exit::Success)
}

/// One page a command: `fieldveil`, `fieldveil-policy`, `fieldveil-policy-check`.
fn pages(
    command: &clap::Command,
    write: &mut dyn FnMut(&str, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    write(name, &page)?;
    let below = command.get_subcommands().filter(|one| !one.is_hide_set());
    for below in below {
        pages(below, write)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap_complete::Shell;

    /// The words behind the program's name, command by command.
    fn commands() -> Vec<String> {
        fn walk(command: &clap::Command, before: &str, all: &mut Vec<String>) {
            for below in command.get_subcommands() {
                let name = format!("{before}-{}", below.get_name());
                walk(below, &name, all);
                all.push(name);
            }
        }
        let mut all = vec![NAME.to_owned()];
        walk(&Cli::command(), NAME, &mut all);
        all
    }

    #[test]
    fn every_command_has_a_page() {
        let place = tempfile::tempdir().expect("a directory");
        let dir = place.path().join("man1");
        let mut out = Vec::new();
        let args = ManArgs {
            dir: Some(dir.clone()),
        };
        assert_eq!(man(&args, &mut out).expect("written"), Exit::Success);
        let mut listed: Vec<String> = String::from_utf8(out)
            .expect("UTF-8")
            .lines()
            .map(|line| line.rsplit('/').next().unwrap_or_default().to_owned())
            .collect();
        let mut expected: Vec<String> = commands().iter().map(|n| format!("{n}.1")).collect();
        listed.sort();
        expected.sort();
        assert_eq!(listed, expected);
        for name in commands() {
            let page = std::fs::read_to_string(dir.join(format!("{name}.1"))).expect("a page");
            assert!(page.contains(&format!(".TH {name} 1")), "{name}: {page}");
        }
        let page = std::fs::read_to_string(dir.join("fieldveil-seal.1")).expect("a page");
        assert!(
            page.contains("\\-\\-on\\-error") && page.contains("Examples"),
            "{page}"
        );
    }

    #[test]
    fn the_first_page_names_every_command() {
        let mut out = Vec::new();
        man(&ManArgs { dir: None }, &mut out).expect("memory");
        let page = String::from_utf8(out).expect("UTF-8");
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(page.contains(&format!("fieldveil\\-{name}(1)")), "{name}");
        }
    }

    #[test]
    fn every_shell_knows_every_command() {
        for shell in [
            Shell::Bash,
            Shell::Elvish,
            Shell::Fish,
            Shell::PowerShell,
            Shell::Zsh,
        ] {
            let mut out = Vec::new();
            completions(&CompletionsArgs { shell }, &mut out).expect("memory");
            let script = String::from_utf8(out).expect("UTF-8");
            for command in commands() {
                let word = command.rsplit('-').next().unwrap_or_default();
                assert!(script.contains(word), "{shell}: {command}");
            }
            assert!(script.contains("on-error"), "{shell}");
        }
    }
}
