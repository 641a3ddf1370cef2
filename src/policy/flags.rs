//! A policy made of flags: `--seal 'PATH[=CLASS]'` and `--open PATH`, for everything that comes by.

use super::matching::Match;
use super::written::bad_name;
use super::{CLASSES_MAX, DEPTH_MAX, Mode, Policy, RULES_MAX, Route, Signed, Unmatched};
use crate::context::Class;
use crate::diagnostic::{Diagnostic, Source, Span, quoted};
use crate::path::Path;
use crate::token::ClassHint;
use crate::transform::{Action, Attitude, Manner, Reveal, Rule, Rules};
use std::sync::Arc;

/// The name of a policy and of its only route that were made of flags.
pub const FLAG_POLICY: &str = "flags";
/// The class of a `--seal` that names none.
pub const FLAG_CLASS: &str = "field";
/// The key of all classes that were made of flags.
pub const FLAG_KEY: &str = "default";

impl Policy {
    /// All methods, hosts and paths; `seal` on requests, `open` (with every class) on responses; unclaimed values pass.
    ///
    /// The class stands behind the last `=` of a `seal`, unless that is part of the path (`$[?@.a=='b']`).
    ///
    /// Errors: a bad path or class name, with the flag as the file.
    pub fn from_flags(seal: &[String], open: &[String]) -> Result<Policy, Vec<Diagnostic>> {
        let mut made = Made::default();
        for flag in seal {
            made.seal(flag);
        }
        if made.classes.is_empty() {
            // What a like agent sealed still opens.
            made.class(FLAG_CLASS, &Source::new("--open", ""), 0);
        }
        let mut opening = Vec::new();
        for flag in open {
            let source = Source::new("--open", flag);
            let action = Action::Open(made.classes.clone());
            opening.extend(made.path(flag, &source).map(|path| Rule {
                at: path.into(),
                action,
                bind: Vec::new(),
                reveal: Reveal::default(),
                gather: false,
            }));
        }
        let mut policy = made.policy(opening)?;
        // So that other flags are another version.
        let written = seal.iter().map(|flag| format!("--seal {flag}\n"));
        let written = written.chain(open.iter().map(|flag| format!("--open {flag}\n")));
        policy.source = Source::new("--seal", &written.collect::<String>());
        Ok(policy)
    }
}

#[derive(Default)]
struct Made {
    classes: Vec<Arc<Class>>,
    sealing: Vec<Rule>,
    found: Vec<Diagnostic>,
}

impl Made {
    fn seal(&mut self, flag: &str) {
        let source = Source::new("--seal", flag);
        let (path, class) = split(flag);
        let class = self.class(class.unwrap_or(FLAG_CLASS), &source, path.len() + 1);
        if let (Some(path), Some(class)) = (self.path(path, &source), class) {
            self.sealing.push(Rule {
                at: path.into(),
                action: Action::Seal(class),
                bind: Vec::new(),
                reveal: Reveal::default(),
                gather: false,
            });
        }
    }

    /// The class of this name, made when it is new. `at`: the byte offset of the name in the flag.
    fn class(&mut self, name: &str, source: &Source, at: usize) -> Option<Arc<Class>> {
        if let Some(known) = self.classes.iter().find(|class| *class.name == *name) {
            return Some(Arc::clone(known));
        }
        let hint = ClassHint::of(name);
        let wrong = if let Some(wrong) = bad_name(name) {
            Some(("bad-name", wrong))
        } else if self.classes.len() == CLASSES_MAX {
            Some((
                "too-many",
                format!("at most {CLASSES_MAX} classes are allowed"),
            ))
        } else {
            let twin = self.classes.iter().find(|class| class.hint() == hint);
            twin.map(|twin| {
                let message = format!(
                    "the class names {} and {} have the same hint in tokens",
                    quoted(name),
                    quoted(&twin.name)
                );
                ("duplicate-class-hint", message)
            })
        };
        if let Some((code, message)) = wrong {
            self.found
                .push(source.diagnostic(code, Span::new(at, at + name.len()), message));
            return None;
        }
        let class = Arc::new(Class {
            name: name.into(),
            formerly: Vec::new(),
            key: FLAG_KEY.into(),
            suite: crate::dek::Suite::Xaes256Gcm,
            keep_sealed: true,
            mask: None,
        });
        self.classes.push(Arc::clone(&class));
        Some(class)
    }

    fn path(&mut self, path: &str, source: &Source) -> Option<Path> {
        let wrong = |error: crate::path::PathError| {
            source.diagnostic("bad-path", Span::new(error.at, error.at + 1), error.what)
        };
        Path::parse(path)
            .map_err(|error| self.found.push(wrong(error)))
            .ok()
    }

    fn policy(mut self, opening: Vec<Rule>) -> Result<Policy, Vec<Diagnostic>> {
        for (flag, count) in [("--seal", self.sealing.len()), ("--open", opening.len())] {
            if count > RULES_MAX {
                let source = Source::new(flag, "");
                let message = format!("{count} times {flag}; at most {RULES_MAX} are allowed");
                self.found
                    .push(source.diagnostic("too-many", Span::default(), message));
            }
        }
        if !self.found.is_empty() {
            return Err(self.found);
        }
        let compile = |rules: Vec<Rule>, stray: Attitude, flag: &str| {
            let texts: Vec<String> = rules
                .iter()
                .map(|rule| rule.at.as_str().to_owned())
                .collect();
            let manner = Manner {
                stray,
                unclaimed: Attitude::Allow,
                depth_max: DEPTH_MAX,
                ..Manner::default()
            };
            Rules::compile(rules, manner).map_err(|error| {
                let text = texts.get(error.rule).map_or("", String::as_str);
                vec![Source::new(flag, text).diagnostic(
                    "bad-rule",
                    Span::new(0, text.len()),
                    error.what,
                )]
            })
        };
        let (request_rules, response_rules) = (self.sealing.clone(), opening.clone());
        let request = compile(self.sealing, Attitude::Report, "--seal")?;
        let response = compile(opening, Attitude::Allow, "--open")?;
        let name: Arc<str> = FLAG_POLICY.into();
        Ok(Policy {
            name: Arc::clone(&name),
            tenant: None,
            unmatched: Unmatched::Reject,
            classes: self.classes,
            routes: vec![Route {
                name: Arc::clone(&name),
                policy: name,
                mode: Mode::Enforce,
                matching: Match::default(),
                request: request.into(),
                signed: Signed::default(),
                response: response.into(),
                request_rules,
                response_rules,
                outside: Vec::new(),
                tenant: None,
                caller: None,
                span: Span::default(),
            }],
            source: Source::new("--seal", ""),
            name_span: Span::default(),
        })
    }
}

/// Path and class. A path's own `=` stands in brackets, so the class is behind the last `=` only if no `]` follows it.
fn split(flag: &str) -> (&str, Option<&str>) {
    match flag.rsplit_once('=') {
        Some((path, class)) if !class.contains(']') => (path, Some(class)),
        _ => (flag, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_behind_the_paths_own_equals_signs() {
        assert_eq!(split("$..ssn"), ("$..ssn", None));
        assert_eq!(split("$..ssn=identity"), ("$..ssn", Some("identity")));
        assert_eq!(
            split("$[?@.kind=='card'].number"),
            ("$[?@.kind=='card'].number", None)
        );
        assert_eq!(
            split("$[?@.kind=='card'].number=pan"),
            ("$[?@.kind=='card'].number", Some("pan"))
        );
        assert_eq!(split("$['a=b']"), ("$['a=b']", None));
        assert_eq!(split("$['a=b']=pan"), ("$['a=b']", Some("pan")));
        assert_eq!(split("$[?@.a=='x=y]z']"), ("$[?@.a=='x=y]z']", None));
        assert_eq!(split("$..ssn="), ("$..ssn", Some("")));
        assert_eq!(split("$..ssn=a=b"), ("$..ssn=a", Some("b")));
    }
}
