//! The providers that speak over the network, each with what its server would say: the one list that `answers` and `faults` go through.
//! Another provider is another function here, and its rows.

#[cfg(feature = "aws")]
use super::login::trust;
use super::login::{ENCRYPTED, KEY, given, transit as transit_at};
use super::stub::{Asked, Say};
use super::suite::DEK;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fieldveil::kms::Failure::{self, *};
use fieldveil::kms::Kms;
use std::sync::Arc;
use std::time::Duration;

/// A provider whose server is at some address of the test's own.
pub struct Talker {
    /// As it is called in the table of docs/kms.md.
    pub name: &'static str,
    pub kms: Arc<dyn Kms>,
    pub kek: &'static str,
    /// A blob that it would send.
    pub blob: Vec<u8>,
    /// What the server says to everything while all is well; every blob is [`DEK`]'s.
    pub well: fn(&Asked) -> Say,
    /// Whether a request is the call itself, and not the log-in before it.
    pub is_call: fn(&Asked) -> bool,
    /// Answers to `unwrap` (status, body), and what each means. A class without any is `n/a` in the table of docs/kms.md.
    pub answers: Vec<(u16, String, Failure)>,
}

impl Talker {
    /// Says this to the call, and what is right to everything before it.
    pub fn only_to_calls(
        &self,
        say: impl Fn(&Asked) -> Say + Send + Sync + 'static,
    ) -> impl Fn(&Asked) -> Say + Send + Sync + 'static {
        let (well, is_call) = (self.well, self.is_call);
        move |asked| match is_call(asked) {
            true => say(asked),
            false => well(asked),
        }
    }
}

/// All of them, before a server at this address.
pub fn talkers(url: &str) -> Vec<Talker> {
    vec![
        transit(url),
        #[cfg(feature = "aws")]
        aws(url),
        gcp(url),
        azure(url),
    ]
}

fn transit(url: &str) -> Talker {
    let say = |status, error: &str, failure| {
        let body = format!(r#"{{"errors":["{error}"]}}"#);
        (status, body, failure)
    };
    Talker {
        name: "transit",
        kms: Arc::new(transit_at(url, given("t"), Duration::ZERO)),
        kek: "cards",
        blob: vec![0, 0, 0, 1, 9, 9, 9],
        well: |asked| match asked.line.split('/').nth(3) {
            Some("keys") => Say::json(200, KEY),
            Some("decrypt") => {
                let plaintext = STANDARD.encode(DEK);
                Say::json(200, &format!(r#"{{"data":{{"plaintext":"{plaintext}"}}}}"#))
            }
            _ => Say::json(200, ENCRYPTED),
        },
        is_call: |_| true,
        answers: vec![
            say(403, "permission denied", Denied),
            say(401, "x", Denied),
            say(
                400,
                "ciphertext or signature version is disallowed by policy (too old)",
                Disabled,
            ),
            say(400, "key is soft deleted", Destroyed),
            say(400, "encryption key not found", NotFound),
            say(404, "no handler for route", NotFound),
            say(404, "namespace not found", NotFound),
            say(405, "unsupported operation", NotFound),
            say(400, "invalid ciphertext: no prefix", Malformed),
            say(400, "invalid ciphertext: version is too new", Malformed),
            say(400, "cipher: message authentication failed", Malformed),
            say(400, "missing 'context' for key derivation", Malformed),
            say(400, "something else", Malformed),
            say(418, "x", Malformed),
            say(307, "x", Unreachable),
            say(412, "required index state not present", Unreachable),
            say(429, "rate limit quota exceeded", Unreachable),
            say(472, "x", Unreachable),
            say(473, "x", Unreachable),
            say(500, "internal error", Unreachable),
            say(502, "x", Unreachable),
            say(503, "Vault is sealed", Unreachable),
        ],
    }
}

fn azure(url: &str) -> Talker {
    use super::azure::{CHALLENGE, FIRST, answered, azure_at, managed, metadata, refused};
    use fieldveil::kms::azure::{Algorithm, LOOK_AGAIN};
    let say = |status, code: &str, inner, failure| (status, refused(code, inner), failure);
    let (rsa, long) = (Algorithm::RsaOaep256, Duration::from_secs(3600));
    let version = [
        0x06, 0x98, 0xc2, 0x15, 0x6c, 0x1a, 0x4e, 0x1d, 0xa5, 0xb6, 0xba, 0xb6, 0xf6, 0x42, 0x2f,
        0xd6,
    ];
    Talker {
        name: "azure",
        kms: Arc::new(azure_at(url, rsa, managed(url), long, LOOK_AGAIN)),
        kek: "cards",
        blob: [&version[..], &[9; 256]].concat(),
        well: |asked| {
            let asks = |part| asked.line.contains(part);
            match asked.header("authorization") {
                None if asks("/metadata/") => metadata("t"),
                None => Say::Answer(401, CHALLENGE, String::new()),
                Some(_) if asks("/unwrapkey") => answered("cards", FIRST, &DEK),
                Some(_) => answered("cards", FIRST, &[9; 256]),
            }
        },
        is_call: |asked| asked.header("authorization").is_some(),
        answers: vec![
            (401, String::new(), Denied),
            say(403, "Forbidden", Some("AccessDenied"), Denied),
            say(403, "Forbidden", Some("ForbiddenByFirewall"), Denied),
            (403, String::new(), Denied),
            say(403, "Forbidden", Some("KeyDisabled"), Disabled),
            say(403, "Forbidden", Some("KeyExpired"), Disabled),
            say(403, "KeyNotYetValid", None, Disabled),
            say(404, "KeyNotFound", None, NotFound),
            (404, String::new(), NotFound),
            say(400, "BadParameter", None, Malformed),
            say(400, "x", None, Malformed),
            say(418, "x", None, Malformed),
            say(307, "x", None, Unreachable),
            say(408, "x", None, Unreachable),
            say(409, "Conflict", None, Unreachable),
            say(429, "Throttled", None, Unreachable),
            say(500, "InternalServerError", None, Unreachable),
            say(503, "ServiceUnavailable", None, Unreachable),
        ],
    }
}

fn gcp(url: &str) -> Talker {
    use super::gcp::{KEK, answered, gcp_at, metadata, of_state, refused};
    let login = fieldveil::kms::gcp::Login::Metadata(url.to_owned());
    let bad = "INVALID_ARGUMENT";
    let say = |status, word: &str, message: &str, failure| {
        (status, refused(status, word, message), failure)
    };
    let state = |word, failure| (400, of_state(word), failure);
    let violation = r#"{"error":{"status":"FAILED_PRECONDITION","details":[{"@type":"x","a":1},{"violations":[{"type":"KEY_DISABLED"}]}]}}"#;
    Talker {
        name: "gcp",
        kms: Arc::new(gcp_at(url, login, Duration::from_secs(3600))),
        kek: KEK,
        blob: vec![9; 100],
        well: |asked| match asked.line.starts_with("GET") {
            true => metadata("t"),
            false if asked.line.ends_with(":decrypt") => answered(asked, &DEK),
            false => answered(asked, &[9; 100]),
        },
        is_call: |asked| asked.line.starts_with("POST"),
        answers: vec![
            say(401, "UNAUTHENTICATED", "x", Denied),
            say(403, "PERMISSION_DENIED", "Permission denied", Denied),
            (403, String::new(), Denied),
            state("DISABLED", Disabled),
            state("PENDING_IMPORT", Disabled),
            (400, violation.to_owned(), Disabled),
            state("DESTROYED", Destroyed),
            state("DESTROY_SCHEDULED", Destroyed),
            state("PENDING_GENERATION", Unreachable),
            say(400, "FAILED_PRECONDITION", "x", Unreachable),
            say(404, "NOT_FOUND", "CryptoKey x not found.", NotFound),
            say(400, bad, "Decryption failed: verify that 'name'", Malformed),
            say(400, bad, "x", Malformed),
            (400, "x".to_owned(), Malformed),
            say(
                400,
                bad,
                "The checksum in field ciphertext_crc32c did not match the data in field ciphertext.",
                Unreachable,
            ),
            say(418, "x", "x", Malformed),
            say(307, "x", "x", Unreachable),
            say(408, "x", "x", Unreachable),
            say(409, "ABORTED", "x", Unreachable),
            say(429, "RESOURCE_EXHAUSTED", "Quota exceeded", Unreachable),
            say(499, "CANCELLED", "x", Unreachable),
            say(500, "INTERNAL", "x", Unreachable),
            say(503, "UNAVAILABLE", "x", Unreachable),
            say(504, "DEADLINE_EXCEEDED", "x", Unreachable),
        ],
    }
}

#[cfg(feature = "aws")]
pub const ARN: &str = "arn:aws:kms:us-east-1:000000000000:key/1234";

#[cfg(feature = "aws")]
pub fn aws_at(url: &str) -> fieldveil::kms::aws::Aws {
    fieldveil::kms::aws::Aws::new(fieldveil::kms::aws::Settings {
        name: "aws".into(),
        region: Some("us-east-1".into()),
        endpoint: Some(url.to_owned()),
        credentials: Some(("id".into(), "secret".into())),
        trust: trust(),
        relogin_after: Duration::from_secs(3600),
    })
    .unwrap()
}

#[cfg(feature = "aws")]
fn aws(url: &str) -> Talker {
    let say = |status, code: &str, message: &str, failure| {
        let body = format!(r#"{{"__type":"com.amazonaws.kms#{code}","message":"{message}"}}"#);
        (status, body, failure)
    };
    let state = "KMSInvalidStateException";
    Talker {
        name: "aws",
        kms: Arc::new(aws_at(url)),
        kek: ARN,
        blob: vec![9; 100],
        well: |asked| {
            let member = match asked.header("x-amz-target") {
                Some("TrentService.Decrypt") => ("Plaintext", STANDARD.encode(DEK)),
                _ => ("CiphertextBlob", STANDARD.encode([9; 100])),
            };
            let (name, value) = member;
            Say::json(200, &format!(r#"{{"KeyId":"{ARN}","{name}":"{value}"}}"#))
        },
        is_call: |_| true,
        answers: vec![
            say(
                400,
                "AccessDeniedException",
                "User is not authorized",
                Denied,
            ),
            say(400, "UnrecognizedClientException", "x", Denied),
            say(400, "ExpiredTokenException", "x", Denied),
            say(403, "SomethingNew", "x", Denied),
            say(400, "DisabledException", "x", Disabled),
            say(400, state, "arn is pending deletion.", Destroyed),
            say(400, state, "arn is pending import.", Disabled),
            say(400, state, "arn is unavailable.", Unreachable),
            say(400, "NotFoundException", "x", NotFound),
            say(400, "InvalidCiphertextException", "x", Malformed),
            say(400, "IncorrectKeyException", "x", Malformed),
            say(400, "InvalidKeyUsageException", "x", Malformed),
            say(400, "ValidationException", "x", Malformed),
            say(400, "SomethingNew", "x", Malformed),
            say(400, "ThrottlingException", "Rate exceeded", Unreachable),
            say(400, "KeyUnavailableException", "x", Unreachable),
            say(500, "KMSInternalException", "x", Unreachable),
            say(503, "DependencyTimeoutException", "x", Unreachable),
            say(503, "ServiceUnavailable", "x", Unreachable),
        ],
    }
}
