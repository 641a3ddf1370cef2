//! The store in a real PostgreSQL, started here. `tests/run` installs it and turns this suite on.

#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../store_conformance/mod.rs"]
mod store_conformance;

use fieldveil::store::postgres::{Place, Postgres};
use fieldveil::store::{Failure, OWN, Put, Store};
use fieldveil::tls::Roots;
use postgres::{Certificate, Server};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use store_conformance::{conforms, row, scope};

fn place(server: &Server, user: &str) -> Place {
    Place::new(&server.url(user), None).expect("a URL")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_conforms_with_an_agents_rights_and_keeps() {
    let mut server = Server::start(None);
    let owner = place(&server, "owner");
    let agent = place(&server, "agent");
    let store: Arc<dyn Store> = Arc::new(Postgres::new(agent.clone()));
    let unready = store.count().await.map_err(|error| error.failure);
    assert_eq!(unready, Err(Failure::Refused), "it is not set up");
    let made = tokio::join!(Postgres::init(&owner), Postgres::init(&owner));
    let mut made = [made.0.expect("made"), made.1.expect("made")];
    made.sort_unstable();
    assert_eq!(made, [false, true], "one of them");
    assert!(store.count().await.is_err(), "an agent has no right yet");
    server.sql("GRANT SELECT, INSERT, UPDATE ON fieldveil_deks TO agent");
    conforms(&store).await;
    let wrong = server.url("agent").replacen(":agent@", ":wrong@", 1);
    let wrong = Postgres::new(Place::new(&wrong, None).expect("a URL"));
    let refused = wrong.count().await.map_err(|error| error.failure);
    assert_eq!(refused, Err(Failure::Refused));
    // A crash loses nothing, and the connection comes back by itself.
    let last = row(9_000, scope("last", Some("t")), OWN);
    assert_eq!(store.put_if_absent(&last).await, Ok(Put::Made));
    let counted = store.count().await.expect("counts");
    server.stop();
    let away = store.get(last.kid).await.map_err(|error| error.failure);
    assert_eq!(away, Err(Failure::Unreachable));
    server.run();
    assert_eq!(store.count().await, Ok(counted));
}

/// An authority, and what it signs.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let issuer = rcgen::Issuer::new(params, key);
        Authority {
            certificate,
            issuer,
        }
    }

    fn sign(&self, name: &str) -> Certificate {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
        let signed = params.signed_by(&key, &self.issuer).expect("signed");
        Certificate {
            chain: signed.pem(),
            key: key.serialize_pem(),
        }
    }

    fn pem(&self) -> String {
        self.certificate.pem()
    }
}

/// Over TCP, under a name that leads to this machine.
fn over_tcp(server: &Server, user: &str, host: &str) -> String {
    let port = server.address.port();
    format!("postgresql://{user}:{user}@{host}:{port}/postgres")
}

/// `fieldveil store VERB` with these settings of TLS; its exit code and what it printed.
fn command(dir: &Path, url: &str, tls: &str, verb: &str) -> (i32, String) {
    let (settings, url_file) = (dir.join("settings.yaml"), dir.join("url"));
    std::fs::write(&url_file, url).expect("a file");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&url_file, private).expect("made");
    std::fs::create_dir_all(dir.join("policies")).expect("a directory");
    let text = format!(
        "policy: {{dir: policies}}\nkms: {{local: {{type: keyring, dir: none, unlock: {{key_file: none}}}}}}\n\
         keys: {{cards: {{seal_with: [local/cards]}}}}\nstore: {{type: postgres, url_file: url, tls: {tls}}}\n"
    );
    std::fs::write(&settings, text).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fieldveil"));
    command.args(["store", verb, "--config"]).arg(&settings);
    let output = command.output().expect("runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).expect("UTF-8");
    (output.status.code().expect("no signal"), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_right_name_under_the_right_authority_and_nothing_else() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::start(Some(&authority.sign("localhost")));
    let trust = |authority: &Authority| {
        let roots = Roots::Pem(authority.pem().into_bytes());
        Some(Arc::new(roots.client(None, Vec::new()).expect("roots")))
    };
    let place = |user, host, authority| {
        Place::new(&over_tcp(&server, user, host), authority).expect("a URL")
    };
    assert_eq!(
        Postgres::init(&place("owner", "localhost", trust(&authority))).await,
        Ok(true)
    );
    server.sql("GRANT SELECT, INSERT, UPDATE ON fieldveil_deks TO agent");
    let store = Postgres::new(place("agent", "localhost", trust(&authority)));
    conforms(&(Arc::new(store) as Arc<dyn Store>)).await;

    // The certificate's name is localhost, and not its address.
    for (host, authority, why) in [
        ("127.0.0.1", trust(&authority), "another name"),
        ("localhost", trust(&other), "another authority"),
    ] {
        let refused = Postgres::new(place("agent", host, authority)).count().await;
        let failure = refused.map_err(|error| error.failure);
        assert_eq!(failure, Err(Failure::Unreachable), "{why}");
    }
    // The server takes nothing in clear.
    let clear = Postgres::new(place("agent", "localhost", None));
    let failure = clear.count().await.map_err(|error| error.failure);
    assert_eq!(failure, Err(Failure::Refused), "in clear");
}

/// A server that speaks no TLS gets no password from who wants it.
#[tokio::test(flavor = "multi_thread")]
async fn where_tls_is_wanted_nothing_else_is_spoken() {
    let authority = Authority::new();
    let server = Server::start(None);
    let roots = Roots::Pem(authority.pem().into_bytes());
    let trust = Arc::new(roots.client(None, Vec::new()).expect("roots"));
    let place = Place::new(&over_tcp(&server, "owner", "localhost"), Some(trust));
    let refused = Postgres::new(place.expect("a URL")).count().await;
    let failure = refused.map_err(|error| error.failure);
    assert_eq!(failure, Err(Failure::Unreachable));
}

/// As the settings have it.
#[test]
fn the_settings_authority_is_the_one_that_counts() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::start(Some(&authority.sign("localhost")));
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).expect("a file");
    };
    write("ca.pem", &authority.pem());
    write("other.pem", &other.pem());
    write("none.pem", "nothing of the kind\n");
    let url = over_tcp(&server, "owner", "localhost");
    let init = |url: &str, tls: &str| command(dir.path(), url, tls, "init");
    let good = "{required: true, ca: ca.pem}";
    let (exit, said) = init(&url, good);
    assert_eq!(exit, 0, "{said}");
    for (tls, part) in [
        ("{required: true, ca: other.pem}", "the store: "),
        (
            "{required: true, ca: none.pem}",
            "tls.ca holds no certificate",
        ),
        (
            "{required: true, ca: missing.pem}",
            "missing.pem: cannot be read",
        ),
        ("{required: true}", "the store: "),
        ("{required: false}", "the store: "),
    ] {
        let (exit, said) = init(&url, tls);
        assert_ne!(exit, 0, "{tls}");
        assert!(said.contains(part), "{tls}: {said}");
        assert!(!said.contains("owner:owner"), "{said}");
    }
    let (exit, said) = init(&url.replace("localhost", "127.0.0.1"), good);
    assert_ne!(exit, 0, "another name");
    assert!(said.contains("the store: "), "{said}");
}
