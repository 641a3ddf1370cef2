//! The record of one access: opened with the request, committed once before the answer is released; where a body is rewritten
//! while it flows, when the answer is over. Dropped, it reads as aborted: the client went away, or the agent was stopped.
//!
//! It takes names, counts, durations and reason words; never a path, a query, a value or a user's id.

mod line;
mod slip;

pub use slip::Slip;

use crate::transform::Tally;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use std::fmt;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Names one request in answers, logs and records: 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RequestId(u64);

impl RequestId {
    /// The next one of this process. Unique among some billions of requests of all agents.
    fn next() -> RequestId {
        static START: LazyLock<u64> = LazyLock::new(|| {
            let mut bytes = [0; 8];
            crate::entropy::fill(&mut bytes);
            u64::from_le_bytes(bytes)
        });
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // An odd multiplier walks through all 2^64 numbers, so that neighbours do not look alike.
        let count = COUNT.fetch_add(1, Relaxed);
        RequestId(START.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

impl From<u64> for RequestId {
    fn from(id: u64) -> RequestId {
        RequestId(id)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The answer's header that says what was done: an RFC 9651 dictionary ([`Record::result`]), or `refused=CODE`.
pub const RESULT: HeaderName = HeaderName::from_static("fieldveil-result");

/// Why the agent refused something, in words.
#[derive(Clone, Copy, Debug)]
pub struct Reason<'r> {
    /// The stable code.
    pub code: &'static str,
    /// Whose fault it was.
    pub fault: &'static str,
    /// For the log alone; may be empty.
    pub note: &'r str,
}

/// How an access ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// The upstream's answer is released.
    Answered,
    /// The agent answered, with this code; whose fault it was.
    Refused {
        /// The stable word of [`crate::error::TABLE`].
        code: &'static str,
        /// The word of a [`crate::error::Fault`].
        fault: &'static str,
    },
    /// No answer: the client hung up, or the agent stopped.
    Aborted,
}

impl Outcome {
    /// `answered`, `aborted`, or the code's word.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Refused { code, .. } => code,
            Outcome::Aborted => "aborted",
        }
    }
}

/// Request or response.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// From the client to the upstream.
    Request,
    /// From the upstream back to the client.
    Response,
}

/// Who asks, as far as the policy knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    /// The policy does not ask, or the request does not say.
    #[default]
    Unknown,
    /// Somebody whom no rule of the route names: what that one is called stays out of the record.
    Unlisted,
    /// The name in the policy.
    Listed(Arc<str>),
}

impl Caller {
    /// The name, `unlisted`, or nothing.
    pub fn word(&self) -> Option<&str> {
        match self {
            Caller::Unknown => None,
            Caller::Unlisted => Some("unlisted"),
            Caller::Listed(name) => Some(name),
        }
    }
}

/// What an access came to, when it is over.
#[derive(Debug)]
pub struct Entry {
    /// Also in the agent's own answers, as `request_id`.
    pub id: RequestId,
    /// The listener's name in the settings.
    pub listener: Arc<str>,
    /// The version of the policies that it was handled under, from its head to its answer.
    pub policy: Option<Arc<str>>,
    /// `None`: no route took it.
    pub route: Option<Arc<str>>,
    /// As the client sent it: any token of RFC 9110, so no label for a metric. `None`: its head is none.
    pub method: Option<Method>,
    /// No route took it, though a policy names its host.
    pub unmatched: bool,
    /// Of the answer; `None` when there was none.
    pub status: Option<u16>,
    /// [`Outcome::Aborted`] until the record is committed.
    pub outcome: Outcome,
    /// What the route would have refused, had it not only observed.
    pub observed: Option<&'static str>,
    /// The route only observes: what the tallies count was not done.
    pub observing: bool,
    /// Who asks, where the policy says how that is known. Never a label of a metric.
    pub caller: Caller,
    /// What was done with the request's body; zero where it was not rewritten.
    pub request: Tally,
    /// What was done with the answer's body; likewise.
    pub response: Tally,
    /// Why an answer passed without being looked at.
    pub unread: Option<&'static str>,
    /// Records of streams that passed sealed, by reason word.
    pub unread_records: Vec<(&'static str, u32)>,
    /// Bytes of the bodies, as far as they were known when the answer was released.
    pub request_bytes: Option<u64>,
    /// As `request_bytes`; of the agent's own answer, where it gave one.
    pub response_bytes: Option<u64>,
    /// From the head's arrival at the road to the answer's release.
    pub total: Duration,
    /// `total` without the time spent waiting for the upstream and for the client's own bytes: what the agent added.
    pub added: Duration,
}

/// Where entries go besides the log: metrics, and whoever counts. Called once for each access, in line: it must
/// neither block nor fail.
pub trait Observe: Send + Sync {
    /// Called when the access is over, before its answer is released.
    fn observe(&self, entry: &Entry);
    /// An answer that had been released did not come to its end: by whose word. Beside [`Observe::observe`], before or after it.
    fn cut_off(&self, _listener: &Arc<str>, _route: Option<&Arc<str>>, _why: &'static str) {}
    /// Called when a tunnel has ended, or what was to become of it is known.
    fn passed(&self, _: &Passed) {}
}

/// What became of a connection behind a CONNECT, or of one that was redirected here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Of the access that opened it; a redirected connection has none.
    pub id: Option<RequestId>,
    /// The listener's name in the settings.
    pub listener: Arc<str>,
    /// `tunnelled` (bytes went either way, unseen), `intercepted` (requests within it are accesses of their own), or why it was given up: a word of
    /// this program.
    pub outcome: &'static str,
    /// Bytes from the client; of a tunnel alone.
    pub sent_bytes: u64,
    /// Bytes to the client; of a tunnel alone.
    pub received_bytes: u64,
    /// How long it was open.
    pub open: Duration,
}

impl Passed {
    /// One line in the log.
    pub fn log(&self) {
        tracing::info!(
            target: "fieldveil::access",
            request_id = self.id.map(tracing::field::display),
            listener = &*self.listener,
            outcome = self.outcome,
            sent_bytes = self.sent_bytes,
            received_bytes = self.received_bytes,
            open_ms = u64::try_from(self.open.as_millis()).unwrap_or(u64::MAX),
            "connection"
        );
    }
}

/// Observes nothing.
impl Observe for () {
    fn observe(&self, _: &Entry) {}
}

/// The open record of one access. It moves along with the request, so it is but a pointer.
pub struct Record(Box<Open>);

struct Open {
    entry: Entry,
    note: String,
    begun: Instant,
    waited: Duration,
    sink: Arc<dyn Observe>,
    stage: Stage,
    /// Of bodies that are rewritten while they flow.
    slips: Vec<(Side, Slip)>,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// The answer's head is released, and its body streams. `committed`: what was done is known.
    Released {
        committed: bool,
    },
    Over,
}

/// Why an answer was cut off, where it was the client that went away.
const ABORTED: &str = "aborted";

impl Record {
    /// Opens a record, whose clock starts now. `listener`: its name in the settings. The entry goes to `sink` once,
    /// when the record is committed or dropped.
    pub fn open(listener: Arc<str>, method: Option<Method>, sink: Arc<dyn Observe>) -> Record {
        let entry = Entry {
            id: RequestId::next(),
            listener,
            policy: None,
            route: None,
            unmatched: false,
            method,
            status: None,
            outcome: Outcome::Aborted,
            observed: None,
            observing: false,
            caller: Caller::Unknown,
            request: Tally::default(),
            response: Tally::default(),
            unread: None,
            unread_records: Vec::new(),
            request_bytes: None,
            response_bytes: None,
            total: Duration::ZERO,
            added: Duration::ZERO,
        };
        Record(Box::new(Open {
            entry,
            note: String::new(),
            begun: Instant::now(),
            waited: Duration::ZERO,
            sink,
            stage: Stage::Open,
            slips: Vec::new(),
        }))
    }

    /// The id for the answer and the log.
    pub fn id(&self) -> RequestId {
        self.0.entry.id
    }
    /// The version of the policies that hold for this access.
    pub fn policy(&mut self, version: &Arc<str>) {
        self.0.entry.policy = Some(version.clone());
    }
    /// A route takes the request; `observing`: it only counts.
    pub fn route(&mut self, name: &Arc<str>, observing: bool) {
        self.0.entry.route = Some(name.clone());
        self.0.entry.observing = observing;
    }
    /// Who asks: the name in the policy, or somebody whom it does not name.
    pub fn caller(&mut self, listed: Option<Arc<str>>) {
        self.0.entry.caller = listed.map_or(Caller::Unlisted, Caller::Listed);
    }
    /// No route takes a request to a host that a policy names.
    pub fn unmatched(&mut self) {
        self.0.entry.unmatched = true;
    }
    /// How long the request's body is, in bytes; `None` while that is not known.
    pub fn request_bytes(&mut self, bytes: Option<u64>) {
        self.0.entry.request_bytes = bytes;
    }
    /// What was done with one side's body. Once for each side: it replaces what was noted before.
    pub fn tally(&mut self, side: Side, tally: Tally) {
        match side {
            Side::Request => self.0.entry.request = tally,
            Side::Response => self.0.entry.response = tally,
        }
    }
    /// An answer passes without being looked at: why.
    pub fn unread(&mut self, why: &'static str) {
        self.0.entry.unread = Some(why);
    }
    /// An observing route would have refused this. The first reason stays: with it the access would have ended.
    pub fn would_refuse(&mut self, reason: Reason<'_>) {
        if self.0.entry.observed.is_none() {
            self.0.entry.observed = Some(reason.code);
            reason.note.clone_into(&mut self.0.note);
        }
    }
    /// Waits for something that is not the agent's doing. (Pinned by the caller: a future that takes another one by value has room for two.)
    pub async fn waiting<F: Future>(&mut self, what: Pin<&mut F>) -> F::Output {
        let begun = Instant::now();
        let output = what.await;
        self.0.waited += begun.elapsed();
        output
    }

    /// This side's body will be rewritten while it flows, and notes here what was done.
    pub fn flows(&mut self, side: Side) -> Slip {
        let slip = Slip::default();
        self.0.slips.push((side, slip.clone()));
        slip
    }

    /// The answer is the upstream's, and is about to be released.
    pub fn answered(mut self, status: u16, bytes: Option<u64>) {
        self.0.entry.outcome = Outcome::Answered;
        self.time(Some(status), bytes);
        self.commit();
        self.0.stage = Stage::Over;
    }
    /// As [`Record::answered`], where the answer's body streams: [`Record::whole`] or [`Record::cut`] follows, or the drop, which
    /// means that the client went away.
    pub fn released(&mut self, status: u16, bytes: Option<u64>) {
        self.time(Some(status), bytes);
        let committed = self.0.slips.is_empty();
        if committed {
            self.0.entry.outcome = Outcome::Answered;
            self.commit();
        }
        self.0.stage = Stage::Released { committed };
    }
    /// The answer that streamed came to its end.
    pub fn whole(mut self) {
        if self.0.stage != (Stage::Released { committed: true }) {
            self.0.entry.outcome = Outcome::Answered;
            self.commit();
        }
        self.0.stage = Stage::Over;
    }
    /// The answer that streamed broke off.
    pub fn cut(mut self, reason: Reason<'_>) {
        self.break_off(Some(reason));
    }
    /// The answer is the agent's own, and is about to be released.
    pub fn refused(mut self, reason: Reason<'_>, status: u16, bytes: Option<u64>) {
        self.0.entry.outcome = Outcome::Refused {
            code: reason.code,
            fault: reason.fault,
        };
        reason.note.clone_into(&mut self.0.note);
        self.time(Some(status), bytes);
        self.commit();
        self.0.stage = Stage::Over;
    }

    /// The access is over but for its body.
    fn time(&mut self, status: Option<u16>, bytes: Option<u64>) {
        self.0.entry.status = status;
        self.0.entry.response_bytes = bytes;
        self.0.entry.total = self.0.begun.elapsed();
        self.0.entry.added = self.0.entry.total.saturating_sub(self.0.waited);
    }

    fn break_off(&mut self, reason: Option<Reason<'_>>) {
        let mut why = reason.map_or(ABORTED, |reason| reason.code);
        if self.0.stage != (Stage::Released { committed: true }) {
            if let Some(reason) = reason {
                let Reason { code, fault, note } = reason;
                self.0.entry.outcome = Outcome::Refused { code, fault };
                note.clone_into(&mut self.0.note);
            }
            self.commit();
            if let Outcome::Refused { code, .. } = self.0.entry.outcome {
                why = code;
            }
        }
        if let Stage::Released { .. } = self.0.stage {
            let (listener, route) = (&self.0.entry.listener, self.0.entry.route.as_ref());
            tracing::info!(
                target: "fieldveil::access",
                request_id = %self.0.entry.id,
                listener = &**listener,
                route = route.map(|route| &**route),
                reason = why,
                "answer cut off"
            );
            self.0.sink.cut_off(listener, route, why);
        }
        self.0.stage = Stage::Over;
    }

    fn commit(&mut self) {
        for (side, slip) in std::mem::take(&mut self.0.slips) {
            let notes = std::mem::take(&mut *slip.notes());
            let (tally, bytes) = match side {
                Side::Request => (&mut self.0.entry.request, &mut self.0.entry.request_bytes),
                Side::Response => (&mut self.0.entry.response, &mut self.0.entry.response_bytes),
            };
            tally.add(&notes.tally);
            *bytes = Some(notes.bytes);
            let unread = notes.unread.first().map(|(why, _)| *why);
            self.0.entry.unread = self.0.entry.unread.or(unread);
            self.0.entry.unread_records.extend(notes.unread);
            if let Some(observed) = notes.observed {
                self.would_refuse(Reason {
                    code: observed.code,
                    fault: observed.fault,
                    note: &observed.note,
                });
            }
            // Whatever came of it: it was the agent that ended the body.
            if let Some(refused) = notes.refused {
                let (code, fault) = (refused.code, refused.fault);
                self.0.entry.outcome = Outcome::Refused { code, fault };
                self.0.note = refused.note;
            }
        }
        line::log(&self.0.entry, &self.0.note);
        self.0.sink.observe(&self.0.entry);
    }

    /// What `Fieldveil-Result` says of this access (an RFC 9651 dictionary). `None`: no route took the request.
    pub fn result(&self) -> Option<HeaderValue> {
        self.0.entry.route.as_ref()?;
        let (request, response) = (&self.0.entry.request, &self.0.entry.response);
        let both = |of: fn(&Tally) -> u32| u64::from(of(request)) + u64::from(of(response));
        // Of a side that streams, nothing is known yet: no count is nought.
        let whole = self.0.slips.is_empty();
        let counts: [(&str, u64, bool); 9] = [
            ("sealed", both(|tally| sum(&tally.sealed)), whole),
            ("opened", both(|tally| sum(&tally.opened)), whole),
            ("masked", both(|tally| sum(&tally.masked)), false),
            ("kept", both(|tally| sum(&tally.kept)), false),
            ("strays", both(|tally| tally.strays), false),
            ("unclaimed", both(|tally| tally.unclaimed), false),
            ("plaintext", both(|tally| tally.plaintext), false),
            ("near-misses", both(|tally| tally.near_misses), false),
            ("nulled", both(|tally| tally.nulled), false),
        ];
        let mut text = String::with_capacity(48);
        let next = |text: &mut String| text.push_str(if text.is_empty() { "" } else { ", " });
        for (name, count, always) in counts {
            if always || count > 0 {
                next(&mut text);
                let _ = write!(text, "{name}={count}");
            }
        }
        let left = both(|tally| tally.left.iter().map(|(_, count)| count).sum());
        if left > 0 {
            next(&mut text);
            let _ = write!(text, "left={left}");
            for (why, count) in request.left.iter().chain(&response.left) {
                let _ = write!(text, ";{why}={count}");
            }
        }
        if let Some(why) = self.0.entry.unread {
            next(&mut text);
            let _ = write!(text, "unread={why}");
        }
        for (side, _) in &self.0.slips {
            next(&mut text);
            text.push_str(match side {
                Side::Request => "request=streamed",
                Side::Response => "response=streamed",
            });
        }
        if self.0.entry.observing {
            text.push_str(", observe");
        }
        if let Some(code) = self.0.entry.observed {
            let _ = write!(text, ";refused={code}");
        }
        HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        match self.0.stage {
            Stage::Open => {
                self.time(None, None);
                self.commit();
            }
            Stage::Released { .. } => self.break_off(None),
            Stage::Over => {}
        }
    }
}

fn sum<K>(counts: &[(K, u32)]) -> u32 {
    counts.iter().map(|(_, count)| count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Class;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Kept(Mutex<Vec<(Outcome, Option<u16>)>>);

    impl Observe for Kept {
        fn observe(&self, entry: &Entry) {
            self.0
                .lock()
                .expect("kept")
                .push((entry.outcome, entry.status));
        }
    }

    const NOT_JSON: Reason<'_> = Reason {
        code: "not-json",
        fault: "client",
        note: "at byte 3",
    };

    pub(super) fn class(name: &str) -> Arc<Class> {
        Arc::new(Class {
            name: name.into(),
            formerly: vec![],
            key: "k".into(),
            suite: crate::dek::Suite::Xaes256Gcm,
            keep_sealed: true,
            mask: None,
        })
    }

    fn record(sink: &Arc<Kept>) -> Record {
        Record::open("out".into(), Some(Method::POST), sink.clone())
    }

    #[test]
    fn a_record_is_written_once_whatever_happens() {
        let sink = Arc::new(Kept::default());
        record(&sink).answered(200, Some(3));
        record(&sink).refused(NOT_JSON, 400, None);
        drop(record(&sink));
        assert_eq!(
            *sink.0.lock().expect("kept"),
            [
                (Outcome::Answered, Some(200)),
                (
                    Outcome::Refused {
                        code: "not-json",
                        fault: "client"
                    },
                    Some(400)
                ),
                (Outcome::Aborted, None)
            ]
        );
    }

    #[track_caller]
    fn check(fill: impl FnOnce(&mut Record), expected: Option<&str>) {
        let mut record = record(&Arc::default());
        fill(&mut record);
        let result = record.result();
        assert_eq!(
            result.as_ref().map(|value| value.to_str().expect("text")),
            expected
        );
    }

    #[test]
    fn the_result_is_a_dictionary_of_counts() {
        check(|_| {}, None);
        check(
            |record| record.route(&"r".into(), false),
            Some("sealed=0, opened=0"),
        );
        check(
            |record| {
                record.route(&"r".into(), true);
                record.flows(Side::Request);
                let opened = Tally {
                    opened: vec![(class("ssn"), 2)],
                    ..Tally::default()
                };
                record.tally(Side::Response, opened);
            },
            Some("opened=2, request=streamed, observe"),
        );
        check(
            |record| {
                record.route(&"r".into(), false);
                record.flows(Side::Request);
                record.flows(Side::Response);
            },
            Some("request=streamed, response=streamed"),
        );
        check(
            |record| {
                record.route(&"r".into(), false);
                let sealed = vec![(class("ssn"), 2), (class("pan"), 1)];
                record.tally(
                    Side::Request,
                    Tally {
                        sealed,
                        strays: 1,
                        ..Tally::default()
                    },
                );
                let left = vec![("foreign", 1), ("denied", 2)];
                let opened = vec![(class("ssn"), 4)];
                record.tally(
                    Side::Response,
                    Tally {
                        opened,
                        left,
                        plaintext: 5,
                        ..Tally::default()
                    },
                );
            },
            Some("sealed=3, opened=4, strays=1, plaintext=5, left=3;foreign=1;denied=2"),
        );
        check(
            |record| {
                record.route(&"r".into(), true);
                record.unread("coding");
                record.would_refuse(NOT_JSON);
            },
            Some("sealed=0, opened=0, unread=coding, observe;refused=not-json"),
        );
    }

    #[test]
    fn the_note_is_that_of_the_code_beside_it() {
        let mut record = record(&Arc::default());
        record.would_refuse(NOT_JSON);
        record.would_refuse(Reason {
            code: "upstream-refused",
            fault: "policy",
            note: "stray at byte 9",
        });
        assert_eq!(record.0.entry.observed, Some("not-json"));
        assert_eq!(record.0.note, "at byte 3");
    }

    #[test]
    fn ids_are_distinct() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| RequestId::next()).collect();
        assert_eq!(ids.len(), 1000);
        assert_eq!(RequestId::from(10).to_string(), "000000000000000a");
    }
}
