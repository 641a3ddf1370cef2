//! Redirections (RFC 9110 section 15.4): what the client sends next is to come this way, too.

use super::route::Way;
use crate::audit::Record;
use crate::error::{Code, Error};
use crate::policy::Policies;
use crate::transform::Spot;
use http::header::{Entry, HeaderValue, LOCATION};
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
    let Entry::Occupied(mut locations) = head.headers.entry(LOCATION) else {
        return Ok(());
    };
    // Of several, one client takes this and another that.
    let mut past = false;
    for location in locations.iter_mut() {
        past |= leads_past(location, reach);
    }
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

/// Whether it leads past the policy. One to the service itself becomes relative.
fn leads_past(location: &mut HeaderValue, reach: &Reach<'_>) -> bool {
    let Some((to, rest)) = elsewhere(location.as_bytes()) else {
        return false;
    };
    match reach {
        Reach::One(authority) if same_authority(&to, authority) => {
            match HeaderValue::from_bytes(&relative(&rest)) {
                Ok(relative) => {
                    *location = relative;
                    false
                }
                Err(_) => true,
            }
        }
        Reach::One(_) => true,
        Reach::Any(policies) => {
            // What stands before an `@` is no part of the host.
            let host = to.rsplit(|&byte| byte == b'@').next().unwrap_or(&to);
            std::str::from_utf8(host).map_or(true, |host| !policies.names(host))
        }
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

/// Authority and rest of a reference that has an authority (RFC 3986 section 4.1), or has one for some clients: those that follow the
/// URL Standard of WHATWG (section 4.4) drop tabs and blanks around it, take `\` for `/`, and any number of them behind `http:` for two.
fn elsewhere(location: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut location = location.trim_ascii().to_vec();
    location.retain(|byte| *byte != b'\t');
    let scheme = location
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b))
        .count();
    let (scheme, after) = match &location[scheme..] {
        [b':', after @ ..] => (&location[..scheme], after),
        // With something else before the first slash, it is relative.
        _ => (&location[..0], &location[..]),
    };
    let is_web = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    let mut slashes = leading_slashes(after);
    if !is_web && slashes < 2 {
        return None;
    }
    if !is_web && !scheme.is_empty() {
        slashes = 2;
    }
    let after = &after[slashes..];
    let end = after.iter().position(|b| b"/?#\\".contains(b));
    let (authority, rest) = after.split_at(end.unwrap_or(after.len()));
    Some((authority.to_vec(), rest.to_vec()))
}

/// What follows the authority, as a reference of its own.
fn relative(rest: &[u8]) -> Vec<u8> {
    match leading_slashes(rest) {
        0 => [b"/", rest].concat(),
        1 => [b"/", &rest[1..]].concat(),
        // It would read as another authority.
        _ => [b"/.", rest].concat(),
    }
}

/// Of either kind.
fn leading_slashes(text: &[u8]) -> usize {
    let slashes = text.iter().take_while(|b| matches!(b, b'/' | b'\\'));
    slashes.count()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// `there`: the authority that the reference leads to for some client. `left`: what it becomes where that is the service itself.
    #[track_caller]
    fn check(location: &str, there: Option<&str>, left: &str) {
        let found = elsewhere(location.as_bytes());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let authority = found.as_ref().map(|(authority, _)| text(authority));
        assert_eq!(authority.as_deref(), there, "{location}");
        let relative = found.map_or(String::new(), |(_, rest)| text(&relative(&rest)));
        assert_eq!(relative, left, "{location}");
    }

    #[test]
    fn references_with_an_authority() {
        check("https://a.example/x?y#z", Some("a.example"), "/x?y#z");
        check("HTTP://a.example", Some("a.example"), "/");
        check("http://u@a.example:8?y", Some("u@a.example:8"), "/?y");
        check("//a.example/x", Some("a.example"), "/x");
        check("app://a.example/x", Some("a.example"), "/x");
        check(
            "http://a.example//b.example/x",
            Some("a.example"),
            "/.//b.example/x",
        );
        // As browsers and Node read them.
        check("/\\a.example/x", Some("a.example"), "/x");
        check("\\\\a.example/x", Some("a.example"), "/x");
        check("///a.example/x", Some("a.example"), "/x");
        check("/\t/a.example/x", Some("a.example"), "/x");
        check(" //a.example/x", Some("a.example"), "/x");
        check("ht\ttps://a.example/x", Some("a.example"), "/x");
        check("https:/a.example/x", Some("a.example"), "/x");
        check("https:a.example/x", Some("a.example"), "/x");
        check("https:\\/\\a.example/x", Some("a.example"), "/x");
        check(
            "http://a.example\\b.example/x",
            Some("a.example"),
            "/b.example/x",
        );
        check(
            "http://a.example\\\\b.example/x",
            Some("a.example"),
            "/.\\\\b.example/x",
        );
        check(
            "http://a.example\\@b.example/x",
            Some("a.example"),
            "/@b.example/x",
        );
    }

    #[test]
    fn references_without() {
        for relative in [
            "",
            "/",
            "/x",
            "x",
            "?y",
            "#z",
            "x//y",
            "./x:y",
            "mailto:a@b.example",
            "app:/x",
            "/x:/y",
            "\\x",
        ] {
            check(relative, None, "");
        }
    }
}
