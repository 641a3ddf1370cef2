//! The same requests and answers through the agent, on sockets, and through the rehearsal: a policy's tests say what the agent does.
//!
//! Both ways have the rehearsal's keys, whose random bytes come in the same order, so that even the tokens must be the same, byte
//! for byte.

use crate::harness::{Line, Raw, Setup, eventually};
use fieldveil::audit::Outcome;
use fieldveil::policy::{Policies, Policy};
use fieldveil::proxy::Limits;
use fieldveil::rehearsal::{Answer, Asked, Keys, Passage, pass};
use fieldveil::transform::Tally;
use http::{HeaderMap, Method, StatusCode};
use std::sync::{Arc, Mutex};
use table::{Case, Said, cases};

#[path = "rehearsed/table.rs"]
mod table;

const POLICY: &str = r#"
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: test}
caller: {header: X-Caller}
classes:
  ssn: {key: identity, mask: {keep_last: 4}}
  id: {key: identity, mode: deterministic}
routes:
  - name: records
    match: {path: "/records/{record}"}
    request:
      rules:
        - {at: $.ssn, seal: ssn, bind: {record: {path: record}}}
        - {at: $..id, seal: id}
        - {at: {json: $.payload, then: $..ssn}, seal: ssn}
        - {at: {form: ssn}, seal: ssn}
        - {at: {part: ssn}, seal: ssn}
    response:
      rules:
        - {at: $.ssn, open: ssn, bind: {record: {path: record}}}
        - {at: $..id, open: id}
        - {at: {json: $.payload, then: $..ssn}, open: ssn}
        - {at: {form: ssn}, open: ssn}
        - {at: {part: ssn}, open: ssn}
  - name: opens
    match: {path: "/opens"}
    request: {rules: [{at: $.ssn, open: ssn}]}
    response:
      rules:
        - {at: $.ssn, open: ssn, reveal: {default: masked, callers: {clerk: full}}}
  - name: strict
    match: {path: "/strict"}
    request: {unclaimed: reject, stray: reject, near_miss: reject, rules: [{at: $.ssn, seal: ssn}]}
    response: {unopened: reject, rules: [{at: $.ssn, open: ssn}]}
  - name: near
    match: {path: "/near"}
    request: {near_miss: reject, rules: [{at: $.ssn, seal: ssn}]}
  - name: puts
    match: {path: "/puts", methods: [PUT]}
    request: {rules: [{at: $.ssn, seal: ssn}]}
  - name: inbound
    match: {path: "/inbound"}
    response: {rules: [{at: $.ssn, seal: ssn}]}
  - name: watched
    mode: observe
    match: {path: "/watched"}
    request: {rules: [{at: $.ssn, seal: ssn}]}
    response: {rules: [{at: $.ssn, open: ssn}]}
  - name: heads
    match: {path: "/heads"}
    request:
      rules: [{at: {header: X-SSN}, seal: ssn}, {at: {query: ssn}, seal: ssn}]
    response:
      rules: [{at: {header: X-Back}, open: ssn}]
  - name: chat
    match: {path: "/chat"}
    request: {rules: [{at: "$.messages[*].content", seal: ssn}]}
    response:
      rules: [{at: "$.choices[*].delta.content", open: "*", gather: true}]
"#;

/// Small, so that bodies need not be large to be over them.
fn limits() -> Limits {
    Limits {
        held_body: 4 << 10,
        record: 1 << 10,
        window: 2 << 10,
        ..Limits::default()
    }
}

fn policies() -> Policies {
    let policy = Policy::load(POLICY, "test.yaml", None).unwrap_or_else(|e| panic!("{e:?}"));
    Policies::new(vec![policy]).unwrap_or_else(|_| panic!("one policy"))
}

/// Which end a body came to.
#[derive(PartialEq, Eq, Debug, Default, Clone)]
struct Ended {
    head: String,
    body: Vec<u8>,
    whole: bool,
}

/// Reads one message as far as it comes. `without`: to HEAD, so that no body follows.
async fn read(line: &mut Line, without: bool) -> Option<Ended> {
    let head = line.head().await?;
    let field = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.to_owned())
    };
    let bodiless = without || head.starts_with("HTTP/1.1 304") || head.starts_with("HTTP/1.1 204");
    let mut ended = Ended {
        whole: true,
        ..Ended::default()
    };
    if !bodiless && field("transfer-encoding").is_some() {
        loop {
            match line.chunk_and_line().await {
                Some((chunk, _)) if chunk.is_empty() => break,
                Some((chunk, _)) => ended.body.extend(chunk),
                None => {
                    ended.whole = false;
                    break;
                }
            }
        }
    } else if !bodiless && let Some(length) = field("content-length") {
        let length: usize = length.parse().expect("a length");
        while ended.body.len() < length {
            ended.body.extend(line.all());
            if ended.body.len() < length && !line.more().await {
                ended.whole = false;
                break;
            }
        }
    }
    ended.head = head;
    Some(ended)
}

/// What the agent made of it: what the upstream saw, what the client got, what is on record.
struct Carried {
    upstream: Option<Ended>,
    client: Ended,
    record: crate::harness::Kept,
}

async fn through_the_agent(case: &Case) -> Carried {
    let seen: Arc<Mutex<Option<Ended>>> = Arc::default();
    let (upstream_saw, answer) = (seen.clone(), case.answer.clone());
    let head_only = case.method == "HEAD";
    let upstream = Raw::new(move |mut line| {
        let (seen, answer) = (upstream_saw.clone(), answer.clone());
        async move {
            let Some(got) = read(&mut line, false).await else {
                return;
            };
            *seen.lock().expect("seen") = Some(got.clone());
            if !got.whole {
                return;
            }
            let (status, said) = answer.unwrap_or_else(|| {
                let lines = got.head.lines().filter_map(|line| line.split_once(": "));
                let of_body = lines.filter_map(|(name, value)| match &*name.to_ascii_lowercase() {
                    "content-type" => Some(("content-type", value.to_owned())),
                    "content-encoding" => Some(("content-encoding", value.to_owned())),
                    _ => None,
                });
                let said = Said {
                    lines: of_body.collect(),
                    body: got.body,
                };
                match said.lines.iter().any(|(name, _)| *name == "content-type") {
                    true => (200, said),
                    false => (200, said.line("content-type", "application/json")),
                }
            });
            let length = match status {
                304 => String::new(),
                _ => format!("content-length: {}\r\n", said.body.len()),
            };
            let head = format!("HTTP/1.1 {status} x\r\n{}{length}\r\n", said.written());
            line.say(head.as_bytes()).await;
            if !head_only && status != 304 {
                line.say(&said.body).await;
            }
            while line.more().await {}
        }
    })
    .await;
    let mut setup = Setup::before(upstream.address).policy(POLICY);
    setup.limits = limits();
    setup.source = Some(Arc::new(Keys::default()));
    let agent = setup.start().await;
    let mut line = agent.line().await;
    let request = &case.request;
    let length = match request.body.is_empty() && case.method == "GET" {
        true => String::new(),
        false => format!("content-length: {}\r\n", request.body.len()),
    };
    let head = format!(
        "{} {} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n{}{length}\r\n",
        case.method,
        case.target,
        request.written()
    );
    line.say(&[head.as_bytes(), &request.body].concat()).await;
    let client = read(&mut line, head_only).await.expect("an answer");
    eventually("on record", || agent.records.all().len() == 1).await;
    let upstream = seen.lock().expect("seen").clone();
    Carried {
        upstream,
        client,
        record: agent.records.all()[0].clone(),
    }
}

fn rehearsed(case: &Case, policies: &Policies) -> Passage {
    let mut head = http::Request::new(());
    *head.method_mut() = Method::from_bytes(case.method.as_bytes()).expect("a method");
    *head.uri_mut() = case.target.parse().expect("a target");
    *head.headers_mut() = case.request.headers();
    let answer = match &case.answer {
        None => Answer::Echo,
        Some((status, said)) => Answer::Given {
            status: StatusCode::from_u16(*status).expect("a status"),
            headers: said.headers(),
            body: match case.method {
                "HEAD" => Vec::new(),
                _ => said.body.clone(),
            },
        },
    };
    let asked = Asked {
        policies,
        head: head.into_parts().0,
        host: "127.0.0.1",
        body: &case.request.body,
        answer: &answer,
        caller: None,
        limits: limits(),
    };
    pass(asked, &Keys::default())
}

fn shown(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes).chars().take(400).collect();
    format!("{} bytes: {text}", bytes.len())
}

fn same_tally(one: &Tally, other: &Tally) -> bool {
    format!("{one:?}") == format!("{other:?}")
}

/// The values under a name in a head off the wire.
fn lines_of(head: &str, name: &str) -> String {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let found = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
    format!("{:?}", found.map(|(_, value)| value).collect::<Vec<_>>())
}

fn lines_in(headers: &HeaderMap, name: &str) -> String {
    let found = headers.get_all(name).iter();
    let text = found.map(|value| value.to_str().expect("text"));
    format!("{:?}", text.collect::<Vec<_>>())
}

/// What differs.
fn compare(case: &Case, carried: &Carried, passage: &Passage) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut say = |what: &str, agent: String, rehearsal: String| {
        if agent != rehearsal {
            wrong.push(format!(
                "{what}:\n  agent     {agent}\n  rehearsal {rehearsal}"
            ));
        }
    };
    let record = &carried.record;
    let code = match record.outcome {
        Outcome::Refused { code, .. } => Some(code),
        _ => None,
    };
    let refused = passage.refused.as_ref().map(|error| error.code().word());
    let cut = passage.cut.as_ref().map(|error| error.code().word());
    say(
        "code",
        format!("{code:?}"),
        format!("{:?}", refused.or(cut)),
    );
    say(
        "route",
        format!("{:?}", record.route),
        format!("{:?}", passage.route),
    );
    say(
        "would refuse",
        format!("{:?}", record.observed),
        format!("{:?}", passage.would_refuse),
    );
    say(
        "unread",
        format!("{:?}", record.unread),
        format!("{:?}", passage.unread),
    );
    if !same_tally(&record.request, &passage.request) {
        let (one, other) = (&record.request, &passage.request);
        say("request", format!("{one:?}"), format!("{other:?}"));
    }
    if !same_tally(&record.response, &passage.response) {
        let (one, other) = (&record.response, &passage.response);
        say("response", format!("{one:?}"), format!("{other:?}"));
    }
    let none = || "nothing".to_owned();
    let upstream = carried.upstream.as_ref();
    match (upstream, &passage.upstream, refused) {
        // It may have been cut off before or after its first bytes went on.
        (seen, Some(rehearsed), Some(_)) => {
            let seen = seen.map(|seen| (&*seen.body, seen.whole));
            let (body, whole) = seen.unwrap_or((&[], false));
            if whole || !rehearsed.starts_with(body) {
                say("upstream, cut off", shown(body), shown(rehearsed));
            }
        }
        (seen, rehearsed, _) => {
            let seen = seen.map(|seen| shown(&seen.body)).unwrap_or_else(none);
            let rehearsed = rehearsed.as_deref().map_or_else(none, shown);
            say("upstream", seen, rehearsed);
        }
    }
    for name in ["x-ssn", "content-encoding", "content-type"] {
        let (Some(seen), true) = (upstream, passage.upstream.is_some()) else {
            continue;
        };
        let rehearsed = &passage.upstream_head.headers;
        say(name, lines_of(&seen.head, name), lines_in(rehearsed, name));
    }
    if let (Some(seen), true) = (upstream, passage.upstream.is_some()) {
        let target = seen.head.split(' ').nth(1).expect("a target");
        let query = target.split_once('?').map(|(_, query)| query);
        let rehearsed = passage.upstream_head.query.as_deref();
        say("query", format!("{query:?}"), format!("{rehearsed:?}"));
    }
    let status = carried.client.head.split(' ').nth(1).expect("a status");
    let rehearsed = match (&passage.refused, &case.answer) {
        (Some(error), _) => error.code().status().as_u16(),
        // Nothing changes it on its way back.
        (None, Some((status, _))) => *status,
        (None, None) => 200,
    };
    say("status", status.to_owned(), rehearsed.to_string());
    if refused.is_none() {
        for name in [
            "x-back",
            "content-encoding",
            "content-type",
            "location",
            "etag",
            "content-range",
        ] {
            let came = lines_of(&carried.client.head, name);
            let rehearsed = lines_in(&passage.client_head.headers, name);
            say(&format!("{name} back"), came, rehearsed);
        }
    }
    match (refused, &passage.client) {
        (Some(word), _) => {
            let said = String::from_utf8_lossy(&carried.client.body);
            if !said.contains(&format!("\"code\":\"{word}\"")) {
                say("answer", said.into_owned(), word.to_owned());
            }
        }
        (None, None) => say("client", shown(&carried.client.body), none()),
        (None, Some(rehearsed)) => {
            say("client", shown(&carried.client.body), shown(rehearsed));
            let whole = carried.client.whole;
            say(
                "cut off",
                format!("{}", !whole),
                format!("{}", cut.is_some()),
            );
        }
    }
    wrong
}

#[tokio::test]
async fn the_agent_does_what_the_rehearsal_says() {
    let policies = policies();
    let cases = cases();
    let (mut wrong, mut seen) = (Vec::new(), Vec::new());
    for case in &cases {
        let carried = through_the_agent(case).await;
        let passage = rehearsed(case, &policies);
        for what in compare(case, &carried, &passage) {
            wrong.push(format!("{}: {what}", case.name));
        }
        let refused = passage.refused.or(passage.cut).map(|e| e.code().word());
        seen.push(refused.or(passage.unread).unwrap_or("passed"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The table reaches what it is for.
    seen.sort_unstable();
    seen.dedup();
    assert!(cases.len() >= 90 && seen.len() >= 22, "{seen:?}");
}
