//! What a route takes from a request apart from its body: the tenant, and the values for binds. It governs the response, too.
//!
//! The pieces come as text, so that this room knows no HTTP library.

use super::matching::{Parameters, host_label};
use super::{CALLER_BYTES_MAX, CallerSource, OutsideSource, Route, TenantSource};
use crate::context::{Circumstances, Outside};
use crate::transform::decode_form;
use std::fmt;
use std::sync::Arc;

/// A tenant's name is at most this long.
pub const TENANT_BYTES_MAX: usize = 256;

/// The policy declares a tenant, and the request does not state exactly one. The word is stable and holds nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TenantMissing {
    /// `missing`, `repeated`, `empty` or `too long`.
    pub what: &'static str,
}

impl fmt::Display for TenantMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the request's tenant is {}", self.what)
    }
}

impl std::error::Error for TenantMissing {}

/// Who is at the other end, as far as the connection itself says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer<'c> {
    /// The user's number, of a Unix socket.
    pub uid: Option<u32>,
    /// The name in a client certificate that was verified.
    pub name: Option<&'c str>,
}

impl Route {
    /// Collects tenant and outside values of a request that this route takes.
    ///
    /// `header` answers for a lower-case name (a value that is not text counts as missing); `query`: raw, without `?`;
    /// `host`: as for [`super::Policies::route`].
    ///
    /// Errors: the policy declares a tenant, and it is missing, repeated, empty or over 256 bytes.
    pub fn circumstances(
        &self,
        parameters: &Parameters,
        header: impl Fn(&str) -> Outside,
        query: Option<&str>,
        host: &str,
    ) -> Result<Circumstances, TenantMissing> {
        self.circumstances_of(None, parameters, header, query, host)
    }

    /// As [`Route::circumstances`], with a tenant that is known otherwise, where the policy declares one.
    ///
    /// Errors: as there.
    pub fn circumstances_of(
        &self,
        tenant: Option<&str>,
        parameters: &Parameters,
        header: impl Fn(&str) -> Outside,
        query: Option<&str>,
        host: &str,
    ) -> Result<Circumstances, TenantMissing> {
        let of_path = |name: &str| {
            parameters
                .get(name)
                .map_or(Outside::Missing, |value| Outside::Text(value.to_owned()))
        };
        let known = tenant.map(|tenant| Outside::Text(tenant.to_owned()));
        let tenant = match &self.tenant {
            None => None,
            Some(_) if known.is_some() => known,
            Some(TenantSource::Header(name)) => Some(header(name)),
            Some(TenantSource::HostLabel(number)) => {
                Some(host_label(host, *number).map_or(Outside::Missing, Outside::Text))
            }
            Some(TenantSource::Path(name)) => Some(of_path(name)),
            Some(TenantSource::Value(value)) => Some(Outside::Text(value.to_string())),
        };
        let outside = self.outside.iter().map(|source| match source {
            OutsideSource::Path(name) => of_path(name),
            OutsideSource::Header(name) => header(name),
            OutsideSource::Query(name) => query_parameter(query.unwrap_or_default(), name),
        });
        Ok(Circumstances {
            tenant: tenant.map(check_tenant).transpose()?,
            outside: outside.collect(),
            caller: None,
        })
    }

    /// Who asks. `None`: nobody that the policy could name, or it does not ask. `header`: as for [`Route::circumstances`].
    pub fn caller(&self, header: impl Fn(&str) -> Outside, peer: Peer<'_>) -> Option<Arc<str>> {
        let caller: Arc<str> = match self.caller.as_ref()? {
            CallerSource::Header(name) => match header(name) {
                Outside::Text(text) => text.into(),
                Outside::Missing | Outside::Repeated => return None,
            },
            CallerSource::PeerUid => peer.uid?.to_string().into(),
            CallerSource::MtlsSan => peer.name?.into(),
        };
        (1..=CALLER_BYTES_MAX)
            .contains(&caller.len())
            .then_some(caller)
    }

    /// A caller's name as the policy has it; `None` for one that no rule of this route names.
    pub fn listed(&self, caller: &str) -> Option<&Arc<str>> {
        let mut rules = self.request_rules.iter().chain(&self.response_rules);
        rules.find_map(|rule| Some(rule.reveal.callers.get_key_value(caller)?.0))
    }
}

fn check_tenant(tenant: Outside) -> Result<Arc<str>, TenantMissing> {
    let what = match tenant {
        Outside::Text(text) if text.is_empty() => "empty",
        Outside::Text(text) if text.len() > TENANT_BYTES_MAX => "too long",
        Outside::Text(text) => return Ok(text.into()),
        Outside::Missing => "missing",
        Outside::Repeated => "repeated",
    };
    Err(TenantMissing { what })
}

/// A parameter of a query in the form of `application/x-www-form-urlencoded` (WHATWG URL, section 5.1), read strictly: a
/// value with a bad percent-encoding, or that is no UTF-8, is missing.
fn query_parameter(query: &str, name: &str) -> Outside {
    let mut found = Outside::Missing;
    let mut seen = false;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if pair.is_empty() || decode_form(key.as_bytes()).as_deref() != Some(name) {
            continue;
        }
        if seen {
            return Outside::Repeated;
        }
        seen = true;
        found = decode_form(value.as_bytes()).map_or(Outside::Missing, Outside::Text);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn query(query: &str, expected: Outside) {
        assert_eq!(query_parameter(query, "id"), expected, "{query}");
    }

    #[test]
    fn query_parameters() {
        let text = |text: &str| Outside::Text(text.to_owned());
        query("id=7", text("7"));
        query("a=1&id=7&b=2", text("7"));
        query("id=a+b%20c%2B%C3%A9", text("a b c+é"));
        query("%69d=7", text("7"));
        query("id", text(""));
        query("id=", text(""));
        query("id=a=b", text("a=b"));
        query("", Outside::Missing);
        query("&&", Outside::Missing);
        query("ID=7", Outside::Missing);
        query("id%00=7", Outside::Missing);
        query("id=1&id=1", Outside::Repeated);
        query("id=1&i%64=2", Outside::Repeated);
        query("id=%zz", Outside::Missing);
        query("id=%ff", Outside::Missing);
        query("id=%", Outside::Missing);
        query("id=%&id=1", Outside::Repeated);
        query("id=1;id=2", text("1;id=2"));
    }

    #[test]
    fn tenants_are_bounded() {
        let check = |tenant: Outside| {
            check_tenant(tenant)
                .map(|t| t.len())
                .map_err(|missing| missing.what)
        };
        assert_eq!(check(Outside::Text("acme".into())), Ok(4));
        assert_eq!(check(Outside::Text("x".repeat(256))), Ok(256));
        assert_eq!(check(Outside::Text("x".repeat(257))), Err("too long"));
        assert_eq!(check(Outside::Text(String::new())), Err("empty"));
        assert_eq!(check(Outside::Missing), Err("missing"));
        assert_eq!(check(Outside::Repeated), Err("repeated"));
    }

    #[test]
    fn labels_of_hosts() {
        assert_eq!(
            host_label("Acme.api.example.com:8443", 1).as_deref(),
            Some("acme")
        );
        assert_eq!(
            host_label("acme.api.example.com.", 4).as_deref(),
            Some("com")
        );
        assert_eq!(host_label("acme.api.example.com", 5), None);
        assert_eq!(host_label("acme", 0), None);
        assert_eq!(host_label("127.0.0.1:80", 1), None);
        assert_eq!(host_label("[::1]:80", 1), None);
        assert_eq!(host_label("", 1), None);
        assert_eq!(host_label(".a", 1), None);
    }
}
