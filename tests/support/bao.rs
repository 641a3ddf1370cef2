//! An OpenBao of the test's own, in development mode: in memory, unsealed, with keys, a policy and a role, and gone with the test.
//!
//! `FIELDVEIL_BAO` names the program.

use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub struct Bao {
    pub program: String,
    pub server: Child,
    pub url: String,
    pub unseal_key: String,
    pub home: tempfile::TempDir,
    http: reqwest::Client,
}

impl Drop for Bao {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The least that an agent needs.
pub const POLICY: &str = r#"
path "transit/encrypt/*" { capabilities = ["update"] }
path "transit/decrypt/*" { capabilities = ["update"] }
path "transit/keys/*"    { capabilities = ["read"] }
"#;

/// Nothing that it needs.
pub const NO_POLICY: &str = r#"path "none" { capabilities = ["read"] }"#;

impl Bao {
    pub async fn start() -> Bao {
        let program =
            std::env::var("FIELDVEIL_BAO").expect("FIELDVEIL_BAO names the program `bao`");
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        drop(socket);
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("log");
        let server = Command::new(&program)
            .args([
                "server",
                "-dev",
                "-dev-root-token-id=root",
                "-dev-no-store-token",
            ])
            .arg(format!("-dev-listen-address={address}"))
            .env("HOME", home.path())
            .stdout(std::fs::File::create(&log).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .expect("bao starts");
        let tls = fieldveil::tls::Roots::System.client(None, Vec::new());
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.unwrap())
            .no_proxy();
        let mut bao = Bao {
            program,
            server,
            url: format!("http://{address}"),
            unseal_key: String::new(),
            home,
            http: http.build().unwrap(),
        };
        while bao.unseal_key.is_empty() {
            assert_eq!(bao.server.try_wait().unwrap(), None, "bao ended");
            let text = std::fs::read_to_string(&log).unwrap();
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("Unseal Key: "));
            bao.unseal_key = line.unwrap_or_default().trim().to_owned();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bao.put("sys/mounts/transit", json!({"type": "transit"}))
            .await;
        for key in ["cards", "identity"] {
            bao.put(&format!("transit/keys/{key}"), json!({})).await;
        }
        bao.policy(POLICY).await;
        bao.put("sys/auth/approle", json!({"type": "approle"}))
            .await;
        let role = json!({"token_policies": ["fieldveil"], "token_ttl": "1h"});
        bao.put("auth/approle/role/fieldveil", role).await;
        bao
    }

    /// Status and body.
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let asked = self
            .http
            .request(method, format!("{}/v1/{path}", self.url))
            .header("x-vault-token", "root")
            .body(body.to_string());
        let answer = asked.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub async fn put(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask("POST", path, body).await;
        assert!(status < 300, "{path}: {status} {answer}");
        answer
    }

    /// What the role may do from now on.
    pub async fn policy(&self, text: &str) {
        let body = json!({"policy": text});
        self.put("sys/policies/acl/fieldveil", body).await;
    }

    /// The role's id, and a secret id of it.
    pub async fn role(&self) -> (String, String) {
        let path = "auth/approle/role/fieldveil";
        let (_, answer) = self
            .ask("GET", &format!("{path}/role-id"), Value::Null)
            .await;
        let role_id = answer["data"]["role_id"].as_str().unwrap().to_owned();
        let answer = self.put(&format!("{path}/secret-id"), json!({})).await;
        let secret_id = answer["data"]["secret_id"].as_str().unwrap().to_owned();
        (role_id, secret_id)
    }
}
