//! The AWS provider against LocalStack, which enforces key states and contexts, and against moto, which denies.
//!
//! `FIELDVEIL_LOCALSTACK` and `FIELDVEIL_MOTO` name the Python programs of environments with `localstack-core[runtime]` and with
//! `moto[server]`.

#[path = "../providers/suite.rs"]
mod suite;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fieldveil::arena::Arena;
use fieldveil::dek::{Needs, SealNeed, schedule};
use fieldveil::keys::{Binding, KeySettings, Keys, Need, Settings as Room, TERMS};
use fieldveil::kms::aws::{Aws, Settings};
use fieldveil::kms::{Failure, Kms, os_random};
use fieldveil::token::{ClassHint, Record, Suite, Token};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use suite::{DEK, Done, Subject, run, scope};

/// An emulator, gone with the test.
struct Emulator {
    /// Of the environment that has boto3.
    python: String,
    server: Child,
    url: String,
    _home: tempfile::TempDir,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn named(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} names a Python program"))
}

impl Emulator {
    async fn start(server: &str, arguments: &[&str], path: &str) -> Emulator {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        drop(socket);
        let port = address.port().to_string();
        let home = tempfile::tempdir().unwrap();
        let arguments = arguments.iter().map(|one| one.replace("PORT", &port));
        let server = Command::new(named(server))
            .args(arguments)
            .env("GATEWAY_LISTEN", address.to_string())
            .env("SERVICES", "kms")
            .env("DISABLE_EVENTS", "1")
            .env("SKIP_SSL_CERT_DOWNLOAD", "1")
            .env("DNS_ADDRESS", "0")
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .env("LOCALSTACK_VOLUME_DIR", home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the emulator starts");
        let mut emulator = Emulator {
            python: named("FIELDVEIL_MOTO"),
            server,
            url: format!("http://{address}"),
            _home: home,
        };
        loop {
            assert_eq!(
                emulator.server.try_wait().unwrap(),
                None,
                "the emulator ended"
            );
            if emulator.is_up(path).await {
                return emulator;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn localstack() -> Emulator {
        let arguments = ["-m", "localstack.runtime.main"];
        Emulator::start("FIELDVEIL_LOCALSTACK", &arguments, "/_localstack/health").await
    }

    async fn moto() -> Emulator {
        let arguments = ["-m", "moto.server", "-H", "127.0.0.1", "-p", "PORT"];
        Emulator::start("FIELDVEIL_MOTO", &arguments, "/moto-api/data.json").await
    }

    async fn is_up(&self, path: &str) -> bool {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let host = self.url.trim_start_matches("http://");
        let asked = async {
            let mut stream = tokio::net::TcpStream::connect(host).await?;
            let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        asked
            .await
            .is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
    }

    /// What AWS's own library for Python makes of this expression over a client `kms`, printed.
    fn boto3(&self, expression: &str) -> String {
        let script = format!(
            "import boto3, base64\n\
             kms = boto3.client('kms', endpoint_url='{}', region_name='us-east-1', aws_access_key_id='id', aws_secret_access_key='secret')\n\
             print({expression})",
            self.url
        );
        let out = Command::new(&self.python)
            .args(["-c", &script])
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    fn key(&self) -> String {
        self.boto3("kms.create_key()['KeyMetadata']['Arn']")
    }

    fn aws(&self) -> Aws {
        Aws::new(Settings {
            name: "aws".into(),
            region: Some("us-east-1".into()),
            endpoint: Some(self.url.clone()),
            credentials: Some(("id".into(), "secret".into())),
            trust: Default::default(),
            relogin_after: Duration::from_secs(3600),
        })
        .unwrap()
    }
}

struct Real {
    emulator: Emulator,
    aws: Aws,
    kek: String,
    other: String,
}

impl Subject for Real {
    fn kms(&self) -> &dyn Kms {
        &self.aws
    }
    fn kek(&self) -> String {
        self.kek.clone()
    }
    fn other(&self) -> String {
        self.other.clone()
    }
    fn missing(&self) -> String {
        "arn:aws:kms:us-east-1:000000000000:key/1234abcd-12ab-34cd-56ef-1234567890ab".into()
    }
    fn row(&self) -> Option<&'static str> {
        Some("`aws`, as LocalStack has it")
    }
    fn rotate(&self) -> Option<Done<'_>> {
        None
    }
    fn disable(&self) -> Option<(Done<'_>, Done<'_>)> {
        let switch = |verb: &'static str| async move {
            self.emulator
                .boto3(&format!("kms.{verb}_key(KeyId='{}')", self.kek));
        };
        Some((Box::pin(switch("disable")), Box::pin(switch("enable"))))
    }
    fn deny(&self) -> Option<(Done<'_>, Done<'_>)> {
        None
    }
    fn delete(&self) -> Option<(Done<'_>, Failure)> {
        let deleted = async {
            let expression = format!("kms.schedule_key_deletion(KeyId='{}')", self.other);
            self.emulator.boto3(&expression);
        };
        Some((Box::pin(deleted), Failure::Destroyed))
    }
}

/// One LocalStack for both: it takes its time to start.
#[tokio::test]
async fn localstack() {
    let emulator = Emulator::localstack().await;
    let (kek, other) = (emulator.key(), emulator.key());
    boto3_opens_our_records(&emulator, &kek).await;
    let aws = emulator.aws();
    let real = Real {
        emulator,
        aws,
        kek,
        other,
    };
    run(&real).await;
}

/// A token's blob, by AWS's own library for Python, is the DEK whose kid the token names.
async fn boto3_opens_our_records(emulator: &Emulator, kek: &str) {
    let binding = Binding {
        kms: Arc::new(emulator.aws()),
        kek: kek.into(),
    };
    let key = KeySettings {
        name: "cards".into(),
        seal_with: vec![binding],
        need: Need::Any,
        open_also: Vec::new(),
        terms: TERMS,
    };
    let keys = Keys::new(Room::new(vec![key], Arena::new().unwrap(), os_random())).unwrap();
    let need = SealNeed {
        scope: scope("cards", Some("acme")),
        values: 1,
        suite: Suite::Xaes256Gcm,
    };
    let needs = Needs {
        sealing: vec![need],
        opening: Vec::new(),
    };
    let ring = keys.fetch(&needs).await.unwrap();
    let token = Token {
        suite: Suite::Xaes256Gcm,
        class: ClassHint([0; 4]),
        kid: ring.sealing[0].dek.kid(),
        record: Some(&ring.sealing[0].record),
        nonce: Some(&[0; 24]),
        sealed: &[0; 24],
    };
    let text = token.encode();
    let mut payload = Vec::new();
    let token = Token::decode(text.as_bytes(), &mut payload).unwrap();
    let record = Record::parse(token.record.unwrap()).unwrap();
    let (_, blob) = record.wrappings().next().unwrap();
    let plaintext = emulator.boto3(&format!(
        "base64.b64encode(kms.decrypt(KeyId='{kek}', CiphertextBlob=base64.b64decode('{}'), \
         EncryptionContext={{'fieldveil:key': 'cards', 'fieldveil:tenant': 'acme'}})['Plaintext']).decode()",
        STANDARD.encode(blob)
    ));
    let dek = STANDARD.decode(plaintext).unwrap();
    assert_eq!(schedule(&dek.try_into().unwrap(), &mut [0; 96]), token.kid);
    keys.close().await;
}

/// moto says AccessDenied where a key is asked for what another one wrapped.
#[tokio::test]
async fn moto_denies() {
    let emulator = Emulator::moto().await;
    let (kek, other, aws) = (emulator.key(), emulator.key(), emulator.aws());
    let scope = scope("cards", None);
    let blob = aws.wrap(&kek, &DEK, &scope).await.unwrap();
    assert_eq!(
        &aws.unwrap(&kek, &blob, &scope).await.unwrap().dek[..],
        &DEK
    );
    let error = aws.unwrap(&other, &blob, &scope).await.unwrap_err();
    assert_eq!(error.failure, Failure::Denied, "{error}");
    assert_eq!(error.detail, "400: AccessDeniedException");
}
