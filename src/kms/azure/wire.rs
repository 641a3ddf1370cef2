//! What goes over the wire to a vault and comes back, and what each answer means. Pure.

use crate::kms::http::Reply;
use crate::kms::{Failure, KmsError};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Uri, header};
use serde::Deserialize;
use std::borrow::Cow;
use zeroize::Zeroizing;

/// Bytes of a version's name.
pub const VERSION_LEN: usize = 16;

/// A version's name, which Azure writes in hexadecimal.
pub type Version = [u8; VERSION_LEN];

/// How a vault's keys wrap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// RSA of 2048, 3072 or 4096 bits (RFC 8017 section 7.1, with SHA-256).
    RsaOaep256,
    /// AES of 256 bits (RFC 3394), in a Managed HSM.
    A256Kw,
}

impl Algorithm {
    fn word(self) -> &'static str {
        match self {
            Algorithm::RsaOaep256 => "RSA-OAEP-256",
            Algorithm::A256Kw => "A256KW",
        }
    }

    /// Whether a wrapped data key can have this length.
    pub fn fits(self, value: &[u8]) -> bool {
        match self {
            Algorithm::RsaOaep256 => matches!(value.len(), 256 | 384 | 512),
            Algorithm::A256Kw => value.len() == 40,
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Version> {
    let mut version = Version::default();
    for (byte, digits) in version.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    (hex(&version) == text.to_ascii_lowercase()).then_some(version)
}

/// `{"alg":"...","value":"..."}`, in one buffer that never grows.
pub fn value(algorithm: Algorithm, bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let length = (bytes.len() * 4).div_ceil(3);
    let mut body = Zeroizing::new(Vec::with_capacity(64 + length));
    body.extend_from_slice(b"{\"alg\":\"");
    body.extend_from_slice(algorithm.word().as_bytes());
    body.extend_from_slice(b"\",\"value\":\"");
    let at = body.len();
    body.resize(at + length, 0);
    let _ = URL_SAFE_NO_PAD.encode_slice(bytes, &mut body[at..]);
    body.extend_from_slice(b"\"}");
    body
}

#[derive(Deserialize)]
struct Answered<'a> {
    #[serde(borrow)]
    kid: Cow<'a, str>,
    #[serde(borrow)]
    value: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Properties<'a> {
    #[serde(borrow)]
    key: Key<'a>,
}

#[derive(Deserialize)]
struct Key<'a> {
    #[serde(borrow)]
    kid: Cow<'a, str>,
}

fn not_understood(reply: &Reply) -> KmsError {
    reply.failure(Failure::Malformed, "the answer cannot be understood")
}

/// The version in `https://HOST/keys/NAME/VERSION`, if it is this key's.
fn version_of(kid: &str, kek: &str) -> Option<Version> {
    let (_, path) = kid.strip_prefix("https://")?.split_once("/keys/")?;
    let (name, version) = path.split_once('/')?;
    name.eq_ignore_ascii_case(kek).then(|| from_hex(version))?
}

fn answered(reply: &Reply, kek: &str) -> Result<(Version, Zeroizing<Vec<u8>>), KmsError> {
    if reply.status.as_u16() != 200 {
        return Err(refusal(reply));
    }
    let answered: Answered<'_> =
        serde_json::from_slice(&reply.body).map_err(|_| not_understood(reply))?;
    let version = version_of(&answered.kid, kek)
        .ok_or_else(|| reply.failure(Failure::Malformed, "the answer is another key's"))?;
    let text = Zeroizing::new(answered.value.into_owned());
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
    let bytes = bytes.map_err(|_| not_understood(reply))?;
    Ok((version, Zeroizing::new(bytes)))
}

/// The version that wrapped, and what it made.
pub fn wrapped(
    reply: &Reply,
    kek: &str,
    algorithm: Algorithm,
) -> Result<(Version, Zeroizing<Vec<u8>>), KmsError> {
    let (version, value) = answered(reply, kek)?;
    match algorithm.fits(&value) {
        true => Ok((version, value)),
        false => Err(not_understood(reply)),
    }
}

/// What `version` unwrapped.
pub fn unwrapped(
    reply: &Reply,
    kek: &str,
    version: &Version,
) -> Result<Zeroizing<Vec<u8>>, KmsError> {
    let (answering, dek) = answered(reply, kek)?;
    match answering == *version {
        true => Ok(dek),
        false => Err(reply.failure(Failure::Malformed, "the answer is another version's")),
    }
}

/// The newest version, from a key's properties.
pub fn newest(reply: &Reply, kek: &str) -> Option<Version> {
    let properties: Properties<'_> = serde_json::from_slice(&reply.body).ok()?;
    version_of(&properties.key.kid, kek)
}

/// What tokens the vault wants, from its challenge: `Bearer authorization="...", resource="https://vault.azure.net"`. Tokens for a
/// domain that the vault is not of would be good elsewhere: whoever asks for them gets none.
pub fn resource(reply: &Reply, vault: &str) -> Result<String, KmsError> {
    let none = |what| reply.failure(Failure::Malformed, what);
    let challenges = reply.headers.get_all(header::WWW_AUTHENTICATE);
    let bearer = challenges.iter().filter_map(|value| {
        let (scheme, rest) = value.to_str().ok()?.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(rest)
    });
    let named = |rest: &str| {
        let mut found = None;
        for parameter in rest.split(',') {
            let Some((name, text)) = parameter.split_once('=') else {
                continue;
            };
            let text = text.trim().trim_matches('"');
            match name.trim() {
                "resource" => return Some(text.to_owned()),
                "scope" => found = text.strip_suffix("/.default").map(str::to_owned),
                _ => {}
            }
        }
        found
    };
    let resource = bearer.filter_map(named).next();
    let resource = resource.ok_or_else(|| none("the vault does not say what tokens it wants"))?;
    let resource = resource.trim_end_matches('/').to_owned();
    let uri: Option<Uri> = resource.parse().ok();
    let domain = uri.as_ref().and_then(|uri| {
        let is_bare = uri.scheme_str() == Some("https") && matches!(uri.path(), "" | "/");
        uri.host().filter(|_| is_bare && uri.query().is_none())
    });
    let is_of = |domain: &str| {
        let rest = vault.strip_suffix(&domain.to_ascii_lowercase());
        domain.contains('.') && rest.is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    };
    match domain.is_some_and(is_of) {
        true => Ok(resource),
        false => Err(none(
            "it asks for tokens of another domain than the vault's: it gets none",
        )),
    }
}

#[derive(Deserialize)]
struct Refused<'a> {
    #[serde(borrow)]
    error: Option<Fault<'a>>,
}

#[derive(Deserialize)]
struct Fault<'a> {
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    innererror: Option<Inner<'a>>,
}

#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
}

/// Codes of a key that its owner has switched off, or that is not in its time.
const OFF: [&str; 3] = ["KeyDisabled", "KeyExpired", "KeyNotYetValid"];

/// What an answer other than 200 means.
pub fn refusal(reply: &Reply) -> KmsError {
    let refused: Option<Refused<'_>> = serde_json::from_slice(&reply.body).ok();
    let fault = refused.and_then(|refused| refused.error);
    let is_off = fault.is_some_and(|fault| {
        let inner = fault.innererror.and_then(|inner| inner.code);
        let mut codes = fault.code.into_iter().chain(inner);
        codes.any(|code| OFF.contains(&&*code))
    });
    let (failure, what) = match reply.status.as_u16() {
        400 if is_off => (Failure::Disabled, "the key's version is not enabled"),
        400 => (
            Failure::Malformed,
            "the blob is not of this key, or the request is a bad one",
        ),
        401 => (Failure::Denied, "the token is refused"),
        403 if is_off => (Failure::Disabled, "the key's version is not enabled"),
        403 => (
            Failure::Denied,
            "the identity may not use the key, or not from here",
        ),
        404 => (Failure::NotFound, "there is no such key"),
        300..=399 => (
            Failure::Unreachable,
            "redirected; redirections are not followed",
        ),
        408 | 409 => (Failure::Unreachable, "cut off"),
        429 => (Failure::Unreachable, "too many requests"),
        500..=599 => (Failure::Unreachable, "a fault of the server's"),
        _ => (Failure::Malformed, "the answer cannot be understood"),
    };
    reply.failure(failure, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, StatusCode};

    fn challenge(text: &str) -> Reply {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_str(text).unwrap(),
        );
        Reply {
            status: StatusCode::UNAUTHORIZED,
            headers,
            body: Zeroizing::default(),
        }
    }

    #[test]
    fn tokens_are_for_the_vaults_own_domain() {
        let vault = "cards.vault.azure.net";
        for (text, expected) in [
            (
                r#"Bearer authorization="https://login.windows.net/1-2", resource="https://vault.azure.net""#,
                Some("https://vault.azure.net"),
            ),
            (
                r#"bearer resource="https://vault.azure.net/""#,
                Some("https://vault.azure.net"),
            ),
            (
                r#"Bearer authorization_uri="x", scope="https://vault.azure.net/.default""#,
                Some("https://vault.azure.net"),
            ),
            (r#"Bearer resource="https://managedhsm.azure.net""#, None),
            (r#"Bearer resource="https://cards.vault.azure.net""#, None),
            (r#"Bearer resource="https://ault.azure.net""#, None),
            (r#"Bearer resource="https://net""#, None),
            (r#"Bearer resource="http://vault.azure.net""#, None),
            (
                r#"Bearer resource="https://vault.azure.net@evil.example""#,
                None,
            ),
            (r#"Bearer resource="https://vault.azure.net/x""#, None),
            (r#"Bearer resource="https://graph.microsoft.com""#, None),
            (r#"Bearer resource="""#, None),
            (r#"Basic realm="x""#, None),
            ("Bearer", None),
        ] {
            let found = resource(&challenge(text), vault);
            assert_eq!(found.as_deref().ok(), expected, "{text}");
            if let Err(error) = found {
                assert_eq!(error.failure, Failure::Malformed, "{text}");
            }
        }
    }

    #[test]
    fn versions_are_of_the_key_that_was_asked() {
        let version = "0698c2156c1a4e1da5b6bab6f6422fd6";
        let known = from_hex(version).unwrap();
        assert_eq!(hex(&known), version);
        for (kid, expected) in [
            (
                format!("https://v.vault.azure.net/keys/cards/{version}"),
                Some(known),
            ),
            (
                format!("https://v.vault.azure.net/keys/Cards/{version}"),
                Some(known),
            ),
            (
                format!("https://v.vault.azure.net/keys/other/{version}"),
                None,
            ),
            (
                format!("https://v.vault.azure.net/keys/cards/{version}00"),
                None,
            ),
            (
                format!("https://v.vault.azure.net/keys/cards/{version}/x"),
                None,
            ),
            (
                "https://v.vault.azure.net/keys/cards/0698c215".to_owned(),
                None,
            ),
            ("https://v.vault.azure.net/keys/cards".to_owned(), None),
            (format!("/keys/cards/{version}"), None),
        ] {
            assert_eq!(version_of(&kid, "cards"), expected, "{kid}");
        }
    }

    #[test]
    fn a_request_holds_the_key_and_its_algorithm() {
        let body = value(Algorithm::A256Kw, &[7; 32]);
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["alg"], "A256KW");
        let text = value["value"].as_str().unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(text).unwrap(), [7; 32]);
        assert_eq!(value.as_object().unwrap().len(), 2);
    }
}
