//! What goes over the wire to transit and comes back, and what each answer means. Pure.
//!
//! A blob's text is `vault:vN:base64`; N in decimal without leading zeros, and the base64 canonical: what is accepted is what
//! will be sent again.

use super::super::http::Reply;
use super::super::{Failure, KmsError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::borrow::Cow;
use zeroize::Zeroizing;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Option<Data<'a>>,
    #[serde(default)]
    errors: Vec<Cow<'a, str>>,
    auth: Option<Auth>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    ciphertext: Option<Cow<'a, str>>,
    #[serde(borrow)]
    plaintext: Option<Cow<'a, str>>,
    latest_version: Option<u32>,
    ttl: Option<u64>,
    renewable: Option<bool>,
}

/// What a login or a renewal brings.
#[derive(Deserialize)]
pub struct Auth {
    pub client_token: Zeroizing<String>,
    /// Seconds; 0: for ever.
    pub lease_duration: u64,
    #[serde(default)]
    pub renewable: bool,
}

fn envelope(body: &[u8]) -> Option<Envelope<'_>> {
    serde_json::from_slice(body).ok()
}

fn data(body: &[u8]) -> Option<Data<'_>> {
    envelope(body)?.data
}

/// `{"plaintext":"..."}`, in one buffer that never grows.
pub fn plaintext(dek: &[u8; 32]) -> Zeroizing<Vec<u8>> {
    let mut body = Zeroizing::new(Vec::with_capacity(64));
    body.extend_from_slice(b"{\"plaintext\":\"");
    let at = body.len();
    body.resize(at + 44, 0);
    // 32 bytes are 44 characters.
    let _ = STANDARD.encode_slice(dek, &mut body[at..]);
    body.extend_from_slice(b"\"}");
    body
}

/// The version that a blob names, and `{"ciphertext":"vault:vN:..."}`.
pub fn ciphertext(blob: &[u8]) -> Result<(u32, Zeroizing<Vec<u8>>), KmsError> {
    let malformed = || KmsError::new(Failure::Malformed, "this is no blob of transit");
    let (version, sealed) = blob.split_first_chunk().ok_or_else(malformed)?;
    let version = u32::from_be_bytes(*version);
    if version == 0 || sealed.is_empty() {
        return Err(malformed());
    }
    let text = format!(
        "{{\"ciphertext\":\"vault:v{version}:{}\"}}",
        STANDARD.encode(sealed)
    );
    Ok((version, Zeroizing::new(text.into_bytes())))
}

fn parse(ciphertext: &str) -> Option<(u32, Vec<u8>)> {
    let (version, sealed) = ciphertext.strip_prefix("vault:v")?.split_once(':')?;
    let number: u32 = version.parse().ok().filter(|number| *number > 0)?;
    let sealed = STANDARD.decode(sealed).ok()?;
    let fits = number.to_string() == version && !sealed.is_empty();
    fits.then(|| (number, [&number.to_be_bytes()[..], &sealed].concat()))
}

/// The version and the blob of an answer to `encrypt`.
pub fn encrypted(reply: &Reply) -> Result<(u32, Vec<u8>), KmsError> {
    let data = answered(reply)?;
    data.ciphertext
        .as_deref()
        .and_then(parse)
        .ok_or_else(|| not_understood(reply))
}

/// The plaintext of an answer to `decrypt`.
pub fn decrypted(reply: &Reply) -> Result<Zeroizing<Vec<u8>>, KmsError> {
    let data = answered(reply)?;
    let text = Zeroizing::new(
        data.plaintext
            .ok_or_else(|| not_understood(reply))?
            .into_owned(),
    );
    STANDARD
        .decode(text.as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| not_understood(reply))
}

/// The latest version in a key's metadata.
pub fn latest_version(body: &[u8]) -> Option<u32> {
    data(body)?.latest_version
}

/// Seconds to live (0: for ever) and whether it may be renewed, of the token that asked.
pub fn looked_up(body: &[u8]) -> Option<(u64, bool)> {
    let data = data(body)?;
    Some((data.ttl?, data.renewable.unwrap_or(false)))
}

/// What a login or a renewal brought.
pub fn auth(reply: &Reply) -> Result<Auth, KmsError> {
    let auth = envelope(&reply.body).and_then(|envelope| envelope.auth);
    auth.filter(|auth| !auth.client_token.is_empty())
        .ok_or_else(|| not_understood(reply))
}

fn not_understood(reply: &Reply) -> KmsError {
    reply.failure(Failure::Malformed, "the answer cannot be understood")
}

fn answered(reply: &Reply) -> Result<Data<'_>, KmsError> {
    if reply.status.as_u16() != 200 {
        return Err(refusal(reply));
    }
    data(&reply.body).ok_or_else(|| not_understood(reply))
}

/// Phrases of the server's for a request that it calls bad, and what each means.
const PHRASES: &[(&str, Failure, &str)] = &[
    (
        "encryption key not found",
        Failure::NotFound,
        "there is no such key",
    ),
    (
        "disallowed by policy (too old)",
        Failure::Disabled,
        "the version is below the key's min_decryption_version",
    ),
    (
        "soft deleted",
        Failure::Destroyed,
        "the key is deleted, and can still be restored",
    ),
    (
        "soft-deleted",
        Failure::Destroyed,
        "the key is deleted, and can still be restored",
    ),
    (
        "version is too new",
        Failure::Malformed,
        "the blob names a version that the key does not have",
    ),
    (
        "message authentication failed",
        Failure::Malformed,
        "the blob does not open under this key",
    ),
    (
        "invalid ciphertext",
        Failure::Malformed,
        "this is no blob of transit",
    ),
    (
        "missing 'context'",
        Failure::Malformed,
        "the key is a derived one, which wants a context",
    ),
    (
        "not supported for key type",
        Failure::Malformed,
        "the key is of a kind that cannot encrypt",
    ),
];

/// What an answer without the wanted status means.
pub fn refusal(reply: &Reply) -> KmsError {
    let status = reply.status.as_u16();
    let (failure, what) = match status {
        400 => {
            let errors = envelope(&reply.body).map(|envelope| envelope.errors);
            let errors = errors.unwrap_or_default();
            let known = PHRASES
                .iter()
                .find(|(phrase, ..)| errors.iter().any(|error| error.contains(phrase)));
            known.map_or(
                (Failure::Malformed, "the server calls it a bad request"),
                |(_, failure, what)| (*failure, *what),
            )
        }
        401 | 403 => (Failure::Denied, "the policy does not allow it"),
        404 => (Failure::NotFound, "no such mount, namespace or key"),
        405 => (Failure::NotFound, "the mount is no transit engine"),
        300..=399 => (
            Failure::Unreachable,
            "redirected, as by a standby; redirections are not followed",
        ),
        412 | 472 | 473 => (Failure::Unreachable, "a standby that cannot answer yet"),
        429 => (Failure::Unreachable, "too many requests"),
        503 => (Failure::Unreachable, "sealed, or in maintenance"),
        500..=599 => (Failure::Unreachable, "a fault of the server's"),
        _ => (Failure::Malformed, "the answer cannot be understood"),
    };
    reply.failure(failure, what)
}

/// What an answer to a login means that is none.
pub fn login_refusal(reply: &Reply) -> KmsError {
    match reply.status.as_u16() {
        400..=405 => reply.failure(Failure::Denied, "the login is refused"),
        _ => refusal(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }

    #[test]
    fn a_blob_is_its_text() {
        let text = r#"{"data":{"ciphertext":"vault:v258:AAECAw=="}}"#;
        let (version, blob) = encrypted(&reply(200, text)).unwrap();
        assert_eq!((version, &blob[..]), (258, &[0, 0, 1, 2, 0, 1, 2, 3][..]));
        let (version, body) = ciphertext(&blob).unwrap();
        assert_eq!(version, 258);
        assert_eq!(&body[..], br#"{"ciphertext":"vault:v258:AAECAw=="}"#);
        for blob in [&[][..], &[0, 0, 0], &[0, 0, 0, 1], &[0, 0, 0, 0, 1]] {
            assert_eq!(ciphertext(blob).unwrap_err().failure, Failure::Malformed);
        }
    }

    #[test]
    fn what_is_no_answer() {
        for ciphertext in [
            "",
            "vault:v1:",
            "vault:v0:AAAA",
            "vault:v01:AAAA",
            "vault:v+1:AAAA",
            "vault:v4294967296:AAAA",
            "vault:v1:AAA",
            "vault:v1:AAB=",
            "vault:v1:AA AA",
            "bao:v1:AAAA",
        ] {
            let text = format!(r#"{{"data":{{"ciphertext":"{ciphertext}"}}}}"#);
            let error = encrypted(&reply(200, &text)).unwrap_err();
            assert_eq!(error.failure, Failure::Malformed, "{ciphertext}");
        }
        // An item's error under a good status, too (as batches have it).
        for body in [
            "",
            "<html>",
            "null",
            "[]",
            "{}",
            r#"{"data":null}"#,
            r#"{"data":{}}"#,
            r#"{"data":{"plaintext":7}}"#,
            r#"{"data":{"plaintext":"*"}}"#,
            r#"{"data":{"batch_results":[{"error":"x"}]}}"#,
            r#"{"errors":["x"]}"#,
        ] {
            let error = decrypted(&reply(200, body)).unwrap_err();
            assert_eq!(error.failure, Failure::Malformed, "{body}");
        }
    }

    #[test]
    fn a_request_holds_the_key_and_nothing_else() {
        let body = plaintext(&[7; 32]);
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let text = value["plaintext"].as_str().unwrap();
        assert_eq!(STANDARD.decode(text).unwrap(), [7; 32]);
        assert_eq!(value.as_object().unwrap().len(), 1);
    }
}
