//! The one door by which errors leave: whose fault it was, and one mapping from a stable code to a status and an
//! RFC 9457 problem document.
//!
//! Two texts, never mixed: the client reads the fixed `title` and `hint` of the [table](TABLE), the log gets the
//! error's `note`. Neither ever holds a value, key, body, path or query of a request.

use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, PROXY_AUTHENTICATE, RETRY_AFTER,
};
use http::{Response, StatusCode};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::audit::{RESULT, Reason, RequestId};
use bytes::Bytes;

/// Who has to do something about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// The application: its request is refused as it stands.
    Client,
    /// The policy: the request is well-formed, and the policy says no.
    Policy,
    /// The service behind the agent.
    Upstream,
    /// The KMS, or what this agent may do there.
    Keys,
    /// This agent.
    Internal,
}

impl Fault {
    /// The word in logs and in the catalogue.
    pub fn word(self) -> &'static str {
        match self {
            Fault::Client => "client",
            Fault::Policy => "policy",
            Fault::Upstream => "upstream",
            Fault::Keys => "keys",
            Fault::Internal => "internal",
        }
    }
}

/// One line of the [table](TABLE): everything that a client is told about a code.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its number is this line's index in the table.
    pub code: Code,
    /// Stable: programs compare it. Letters, digits and `-` (a token of RFC 9651).
    pub word: &'static str,
    /// From 400 to 599.
    pub status: u16,
    /// Who has to act.
    pub fault: Fault,
    /// What is wrong, the same for every request (the problem document's `title`).
    pub title: &'static str,
    /// What to do about it.
    pub hint: &'static str,
}

/// Without a note.
impl From<&Row> for Reason<'static> {
    fn from(row: &Row) -> Reason<'static> {
        Reason {
            code: row.word,
            fault: row.fault.word(),
            note: "",
        }
    }
}

macro_rules! codes {
    ($($code:ident $word:literal $status:literal $fault:ident $title:literal $hint:literal)*) => {
        /// What went wrong, as a stable code. See [`TABLE`] for the words.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Code { $(#[doc = $title] $code,)* }

        /// The one table: code, word, status, fault, title, hint. In the order of [`Code`].
        pub const TABLE: &[Row] = &[$(Row {
            code: Code::$code, word: $word, status: $status, fault: Fault::$fault, title: $title, hint: $hint,
        },)*];
    };
}

codes! {
    // The door: bytes of a head or of a chunked body that are refused before anything goes upstream.
    RequestLine "request-line" 400 Client "The request line is malformed"
        "Send METHOD, one space, the target, one space, HTTP/1.1. If the client speaks TLS here, use http:// for the agent's address."
    Target "target" 400 Client "The request target is malformed"
        "Percent-encode every character outside RFC 3986; send a path, or an absolute http URL."
    TargetTooLong "target-too-long" 414 Client "The request target is over 16 KiB"
        "Move long parameters into the body."
    HttpVersion "http-version" 505 Client "This version of HTTP is not spoken here"
        "Use HTTP/1.1, or turn HTTP/2 on for this listener; over TLS, HTTP/2 is negotiated (ALPN), never presumed."
    LineEnding "line-ending" 400 Client "A line of the head does not end with CRLF"
        "End each line with CR LF, and send neither alone."
    ControlByte "control-byte" 400 Client "The head holds a control byte"
        "Remove NUL and control bytes from the header values."
    FieldName "field-name" 400 Client "A header name is malformed"
        "Send a token and, directly behind it, a colon (RFC 9112 section 5.1)."
    ObsFold "obs-fold" 400 Client "A header value is folded over several lines"
        "Send each header on one line (RFC 9112 section 5.2)."
    TooManyFields "too-many-fields" 431 Client "The head has over 100 header lines"
        "Send fewer headers."
    HeadTooLarge "head-too-large" 431 Client "The head is over 32 KiB"
        "Send smaller headers; look at cookies first."
    HostMissing "host-missing" 400 Client "The Host header is missing"
        "Send exactly one Host header (RFC 9112 section 3.2)."
    HostRepeated "host-repeated" 400 Client "There are several Host headers"
        "Send exactly one Host header (RFC 9112 section 3.2)."
    HostInvalid "host-invalid" 400 Client "The Host header is not a host and an optional port"
        "Send a name or an address and an optional port: no user, no list, no path."
    HostMismatch "host-mismatch" 400 Client "The target's authority is not that of the Host header"
        "Send the same host in both, or only a path as target."
    FramingConflict "framing-conflict" 400 Client "Content-Length and Transfer-Encoding are both present"
        "Send one of them (RFC 9112 section 6.3)."
    TransferCoding "transfer-coding" 400 Client "Transfer-Encoding is not exactly one `chunked`"
        "Send `Transfer-Encoding: chunked` once, in HTTP/1.1, or a Content-Length."
    ContentLength "content-length" 400 Client "Content-Length is repeated or not a plain number"
        "Send one Content-Length of digits only, below 2^63."
    FramingTwin "framing-twin" 400 Client "A header looks like a framing header but is none"
        "Rename headers such as Content_Length and Transfer_Encoding: servers disagree about them."
    ConnectionSpecific "connection-specific" 400 Client "The head has a field that HTTP/2 does not have"
        "Leave out Connection, Keep-Alive, Proxy-Connection, Transfer-Encoding, Upgrade and any TE but `trailers` (RFC 9113 section 8.2.2)."
    FieldValue "field-value" 400 Client "A header value begins or ends with white space"
        "Send values without white space around them (RFC 9113 section 8.2.1)."
    Chunk "chunk" 400 Client "The chunked body is malformed"
        "Send chunks as in RFC 9112 section 7.1."
    HeadTimeout "head-timeout" 408 Client "The head did not arrive in time"
        "Send the whole head at once."
    BodyTimeout "body-timeout" 408 Client "The body did not arrive in time"
        "Send the body without long pauses."
    BodyBroken "body-broken" 400 Client "The body ended early"
        "Send as many bytes as Content-Length says."

    // The road: requests that a gateway refuses.
    Method "method" 405 Client "CONNECT and TRACE are not carried"
        "Use another method; for CONNECT, a forward listener."
    Expectation "expectation" 417 Client "The only known expectation is 100-continue"
        "Remove the Expect header."
    ConnectionField "connection-field" 400 Client "The Connection header names a field that must reach the upstream"
        "Name only hop-by-hop fields in Connection (RFC 9110 section 7.6.1)."
    HostUnknown "host-unknown" 421 Client "No upstream of this listener is for the request's host"
        "Send the Host of a service that the listener's `upstreams` name."
    ProxyForm "proxy-form" 400 Client "This is a forward proxy, and the request's target names no host"
        "Set HTTP_PROXY and HTTPS_PROXY to this address, and send requests for the service itself; a base URL is for a reverse listener."
    ProxyCredentials "proxy-credentials" 407 Client "The proxy wants credentials, and these are none of its"
        "Send Proxy-Authorization, as clients do that find a user and password in HTTP_PROXY or HTTPS_PROXY."
    Misdirected "misdirected" 421 Client "The request is for another host than its connection"
        "Send requests for the host that the connection was opened to, or open another connection."
    EarlyData "early-data" 400 Client "Bytes came behind a CONNECT before it was answered"
        "Wait for the answer to CONNECT (RFC 9110 section 9.3.6)."
    NotTls "not-tls" 400 Client "Something else than TLS came on a connection to a service that speaks it, and that a policy covers"
        "Speak TLS behind CONNECT to such a service; plain HTTP is taken where the service speaks no TLS."
    Uncovered "uncovered" 403 Policy "No policy names this host, and the listener refuses such hosts"
        "Ask the operator: a route with this host, or `uncovered: tunnel`."
    NotVouched "not-vouched" 403 Policy "A policy names this host, and the agent's CA may not vouch for it"
        "Ask the operator: add the host to `ca: {names: ...}`, and make and distribute the CA anew."
    Loop "loop" 508 Client "The request has passed this agent before"
        "Point the upstream at the service, not at an agent."
    Busy "busy" 503 Internal "The agent has as many requests in flight as it may have"
        "Try again shortly; raise limits.in_flight if this is usual."
    Draining "draining" 503 Internal "The agent is about to end, and opens no connection to anywhere"
        "Connect again: to its next start, or to another agent."

    // Bodies that a rewriting route cannot take.
    BodyTooLarge "body-too-large" 413 Client "The body is larger than this route holds"
        "Send less, or raise limits.held_body."
    RecordTooLarge "record-too-large" 413 Client "A record of the stream is larger than this route takes"
        "Send smaller lines or events, or raise limits.record."
    ContentType "content-type" 415 Client "This route seals fields of bodies, and has no rules for one of this type"
        "Send what its rules are for: application/json or a form, without charset or with charset=utf-8."
    ContentCoding "content-coding" 415 Client "This route seals fields, and the body has a content coding that cannot be taken off"
        "Send the body in gzip, deflate, br or zstd, in two of them at most, or without Content-Encoding."
    CodingBroken "coding-broken" 400 Client "The body is not what its Content-Encoding says, or was cut"
        "Send the whole body in the coding that Content-Encoding names, and nothing behind it."
    Inflation "inflation" 413 Client "The body becomes over 100 times as long when its coding is taken off"
        "Send it in smaller parts, or without Content-Encoding."
    NotJson "not-json" 400 Client "The body is not one strict JSON document in UTF-8"
        "Send one JSON document as RFC 8259 has it, without a byte order mark."
    TooDeep "too-deep" 400 Client "The JSON document is nested too deeply"
        "Send fewer levels than the limit (128 unless configured)."
    InnerNotJson "inner-not-json" 400 Client "A string whose JSON text is sealed in part holds no JSON"
        "Send a string that holds one JSON document, or null."
    BadForm "bad-form" 400 Client "The form, or the query, has no single meaning"
        "Percent-encode names and values; of multipart/form-data, send what RFC 7578 has, without encodings of parts and without parts in parts."
    NotText "not-text" 422 Client "A value to be sealed is not text in UTF-8"
        "Send the header, field or part as text in UTF-8, and files under names that no rule seals."
    PatchRefused "patch-refused" 422 Policy "The patch does something that cannot be done on sealed values"
        "Replace sealed values whole: no test, no move or copy to a place that is not sealed alike, no pointer into one; and send no members but `op`, `path`, `from` and `value`."
    SealedHead "sealed-head" 431 Policy "With its values sealed, the target would be over 16 KiB or the head over 32 KiB"
        "Send fewer or shorter values there, or move them into the body."
    TooMany "too-many" 413 Client "The document has more classified values than one request may have"
        "Split it into several requests."
    Composite "composite" 422 Client "An object or an array stands where a class is deterministic"
        "Send a text, a number, true, false or null there: only those have one spelling."
    ValueTooLong "value-too-long" 413 Client "A classified value is too long for a token"
        "Send values of less than about 700 KB."

    // What the policy says no to.
    SignedBody "signed-body" 422 Policy "The request is signed over its body, and the body would be changed"
        "Sign behind the agent, sign without the body (AWS: UNSIGNED-PAYLOAD; RFC 9421: without content-digest), give the request a route without rules for bodies, or one with `signed: allow` where the service does not look at the signature."
    UpgradeRefused "upgrade-refused" 403 Policy "The route's rules are for bodies, and nobody could look into what follows an upgrade"
        "Give the upgrade a route of its own, without rules for bodies, before this one."
    Unmatched "unmatched" 403 Policy "No route of the policy takes this request, and the policy rejects such requests"
        "Add a route, or set `unmatched: report`."
    PathAmbiguous "path-ambiguous" 400 Policy "The path has no single meaning"
        "Send a path without encoded slashes, dot segments or double slashes."
    MethodOverride "method-override" 400 Policy "A method-override header would take the request to another route than its method does"
        "Send the request with the method that is meant, and without X-HTTP-Method-Override."
    TenantMissing "tenant-missing" 400 Policy "The policy declares a tenant, and the request does not name exactly one"
        "Send what the policy's `tenant` asks for."
    Bind "bind" 422 Policy "A value that a rule binds is missing, repeated or of another type"
        "Send the bound value as one string or integer."
    TokenRefused "token-refused" 422 Policy "A token in the body does not belong where it stands"
        "Send the value itself, or the token that was given for this very place."
    Stray "stray" 422 Policy "A token stands where no rule seals"
        "Send tokens only at sealed places, or set `stray: report`."
    Unclaimed "unclaimed" 422 Policy "A value stands where no rule names it"
        "Add a rule for it (`pass: true` if it may go), or set `unclaimed: report`."
    Masked "masked-value" 422 Policy "A masked value stands where a value is to be sealed"
        "Send the value itself or its token, or leave the member out: what was masked is not taken back."
    Plaintext "plaintext" 422 Policy "A value stands where the policy expects a token"
        "Send the token that was given for it, or set `plaintext: report`."
    NearMiss "near-miss" 422 Policy "A name is that of a sealed value but for its spelling"
        "Send the name as the policy has it, without other letter case, separators, brackets, white space or invisible characters."
    Unevaluable "unevaluable" 422 Policy "The route's filters cannot be evaluated on this document"
        "Send a document without duplicate names, lone surrogates or huge numbers."

    // Keys.
    KeysUnreachable "keys-unreachable" 503 Keys "No data key can be had: the KMS does not answer"
        "Try again; see the agent's readiness."
    KeysDenied "keys-denied" 503 Keys "No data key can be had: the KMS refuses"
        "Ask the operator: this agent's right to the key, or the key, was withdrawn."
    StoreUnreachable "store-unreachable" 503 Keys "No data key can be had for a deterministic class: the store does not answer"
        "Try again; ask the operator to look at the store."
    StoreRefused "store-refused" 503 Keys "The store has no data key that may seal a deterministic class"
        "Ask the operator: `fieldveil store verify` says what is wrong, `fieldveil store rotate-deterministic` makes another."
    NewTenants "new-tenants" 429 Client "More tenants are new at a time than may get a data key"
        "Try again as Retry-After says; raise limits.new_tenants if so many tenants are real."
    KeysMissing "keys-missing" 500 Keys "No such key is configured"
        "Ask the operator: the policy names a key that the settings do not have."

    // The upstream.
    UpstreamForbidden "upstream-forbidden" 502 Upstream "The upstream's address is one that the agent never connects to"
        "Ask the operator: link-local, metadata and the agent's own addresses are refused, loopback ones unless `loopback_upstreams` allows them."
    UpstreamRedirect "upstream-redirect" 502 Upstream "The upstream sends the client to another service, body and all, past the policy"
        "Ask the operator: give that service a listener of its own, and let the application send there."
    UpstreamUnresolved "upstream-unresolved" 502 Upstream "The upstream's name does not resolve"
        "Ask the operator: check the upstream's URL and DNS."
    UpstreamUnreachable "upstream-unreachable" 502 Upstream "The upstream refuses connections"
        "Try again; is the upstream running?"
    UpstreamConnectTimeout "upstream-connect-timeout" 504 Upstream "The upstream did not accept a connection in time"
        "Try again; is the upstream reachable from here?"
    UpstreamTls "upstream-tls" 502 Upstream "The TLS handshake with the upstream failed"
        "Ask the operator: check the upstream's certificate and `tls.ca`."
    UpstreamNotTls "upstream-not-tls" 502 Upstream "The upstream does not speak TLS, or hangs up on it"
        "Ask the operator: its port may be one for plain HTTP, and its URL then one with http."
    UpstreamTimeout "upstream-timeout" 504 Upstream "The upstream did not answer in time"
        "The request may have taken effect there; check before repeating it. Raise the upstream's `response` if such answers are usual."
    ExchangeTimeout "exchange-timeout" 504 Upstream "The whole exchange took longer than it may"
        "The request may have taken effect there; raise limits.exchange_timeout if such requests are usual."
    UpstreamBroken "upstream-broken" 502 Upstream "The upstream closed the connection or answered with something else than HTTP"
        "The request may have taken effect there; check before repeating it."
    UpstreamUntaken "upstream-untaken" 503 Upstream "The upstream ended the connection, or the stream, before it took the request"
        "Send it again: the upstream says that it did nothing with it."
    UpstreamUnreadable "upstream-unreadable" 502 Upstream "The upstream's answer has fields to seal and cannot be read"
        "Ask the operator: the route seals this answer, so it must be JSON, in a known coding or none, within the limit."
    UpgradeUnspoken "upgrade-unspoken" 502 Upstream "The upstream is spoken to in HTTP/2 alone, which has no upgrade"
        "Ask the operator: let the upstream speak HTTP/1.1, too (`http: auto`)."
    UpstreamRefused "upstream-refused" 502 Policy "The policy rejects the upstream's answer"
        "Ask the operator: the log's record has the reason."

    Internal "internal" 500 Internal "The agent failed"
        "Report the request id to the operator."
}

impl Code {
    /// This code's line of the table.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
    /// The stable word.
    pub fn word(self) -> &'static str {
        self.row().word
    }
    /// The status that the client gets.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
    /// Who has to act.
    pub fn fault(self) -> Fault {
        self.row().fault
    }
    /// This error, with a note for the log.
    pub fn because(self, note: impl Into<Cow<'static, str>>) -> Error {
        Error {
            code: self,
            note: note.into(),
            close: false,
            retry_after: None,
        }
    }
}

/// A request that is not answered by the upstream: a code for everybody, and a note for the log alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Code,
    note: Cow<'static, str>,
    close: bool,
    retry_after: Option<Duration>,
}

impl Error {
    /// What went wrong.
    pub fn code(&self) -> Code {
        self.code
    }
    /// The log's text. May be empty; never holds a value of the request.
    pub fn note(&self) -> &str {
        &self.note
    }
    /// What records say of it.
    pub fn reason(&self) -> Reason<'_> {
        Reason {
            code: self.code.word(),
            fault: self.code.fault().word(),
            note: &self.note,
        }
    }
    /// The connection cannot go on behind this answer.
    pub fn closing(mut self) -> Error {
        self.close = true;
        self
    }

    /// When to try again, where that is known better than from the code.
    pub fn retry_after(mut self, after: Option<Duration>) -> Error {
        self.retry_after = after;
        self
    }

    /// The answer: an RFC 9457 problem document. The note is not in it.
    pub fn answer(&self, request: RequestId) -> Response<Bytes> {
        let row = self.code.row();
        // Words, titles and hints are ours and hold nothing that JSON escapes (a test says so).
        let document = format!(
            "{{\"type\":\"urn:fieldveil:error:{word}\",\"title\":\"{title}\",\"status\":{status},\
             \"detail\":\"{hint}\",\"code\":\"{word}\",\"request_id\":\"{request}\"}}\n",
            word = row.word,
            title = row.title,
            status = row.status,
            hint = row.hint,
        );
        let mut answer = Response::new(Bytes::from(document));
        *answer.status_mut() = self.code.status();
        let headers = answer.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(result) = HeaderValue::from_str(&format!("refused={}", row.word)) {
            headers.insert(RESULT, result);
        }
        if matches!(row.status, 429 | 503) {
            headers.insert(RETRY_AFTER, HeaderValue::from(self.retry_seconds()));
        }
        if self.code == Code::Method {
            headers.insert(
                ALLOW,
                HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            );
        }
        if self.code == Code::ProxyCredentials {
            headers.insert(
                PROXY_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"fieldveil\""),
            );
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Whole seconds, at least one. Overload passes quickly, an outage less so, a refusal only when somebody acts.
    fn retry_seconds(&self) -> u64 {
        match (self.retry_after, self.code) {
            (Some(after), _) => (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1),
            (None, Code::Busy | Code::NewTenants | Code::UpstreamUntaken) => 1,
            (None, Code::KeysDenied) => 60,
            (None, _) => 5,
        }
    }
}

impl From<Code> for Error {
    fn from(code: Code) -> Error {
        code.because("")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.word())?;
        if !self.note.is_empty() {
            write!(f, " ({})", self.note)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// The catalogue as Markdown, made from the [table](TABLE): `docs/errors.md` is this text.
pub fn catalogue() -> String {
    let mut page = String::from(
        "# Errors\n\n\
         What the agent itself answers, as a problem document (RFC 9457, `application/problem+json`) with the members\n\
         `type` (`urn:fieldveil:error:CODE`), `title`, `status`, `detail` (what to do), `code` and `request_id`. Codes are\n\
         stable. An answer that the agent made carries `Fieldveil-Result: refused=CODE`; one of the upstream's never does.\n\
         Statuses 429 and 503 carry `Retry-After`.\n\n\
         This page is made from the table in `src/error.rs`; a test keeps them equal.\n\n\
         | code | status | whose | what | what to do |\n|---|---|---|---|---|\n",
    );
    for row in TABLE {
        page.push_str(&format!(
            "| `{}` | {} | {} | {} | {} |\n",
            row.word,
            row.status,
            row.fault.word(),
            row.title,
            row.hint
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_table_is_in_the_order_of_the_codes_and_its_words_are_distinct_tokens() {
        let mut words = HashSet::new();
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.code as usize, index);
            assert!(words.insert(row.word), "{} twice", row.word);
            assert!(
                row.word
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            );
            assert!((400..600).contains(&row.status));
            assert_eq!(row.code.status().as_u16(), row.status);
            for text in [row.title, row.hint] {
                assert!(!text.contains(['"', '\\', '|', '\n']), "{text}");
                assert!(text.is_ascii());
            }
        }
    }

    /// Set `FIELDVEIL_BLESS=1` to write the page anew.
    #[test]
    fn the_catalogue_is_the_page_in_the_docs() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md");
        if std::env::var_os("FIELDVEIL_BLESS").is_some() {
            std::fs::write(path, catalogue()).expect("docs/errors.md is writable");
        }
        let page = std::fs::read_to_string(path).expect("docs/errors.md");
        assert!(
            page == catalogue(),
            "docs/errors.md differs from the table; FIELDVEIL_BLESS=1 writes it"
        );
    }

    #[test]
    fn the_note_stays_with_the_log() {
        let error = Code::TokenRefused.because("mismatch");
        assert_eq!(error.to_string(), "token-refused (mismatch)");
        let answer = error.answer(RequestId::from(7));
        assert_eq!(answer.status(), 422);
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json");
        let text = String::from_utf8(answer.body().to_vec()).expect("text");
        assert!(!text.contains("mismatch"));
        let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(document["code"], "token-refused");
        assert_eq!(document["type"], "urn:fieldveil:error:token-refused");
        assert_eq!(document["status"], 422);
        assert_eq!(document["request_id"], RequestId::from(7).to_string());
    }

    #[test]
    fn a_known_time_is_rounded_up() {
        for (millis, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (30_000, "30")] {
            let error =
                Error::from(Code::KeysUnreachable).retry_after(Some(Duration::from_millis(millis)));
            assert_eq!(
                error.answer(RequestId::from(1)).headers()[RETRY_AFTER],
                seconds
            );
        }
    }

    #[test]
    fn unavailability_says_when_to_come_back() {
        for row in TABLE {
            let answer = Error::from(row.code).answer(RequestId::from(1));
            assert_eq!(
                answer.headers().contains_key(RETRY_AFTER),
                matches!(row.status, 429 | 503),
                "{}",
                row.word
            );
        }
    }
}
