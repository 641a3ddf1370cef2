//! What a connection's first bytes are, where either TLS or HTTP may come: transparent mode, and behind a CONNECT.

use super::stream::Stream;
use bytes::BytesMut;
use tokio::io::AsyncReadExt;

/// Bytes of a first TLS message; what is longer has no name for us. Bytes that may come before it is known what they are.
const HELLO_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a method's name: what has no blank behind so many is no HTTP.
const METHOD_BYTES_MAX: usize = 32;
/// The first byte of a record that begins a handshake (RFC 8446 section 5.1).
pub(super) const TLS_HANDSHAKE: u8 = 22;

/// What the first bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// TLS, for the host of this name if it says one.
    Tls(Option<String>),
    Http,
    Other,
}

/// Reads until it shows what the first bytes are; they stay in `begun`.
///
/// # Errors
/// The word for a client that went.
pub(super) async fn look(stream: &mut Stream, begun: &mut BytesMut) -> Result<First, &'static str> {
    loop {
        if let Some(first) = what(begun) {
            return Ok(first);
        }
        match stream.read_buf(begun).await {
            Ok(1..) => {}
            Ok(0) if begun.is_empty() => return Err("gone"),
            Ok(0) => return Ok(First::Other),
            Err(_) => return Err("gone"),
        }
    }
}

/// What the first bytes are. `None`: that takes more of them.
fn what(begun: &[u8]) -> Option<First> {
    if *begun.first()? == TLS_HANDSHAKE {
        return hello(begun).map(First::Tls);
    }
    let method = begun.iter().take(METHOD_BYTES_MAX);
    let letters = method.take_while(|byte| byte.is_ascii_uppercase()).count();
    match begun.get(letters) {
        None => None,
        Some(b' ') if letters > 0 => Some(First::Http),
        Some(b'-' | b'_') if letters > 0 && begun.len() < METHOD_BYTES_MAX => {
            let blank = begun.iter().position(|&byte| byte == b' ');
            let line = begun.iter().position(|&byte| byte < b' ');
            match (blank, line) {
                (None, None) => None,
                (Some(blank), line) if line.is_none_or(|line| blank < line) => Some(First::Http),
                _ => Some(First::Other),
            }
        }
        Some(_) => Some(First::Other),
    }
}

/// The name in a TLS client's first message, if it has one; the outer `None` asks for more bytes. A message that cannot be read
/// has no name.
fn hello(begun: &[u8]) -> Option<Option<String>> {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = begun;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Some(None);
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_owned);
                return Some(name);
            }
            Ok(None) => {}
            Err(_) => return Some(None),
        }
    }
    (begun.len() >= HELLO_BYTES_MAX).then_some(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;
    use std::sync::Arc;

    fn hello_for(name: ServerName<'static>) -> Vec<u8> {
        let roots = rustls::RootCertStore::empty();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
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
        let unnamed = hello_for(ServerName::IpAddress(
            std::net::IpAddr::from([192, 0, 2, 1]).into(),
        ));
        assert_eq!(what(&unnamed), Some(First::Tls(None)));
        // What only begins like TLS has no name, and is not waited for without end.
        assert_eq!(what(&[22; 64]), Some(First::Tls(None)));
        let endless = [
            &[22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff][..],
            &[0; HELLO_BYTES_MAX],
        ]
        .concat();
        assert_eq!(what(&endless), Some(First::Tls(None)));
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
            (b"SSH-2.0-OpenSSH_9", None),
            (b"SSH-2.0-OpenSSH_9.6\r\n", Some(First::Other)),
            (b" GET", Some(First::Other)),
            (b"get ", Some(First::Other)),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Some(First::Other)),
            (b"GET\r\n", Some(First::Other)),
            (&[b'A'; 40], Some(First::Other)),
        ] {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(what(bytes), expected, "{text:?}");
        }
    }
}
