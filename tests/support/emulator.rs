//! Emulators of AWS KMS of the test's own, gone with it: LocalStack, which enforces key states and contexts, and moto, which denies.
//!
//! `FIELDVEIL_LOCALSTACK` and `FIELDVEIL_MOTO` name the Python programs of environments with `localstack-core[runtime]` and with
//! `moto[server]`.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// An emulator, gone with the test.
pub struct Emulator {
    /// Of the environment that has boto3.
    python: String,
    pub server: Child,
    pub url: String,
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

    pub async fn localstack() -> Emulator {
        let arguments = ["-m", "localstack.runtime.main"];
        Emulator::start("FIELDVEIL_LOCALSTACK", &arguments, "/_localstack/health").await
    }

    pub async fn moto() -> Emulator {
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
    pub fn boto3(&self, expression: &str) -> String {
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

    /// A fresh key's ARN.
    pub fn key(&self) -> String {
        self.boto3("kms.create_key()['KeyMetadata']['Arn']")
    }
}
