//! What goes over the wire to Google Cloud KMS and comes back, with its checksums, and what each answer means. Pure.
//!
//! A checksum that does not fit means bytes that changed on the way, at either end of TLS: nobody's no, and worth another try.

use crate::kms::http::Reply;
use crate::kms::{Failure, KmsError, Unwrapped};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc32c::crc32c;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use zeroize::Zeroizing;

/// What a request carries beside the context.
pub enum Sent<'a> {
    Plaintext(&'a [u8; 32]),
    Ciphertext(&'a [u8]),
}

impl Sent<'_> {
    /// In one buffer that never grows. 64-bit numbers are texts in Google's JSON.
    pub fn body(&self, aad: &[u8]) -> Zeroizing<Vec<u8>> {
        let (name, bytes) = match self {
            Sent::Plaintext(dek) => ("plaintext", &dek[..]),
            Sent::Ciphertext(blob) => ("ciphertext", *blob),
        };
        let mut body = Zeroizing::new(Vec::with_capacity(256 + 2 * (bytes.len() + aad.len())));
        for (first, name, bytes) in [
            ('{', name, bytes),
            (',', "additionalAuthenticatedData", aad),
        ] {
            body.push(first as u8);
            body.extend_from_slice(format!("\"{name}\":\"").as_bytes());
            let (at, length) = (body.len(), bytes.len().div_ceil(3) * 4);
            body.resize(at + length, 0);
            let _ = STANDARD.encode_slice(bytes, &mut body[at..]);
            let sum = format!("\",\"{name}Crc32c\":\"{}\"", crc32c(bytes));
            body.extend_from_slice(sum.as_bytes());
        }
        body.push(b'}');
        body
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answered<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    ciphertext: Option<Cow<'a, str>>,
    ciphertext_crc32c: Option<Number<'a>>,
    #[serde(default)]
    verified_plaintext_crc32c: bool,
    #[serde(default)]
    verified_additional_authenticated_data_crc32c: bool,
    #[serde(borrow)]
    plaintext: Option<Cow<'a, str>>,
    plaintext_crc32c: Option<Number<'a>>,
    /// Left out where it is false.
    #[serde(default)]
    used_primary: bool,
}

/// 64 bits, as a text or a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Number(i64),
}

impl Number<'_> {
    fn is(&self, sum: u32) -> bool {
        match self {
            Number::Text(text) => **text == sum.to_string(),
            Number::Number(number) => *number == i64::from(sum),
        }
    }
}

fn not_understood(reply: &Reply) -> KmsError {
    reply.failure(Failure::Malformed, "the answer cannot be understood")
}

fn changed(reply: &Reply) -> KmsError {
    let what = "bytes changed on the way: a checksum does not fit";
    reply.failure(Failure::Unreachable, what)
}

fn answered(reply: &Reply) -> Result<Answered<'_>, KmsError> {
    if reply.status.as_u16() != 200 {
        return Err(refusal(reply));
    }
    serde_json::from_slice(&reply.body).map_err(|_| not_understood(reply))
}

/// Bytes in base64 that fit their checksum.
fn checked(
    reply: &Reply,
    text: Option<Cow<'_, str>>,
    sum: Option<Number<'_>>,
) -> Result<Zeroizing<Vec<u8>>, KmsError> {
    let text = text.ok_or_else(|| not_understood(reply))?;
    let text = Zeroizing::new(text.into_owned());
    let bytes = STANDARD.decode(text.as_bytes());
    let bytes = Zeroizing::new(bytes.map_err(|_| not_understood(reply))?);
    match sum {
        Some(sum) if sum.is(crc32c(&bytes)) => Ok(bytes),
        _ => Err(changed(reply)),
    }
}

/// The blob of an answer to `encrypt`.
pub fn encrypted(reply: &Reply, kek: &str) -> Result<Vec<u8>, KmsError> {
    let answered = answered(reply)?;
    let name = answered
        .name
        .as_deref()
        .ok_or_else(|| not_understood(reply))?;
    let version = name
        .strip_prefix(kek)
        .and_then(|rest| rest.strip_prefix("/cryptoKeyVersions/"));
    if version.is_none() {
        return Err(reply.failure(Failure::Malformed, "the answer is another key's"));
    }
    let verified = answered.verified_plaintext_crc32c
        && answered.verified_additional_authenticated_data_crc32c;
    let mut blob = checked(reply, answered.ciphertext, answered.ciphertext_crc32c)?;
    match verified {
        true => Ok(std::mem::take(&mut *blob)),
        // Google encrypted what it got, and did not look whether that is what was sent.
        false => Err(changed(reply)),
    }
}

/// The plaintext of an answer to `decrypt`.
pub fn decrypted(reply: &Reply) -> Result<Unwrapped, KmsError> {
    let answered = answered(reply)?;
    let superseded = !answered.used_primary;
    let dek = checked(reply, answered.plaintext, answered.plaintext_crc32c)?;
    Ok(Unwrapped { dek, superseded })
}

/// `google.rpc.Status`, as far as it is read.
#[derive(Deserialize)]
struct Refused<'a> {
    #[serde(borrow)]
    error: Option<Status<'a>>,
}

#[derive(Deserialize)]
struct Status<'a> {
    #[serde(borrow, default)]
    status: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    details: Vec<Detail<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Detail<'a> {
    Violations {
        #[serde(borrow)]
        violations: Vec<Violation<'a>>,
    },
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Violation<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
}

/// What Google says before the state of a version that cannot be used.
const STATE: &str = "current state is: ";

/// The state of a key that cannot be used, from the texts that name it.
fn of_state(status: &Status<'_>) -> (Failure, &'static str) {
    let state = status.message.split_once(STATE).map(|(_, state)| state);
    let kinds = status.details.iter().flat_map(|detail| match detail {
        Detail::Violations { violations } => &violations[..],
        Detail::Other(_) => &[],
    });
    let mut words = kinds.map(|one| &*one.kind).chain(state);
    let known = words.find_map(|word| {
        let says = |part: &str| word.contains(part);
        if says("DESTROY") {
            Some((
                Failure::Destroyed,
                "the key's version is destroyed, or about to be",
            ))
        } else if says("DISABLED") {
            Some((Failure::Disabled, "the key's version is disabled"))
        } else if says("IMPORT") {
            Some((Failure::Disabled, "the key's version waits for its import"))
        } else {
            None
        }
    });
    known.unwrap_or((Failure::Unreachable, "the key cannot be used now"))
}

/// What an answer other than 200 means.
fn refusal(reply: &Reply) -> KmsError {
    let refused: Option<Refused<'_>> = serde_json::from_slice(&reply.body).ok();
    let status = refused.and_then(|refused| refused.error);
    let word = status.as_ref().map_or("", |status| &status.status);
    let (failure, what) = match (reply.status.as_u16(), &status) {
        (400, Some(status)) if word == "FAILED_PRECONDITION" => of_state(status),
        (400, Some(status)) if status.message.contains("did not match the data in field") => {
            return changed(reply);
        }
        (400, _) => (
            Failure::Malformed,
            "the blob is not of this key and context, or the request is a bad one",
        ),
        (401, _) => (Failure::Denied, "the token is refused"),
        (403, _) => (Failure::Denied, "the account may not use the key"),
        (404, _) => (Failure::NotFound, "there is no such key"),
        (300..=399, _) => (
            Failure::Unreachable,
            "redirected; redirections are not followed",
        ),
        (429, _) => (Failure::Unreachable, "over the quota"),
        (408 | 409 | 499, _) => (Failure::Unreachable, "cut off"),
        (500..=599, _) => (Failure::Unreachable, "a fault of the server's"),
        _ => (Failure::Malformed, "the answer cannot be understood"),
    };
    reply.failure(failure, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};

    const KEK: &str = "projects/p/locations/l/keyRings/r/cryptoKeys/k";

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }

    #[test]
    fn a_request_has_its_checksums() {
        let body = Sent::Plaintext(&[7; 32]).body(b"123456789");
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            STANDARD
                .decode(value["plaintext"].as_str().unwrap())
                .unwrap(),
            [7; 32]
        );
        // The check value of CRC-32C, of RFC 3720 appendix B.4's polynomial.
        assert_eq!(value["additionalAuthenticatedDataCrc32c"], "3808858755");
        assert_eq!(value["plaintextCrc32c"], crc32c(&[7; 32]).to_string());
        assert_eq!(value.as_object().unwrap().len(), 4);
    }

    #[test]
    fn what_comes_back_is_checked() {
        let good = serde_json::json!({
            "name": format!("{KEK}/cryptoKeyVersions/3"),
            "ciphertext": STANDARD.encode("blob"),
            "ciphertextCrc32c": crc32c(b"blob").to_string(),
            "verifiedPlaintextCrc32c": true,
            "verifiedAdditionalAuthenticatedDataCrc32c": true,
        });
        let outcome = |value: &serde_json::Value| encrypted(&reply(200, &value.to_string()), KEK);
        assert_eq!(outcome(&good).unwrap(), b"blob");
        let mut number = good.clone();
        number["ciphertextCrc32c"] = crc32c(b"blob").into();
        assert_eq!(outcome(&number).unwrap(), b"blob");
        for (member, value, failure) in [
            (
                "name",
                format!("{KEK}2/cryptoKeyVersions/3").into(),
                Failure::Malformed,
            ),
            ("name", serde_json::Value::Null, Failure::Malformed),
            ("ciphertext", "*".into(), Failure::Malformed),
            (
                "ciphertext",
                STANDARD.encode("blot").into(),
                Failure::Unreachable,
            ),
            (
                "ciphertextCrc32c",
                serde_json::Value::Null,
                Failure::Unreachable,
            ),
            ("ciphertextCrc32c", "1".into(), Failure::Unreachable),
            (
                "verifiedPlaintextCrc32c",
                false.into(),
                Failure::Unreachable,
            ),
            (
                "verifiedAdditionalAuthenticatedDataCrc32c",
                false.into(),
                Failure::Unreachable,
            ),
        ] {
            let mut bad = good.clone();
            bad[member] = value;
            assert_eq!(outcome(&bad).unwrap_err().failure, failure, "{bad}");
        }
        let text = STANDARD.encode([7; 32]);
        for (sum, primary, expected) in [
            (crc32c(&[7; 32]), "true", Some(false)),
            (crc32c(&[7; 32]), "false", Some(true)),
            (1, "true", None),
        ] {
            let body = format!(
                r#"{{"plaintext":"{text}","plaintextCrc32c":"{sum}","usedPrimary":{primary}}}"#
            );
            let opened = decrypted(&reply(200, &body)).map(|opened| opened.superseded);
            assert_eq!(opened.ok(), expected);
        }
    }

    #[test]
    fn a_keys_name_is_not_its_state() {
        let message = "projects/p/locations/l/keyRings/DESTROYED/cryptoKeys/DISABLED is in use";
        let body =
            format!(r#"{{"error":{{"status":"FAILED_PRECONDITION","message":"{message}"}}}}"#);
        let error = refusal(&reply(400, &body));
        assert_eq!(error.failure, Failure::Unreachable);
    }
}
