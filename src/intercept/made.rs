//! Making the authority: a key, and a certificate that may vouch for some names and no others.

use super::BadAuthority;
use crate::entropy;
use crate::policy::is_host_name;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, GeneralSubtree,
    IsCa, KeyPair, KeyUsagePurpose, NameConstraints, SerialNumber,
};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// Names of one authority.
const NAMES_MAX: usize = 256;
/// Clocks of clients may be behind ours by this much.
const GOOD_SINCE: Duration = Duration::from_secs(24 * 3600);

/// Whom an authority may vouch for: domains with all below them, and addresses. None at all: everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Vec<Name>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    /// Lower case.
    Domain(String),
    Address(IpAddr),
}

/// Why a text names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadNames(&'static str);

impl fmt::Display for BadNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Names {
    /// `example.com` (and all below it), or an address.
    ///
    /// # Errors
    /// A text is neither, or there are too many.
    pub fn new<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Names, BadNames> {
        let mut names = Names::default();
        for (count, text) in texts.into_iter().enumerate() {
            if count == NAMES_MAX {
                return Err(BadNames("more than 256 names"));
            }
            names.add(text)?;
        }
        Ok(names)
    }

    fn add(&mut self, text: &str) -> Result<(), BadNames> {
        if let Ok(address) = text.parse() {
            self.0.push(Name::Address(address));
            return Ok(());
        }
        if text.starts_with('*') || text.starts_with('.') {
            return Err(BadNames(
                "a domain takes all names below it: write it without `*` and dot",
            ));
        }
        if !is_host_name(text) {
            return Err(BadNames(
                "a domain such as example.com, or an address, without port",
            ));
        }
        self.0.push(Name::Domain(text.to_ascii_lowercase()));
        Ok(())
    }

    /// As they are written.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|name| match name {
            Name::Domain(domain) => domain.clone(),
            Name::Address(address) => address.to_string(),
        })
    }

    /// Whether everybody is vouched for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this host is among them: a name, or an address without brackets.
    pub fn permit(&self, host: &str) -> bool {
        if self.is_empty() {
            return true;
        }
        let (host, address) = (host.to_ascii_lowercase(), host.parse::<IpAddr>().ok());
        self.0.iter().any(|name| match name {
            Name::Address(one) => address == Some(*one),
            Name::Domain(domain) => host
                .strip_suffix(domain.as_str())
                .is_some_and(|before| before.is_empty() || before.ends_with('.')),
        })
    }

    /// RFC 5280 section 4.2.1.10. A kind of name that is not listed would be free: it is excluded as a whole.
    fn constraints(&self) -> Option<NameConstraints> {
        if self.is_empty() {
            return None;
        }
        let permitted = self.0.iter().map(|name| match name {
            Name::Domain(domain) => GeneralSubtree::DnsName(domain.clone()),
            Name::Address(address) => {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*address, bits))
            }
        });
        let has = |of: fn(&Name) -> bool| self.0.iter().any(of);
        let mut excluded = Vec::new();
        // The empty name has all others below it.
        if !has(|name| matches!(name, Name::Domain(_))) {
            excluded.push(GeneralSubtree::DnsName(String::new()));
        }
        if !has(|name| matches!(name, Name::Address(IpAddr::V4(_)))) {
            excluded.push(GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])));
        }
        if !has(|name| matches!(name, Name::Address(IpAddr::V6(_)))) {
            excluded.push(GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])));
        }
        Some(NameConstraints {
            permitted_subtrees: permitted.collect(),
            excluded_subtrees: excluded,
        })
    }
}

/// What a certificate of this name says besides its times and its key.
pub(super) fn params(name: &str, names: &Names) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, name.to_owned());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = names.constraints();
    params
}

/// Sets from when until when a certificate is good. None: before 1970.
pub(super) fn limit(
    params: &mut CertificateParams,
    from: SystemTime,
    until: SystemTime,
) -> Option<()> {
    let since = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(Duration::from_secs(since.as_secs()))
    };
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since(from)?;
    params.not_after = epoch + since(until)?;
    Some(())
}

/// A new authority: its certificate, and its key, in PEM. Good from a day before `now` (clocks differ) for `days`.
///
/// # Errors
/// No key could be made.
pub fn made(
    names: &Names,
    now: SystemTime,
    days: u32,
) -> Result<(String, Zeroizing<String>), BadAuthority> {
    let failed = BadAuthority("no certificate can be made");
    let mut serial = [0; 16];
    entropy::fill(&mut serial);
    serial[0] = serial[0] & 0x7f | 0x40;
    // Two authorities of one name would be taken for one another.
    let mark = u32::from_be_bytes([serial[12], serial[13], serial[14], serial[15]]);
    let mut params = params(&format!("fieldveil CA {mark:08x}"), names);
    let end = now + Duration::from_secs(u64::from(days) * 24 * 3600);
    now.checked_sub(GOOD_SINCE)
        .and_then(|from| limit(&mut params, from, end))
        .ok_or(failed)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let key = KeyPair::generate().map_err(|_| failed)?;
    let certificate = params.self_signed(&key).map_err(|_| failed)?;
    Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
}
