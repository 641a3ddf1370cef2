//! What a forward listener has besides: the authority by which it stands in for hosts, and who may use it.

use crate::error::Code;
use crate::intercept::Authority;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::PROXY_AUTHORIZATION;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Users of one listener.
const USERS_MAX: usize = 64;
/// Bytes of a password, at least: it is the machine's, not a person's.
const PASSWORD_BYTES_MIN: usize = 12;
/// Bytes of `user:password`.
const PAIR_BYTES_MAX: usize = 512;

/// A forward proxy's own settings.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Stands in for the hosts that a policy names.
    pub authority: Arc<Authority>,
    /// Who may use the proxy. None: whoever reaches it.
    pub credentials: Option<Credentials>,
    /// How long nothing may move in a tunnel.
    pub quiet: Duration,
}

impl Forward {
    /// Why a request with these fields is not taken, if so.
    pub(super) fn refusal(&self, headers: &HeaderMap) -> Option<Code> {
        let credentials = self.credentials.as_ref()?;
        (!credentials.admit(headers)).then_some(Code::ProxyCredentials)
    }
}

/// Why a file holds no credentials. It says what is wrong, and nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCredentials(&'static str);

impl fmt::Display for BadCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadCredentials {}

/// Users with their passwords, for the Basic scheme (RFC 7617). Kept as digests.
#[derive(Clone)]
pub struct Credentials(Arc<[[u8; 32]]>);

impl Credentials {
    /// `user:password`, one a line; empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// There is none, there are too many, or a line is something else.
    pub fn new(text: &[u8]) -> Result<Credentials, BadCredentials> {
        let mut digests = Vec::new();
        for line in text.split(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let colon = line.iter().position(|&byte| byte == b':');
            let colon = colon.filter(|&colon| colon > 0 && line.len() <= PAIR_BYTES_MAX);
            let Some(colon) = colon.filter(|_| !line.iter().any(u8::is_ascii_control)) else {
                return Err(BadCredentials("a line is not user:password"));
            };
            if line.len() - colon - 1 < PASSWORD_BYTES_MIN {
                return Err(BadCredentials("a password has less than 12 characters"));
            }
            if digests.len() == USERS_MAX {
                return Err(BadCredentials("more than 64 users"));
            }
            digests.push(digest(line));
        }
        match digests.is_empty() {
            true => Err(BadCredentials("there is no user:password")),
            false => Ok(Credentials(digests.into())),
        }
    }

    /// Whether the fields name a user with the right password, in a time that depends on neither.
    fn admit(&self, headers: &HeaderMap) -> bool {
        let mut fields = headers.get_all(PROXY_AUTHORIZATION).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else {
            return false;
        };
        let field = field.as_bytes();
        let Some((scheme, coded)) = field.split_at_checked("Basic ".len()) else {
            return false;
        };
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            return false;
        }
        let Ok(pair) = STANDARD.decode(coded.trim_ascii()) else {
            return false;
        };
        let shown = digest(&pair);
        let differs = |known: &[u8; 32]| {
            let pairs = known.iter().zip(&shown);
            pairs.fold(0, |differs, (a, b)| differs | (a ^ b))
        };
        let known = self.0.iter();
        known.fold(false, |found, known| {
            found | (std::hint::black_box(differs(known)) == 0)
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

fn digest(pair: &[u8]) -> [u8; 32] {
    Sha256::digest(pair).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_are_no_credentials() {
        for (text, expected) in [
            ("", "no user"),
            ("# only a remark\n\n", "no user"),
            ("user", "not user:password"),
            (":long enough it is", "not user:password"),
            ("user:short", "less than 12"),
            ("user:long\tenough it is", "not user:password"),
        ] {
            let error = Credentials::new(text.as_bytes()).expect_err(text);
            assert!(error.to_string().contains(expected), "{error}");
        }
        let many = "user:0123456789ab\n".repeat(USERS_MAX + 1);
        assert!(Credentials::new(many.as_bytes()).is_err());
        assert!(Credentials::new(&many.as_bytes()[18..]).is_ok());
    }

    #[test]
    fn who_is_let_in() {
        let text = "# the pod's\napp:correct horse battery\r\nother:staple:with:colons\n";
        let credentials = Credentials::new(text.as_bytes()).expect("credentials");
        let fields = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                let value = HeaderValue::from_str(value).expect("a value");
                headers.append(PROXY_AUTHORIZATION, value);
            }
            headers
        };
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        let good = basic("app:correct horse battery");
        for (values, admitted) in [
            (vec![good.as_str()], true),
            (vec![&good.replace("Basic", "bAsIc")], true),
            (vec![&basic("other:staple:with:colons")], true),
            (vec![&basic("app:staple:with:colons")], false),
            (vec![&basic("app:")], false),
            (vec![&good.replace("Basic", "Bearer")], false),
            (vec!["Basic"], false),
            (vec!["Basic ???"], false),
            (vec![&good, &good], false),
            (vec![], false),
        ] {
            assert_eq!(credentials.admit(&fields(&values)), admitted, "{values:?}");
        }
        assert_eq!(format!("{credentials:?}"), "Credentials(..)");
    }
}
