//! Filters in memory, with the fake KMS.

use super::records::{Line, Records};
use super::*;
use crate::arena::Arena;
use crate::keys::{Binding, KeySettings, Settings, TERMS};
use crate::kms::fake::{self, Fake};
use crate::kms::{self, Kms, os_random};
use crate::policy::{Policies, Policy};
use std::sync::Arc;

const POLICY: &str = "\
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: p}
classes: {ssn: {key: k}, pan: {key: k}}
routes:
  - name: r
    match: {path: \"/c/{id}\"}
    request:
      stray: reject
      rules: [{at: $.ssn, seal: ssn, bind: {record: {path: id}}}, {at: $.pan, seal: pan}, {at: $.in, open: pan}]
    response:
      rules: [{at: $.ssn, open: ssn, bind: {record: {path: id}}}, {at: $.pan, open: pan}]
";

struct Place {
    fake: Arc<Fake>,
    keys: Keys,
    policies: Policies,
}

impl Place {
    fn new() -> Place {
        let fake = Arc::new(Fake::new("fake"));
        let policy = Policy::load(POLICY, "p.yaml", None).expect("a policy");
        Place {
            keys: keys(&fake),
            fake,
            policies: Policies::new(vec![policy]).expect("policies"),
        }
    }

    fn job(&self, verb: Verb, side: Side, on_fault: OnFault) -> Job {
        let path = crate::path::Path::parse("$.id").expect("a path");
        let given = Given {
            binds: vec![("record".to_owned(), path)],
            ..Given::default()
        };
        self.fit(verb, side, &given, on_fault).expect("it fits")
    }

    fn fit(&self, verb: Verb, side: Side, given: &Given, on_fault: OnFault) -> Result<Job, Unfit> {
        let route = self.policies.routes().next().expect("a route");
        Job::new(verb, route, side, given, on_fault, (2_000, 4))
    }

    async fn seal(&self, input: &str) -> String {
        let job = self.job(Verb::Seal, Side::Request, OnFault::Stop);
        let (done, out, _) = self.run(&job, input).await;
        done.expect("sealed");
        out
    }

    async fn run(&self, job: &Job, input: &str) -> (Done, String, Vec<(u64, &'static str)>) {
        self.run_with(&self.keys, job, input).await
    }

    async fn run_with(
        &self,
        keys: &Keys,
        job: &Job,
        input: &str,
    ) -> (Done, String, Vec<(u64, &'static str)>) {
        let (mut out, mut noted) = (Vec::new(), Noted::default());
        let done = run(job, keys, false, input.as_bytes(), &mut out, &mut noted).await;
        (done, String::from_utf8(out).expect("UTF-8"), noted.0)
    }
}

type Done = Result<Summary, (Summary, Stop)>;

#[derive(Default)]
struct Noted(Vec<(u64, &'static str)>);

impl Watch for Noted {
    fn skipped(&mut self, line: u64, code: &'static str) -> io::Result<()> {
        self.0.push((line, code));
        Ok(())
    }
    fn progress(&mut self, _: &Summary) {}
}

fn keys(fake: &Arc<Fake>) -> Keys {
    let binding = Binding {
        kms: Arc::clone(fake) as Arc<dyn Kms>,
        kek: "k".to_owned(),
    };
    let key = KeySettings {
        name: "k".into(),
        seal_with: vec![binding],
        need: crate::keys::Need::Any,
        open_also: Vec::new(),
        terms: TERMS,
    };
    Keys::new(Settings::new(
        vec![key],
        Arena::new().expect("memory"),
        os_random(),
    ))
    .expect("a key room")
}

const LINES: &str = "{\"id\":1,\"ssn\": 7}\r\n\n  {\"pan\":\"4\\u0031\",\"id\":\"b\"}\n{\"id\":null}\n7\n{\"id\":3,\"ssn\":{}}";

#[tokio::test]
async fn what_is_sealed_opens_to_the_same_bytes() {
    let place = Place::new();
    let sealed = place.seal(LINES).await;
    assert_eq!(sealed.matches("\"fv1~").count(), 3, "{sealed}");
    // Sealed again, all tokens stay.
    assert_eq!(place.seal(&sealed).await, sealed);
    let job = place.job(Verb::Open, Side::Response, OnFault::Stop);
    let (done, out, _) = place.run(&job, &sealed).await;
    let summary = done.expect("opened");
    assert_eq!(out, LINES);
    assert_eq!((summary.records, summary.written, summary.line), (5, 5, 6));
    assert_eq!((summary.opened["ssn"], summary.opened["pan"]), (2, 1));
    assert_eq!(summary.bytes, sealed.len() as u64);
}

#[tokio::test]
async fn an_input_of_several_lines_may_be_one_document() {
    let place = Place::new();
    let document = "\n{\"id\": 1,\n \"ssn\": \"x\"\n}\n\n";
    let sealed = place.seal(document).await;
    assert!(
        sealed.starts_with("\n{\"id\": 1,\n \"ssn\": \"fv1~") && sealed.ends_with("~\"\n}\n\n")
    );
    let job = place.job(Verb::Open, Side::Response, OnFault::Stop);
    let (done, out, _) = place.run(&job, &sealed).await;
    assert_eq!((done.is_ok(), out.as_str()), (true, document));
    let long = sealed + &" \n".repeat(1_000);
    let (done, out, _) = place.run(&job, &long).await;
    let Err((
        _,
        Stop::Record {
            line: 2,
            fault,
            document: true,
        },
    )) = done
    else {
        panic!("{done:?}")
    };
    assert_eq!((fault.code, out.as_str()), ("body-too-large", "\n"));
    assert_eq!(place.seal("").await, "");
    assert_eq!(place.seal("\n \n").await, "\n \n");
}

/// One that never comes about here is none: without an answer of the KMS, nothing goes on.
#[test]
fn every_reason_of_a_key_has_a_code() {
    use crate::dek::Unopened::*;
    for reason in [Foreign, Denied, NotFound, Deleted, OverBudget, Mismatch] {
        let code = Fault::unopened(reason.word()).code;
        assert_eq!(code, format!("unopened-{}", reason.word()));
    }
}

/// A numeric id is bound as the path of a request would tell it: as text.
#[tokio::test]
async fn a_bind_from_the_record_is_that_of_the_path() {
    let place = Place::new();
    let sealed = place.seal("{\"id\":42,\"ssn\":1}").await;
    let given = |path: &str| Given {
        path: Some(path.to_owned()),
        ..Given::default()
    };
    let job = |path| place.fit(Verb::Open, Side::Response, &given(path), OnFault::Stop);
    let (done, out, _) = place.run(&job("/c/42").expect("it fits"), &sealed).await;
    assert_eq!(
        (done.is_ok(), out.as_str()),
        (true, "{\"id\":42,\"ssn\":1}")
    );
    let (done, out, _) = place.run(&job("/c/43").expect("it fits"), &sealed).await;
    let Err((_, Stop::Record { line: 1, fault, .. })) = done else {
        panic!("{done:?}")
    };
    assert_eq!((fault.code, out.as_str()), ("unopened-refused", ""));
    assert!(job("/d/42").is_err());
}

#[tokio::test]
async fn nothing_that_cannot_be_sealed_is_written() {
    let place = Place::new();
    let token = place.seal("{\"id\":1,\"ssn\":1}").await;
    let stray = token.replace("\"ssn\"", "\"name\"");
    let long = format!("{{\"pan\":\"{}\"}}", "x".repeat(3_000));
    let input = format!(
        "{{\"id\":1,\"ssn\":1}}\n{{\"pan\":1\n{{\"ssn\":2}}\n{long}\n{stray}\n{{\"pan\":3}}\n"
    );
    let job = place.job(Verb::Seal, Side::Request, OnFault::Skip);
    let (done, out, noted) = place.run(&job, &input).await;
    let summary = done.expect("done");
    assert_eq!(
        (summary.records, summary.written, summary.skipped),
        (6, 2, 4)
    );
    assert_eq!(out.lines().count(), 2);
    assert_eq!(
        noted,
        [
            (2, "not-json"),
            (3, "bind"),
            (4, "body-too-large"),
            (5, "stray")
        ]
    );
    let job = place.job(Verb::Seal, Side::Request, OnFault::Stop);
    let (done, out, _) = place.run(&job, &input).await;
    let Err((
        summary,
        Stop::Record {
            line: 2,
            fault,
            document: false,
        },
    )) = done
    else {
        panic!("{done:?}")
    };
    assert_eq!((summary.line, fault.code), (1, "not-json"));
    assert_eq!(out.lines().count(), 1);
}

#[tokio::test]
async fn opening_may_leave_what_does_not_open() {
    let place = Place::new();
    let input = format!("{{\"a\"\n{{\"pan\":\"{}\"}}\n{{\"id\":1}}\n", "fv1~AQ~");
    let sealed = place.seal("{\"pan\":1}\n").await;
    let job = place.job(Verb::Open, Side::Response, OnFault::Leave);
    let (mut out, mut noted) = (Vec::new(), Noted::default());
    let all = input.clone() + &sealed + &"x".repeat(5_000) + "\n" + &sealed;
    let done = run(
        &job,
        &place.keys,
        true,
        all.as_bytes(),
        &mut out,
        &mut noted,
    )
    .await;
    let summary = done.expect("done");
    let expected = input + "{\"pan\":1}\n" + &"x".repeat(5_000) + "\n{\"pan\":1}\n";
    assert_eq!(String::from_utf8_lossy(&out), expected);
    assert_eq!(
        (summary.records, summary.left, summary.unopened["malformed"]),
        (6, 3, 1)
    );
}

/// The policy's word for answers is not for what is stored: `leave` writes tokens as they were.
#[tokio::test]
async fn what_is_left_keeps_its_tokens_whatever_the_policy_puts_in_their_place() {
    for word in ["\"null\"", "reject"] {
        let response = format!("response:\n      unopened: {word}\n");
        let text = POLICY.replace("response:\n", &response);
        let policy = Policy::load(&text, "p.yaml", None).expect("a policy");
        let place = Place {
            policies: Policies::new(vec![policy]).expect("policies"),
            ..Place::new()
        };
        let job = place.job(Verb::Open, Side::Response, OnFault::Leave);
        let input = "{\"pan\":\"fv1~AQ~\"}\n";
        let (done, out, _) = place.run(&job, input).await;
        assert_eq!(out, input, "{word}");
        assert_eq!(done.expect("done").left, 1, "{word}");
    }
}

/// An opening rule of the same side is not for sealing: a token there stays one.
#[tokio::test]
async fn sealing_opens_nothing() {
    let place = Place::new();
    let token = place.seal("{\"pan\":1}").await.replace("\"pan\"", "\"in\"");
    let job = place.job(Verb::Seal, Side::Request, OnFault::Stop);
    let (done, out, _) = place.run(&job, &token).await;
    assert!(matches!(done, Err((_, Stop::Record { .. }))), "{done:?}");
    assert_eq!(out, "");
    let job = place
        .fit(Verb::Open, Side::Request, &Given::default(), OnFault::Stop)
        .expect("it fits");
    let (done, out, _) = place.run(&job, &token).await;
    assert_eq!((done.is_ok(), out.as_str()), (true, "{\"in\":1}"));
    let unfit = place.fit(Verb::Seal, Side::Response, &Given::default(), OnFault::Stop);
    assert!(unfit.is_err_and(|unfit| unfit.what.contains("no rule that seals in responses")));
}

#[tokio::test]
async fn a_batch_asks_the_kms_once() {
    let place = Place::new();
    let lines: String = (0..3_000)
        .map(|id| format!("{{\"id\":{id},\"ssn\":1}}\n"))
        .collect();
    let sealed = place.seal(&lines).await;
    assert_eq!(place.fake.count(fake::Verb::Wrap), 1);
    let elsewhere = keys(&place.fake);
    let job = place.job(Verb::Open, Side::Response, OnFault::Stop);
    let (done, out, _) = place.run_with(&elsewhere, &job, &sealed).await;
    assert!(done.is_ok() && out == lines);
    assert_eq!(place.fake.count(fake::Verb::Unwrap), 1);
}

/// More data keys than one fetch may ask for (here 4) take several.
#[tokio::test]
async fn records_under_many_keys_open() {
    let place = Place::new();
    let mut sealed = String::new();
    for _ in 0..11 {
        let job = place.job(Verb::Seal, Side::Request, OnFault::Stop);
        let (_, out, _) = place
            .run_with(&keys(&place.fake), &job, "{\"pan\":1}\n")
            .await;
        sealed += &out;
    }
    let job = place.job(Verb::Open, Side::Response, OnFault::Stop);
    let (done, out, _) = place.run(&job, &sealed).await;
    assert_eq!((done.is_ok(), out), (true, "{\"pan\":1}\n".repeat(11)));
}

#[tokio::test]
async fn without_keys_it_ends_whatever_faults_may_do() {
    let place = Place::new();
    let sealed = place.seal("{\"pan\":1}\n").await;
    place.fake.fail(kms::Failure::Unreachable);
    for (verb, side, on_fault, input) in [
        (
            Verb::Seal,
            Side::Request,
            OnFault::Skip,
            "{}\n{\"pan\":1}\n",
        ),
        (
            Verb::Open,
            Side::Response,
            OnFault::Leave,
            &format!("{{}}\n{sealed}"),
        ),
    ] {
        let job = place.job(verb, side, on_fault);
        let (done, out, noted) = place.run_with(&keys(&place.fake), &job, input).await;
        let Err((_, Stop::Keys { error, .. })) = done else {
            panic!("{done:?}")
        };
        assert_eq!(error.code(), Code::KeysUnreachable);
        assert!(!out.contains("pan") && noted.is_empty(), "{out}");
    }
}

#[test]
fn lines_are_bounded() {
    let input = b"abc\r\nabcd\n\nabcdefgh\nabc";
    let mut records = Records::new(&input[..], 3);
    let mut seen = Vec::new();
    loop {
        let mut text = Vec::new();
        let line = records.next(&mut text).expect("memory");
        if line == Line::End {
            break;
        }
        if line == Line::TooLong {
            let pieces = std::iter::from_fn(|| Some(records.piece(false).expect("memory")));
            text.extend(pieces.take_while(|piece| !piece.is_empty()).flatten());
        }
        seen.push((
            records.line(),
            line,
            String::from_utf8(text).expect("UTF-8"),
        ));
    }
    let line = |at, what, text: &str| (at, what, text.to_owned());
    assert_eq!(
        seen,
        [
            line(1, Line::Whole, "abc\r\n"),
            line(2, Line::TooLong, "abcd\n"),
            line(3, Line::Whole, "\n"),
            line(4, Line::TooLong, "abcdefgh\n"),
            line(5, Line::Whole, "abc"),
        ]
    );
    assert_eq!(records.bytes(), input.len() as u64);
}

/// Who asks decides how much is shown, by the rules' own names.
#[tokio::test]
async fn a_caller_sees_what_the_rules_let_it_see() {
    const REVEALING: &str = "\
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: p}
caller: {header: X-Caller}
classes: {pan: {key: k, mask: {keep_last: 4}}}
routes:
  - name: r
    match: {}
    request:
      rules: [{at: $.pan, seal: pan}]
    response:
      rules: [{at: $.pan, open: pan, reveal: {default: masked, callers: {billing: full, reporting: none}}}]
";
    let mut place = Place::new();
    let policy = Policy::load(REVEALING, "p.yaml", None).expect("a policy");
    place.policies = Policies::new(vec![policy]).expect("policies");
    let given = |caller: Option<&str>| Given {
        caller: caller.map(str::to_owned),
        ..Given::default()
    };
    let job = place.fit(Verb::Seal, Side::Request, &given(None), OnFault::Stop);
    let plain = "{\"pan\":\"4111111111111111\"}\n";
    let (done, sealed, _) = place.run(&job.expect("it fits"), plain).await;
    done.expect("sealed");
    for (caller, shown) in [
        (None, "{\"pan\":\"••••1111\"}\n"),
        (Some("billing"), plain),
        // The token stays, which `--on-error leave` lets pass.
        (Some("reporting"), &*sealed),
    ] {
        let job = place.fit(Verb::Open, Side::Response, &given(caller), OnFault::Leave);
        let (done, out, _) = place.run(&job.expect("it fits"), &sealed).await;
        assert!(done.is_ok(), "{caller:?}");
        assert_eq!(out, shown, "{caller:?}");
    }
    let unknown = place.fit(
        Verb::Open,
        Side::Response,
        &given(Some("biling")),
        OnFault::Stop,
    );
    let unfit = unknown.err().expect("nobody of that name");
    assert!(
        unfit.what.contains("names the caller `biling`"),
        "{unfit:?}"
    );
    assert!(unfit.hint.contains("billing"), "{unfit:?}");
}
