//! Redirections (RFC 9110 section 15.4): what the client sends next is to come this way, too.

use super::route::Way;
use crate::audit::Record;
use crate::error::{Code, Error};
use crate::policy::Policies;
use crate::transform::Spot;
use http::header::{HeaderValue, LOCATION};
use http::{Method, StatusCode, response};

/// Where the requests of a road may go.
pub enum Reach<'r> {
    /// To one service, of this authority.
    One(&'r str),
    /// Wherever they say: what is for a host that these policies name comes this way, whatever sent it there.
    Any(&'r Policies),
}

/// Keeps the client on this road. A redirection to the service itself becomes a relative one, which leads back to the listener; one that
/// leads past the policy stays as it is, unless the client would send there what the route seals. `sent_some`: the request had a body.
///
/// # Errors
/// [`Code::UpstreamRedirect`], where it would.
pub fn keep(
    head: &mut response::Parts,
    method: &Method,
    reach: &Reach<'_>,
    way: Option<&Way<'_>>,
    sent_some: bool,
    record: &mut Record,
) -> Result<(), Error> {
    let Some(location) = head.headers.get(LOCATION) else {
        return Ok(());
    };
    let Some((to, rest)) = elsewhere(location.as_bytes()) else {
        return Ok(());
    };
    let past = match reach {
        Reach::One(authority) if same_authority(to, authority) => {
            match HeaderValue::from_bytes(&relative(rest)) {
                Ok(relative) => {
                    head.headers.insert(LOCATION, relative);
                    false
                }
                Err(_) => true,
            }
        }
        Reach::One(_) => true,
        Reach::Any(policies) => {
            // What stands before an `@` is no part of the host.
            let host = to.rsplit(|&byte| byte == b'@').next().unwrap_or(to);
            std::str::from_utf8(host).map_or(true, |host| !policies.names(host))
        }
    };
    let Some(way) = way.filter(|_| past) else {
        return Ok(());
    };
    let sealed = &way.route.request;
    let body = sent_some && keeps_body(head.status, method) && sealed.seals();
    // Told of another service, a client may send its own fields there with any request.
    let fields = head.status.is_redirection() && sealed.seals_named(Spot::Header);
    match body || fields {
        true => way.refuse(Code::UpstreamRedirect.into(), record),
        false => Ok(()),
    }
}

/// Clients turn a POST into a GET at 301 and 302, but no other method.
fn keeps_body(status: StatusCode, method: &Method) -> bool {
    match status {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => *method != Method::POST,
        _ => false,
    }
}

/// Authority and rest of a reference that has an authority (RFC 3986 section 4.1).
fn elsewhere(location: &[u8]) -> Option<(&[u8], &[u8])> {
    let scheme = location
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b))
        .count();
    let after = match &location[scheme..] {
        [b':', rest @ ..] => rest,
        // Without a scheme, or with something else before the first slash: relative.
        _ if scheme == 0 => location,
        _ => return None,
    };
    let after = after.strip_prefix(b"//")?;
    let end = after
        .iter()
        .position(|b| b"/?#\\".contains(b))
        .unwrap_or(after.len());
    Some(after.split_at(end))
}

/// What follows the authority, as a reference of its own.
fn relative(rest: &[u8]) -> Vec<u8> {
    match rest {
        // A path that begins with two slashes would read as another authority.
        [b'/', b'/', ..] => [b"/.", rest].concat(),
        [b'/', ..] => rest.to_vec(),
        _ => [b"/", rest].concat(),
    }
}

/// Equal but for case and a default port.
fn same_authority(one: &[u8], other: &str) -> bool {
    let bare = |text: &[u8]| {
        let text = text.to_ascii_lowercase();
        let text = text
            .strip_suffix(b":443")
            .or(text.strip_suffix(b":80"))
            .unwrap_or(&text);
        text.to_vec()
    };
    bare(one) == bare(other.as_bytes())
}
