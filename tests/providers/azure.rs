//! Azure Key Vault before a server of the tests' own, which really wraps, and holds its clients to the challenge, tokens, states and
//! rights as Azure's does.

use super::login::trust;
use super::program::kms_check;
use super::stub::{Asked, Say, Stub};
use super::suite::{DEK, Done, Subject, run, scope};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fieldveil::kms::azure::{Algorithm, App, Azure, Login, Settings};
use fieldveil::kms::secret::Secret;
use fieldveil::kms::{Failure, Kms};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const VAULT: &str = "Veil.vault.azure.net";
pub const FIRST: &str = "0698c2156c1a4e1da5b6bab6f6422fd6";
const SECOND: &str = "ffffffffffffffffffffffffffffff01";
/// As Key Vault writes it.
pub const CHALLENGE: &str = "www-authenticate: Bearer authorization=\"https://login.windows.net/12345678-1234-1234-1234-123456789012\", resource=\"https://vault.azure.net\"\r\n";

pub fn azure_at(
    url: &str,
    algorithm: Algorithm,
    login: Login,
    relogin_after: Duration,
    look_again: Duration,
) -> Azure {
    Azure::new(Settings {
        name: "azure".into(),
        vault: VAULT.to_owned(),
        endpoint: url.to_owned(),
        algorithm,
        trust: trust(),
        login_trust: trust(),
        login,
        relogin_after,
        look_again,
    })
    .unwrap()
}

pub fn managed(url: &str) -> Login {
    Login::Managed {
        metadata: url.to_owned(),
        client_id: None,
    }
}

/// What the metadata service says, whose numbers are texts.
pub fn metadata(token: &str) -> Say {
    let body = json!({"access_token": token, "expires_in": "86399", "token_type": "Bearer"});
    Say::json(200, &body.to_string())
}

pub fn refused(code: &str, inner: Option<&str>) -> String {
    let mut error = json!({"error": {"code": code, "message": "Operation is not allowed."}});
    if let Some(inner) = inner {
        error["error"]["innererror"] = json!({"code": inner});
    }
    error.to_string()
}

pub fn answered(key: &str, version: &str, value: &[u8]) -> Say {
    let kid = format!("https://veil.vault.azure.net/keys/{key}/{version}");
    let body = json!({"kid": kid, "value": URL_SAFE_NO_PAD.encode(value)});
    Say::json(200, &body.to_string())
}

enum Material {
    Rsa(Box<PrivateDecryptingKey>),
    Aes([u8; 32]),
}

fn rsa() -> Material {
    Material::Rsa(Box::new(
        PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap(),
    ))
}

impl Material {
    fn algorithm(&self) -> &'static str {
        match self {
            Material::Rsa(_) => "RSA-OAEP-256",
            Material::Aes(_) => "A256KW",
        }
    }

    fn wrap(&self, key: &[u8]) -> Vec<u8> {
        let mut wrapped = vec![0; 512];
        let wrapped = match self {
            Material::Rsa(private) => {
                let public = OaepPublicEncryptingKey::new(private.public_key()).unwrap();
                let algorithm = &OAEP_SHA256_MGF1SHA256;
                public.encrypt(algorithm, key, &mut wrapped, None).unwrap()
            }
            Material::Aes(kek) => {
                let kek = AesKek::new(&AES_256, kek).unwrap();
                kek.wrap(key, &mut wrapped).unwrap()
            }
        };
        wrapped.to_vec()
    }

    fn unwrap(&self, wrapped: &[u8]) -> Option<Vec<u8>> {
        let mut key = vec![0; 512];
        let key = match self {
            Material::Rsa(private) => {
                let private = OaepPrivateDecryptingKey::new((**private).clone()).unwrap();
                let algorithm = &OAEP_SHA256_MGF1SHA256;
                private.decrypt(algorithm, wrapped, &mut key, None).ok()?
            }
            Material::Aes(kek) => {
                let kek = AesKek::new(&AES_256, kek).unwrap();
                kek.unwrap(wrapped, &mut key).ok()?
            }
        };
        Some(key.to_vec())
    }
}

struct Version {
    name: &'static str,
    material: Material,
    is_enabled: bool,
}

fn version(name: &'static str, material: Material) -> Version {
    Version {
        name,
        material,
        is_enabled: true,
    }
}

/// What the server knows.
struct State {
    keys: HashMap<&'static str, Vec<Version>>,
    may_wrap: bool,
    may_read: bool,
    token: &'static str,
}

struct Vault {
    stub: Stub,
    state: Arc<Mutex<State>>,
}

impl Vault {
    async fn new(material: fn() -> Material) -> Vault {
        let other = "11111111111111111111111111111111";
        let state = Arc::new(Mutex::new(State {
            keys: HashMap::from([
                ("cards", vec![version(FIRST, material())]),
                ("identity", vec![version(other, material())]),
            ]),
            may_wrap: true,
            may_read: true,
            token: "t1",
        }));
        let known = Arc::clone(&state);
        let stub = Stub::new(move |asked| answer(&known.lock().unwrap(), asked)).await;
        Vault { stub, state }
    }

    fn by(&self, login: Login) -> Azure {
        let (url, none) = (&self.stub.url, Duration::ZERO);
        azure_at(url, Algorithm::RsaOaep256, login, none, none)
    }

    fn as_machine(&self) -> Azure {
        self.by(managed(&self.stub.url))
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    fn rotate(&self) {
        self.set(|state| {
            let versions = state.keys.get_mut("cards").unwrap();
            versions.push(version(SECOND, rsa()));
        });
    }
}

fn answer(state: &State, asked: &Asked) -> Say {
    let (method, target) = asked.line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match (method, path) {
        ("GET", "/metadata/identity/oauth2/token") => {
            assert_eq!(asked.header("metadata"), Some("true"));
            let resource = "api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";
            let rest = query.strip_prefix(resource).unwrap();
            match rest {
                "" | "&client_id=c-1" => metadata(state.token),
                _ => Say::json(
                    400,
                    r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
                ),
            }
        }
        ("POST", "/tenant-1/oauth2/v2.0/token") => of_an_app(state, asked),
        (method, path) => {
            assert_eq!(query, "api-version=7.4");
            call(state, asked, method, path.strip_prefix("/keys/").unwrap())
        }
    }
}

fn of_an_app(state: &State, asked: &Asked) -> Say {
    for part in [
        "grant_type=client_credentials",
        "client_id=c-1",
        "scope=https%3A%2F%2Fvault.azure.net%2F.default",
    ] {
        assert!(asked.body.contains(part), "{part}");
    }
    let assertion =
        "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
    let by_secret = asked.body.ends_with("&client_secret=s%7Ee%2Bcret");
    let by_assertion =
        asked.body.contains(assertion) && asked.body.ends_with("&client_assertion=the.pods.token");
    match by_secret || by_assertion {
        true => {
            let body = json!({"access_token": state.token, "expires_in": 3599});
            Say::json(200, &body.to_string())
        }
        false => Say::json(
            401,
            r#"{"error":"invalid_client","error_description":"AADSTS7000215"}"#,
        ),
    }
}

fn call(state: &State, asked: &Asked, method: &str, path: &str) -> Say {
    let Some(shown) = asked.header("authorization") else {
        assert_eq!(asked.body, "", "nothing is said before the challenge");
        return Say::Answer(401, CHALLENGE, refused("Unauthorized", None));
    };
    if shown != format!("Bearer {}", state.token) {
        return Say::Answer(401, CHALLENGE, refused("Unauthorized", None));
    }
    let parts: Vec<&str> = path.split('/').collect();
    let may = match method {
        "GET" => state.may_read,
        _ => state.may_wrap,
    };
    if !may {
        return Say::json(403, &refused("Forbidden", Some("ForbiddenByRbac")));
    }
    let Some(versions) = state.keys.get(parts[0]) else {
        return Say::json(404, &refused("KeyNotFound", None));
    };
    let newest = versions.last().unwrap();
    let (version, verb) = match (method, &parts[1..]) {
        ("GET", []) => {
            let kid = format!(
                "https://veil.vault.azure.net/keys/{}/{}",
                parts[0], newest.name
            );
            return Say::json(200, &json!({"key": {"kid": kid, "kty": "RSA"}}).to_string());
        }
        ("POST", [verb]) => (newest, verb),
        ("POST", [name, verb]) => match versions.iter().find(|one| one.name == *name) {
            Some(version) => (version, verb),
            None => return Say::json(404, &refused("KeyNotFound", None)),
        },
        other => panic!("{other:?}"),
    };
    if !version.is_enabled {
        return Say::json(403, &refused("Forbidden", Some("KeyDisabled")));
    }
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    let value = URL_SAFE_NO_PAD
        .decode(body["value"].as_str().unwrap())
        .unwrap();
    if body["alg"] != version.material.algorithm() {
        return Say::json(400, &refused("BadParameter", None));
    }
    let done = match *verb {
        "wrapkey" => Some(version.material.wrap(&value)),
        "unwrapkey" => version.material.unwrap(&value),
        verb => panic!("{verb}"),
    };
    match done {
        Some(done) => answered(parts[0], version.name, &done),
        None => Say::json(400, &refused("BadParameter", None)),
    }
}

struct Stubbed {
    vault: Vault,
    azure: Azure,
}

impl Subject for Stubbed {
    fn kms(&self) -> &dyn Kms {
        &self.azure
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
        Some("`azure`, RSA of 2048 bits")
    }
    fn rotate(&self) -> Option<Done<'_>> {
        Some(Box::pin(async { self.vault.rotate() }))
    }
    fn disable(&self) -> Option<(Done<'_>, Done<'_>)> {
        let switch = |to| async move {
            self.vault
                .set(|state| state.keys.get_mut("cards").unwrap()[0].is_enabled = to);
        };
        Some((Box::pin(switch(false)), Box::pin(switch(true))))
    }
    fn deny(&self) -> Option<(Done<'_>, Done<'_>)> {
        let allow = |may| async move { self.vault.set(|state| state.may_wrap = may) };
        Some((Box::pin(allow(false)), Box::pin(allow(true))))
    }
    fn delete(&self) -> Option<(Done<'_>, Failure)> {
        let deleted = async {
            self.vault.set(|state| {
                state.keys.remove("identity");
            });
        };
        Some((Box::pin(deleted), Failure::NotFound))
    }
}

#[tokio::test]
async fn the_suite() {
    let vault = Vault::new(rsa).await;
    let azure = vault.as_machine();
    assert!(azure.anyone_may_wrap("cards"));
    run(&Stubbed { vault, azure }).await;
}

/// The wrapping of RFC 3394 has no luck in it: the suite's other cases are the same code.
#[tokio::test]
async fn by_aes_in_a_managed_hsm() {
    let vault = Vault::new(|| Material::Aes([3; 32])).await;
    let (url, none) = (&vault.stub.url, Duration::ZERO);
    let azure = azure_at(url, Algorithm::A256Kw, managed(url), none, none);
    assert!(!azure.anyone_may_wrap("cards"));
    let scope = scope("cards", None);
    let blob = azure.wrap("cards", &DEK, &scope).await.unwrap();
    assert_eq!(blob.len(), 56);
    let opened = azure.unwrap("cards", &blob, &scope).await.unwrap();
    assert_eq!(&opened.dek[..], &DEK);
    for at in [16, 55] {
        let mut flipped = blob.clone();
        flipped[at] ^= 1;
        let error = azure.unwrap("cards", &flipped, &scope).await.unwrap_err();
        assert_eq!(error.failure, Failure::Malformed, "{error}");
    }
    // A key of the other kind.
    let error = vault.as_machine().wrap("cards", &DEK, &scope).await;
    assert_eq!(error.unwrap_err().failure, Failure::Malformed);
}

fn app(vault: &Vault) -> App {
    App {
        authority: vault.stub.url.clone(),
        tenant: "tenant-1".into(),
        client_id: "c-1".into(),
    }
}

#[tokio::test]
async fn as_an_application_with_its_secret() {
    let vault = Vault::new(rsa).await;
    let scope = scope("cards", None);
    let login = |secret: &str| Login::ClientSecret {
        app: app(&vault),
        secret: Secret::Given(Arc::new(secret.to_owned().into())),
    };
    let azure = vault.by(login("s~e+cret"));
    for _ in 0..3 {
        let blob = azure.wrap("cards", &DEK, &scope).await.unwrap();
        azure.unwrap("cards", &blob, &scope).await.unwrap();
    }
    assert_eq!(vault.stub.count("/oauth2/"), 1);
    let error = vault.by(login("hunter2")).wrap("cards", &DEK, &scope).await;
    let error = error.unwrap_err();
    assert_eq!(error.failure, Failure::Denied, "{error}");
    assert!(error.detail.contains("invalid_client"), "{error}");
    assert!(!error.detail.contains("AADSTS"), "{error}");
}

#[tokio::test]
async fn as_an_application_with_a_federated_token() {
    let vault = Vault::new(rsa).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let scope = scope("cards", None);
    let azure = vault.by(Login::Workload {
        app: app(&vault),
        token: Secret::File(file.clone()),
    });
    let error = azure.wrap("cards", &DEK, &scope).await.unwrap_err();
    assert_eq!(error.failure, Failure::Unreachable, "{error}");
    std::fs::write(&file, "the.pods.token\n").unwrap();
    azure.wrap("cards", &DEK, &scope).await.unwrap();
}

#[tokio::test]
async fn as_one_of_several_identities_of_the_machine() {
    let vault = Vault::new(rsa).await;
    let scope = scope("cards", None);
    for (client_id, expected) in [("c-1", None), ("c-2", Some(Failure::Denied))] {
        let login = Login::Managed {
            metadata: vault.stub.url.clone(),
            client_id: Some(client_id.to_owned()),
        };
        let outcome = vault.by(login).wrap("cards", &DEK, &scope).await;
        assert_eq!(outcome.err().map(|error| error.failure), expected);
    }
}

#[tokio::test]
async fn who_wants_tokens_of_another_domain_gets_none() {
    let scope = scope("cards", None);
    for challenge in [
        "www-authenticate: Bearer authorization=\"https://login.windows.net/t\", resource=\"https://graph.microsoft.com\"\r\n",
        "www-authenticate: Basic realm=\"x\"\r\n",
        "",
    ] {
        let stub = Stub::new(move |_| Say::Answer(401, challenge, String::new())).await;
        let none = Duration::ZERO;
        let login = managed(&stub.url);
        let azure = azure_at(&stub.url, Algorithm::RsaOaep256, login, none, none);
        let error = azure.wrap("cards", &DEK, &scope).await.unwrap_err();
        assert_eq!(error.failure, Failure::Malformed, "{error}");
        let asked = stub.asked();
        assert_eq!(asked.len(), 1, "{challenge}");
        assert_eq!(asked[0].body, "");
    }
}

#[tokio::test]
async fn a_refused_token_is_exchanged_once() {
    let vault = Vault::new(rsa).await;
    let azure = vault.as_machine();
    let scope = scope("cards", None);
    let blob = azure.wrap("cards", &DEK, &scope).await.unwrap();
    vault.set(|state| state.token = "t2");
    let opened = azure.unwrap("cards", &blob, &scope).await.unwrap();
    assert_eq!(&opened.dek[..], &DEK);
    assert_eq!(vault.stub.count("/metadata/"), 2);
    vault
        .stub
        .tell(|asked| match asked.line.contains("/metadata/") {
            true => metadata("t3"),
            false => Say::Answer(401, CHALLENGE, String::new()),
        });
    let before = vault.stub.asked().len();
    let error = azure.unwrap("cards", &blob, &scope).await.unwrap_err();
    assert_eq!(error.failure, Failure::Denied, "{error}");
    assert_eq!(vault.stub.asked().len() - before, 3);
}

#[tokio::test]
async fn a_rotation_is_seen_in_a_wrapping_where_properties_may_not_be_read() {
    let vault = Vault::new(rsa).await;
    vault.set(|state| state.may_read = false);
    let azure = vault.as_machine();
    let scope = scope("cards", None);
    let blob = azure.wrap("cards", &DEK, &scope).await.unwrap();
    let superseded = || async {
        azure
            .unwrap("cards", &blob, &scope)
            .await
            .unwrap()
            .superseded
    };
    vault.rotate();
    assert!(!superseded().await);
    azure.wrap("cards", &DEK, &scope).await.unwrap();
    assert!(superseded().await);
    // Not allowed, it is not asked for again and again.
    assert_eq!(vault.stub.count("GET /keys/"), 1);
}

#[tokio::test]
async fn an_answer_in_another_keys_or_versions_name_is_none() {
    let vault = Vault::new(rsa).await;
    let azure = vault.as_machine();
    let scope = scope("cards", None);
    let blob = azure.wrap("cards", &DEK, &scope).await.unwrap();
    for (key, version) in [("identity", FIRST), ("cards", SECOND), ("cards", "1")] {
        vault.stub.tell(move |_| answered(key, version, &DEK));
        let error = azure.unwrap("cards", &blob, &scope).await.unwrap_err();
        assert_eq!(
            error.failure,
            Failure::Malformed,
            "{key} {version}: {error}"
        );
    }
    vault.stub.tell(|_| answered("identity", FIRST, &[9; 256]));
    let error = azure.wrap("cards", &DEK, &scope).await.unwrap_err();
    assert_eq!(error.failure, Failure::Malformed, "{error}");
    assert_eq!(azure.uri("Cards"), azure.uri("cards"));
}

#[tokio::test]
async fn kms_check_tells_of_it() {
    let vault = Vault::new(rsa).await;
    let url = &vault.stub.url;
    let kms = format!(
        "azure: {{type: azure, vault: {VAULT}, endpoint: \"{url}\", auth: {{managed_identity: {{metadata: \"{url}\"}}}}}}"
    );
    let keys = "cards: {seal_with: [azure/cards], open_also: [azure/none]}";
    let (code, told) = kms_check(&kms, keys).await;
    assert_eq!(code, Some(1), "{told:?}");
    assert_eq!(
        told[0]["identity"],
        "azure-kv:veil.vault.azure.net/keys/cards"
    );
    assert_eq!(told[0]["outcome"], "ok", "{told:?}");
    assert_eq!(told[0]["version"], FIRST);
    assert_eq!(told[1]["outcome"], "not-found");
    vault.set(|state| state.may_wrap = false);
    let (_, told) = kms_check(&kms, keys).await;
    assert_eq!(told[0]["outcome"], "denied");
    let hint = told[0]["hint"].as_str().unwrap();
    assert!(hint.contains("Crypto Service Encryption User"), "{hint}");
}
