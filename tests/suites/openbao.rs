//! The transit provider against an OpenBao of its own: the suite of all providers, then what only a real server does.
//!
//! `FIELDVEIL_BAO` names the `bao` program.

#[path = "../support/bao.rs"]
mod bao;
#[path = "../providers/suite.rs"]
mod suite;

use bao::{Bao, NO_POLICY, POLICY};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fieldveil::arena::Arena;
use fieldveil::dek::{Kid, Needs, SealNeed, schedule};
use fieldveil::keys::{Binding, KeySettings, Keys, Need, Settings as Room, TERMS};
use fieldveil::kms::http::Trust;
use fieldveil::kms::secret::Secret;
use fieldveil::kms::transit::{Login, Settings, Transit};
use fieldveil::kms::{Failure, Kms, os_random};
use fieldveil::token::{ClassHint, Record, Suite, Token};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use suite::{DEK, Done, Subject, run, scope};

async fn approle(bao: &Bao) -> Login {
    let (role_id, secret_id) = bao.role().await;
    Login::AppRole {
        mount: "approle".into(),
        role_id,
        secret_id: Secret::Given(Arc::new(secret_id.into())),
    }
}

async fn transit(bao: &Bao) -> Transit {
    Transit::new(Settings {
        name: "vault".into(),
        address: bao.url.clone(),
        identity: "vault.example/transit".into(),
        mount: "transit".into(),
        namespace: None,
        trust: Trust::default(),
        login: approle(bao).await,
        relogin_after: Duration::ZERO,
        look_again: Duration::ZERO,
    })
    .unwrap()
}

struct Real {
    bao: Bao,
    transit: Transit,
}

impl Subject for Real {
    fn kms(&self) -> &dyn Kms {
        &self.transit
    }
    fn kek(&self) -> String {
        "cards".into()
    }
    fn other(&self) -> String {
        "identity".into()
    }
    fn missing(&self) -> String {
        "none".into()
    }
    fn row(&self) -> Option<&'static str> {
        Some("`transit`, key of type `aes256-gcm96`")
    }
    fn rotate(&self) -> Option<Done<'_>> {
        Some(Box::pin(async {
            self.bao.put("transit/keys/cards/rotate", json!({})).await;
        }))
    }
    fn disable(&self) -> Option<(Done<'_>, Done<'_>)> {
        let least = |version| async move {
            let body = json!({"min_decryption_version": version});
            self.bao.put("transit/keys/cards/config", body).await;
        };
        Some((Box::pin(least(2)), Box::pin(least(1))))
    }
    fn deny(&self) -> Option<(Done<'_>, Done<'_>)> {
        let (taken, given) = (self.bao.policy(NO_POLICY), self.bao.policy(POLICY));
        Some((Box::pin(taken), Box::pin(given)))
    }
    fn delete(&self) -> Option<(Done<'_>, Failure)> {
        let deleted = async {
            let body = json!({"deletion_allowed": true});
            self.bao.put("transit/keys/identity/config", body).await;
            let (status, _) = self
                .bao
                .ask("DELETE", "transit/keys/identity", Value::Null)
                .await;
            assert_eq!(status, 204);
        };
        Some((Box::pin(deleted), Failure::NotFound))
    }
}

#[tokio::test]
async fn the_suite() {
    let bao = Bao::start().await;
    let transit = transit(&bao).await;
    run(&Real { bao, transit }).await;
}

#[tokio::test]
async fn sealed_and_unsealed() {
    let bao = Bao::start().await;
    let transit = transit(&bao).await;
    let scope = scope("cards", None);
    let blob = transit.wrap("cards", &DEK, &scope).await.unwrap();
    bao.put("sys/seal", json!({})).await;
    let error = transit.unwrap("cards", &blob, &scope).await.unwrap_err();
    assert_eq!(error.failure, Failure::Unreachable, "{error}");
    bao.put("sys/unseal", json!({"key": bao.unseal_key})).await;
    // It takes its seat a moment later.
    let opened = loop {
        match transit.unwrap("cards", &blob, &scope).await {
            Ok(opened) => break opened,
            Err(error) => assert_eq!(error.failure, Failure::Unreachable, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(&opened.dek[..], &DEK);
}

#[tokio::test]
async fn a_revoked_token_is_exchanged_and_a_revoked_role_is_a_no() {
    let bao = Bao::start().await;
    let transit = transit(&bao).await;
    let scope = scope("cards", None);
    let blob = transit.wrap("cards", &DEK, &scope).await.unwrap();
    bao.put("sys/leases/revoke-prefix/auth/approle/login", json!({}))
        .await;
    assert_eq!(
        &transit.unwrap("cards", &blob, &scope).await.unwrap().dek[..],
        &DEK
    );
    let (status, _) = bao
        .ask("DELETE", "auth/approle/role/fieldveil", Value::Null)
        .await;
    assert_eq!(status, 204);
    bao.ask(
        "POST",
        "sys/leases/revoke-prefix/auth/approle/login",
        json!({}),
    )
    .await;
    let error = transit.unwrap("cards", &blob, &scope).await.unwrap_err();
    assert_eq!(error.failure, Failure::Denied, "{error}");
}

#[tokio::test]
async fn a_deleted_key_that_can_be_restored_is_destroyed() {
    let bao = Bao::start().await;
    let transit = transit(&bao).await;
    let scope = scope("cards", None);
    let blob = transit.wrap("cards", &DEK, &scope).await.unwrap();
    let (status, _) = bao
        .ask("DELETE", "transit/keys/cards/soft-delete", Value::Null)
        .await;
    assert!(status < 300, "{status}");
    let error = transit.unwrap("cards", &blob, &scope).await.unwrap_err();
    assert_eq!(error.failure, Failure::Destroyed, "{error}");
    bao.put("transit/keys/cards/soft-delete-restore", json!({}))
        .await;
    assert_eq!(
        &transit.unwrap("cards", &blob, &scope).await.unwrap().dek[..],
        &DEK
    );
}

#[tokio::test]
async fn a_limit_on_requests_is_unreachable() {
    let bao = Bao::start().await;
    let transit = transit(&bao).await;
    let scope = scope("cards", None);
    transit.wrap("cards", &DEK, &scope).await.unwrap();
    let quota = json!({"rate": 0.001, "interval": "1h", "path": "transit/"});
    bao.put("sys/quotas/rate-limit/one", quota).await;
    let error = loop {
        if let Err(error) = transit.wrap("cards", &DEK, &scope).await {
            break error;
        }
    };
    assert_eq!(error.failure, Failure::Unreachable, "{error}");
}

/// A token's blob, by OpenBao's own client, is the DEK whose kid the token names; and the server's own `rewrap` works.
#[tokio::test]
async fn openbaos_own_client_opens_our_records() {
    let bao = Bao::start().await;
    let transit = transit(&bao).await;
    let binding = Binding {
        kms: Arc::new(transit),
        kek: "cards".into(),
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
        scope: scope("cards", None),
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
    let (version, sealed) = blob.split_first_chunk().unwrap();
    let version = u32::from_be_bytes(*version);
    let ciphertext = format!("ciphertext=vault:v{version}:{}", STANDARD.encode(sealed));
    let out = Command::new(&bao.program)
        .args([
            "write",
            "-field=plaintext",
            "transit/decrypt/cards",
            &ciphertext,
        ])
        .env("BAO_ADDR", &bao.url)
        .env("BAO_TOKEN", "root")
        .env("HOME", bao.home.path())
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let plaintext = String::from_utf8(out.stdout).unwrap();
    let dek = STANDARD.decode(plaintext.trim()).unwrap();
    let kid: Kid = schedule(&dek.try_into().unwrap(), &mut [0; 96]);
    assert_eq!(kid, token.kid);
    keys.close().await;
}
