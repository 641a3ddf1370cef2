use super::*;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    SystemTime::now()
}

fn names(texts: &[&str]) -> Names {
    Names::new(texts.iter().copied()).expect("names")
}

/// An authority, and its certificate.
fn authority(texts: &[&str]) -> (Authority, String) {
    let (certificate, key) = made(&names(texts), now(), 30).expect("made");
    let authority = Authority::new(certificate.as_bytes(), key.as_bytes(), names(texts));
    (authority.expect("an authority"), certificate)
}

/// A client that trusts this certificate.
fn client(certificate: &str, protocols: Vec<Vec<u8>>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM"))
        .expect("a root");
    let config = rustls::ClientConfig::builder_with_provider(provider());
    let config = config.with_safe_default_protocol_versions().expect("TLS");
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols;
    TlsConnector::from(Arc::new(config))
}

fn name(text: &str) -> ServerName<'static> {
    ServerName::try_from(text.to_owned()).expect("a name")
}

/// What both sides make of a connection that was opened to `host` by a client that means `meant`.
async fn meet(
    authority: &Authority,
    client: &TlsConnector,
    host: &str,
    meant: &str,
) -> (
    Result<Option<Vec<u8>>, Ungreeted>,
    Result<tokio_rustls::client::TlsStream<DuplexStream>, io::Error>,
) {
    let (near, far) = duplex(1 << 16);
    let served = async {
        let stream = authority.greet(far, host, true).await?;
        Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    };
    tokio::join!(served, client.connect(name(meant), near))
}

#[tokio::test]
async fn a_client_that_trusts_the_authority_is_served_as_by_the_host() {
    let (authority, certificate) = authority(&[]);
    for (host, protocols, chosen) in [
        ("api.example.com", vec![], None),
        (
            "api.example.com",
            vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Some("h2"),
        ),
        (
            "api.example.com",
            vec![b"http/1.1".to_vec()],
            Some("http/1.1"),
        ),
        ("192.0.2.7", vec![], None),
        ("2001:db8::7", vec![], None),
    ] {
        let client = client(&certificate, protocols);
        let (served, met) = meet(&authority, &client, host, host).await;
        met.expect(host);
        assert_eq!(
            served,
            Ok(chosen.map(|name| name.as_bytes().to_vec())),
            "{host}"
        );
    }
    assert_eq!(authority.kept_leaves(), 3);
}

#[tokio::test]
async fn who_names_another_host_or_none_is_turned_away() {
    let (authority, certificate) = authority(&[]);
    let client = client(&certificate, Vec::new());
    let (served, met) = meet(&authority, &client, "api.example.com", "other.example.com").await;
    assert_eq!(served, Err(Ungreeted::OtherName));
    let met = met.expect_err("an alert").to_string();
    assert!(
        met.contains("UnrecognisedName") || met.contains("UnrecognizedName"),
        "{met}"
    );
    // An address is never named in the handshake: here, a name was due.
    let (served, _) = meet(&authority, &client, "api.example.com", "192.0.2.7").await;
    assert_eq!(served, Err(Ungreeted::NoName));
    assert_eq!(authority.kept_leaves(), 0);
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_authority_shows() {
    let (authority, _) = authority(&[]);
    let (other, _) = made(&Names::default(), now(), 30).expect("made");
    let client = client(&other, Vec::new());
    let (served, met) = meet(&authority, &client, "api.example.com", "api.example.com").await;
    assert!(met.is_err());
    assert_eq!(served, Err(Ungreeted::Untrusting));
}

/// A hello of TLS 1.0, as OpenSSL sent them: no extension but the name.
fn old_hello(host: &str) -> Vec<u8> {
    let name = host.as_bytes();
    let length = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let server_name = [&[0u8][..], &length(name)].concat();
    let extension = [&[0u8, 0][..], &length(&length(&server_name))].concat();
    let body = [
        &[3, 1][..],
        &[7; 32],
        &[0],
        &length(&[0xc0, 0x13, 0x00, 0x2f]),
        &[1, 0],
        &length(&extension),
    ]
    .concat();
    let head = [1, 0, (body.len() >> 8) as u8, body.len() as u8];
    [&[22, 3, 1][..], &length(&[&head[..], &body].concat())].concat()
}

#[tokio::test]
async fn tls_1_0_gets_an_alert() {
    let (authority, _) = authority(&[]);
    let (mut near, far) = duplex(1 << 16);
    let hello = old_hello("api.example.com");
    let (served, answer) = tokio::join!(authority.greet(far, "api.example.com", true), async {
        near.write_all(&hello).await.expect("sent");
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.expect("an end");
        answer
    });
    assert!(matches!(served, Err(Ungreeted::Handshake(_))), "{served:?}");
    // One alert, and it is fatal.
    assert_eq!((answer.len(), answer[0], answer[5]), (7, 21, 2));
}

#[test]
fn ten_thousand_hosts_stay_bounded_and_a_leaf_has_its_day() {
    let (authority, _) = authority(&[]);
    let begun = now();
    let first = authority
        .server_at("h0.example", true, begun)
        .expect("made");
    for number in 1..10_000u64 {
        let later = begun + Duration::from_millis(number);
        let host = format!("h{number}.example");
        authority
            .server_at(&host, number % 2 == 0, later)
            .expect("made");
    }
    assert_eq!(authority.kept_leaves(), LEAVES_MAX);
    let last = authority.server_at("h9999.example", true, begun + DAY / 2);
    let again = authority.server_at(
        "h9999.example",
        true,
        begun + DAY / 2 + Duration::from_secs(1),
    );
    assert!(Arc::ptr_eq(
        &last.expect("kept"),
        &again.clone().expect("kept")
    ));
    let tomorrow =
        authority.server_at("h9999.example", true, begun + DAY + Duration::from_secs(60));
    assert!(!Arc::ptr_eq(
        &again.expect("kept"),
        &tomorrow.expect("made anew")
    ));
    let anew = authority
        .server_at("h0.example", true, begun + DAY / 2)
        .expect("made");
    assert!(!Arc::ptr_eq(&first, &anew), "it was pushed out");
}

#[test]
fn nobody_is_vouched_for_past_the_authoritys_end_or_outside_of_its_names() {
    let (authority, _) = authority(&["example.com", "192.0.2.7"]);
    assert!(authority.good_until() > now() + 29 * DAY);
    assert!(authority.good_until() < now() + 31 * DAY);
    for host in [
        "example.com",
        "api.example.com",
        "API.Example.com",
        "192.0.2.7",
    ] {
        assert!(authority.server_at(host, true, now()).is_some(), "{host}");
        assert!(
            authority.server_at(host, true, now() + 31 * DAY).is_none(),
            "{host}"
        );
    }
    for host in [
        "badexample.com",
        "example.com.evil.test",
        "com",
        "192.0.2.8",
        "2001:db8::7",
    ] {
        assert!(authority.server_at(host, true, now()).is_none(), "{host}");
    }
}

/// What a client would say if the authority went beyond its names after all.
#[tokio::test]
async fn the_names_are_in_the_certificate_for_clients_to_check() {
    for (permitted, host, good) in [
        (&["example.com"][..], "api.example.com", true),
        (&["example.com"], "api.other.test", false),
        (&["example.com"], "192.0.2.7", false),
        (&["example.com"], "2001:db8::7", false),
        (&["192.0.2.7"], "192.0.2.7", true),
        (&["192.0.2.7"], "192.0.2.8", false),
        (&["192.0.2.7"], "2001:db8::7", false),
        (&["192.0.2.7"], "api.example.com", false),
    ] {
        let (mut authority, certificate) = authority(permitted);
        authority.names = Names::default();
        let client = client(&certificate, Vec::new());
        let (_, met) = meet(&authority, &client, host, host).await;
        assert_eq!(met.is_ok(), good, "{permitted:?} {host}");
    }
}

#[test]
fn what_is_no_authority() {
    let made_for = |texts: &[&str]| made(&names(texts), now(), 30).expect("made");
    let ((certificate, key), (other, other_key)) = (made_for(&["a.test"]), made_for(&["a.test"]));
    let check = |certificate: &str, key: &str, texts: &[&str], expected: &str| {
        let error = Authority::new(certificate.as_bytes(), key.as_bytes(), names(texts));
        let error = error.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("", &key, &["a.test"], "not exactly one");
    check(
        &format!("{certificate}{other}"),
        &key,
        &["a.test"],
        "not exactly one",
    );
    check(&certificate, "", &["a.test"], "no private key");
    check(&certificate, &other_key, &["a.test"], "not that of");
    check(&certificate, &key, &["b.test"], "other names");
    check(&certificate, &key, &[], "other names");
    let leaf = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("made");
    check(
        &leaf.cert.pem(),
        &leaf.signing_key.serialize_pem(),
        &["a.test"],
        "other names",
    );
    assert!(Authority::new(certificate.as_bytes(), key.as_bytes(), names(&["a.test"])).is_ok());
    for bad in [
        "",
        "*.a.test",
        ".a.test",
        "a.test:443",
        "a b",
        "-a.test",
        "a..test",
    ] {
        assert!(Names::new([bad]).is_err(), "{bad}");
    }
}
