//! Hosts as policies and requests name them.

use core::net::Ipv6Addr; // addresses only: this floor has no sockets

/// `api.example.com`, `*.example.com` (one label more), either with `:port`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPattern {
    /// Lower case, without a dot at the end; behind a wildcard, from the dot on.
    name: String,
    any_label: bool,
    port: Option<u16>,
}

/// A host as a request names it: lower case name without a dot at the end, and the port if it is a number.
pub(super) struct Host<'h> {
    name: std::borrow::Cow<'h, str>,
    port: Option<u16>,
}

impl Host<'_> {
    pub(super) fn parse(text: &str) -> Host<'_> {
        let (name, port) = match text.rfind(':') {
            // The colons within the brackets of an IPv6 address are not the port's.
            Some(at) if !text[at..].contains(']') => (&text[..at], text[at + 1..].parse().ok()),
            _ => (text, None),
        };
        let name = name.trim_end_matches('.');
        let six = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']')?.parse::<Ipv6Addr>().ok());
        if let Some(address) = six {
            let name = spelled(address).into();
            return Host { name, port };
        }
        let lower = name.bytes().any(|byte| byte.is_ascii_uppercase());
        Host {
            name: if lower {
                name.to_ascii_lowercase().into()
            } else {
                name.into()
            },
            port,
        }
    }
}

/// The label of a host, counted from the left, from 1. An address has no labels.
pub(in crate::policy) fn host_label(host: &str, number: usize) -> Option<String> {
    let host = Host::parse(host);
    let is_address = host.name.starts_with('[')
        || host
            .name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if is_address {
        return None;
    }
    let label = host.name.split('.').nth(number.checked_sub(1)?)?;
    (!label.is_empty()).then(|| label.to_owned())
}

/// One address has many spellings: the one of RFC 5952 in brackets, or that of the address in IPv4 that it stands for (RFC 4291
/// section 2.5.5.2), to which connections go.
fn spelled(address: Ipv6Addr) -> String {
    match address.to_ipv4_mapped() {
        Some(address) => address.to_string(),
        None => format!("[{address}]"),
    }
}

/// Whether this can be the name of a host (RFC 1123, section 2.1, with the underscores that services have): labels of letters, digits, `-`
/// and `_`, 1 to 63 characters each, 253 in all, without a dot at the end.
pub fn is_host_name(text: &str) -> bool {
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label_fits)
}

impl HostPattern {
    /// Errors: what is wrong with it, for the policy's author.
    pub fn parse(text: &str) -> Result<HostPattern, &'static str> {
        if text.contains('/') {
            return Err("the host alone, without scheme and path");
        }
        let (whole, port) = match text.rfind(':') {
            Some(at) if !text[at..].contains(']') => {
                let digits = &text[at + 1..];
                let port = digits
                    .parse::<u16>()
                    .ok()
                    .filter(|port| *port > 0 && port.to_string() == digits);
                (
                    &text[..at],
                    Some(port.ok_or("the port is a number from 1 to 65535")?),
                )
            }
            _ => (text, None),
        };
        let name = whole
            .strip_suffix('.')
            .unwrap_or(whole)
            .to_ascii_lowercase();
        if !name.is_ascii() {
            return Err("write an international name in its ASCII form (xn--…)");
        }
        if let Some(address) = name.strip_prefix('[') {
            let inner = address
                .strip_suffix(']')
                .ok_or("an IPv6 address ends with `]`")?;
            let address: Ipv6Addr = inner.parse().map_err(|_| "this is no IPv6 address")?;
            return Ok(HostPattern {
                name: spelled(address),
                any_label: false,
                port,
            });
        }
        let (name, any_label) = match name.strip_prefix('*') {
            Some(rest) if rest.len() > 1 && rest.starts_with('.') => (rest.to_owned(), true),
            Some(_) => {
                return Err(
                    "a wildcard stands for the whole first label: `*.example.com`; leave `host` out to take all",
                );
            }
            None => (name, false),
        };
        if name.len() > 253 || !is_host_name(name.strip_prefix('.').unwrap_or(&name)) {
            return Err("labels of letters, digits and `-`, 1 to 63 characters each, 253 in all");
        }
        Ok(HostPattern {
            name,
            any_label,
            port,
        })
    }

    /// Whether it stands for more than one host.
    pub(in crate::policy) fn is_wide(&self) -> bool {
        self.any_label
    }

    pub(super) fn meets(&self, other: &HostPattern) -> bool {
        let port = self.port.is_none() || other.port.is_none() || self.port == other.port;
        let under = |wide: &HostPattern, one: &HostPattern| {
            wide.takes(&Host {
                name: one.name.as_str().into(),
                port: None,
            })
        };
        let name = match (self.any_label, other.any_label) {
            (true, false) => under(self, other),
            (false, true) => under(other, self),
            _ => self.name == other.name,
        };
        port && name
    }

    /// Whether a request for `host` (a name or an address, and perhaps a port) goes where this leads. More narrow than
    /// what a route takes: a request that states no port does not mean any.
    pub fn leads(&self, host: &str) -> bool {
        let host = Host::parse(host);
        self.takes(&host) && (self.port.is_none() || self.port == host.port)
    }

    /// Orders patterns that take one host: the smaller says more exactly what it means.
    pub fn width(&self) -> (bool, bool) {
        (self.any_label, self.port.is_none())
    }

    pub(super) fn takes(&self, host: &Host<'_>) -> bool {
        // A request that states no port may mean any.
        let port = self.port.is_none() || host.port.is_none() || self.port == host.port;
        let name = if self.any_label {
            host.name
                .strip_suffix(self.name.as_str())
                .is_some_and(|label| !label.is_empty() && !label.contains('.'))
        } else {
            host.name == self.name
        };
        port && name
    }
}
