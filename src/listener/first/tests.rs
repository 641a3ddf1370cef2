use super::*;
use rustls::pki_types::ServerName;
use std::net::IpAddr;
use std::sync::Arc;

/// Behind its length in two bytes.
pub fn length(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// Extensions of a hello.
pub fn extended(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let all = extensions
        .iter()
        .flat_map(|(kind, content)| [&kind.to_be_bytes()[..], &length(content)].concat());
    length(&all.collect::<Vec<u8>>())
}

/// The one extension with a name.
pub fn named(name: &str) -> Vec<u8> {
    let name = [&[0][..], &length(name.as_bytes())].concat();
    extended(&[(0, &length(&name))])
}

/// A hello as clients of this version sent them, with these extensions: there were no signature schemes before TLS 1.2.
pub fn old(version: [u8; 2], extensions: &[u8]) -> Vec<u8> {
    let body = [
        &version[..],
        &[7; 32],
        &[0],
        &length(&[0xc0, 0x13, 0x00, 0x2f]),
        &[1, 0],
        extensions,
    ]
    .concat();
    let head = [1, 0, (body.len() >> 8) as u8, body.len() as u8];
    [
        &[22, 3, version[1].min(1)][..],
        &length(&[&head[..], &body].concat()),
    ]
    .concat()
}

/// The content of a record in records of so many bytes each.
pub fn in_records(record: &[u8], size: usize) -> Vec<u8> {
    let pieces = record[5..].chunks(size);
    let records = pieces.flat_map(|piece| [&record[..3], &length(piece)].concat());
    records.collect()
}

/// As clients send it now.
pub fn hello_for(name: ServerName<'static>) -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(crate::tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("written");
    bytes
}

#[test]
fn tls_is_known_when_its_first_message_is_whole_and_not_before() {
    let named = hello_for(ServerName::try_from("api.example.com").expect("a name"));
    for end in 1..named.len() {
        assert_eq!(what(&named[..end]), None, "{end}");
    }
    let expected = First::Tls(Some("api.example.com".to_owned()));
    assert_eq!(what(&named), Some(expected.clone()));
    assert_eq!(what(&[&named[..], b"more"].concat()), Some(expected));
    let unnamed = hello_for(ServerName::IpAddress(IpAddr::from([192, 0, 2, 1]).into()));
    assert_eq!(what(&unnamed), Some(First::Tls(None)));
    assert_eq!(what(&[22, 3, 1, 0, 1, 2]), Some(First::Unreadable));
    // What only begins like it is something else.
    assert_eq!(what(&[22; 64]), Some(First::Other));
}

#[test]
fn http_is_told_from_what_is_none() {
    for (bytes, expected) in [
        (&b""[..], None),
        (b"G", None),
        (b"GET", None),
        (b"GET ", Some(First::Http)),
        (b"PRI * HTTP/2.0\r\n", Some(First::Http)),
        (b"VERSION-CONTROL /", Some(First::Http)),
        // Also where all of it comes at once.
        (
            b"VERSION-CONTROL /people HTTP/1.1\r\nHost: a\r\n\r\n",
            Some(First::Http),
        ),
        (b"P2 /people HTTP/1.1", Some(First::Http)),
        (
            b"SSH-2.0-OpenSSH_8.4p1 Debian-5+deb11u1\r\n",
            Some(First::Other),
        ),
        (
            b"\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nGET /",
            Some(First::Http),
        ),
        (&[b'\n'; LINE_BYTES_MAX], Some(First::Http)),
        // What no server may take, and some do.
        (b"patch ", None),
        (b"patch /people HTTP/1.1", Some(First::Http)),
        (b"Post http://a/", Some(First::Http)),
        (b"\r\n", None),
        (b"\r\n\r\nPOST /people HTTP/1.1", Some(First::Http)),
        (&[b'\n'; 32], None),
        (b" GET ", Some(First::Http)),
        (b"\xef\xbb", None),
        (b"\xef\xbb\xbfPOST ", Some(First::Http)),
        (b"\xef\xbb\xbe", Some(First::Other)),
        (b"POST\t", Some(First::Http)),
        (b"\r\n\r\n\0\r\nQUIT\n", Some(First::Http)),
        (b"\r\n\0", Some(First::Other)),
        (b"get people HTTP/1.1", None),
        (b"get people HTTP/1.1\r\n", Some(First::Http)),
        (b"get people?\0 HTTP/1.1\r\n", Some(First::Other)),
        (b"get key", None),
        (b"get key\r\n", Some(First::Other)),
        (b"SSH-2.0-OpenSSH_9", None),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Some(First::Other)),
        (b" GET", None),
        (b"get ", None),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", Some(First::Other)),
        (b"GET\r\n", Some(First::Other)),
        (&[b'A'; 40], None),
        (&[b'A'; LINE_BYTES_MAX + 1], Some(First::Other)),
        (&[&[b'A'; 300][..], b" /"].concat(), Some(First::Http)),
    ] {
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(what(bytes), expected, "{text:?}");
    }
}

#[test]
fn what_it_is_does_not_depend_on_how_much_comes_at_once() {
    let name = named("api.example.com");
    let padded = [&name[2..], &[0, 21][..], &length(&[0; 4_000])].concat();
    for hello in [old([3, 1], &name), old([3, 3], &length(&padded))] {
        for size in [1, 2, 3, 100, 1 << 14] {
            let begun = [in_records(&hello, size), vec![b'x'; 64]].concat();
            let first = (1..=begun.len()).find_map(|end| what(&begun[..end]));
            if size > hello.len() {
                assert_eq!(first, Some(First::Tls(Some("api.example.com".to_owned()))));
            }
            assert!(first.is_some());
            assert_eq!(what(&begun), first, "{} in {size}", hello.len());
        }
    }
}

#[test]
fn what_servers_say_first() {
    for heard in [
        &b""[..],
        b"H",
        b"HTTP/1.0",
        &[21],
        &[21, 3, 1, 0, 2],
        &[0, 0],
        &[0, 0, 0, 4, 0, 0, 0, 0, 0],
        &[0, 0, 24, 4, 0, 0, 0],
    ] {
        assert!(may_be_http(heard), "{heard:?}");
    }
    for heard in [
        &b"220 ready"[..],
        b"SSH-2.0-O",
        b"* OK IMAP",
        b"HELLO",
        // MySQL's greeting, and frames of HTTP/2 that do not come first.
        &[0x4a, 0, 0, 0, 10, b'8', b'.', b'0', b'.'],
        &[0, 0, 8, 6, 0, 0, 0, 0, 0],
        &[0, 0, 0, 4, 1, 0, 0, 0, 0],
        &[0, 0, 0, 4, 0, 0, 0, 0, 1],
    ] {
        assert!(!may_be_http(heard), "{heard:?}");
    }
}

proptest::proptest! {
    #[test]
    fn more_bytes_never_make_a_request_something_else(
        bytes in proptest::collection::vec(proptest::sample::select(b" \t\r\n\0AGgh/*HTP\x80\xef\xbb\xbf".to_vec()), 0..40),
    ) {
        let whole = what(&bytes);
        for end in 0..bytes.len() {
            if let Some(early) = what(&bytes[..end]) {
                proptest::prop_assert_eq!(&whole, &Some(early));
            }
        }
    }
}
