//! Flags and environment variables, laid over what the file says.

use super::edges::UpstreamTls;
use super::written::{ListenerWords, SettingsFile, UpstreamWords, parse_url, socket_address};
use super::{Bind, Ca, Overrides, Url};
use crate::diagnostic::{Diagnostic, Source, Span, quoted};
use crate::marked::{Findings, Marked};
use std::net::SocketAddr;
use std::path::Path;

/// The listener and the upstream that flags make.
const FLAG_LISTENER: &str = "out";
const FLAG_UPSTREAM: &str = "api";
const LISTEN_DEFAULT: &str = "127.0.0.1:8080";

/// A finding about what stands behind a flag.
pub(super) fn flag_finding(
    flag: &str,
    value: &str,
    code: &'static str,
    message: String,
) -> Diagnostic {
    Source::new(flag, value).diagnostic(code, Span::new(0, value.len()), message)
}

pub(super) fn flag_environment(
    file: &mut SettingsFile,
    overrides: &Overrides,
    findings: &mut Findings<'_>,
) {
    let Some(environment) = &overrides.environment else {
        return;
    };
    if let Some(wrong) = crate::policy::bad_name(environment) {
        findings.report(flag_finding(
            "--environment",
            environment,
            "bad-name",
            wrong,
        ));
    }
    file.environment = Some(Marked {
        value: environment.clone(),
        span: Span::default(),
    });
}

pub(super) fn address_flag(
    flag: &str,
    value: Option<&str>,
    findings: &mut Findings<'_>,
) -> Option<Marked<SocketAddr>> {
    let value = value?;
    match socket_address(value) {
        Some(value) => Some(Marked {
            value,
            span: Span::default(),
        }),
        None => {
            let message = format!("{} is no address and port", quoted(value));
            let found = flag_finding(flag, value, "bad-address", message);
            findings.report(found.hint("for example 127.0.0.1:8080 or [::1]:8080"));
            None
        }
    }
}

pub(super) fn flag_upstream(
    file: &mut SettingsFile,
    overrides: &Overrides,
    findings: &mut Findings<'_>,
) {
    if let Some(text) = &overrides.upstream {
        let source = Source::new("--upstream", text);
        let mut flag = Findings::new(&source);
        let url: Option<Marked<Url>> = parse_url(
            Marked {
                value: text.clone(),
                span: Span::new(0, text.len()),
            },
            &mut flag,
        );
        for found in flag.finish().err().unwrap_or_default() {
            findings.report(found);
        }
        let Some(url) = url else { return };
        let url = Marked {
            value: url.value,
            span: Span::default(),
        };
        match file.upstreams.as_mut_slice() {
            [] => {
                let name = Marked {
                    value: FLAG_UPSTREAM.to_owned(),
                    span: Span::default(),
                };
                file.upstreams.push(UpstreamWords {
                    name,
                    url,
                    tls: UpstreamTls::default(),
                    speak: None,
                    connect: None,
                    response: None,
                    idle: None,
                });
            }
            [only] => only.url = url,
            _ => {
                let message = "the file has several upstreams; which one is meant?".to_owned();
                findings.report(flag_finding("--upstream", text, "ambiguous-flag", message));
            }
        }
    }
    if let Some(ca) = &overrides.upstream_ca {
        match file.upstreams.as_mut_slice() {
            [only] => {
                only.tls.ca = Some(Marked {
                    value: Ca::File(ca.clone()),
                    span: Span::default(),
                })
            }
            _ => {
                let message = "it needs exactly one upstream".to_owned();
                findings.report(
                    flag_finding("--upstream-ca", "", "ambiguous-flag", message).without_line(),
                );
            }
        }
    }
}

pub(super) fn flag_listener(
    file: &mut SettingsFile,
    overrides: &Overrides,
    findings: &mut Findings<'_>,
) {
    let listen = overrides.listen.as_deref();
    if listen.is_none() && !(file.listeners.is_empty() && file.upstreams.len() == 1) {
        return;
    }
    let text = listen.unwrap_or(LISTEN_DEFAULT);
    let Some(bind) = Bind::parse(text, Path::new("")) else {
        let message = format!("{} is no address and port", quoted(text));
        let found = flag_finding("--listen", text, "bad-address", message);
        findings
            .report(found.hint("for example 127.0.0.1:8080, [::1]:8080 or unix:/run/agent.sock"));
        return;
    };
    let bind = Marked {
        value: bind,
        span: Span::default(),
    };
    match (file.listeners.as_mut_slice(), file.upstreams.as_slice()) {
        ([only], _) => only.bind = bind,
        ([], [upstream]) => {
            let name = Marked {
                value: FLAG_LISTENER.to_owned(),
                span: Span::default(),
            };
            let upstream = Marked {
                value: upstream.name.value.clone(),
                span: Span::default(),
            };
            file.listeners.push(ListenerWords {
                name,
                bind,
                upstreams: vec![(None, upstream)],
                forward: None,
                tls: None,
                http2: None,
            });
        }
        // That there is no upstream is said elsewhere.
        ([], []) => {}
        _ => {
            let message =
                "the file has several listeners or upstreams; which one is meant?".to_owned();
            findings.report(flag_finding("--listen", text, "ambiguous-flag", message));
        }
    }
}
