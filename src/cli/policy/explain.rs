//! `fieldveil policy explain`: which route takes a request and why the others do not, and which rule takes each value.
//!
//! A value is shown only where that was asked for.

mod shown;
mod told;

use crate::app::policies::{about, load, read};
use crate::audit::Side;
use crate::cli::{Exit, Output, PolicyExplainArgs};
use crate::diagnostic::Diagnostic;
use crate::proxy::Limits;
use crate::rehearsal::{self, Answer, Head, Keys, pass};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use std::io::{self, Read, Write};
use std::path::Path;
use told::tell;

/// Bytes of a body.
const BODY_BYTES_MAX: usize = 16 << 20;

/// A request as it was typed.
struct Asked {
    method: Method,
    host: String,
    target: Uri,
    headers: HeaderMap,
    body: Vec<u8>,
    answer: Option<Vec<u8>>,
    answer_headers: HeaderMap,
}

/// Explains.
///
/// # Errors
/// `out` or `err` cannot be written.
pub fn explain(
    args: &PolicyExplainArgs,
    output: Output,
    colour: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Exit> {
    let asked = match asked(args) {
        Ok(asked) => asked,
        Err(found) => {
            super::refuse(&found, output, colour, out, err)?;
            return Ok(Exit::Usage);
        }
    };
    let policies = match load(&args.policy, args.environment.as_deref()) {
        Ok(policies) => policies,
        Err(found) => {
            super::refuse(&found, output, colour, out, err)?;
            return Ok(Exit::Configuration);
        }
    };
    let mut head = http::Request::new(());
    *head.method_mut() = asked.method.clone();
    *head.uri_mut() = asked.target.clone();
    *head.headers_mut() = asked.headers.clone();
    let (head, ()) = head.into_parts();
    let answer = match &asked.answer {
        None => Answer::Echo,
        Some(body) => Answer::Given {
            status: StatusCode::OK,
            headers: asked.answer_headers.clone(),
            body: body.clone(),
        },
    };
    let sent = rehearsal::Asked {
        policies: &policies,
        head,
        host: &asked.host,
        body: &asked.body,
        answer: &answer,
        caller: args.caller.as_deref(),
        limits: Limits::default(),
    };
    let passage = pass(sent, &Keys::default());
    let route = passage.route.as_ref();
    let route = route.and_then(|name| policies.routes().find(|route| route.name == *name));
    let mut sides = Vec::new();
    if let Some(route) = route {
        // Of a refused request, what the rules would have done.
        let after = passage.upstream.as_ref().unwrap_or(&asked.body);
        let sent = Head {
            headers: asked.headers.clone(),
            query: asked.target.query().map(str::to_owned),
        };
        let seen = match passage.upstream {
            Some(_) => &passage.upstream_head,
            None => &sent,
        };
        let rules = (&*route.request, &*route.request_rules);
        let told = tell(rules, (&sent, &asked.body), (seen, after));
        sides.push((Side::Request, told, &passage.request));
        if let (Some(before), Some(after), true) =
            (&passage.answer, &passage.client, asked.answer.is_some())
        {
            let answered = Head {
                headers: passage.answer_headers.clone(),
                query: None,
            };
            let rules = (&*route.response, &*route.response_rules);
            let told = tell(rules, (&answered, before), (&passage.client_head, after));
            sides.push((Side::Response, told, &passage.response));
        }
    }
    match output {
        Output::Json => {
            let document = shown::document(args, &asked, &policies, &passage, route, &sides);
            writeln!(out, "{document}")?;
        }
        _ => shown::show(args, &asked, &policies, &passage, route, &sides, out)?,
    }
    Ok(Exit::Success)
}

fn asked(args: &PolicyExplainArgs) -> Result<Asked, Vec<Diagnostic>> {
    let typed = |what: &str| vec![about(Path::new("request"), "bad-request", what)];
    let text = args.request.as_str();
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, target) = rest.split_at(at);
    let target = match target {
        "" => "/".to_owned(),
        query if query.starts_with('?') => format!("/{query}"),
        target => target.to_owned(),
    };
    if host.is_empty() {
        return Err(typed(
            "a request begins with its host: api.example.com/v1/customers/7",
        ));
    }
    let target = Uri::try_from(target)
        .map_err(|_| typed("the path is one as it is sent, percent-encoded"))?;
    let answer = args.response.as_deref().map(body).transpose()?;
    let body = args
        .body
        .as_deref()
        .map(body)
        .transpose()?
        .unwrap_or_default();
    let method = match &args.method {
        Some(method) => {
            Method::from_bytes(method.as_bytes()).map_err(|_| typed("this is no method"))?
        }
        None if args.body.is_some() => Method::POST,
        None => Method::GET,
    };
    let lines = |lines: &[String], body: bool| {
        let mut headers = HeaderMap::new();
        for header in lines {
            let pair = header.split_once(':').and_then(|(name, value)| {
                let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
                Some((name, HeaderValue::from_str(value.trim()).ok()?))
            });
            let (name, value) = pair.ok_or_else(|| typed("a header is written `Name: value`"))?;
            headers.append(name, value);
        }
        if body {
            let json = HeaderValue::from_static("application/json");
            headers.entry(http::header::CONTENT_TYPE).or_insert(json);
        }
        Ok::<_, Vec<Diagnostic>>(headers)
    };
    let headers = lines(&args.header, args.body.is_some())?;
    let answer_headers = lines(&args.response_header, true)?;
    Ok(Asked {
        method,
        host: host.to_owned(),
        target,
        headers,
        body,
        answer,
        answer_headers,
    })
}

fn body(file: &Path) -> Result<Vec<u8>, Vec<Diagnostic>> {
    let bytes = if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        let mut input = io::stdin().lock().take(BODY_BYTES_MAX as u64 + 1);
        let read = input.read_to_end(&mut bytes);
        read.map(|_| bytes).map_err(|error| error.to_string())
    } else {
        read(file, BODY_BYTES_MAX)
    };
    let found = |code, what| vec![about(file, code, what)];
    let bytes = bytes.map_err(|what| found("unreadable", format!("cannot be read: {what}")))?;
    match bytes.len() > BODY_BYTES_MAX {
        true => Err(found(
            "too-large",
            format!("at most {BODY_BYTES_MAX} bytes are read"),
        )),
        false => Ok(bytes),
    }
}
