//! Google Cloud KMS before a server of the tests' own, which really encrypts, and holds its clients to checksums, tokens, states and
//! rights as Google's does.

use super::login::trust;
use super::program::kms_check;
use super::stub::{Asked, Say, Stub};
use super::suite::{DEK, Done, Subject, run, scope};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use crc32c::crc32c;
use fieldveil::kms::gcp::{Gcp, Login, Settings};
use fieldveil::kms::{Failure, Kms};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const KEK: &str = "projects/p/locations/europe-west3/keyRings/r/cryptoKeys/cards";
const OTHER: &str = "projects/p/locations/europe-west3/keyRings/r/cryptoKeys/identity";
const NONE: &str = "projects/p/locations/europe-west3/keyRings/r/cryptoKeys/none";

pub fn gcp_at(url: &str, login: Login, relogin_after: Duration) -> Gcp {
    Gcp::new(Settings {
        name: "google".into(),
        endpoint: url.to_owned(),
        trust: trust(),
        login_trust: trust(),
        login,
        relogin_after,
    })
    .unwrap()
}

/// What the metadata server says; its header goes along.
pub fn metadata(token: &str) -> Say {
    let body = json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"});
    Say::Answer(200, "metadata-flavor: Google\r\n", body.to_string())
}

pub fn refused(status: u16, word: &str, message: &str) -> String {
    json!({"error": {"code": status, "message": message, "status": word}}).to_string()
}

/// What Google says of a version that is not enabled.
pub fn of_state(state: &str) -> String {
    let message = format!("{KEK}/cryptoKeyVersions/1 is not enabled, current state is: {state}.");
    refused(400, "FAILED_PRECONDITION", &message)
}

/// An answer to `encrypt` or `decrypt` that is right in itself.
pub fn answered(asked: &Asked, bytes: &[u8]) -> Say {
    let (text, sum) = (STANDARD.encode(bytes), crc32c(bytes).to_string());
    let body = match asked.line.ends_with(":encrypt") {
        true => json!({
            "name": format!("{KEK}/cryptoKeyVersions/1"),
            "ciphertext": text,
            "ciphertextCrc32c": sum,
            "verifiedPlaintextCrc32c": true,
            "verifiedAdditionalAuthenticatedDataCrc32c": true,
        }),
        false => json!({"plaintext": text, "plaintextCrc32c": sum, "usedPrimary": true}),
    };
    Say::json(200, &body.to_string())
}

struct Version {
    key: [u8; 32],
    state: &'static str,
}

/// What the server knows.
struct State {
    keys: HashMap<&'static str, Vec<Version>>,
    is_allowed: bool,
    token: String,
    /// Who may sign for a token.
    public_key: Vec<u8>,
    /// Changes what is answered, as a bad wire or a bad server does.
    spoil: Option<(&'static str, Value)>,
}

struct Google {
    stub: Stub,
    state: Arc<Mutex<State>>,
}

fn version(number: u8) -> Version {
    Version {
        key: [number; 32],
        state: "ENABLED",
    }
}

impl Google {
    async fn new() -> Google {
        let state = Arc::new(Mutex::new(State {
            keys: HashMap::from([(KEK, vec![version(1)]), (OTHER, vec![version(77)])]),
            is_allowed: true,
            token: "t1".to_owned(),
            public_key: Vec::new(),
            spoil: None,
        }));
        let known = Arc::clone(&state);
        let stub = Stub::new(move |asked| answer(&known.lock().unwrap(), asked)).await;
        Google { stub, state }
    }

    fn as_machine(&self) -> Gcp {
        let login = Login::Metadata(self.stub.url.clone());
        gcp_at(&self.stub.url, login, Duration::ZERO)
    }

    fn by(&self, file: PathBuf) -> Gcp {
        gcp_at(&self.stub.url, Login::File(file), Duration::ZERO)
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }
}

fn answer(state: &State, asked: &Asked) -> Say {
    let (method, path) = asked.line.split_once(' ').unwrap();
    match (method, path) {
        ("GET", "/computeMetadata/v1/instance/service-accounts/default/token") => {
            assert_eq!(asked.header("metadata-flavor"), Some("Google"));
            metadata(&state.token)
        }
        ("POST", "/token") => of_an_account(state, asked),
        ("POST", "/sts") => of_a_workload(asked),
        ("POST", "/impersonate") => {
            assert_eq!(asked.header("authorization"), Some("Bearer federated"));
            let body: Value = serde_json::from_str(&asked.body).unwrap();
            assert_eq!(body["lifetime"], "3600s");
            let body = json!({"accessToken": state.token, "expireTime": "2026-01-01T00:00:00Z"});
            Say::json(200, &body.to_string())
        }
        ("POST", path) => call(state, asked, path),
        other => panic!("{other:?}"),
    }
}

fn fields(asked: &Asked) -> HashMap<String, String> {
    let form = Some("application/x-www-form-urlencoded");
    assert_eq!(asked.header("content-type"), form);
    let decoded = |text: &str| {
        let mut parts = text.split('%');
        let mut bytes = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
            bytes.extend(&part.as_bytes()[2..]);
        }
        String::from_utf8(bytes).unwrap()
    };
    let pairs = asked
        .body
        .split('&')
        .map(|pair| pair.split_once('=').unwrap());
    pairs
        .map(|(name, value)| (name.to_owned(), decoded(value)))
        .collect()
}

fn of_an_account(state: &State, asked: &Asked) -> Say {
    let fields = fields(asked);
    let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    assert_eq!(fields["grant_type"], grant);
    let parts: Vec<&str> = fields["assertion"].split('.').collect();
    let [header, claims, signature] = parts[..] else {
        panic!("no JWT");
    };
    let signed = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &state.public_key);
    if key.verify(signed.as_bytes(), &signature).is_err() {
        let error =
            json!({"error": "invalid_grant", "error_description": "Invalid JWT Signature."});
        return Say::json(400, &error.to_string());
    }
    let part = |text: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    };
    assert_eq!(
        part(header),
        json!({"alg": "RS256", "typ": "JWT", "kid": "k1"})
    );
    let claims = part(claims);
    assert_eq!(claims["iss"], "agent@p.iam.gserviceaccount.com");
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/cloudkms");
    assert!(claims["aud"].as_str().unwrap().ends_with("/token"));
    let (from, to) = (
        claims["iat"].as_u64().unwrap(),
        claims["exp"].as_u64().unwrap(),
    );
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(from <= now && now < to && to - from <= 3600);
    let body = json!({"access_token": state.token, "expires_in": 3599, "token_type": "Bearer"});
    Say::json(200, &body.to_string())
}

fn of_a_workload(asked: &Asked) -> Say {
    let fields = fields(asked);
    let grant = "urn:ietf:params:oauth:grant-type:token-exchange";
    assert_eq!(fields["grant_type"], grant);
    assert_eq!(fields["audience"], "//iam.googleapis.com/projects/1/x");
    assert_eq!(
        fields["subject_token_type"],
        "urn:ietf:params:oauth:token-type:jwt"
    );
    let wanted = "urn:ietf:params:oauth:token-type:access_token";
    assert_eq!(fields["requested_token_type"], wanted);
    if fields["subject_token"] != "the.pods.token" {
        return Say::json(400, r#"{"error":"invalid_grant"}"#);
    }
    let body = json!({"access_token": "federated", "expires_in": 3599, "token_type": "Bearer"});
    Say::json(200, &body.to_string())
}

fn call(state: &State, asked: &Asked, path: &str) -> Say {
    let refuse =
        |status, word: &str, message: &str| Say::json(status, &refused(status, word, message));
    if asked.header("authorization") != Some(&format!("Bearer {}", state.token)) {
        let what = "Request had invalid authentication credentials.";
        return refuse(401, "UNAUTHENTICATED", what);
    }
    let (name, verb) = path.strip_prefix("/v1/").unwrap().rsplit_once(':').unwrap();
    if !state.is_allowed {
        let what = format!("Permission 'x' denied on resource '{name}' (or it may not exist).");
        return refuse(403, "PERMISSION_DENIED", &what);
    }
    let Some(versions) = state.keys.get(name) else {
        return refuse(404, "NOT_FOUND", &format!("CryptoKey {name} not found."));
    };
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    let sent = |member: &str| {
        let bytes = STANDARD.decode(body[member].as_str().unwrap()).unwrap();
        let sum = body[format!("{member}Crc32c")].as_str().unwrap();
        assert_eq!(sum, crc32c(&bytes).to_string(), "{member}");
        bytes
    };
    let aad = sent("additionalAuthenticatedData");
    let mut said: Value = if verb == "encrypt" {
        let number = versions.len();
        let mut bytes = sent("plaintext");
        let mut blob = vec![u8::try_from(number).unwrap()];
        let mut nonce = [0; 12];
        fieldveil::kms::os_random()(&mut nonce).unwrap();
        blob.extend(nonce);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let version = &versions[number - 1];
        let key = cipher(&version.key);
        key.seal_in_place_append_tag(nonce, Aad::from(&aad), &mut bytes)
            .unwrap();
        blob.extend(bytes);
        json!({
            "name": format!("{name}/cryptoKeyVersions/{number}"),
            "ciphertext": STANDARD.encode(&blob),
            "ciphertextCrc32c": crc32c(&blob).to_string(),
            "verifiedPlaintextCrc32c": true,
            "verifiedAdditionalAuthenticatedDataCrc32c": true,
            "protectionLevel": "SOFTWARE",
        })
    } else {
        assert_eq!(verb, "decrypt");
        let blob = sent("ciphertext");
        let failed = "Decryption failed: verify that 'name' refers to the correct CryptoKey.";
        let number = usize::from(blob.first().copied().unwrap_or_default());
        let Some(version) = number.checked_sub(1).and_then(|at| versions.get(at)) else {
            return refuse(400, "INVALID_ARGUMENT", failed);
        };
        if version.state != "ENABLED" {
            return Say::json(400, &of_state(version.state));
        }
        let Some((nonce, sealed)) = blob[1..].split_first_chunk::<12>() else {
            return refuse(400, "INVALID_ARGUMENT", failed);
        };
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let key = cipher(&version.key);
        let Ok(plaintext) = key.open_in_place(nonce, Aad::from(&aad), &mut sealed) else {
            return refuse(400, "INVALID_ARGUMENT", failed);
        };
        let mut said = json!({
            "plaintext": STANDARD.encode(&*plaintext),
            "plaintextCrc32c": crc32c(plaintext).to_string(),
            "protectionLevel": "SOFTWARE",
        });
        // What is false is left out.
        if number == versions.len() {
            said["usedPrimary"] = true.into();
        }
        said
    };
    if let Some((member, value)) = &state.spoil {
        said[member] = value.clone();
    }
    Say::json(200, &said.to_string())
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap())
}

struct Stubbed {
    google: Google,
    gcp: Gcp,
}

impl Subject for Stubbed {
    fn kms(&self) -> &dyn Kms {
        &self.gcp
    }
    fn kek(&self) -> String {
        KEK.into()
    }
    fn other(&self) -> String {
        OTHER.into()
    }
    fn missing(&self) -> String {
        NONE.into()
    }
    // The blobs are not Google's.
    fn row(&self) -> Option<&'static str> {
        None
    }
    fn rotate(&self) -> Option<Done<'_>> {
        Some(Box::pin(async {
            self.google
                .set(|state| state.keys.get_mut(KEK).unwrap().push(version(2)));
        }))
    }
    fn disable(&self) -> Option<(Done<'_>, Done<'_>)> {
        let switch = |to: &'static str| async move {
            self.google
                .set(|state| state.keys.get_mut(KEK).unwrap()[0].state = to);
        };
        Some((Box::pin(switch("DISABLED")), Box::pin(switch("ENABLED"))))
    }
    fn deny(&self) -> Option<(Done<'_>, Done<'_>)> {
        let allow =
            |is_allowed| async move { self.google.set(|state| state.is_allowed = is_allowed) };
        Some((Box::pin(allow(false)), Box::pin(allow(true))))
    }
    fn delete(&self) -> Option<(Done<'_>, Failure)> {
        let deleted = async {
            self.google
                .set(|state| state.keys.get_mut(OTHER).unwrap()[0].state = "DESTROY_SCHEDULED");
        };
        Some((Box::pin(deleted), Failure::Destroyed))
    }
}

#[tokio::test]
async fn the_suite() {
    let google = Google::new().await;
    let gcp = google.as_machine();
    run(&Stubbed { google, gcp }).await;
}

#[tokio::test]
async fn a_refused_token_is_exchanged_once() {
    let google = Google::new().await;
    let gcp = google.as_machine();
    let scope = scope("cards", None);
    let blob = gcp.wrap(KEK, &DEK, &scope).await.unwrap();
    google.set(|state| state.token = "t2".to_owned());
    let opened = gcp.unwrap(KEK, &blob, &scope).await.unwrap();
    assert_eq!(&opened.dek[..], &DEK);
    assert_eq!(google.stub.count("computeMetadata"), 2);
    // A server that refuses whatever it is shown.
    google
        .stub
        .tell(|asked| match asked.line.starts_with("GET") {
            true => metadata("t3"),
            false => Say::json(401, "{}"),
        });
    let before = google.stub.asked().len();
    let error = gcp.unwrap(KEK, &blob, &scope).await.unwrap_err();
    assert_eq!(error.failure, Failure::Denied, "{error}");
    assert_eq!(google.stub.asked().len() - before, 3);
}

/// A key of an account, and what verifies its signatures.
fn account(url: &str) -> (Value, Vec<u8>) {
    let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let text = STANDARD.encode(der.as_ref());
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        lines.join("\n")
    );
    let file = json!({
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "k1",
        "private_key": pem,
        "client_email": "agent@p.iam.gserviceaccount.com",
        "token_uri": format!("{url}/token"),
    });
    (file, key.public_key().as_ref().to_vec())
}

#[tokio::test]
async fn as_a_service_account_with_a_key_in_a_file() {
    let google = Google::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("account.json");
    let (first, public_key) = account(&google.stub.url);
    let (second, next) = account(&google.stub.url);
    google.set(|state| state.public_key = public_key);
    std::fs::write(&path, first.to_string()).unwrap();
    let gcp = google.by(path.clone());
    let scope = scope("cards", Some("acme"));
    for _ in 0..3 {
        let blob = gcp.wrap(KEK, &DEK, &scope).await.unwrap();
        gcp.unwrap(KEK, &blob, &scope).await.unwrap();
    }
    assert_eq!(google.stub.count("/token"), 1);

    // The key is revoked, and the token with it; then the file has another.
    google.set(|state| {
        state.public_key = next;
        state.token = "t2".to_owned();
    });
    let error = gcp.wrap(KEK, &DEK, &scope).await.unwrap_err();
    assert_eq!(error.failure, Failure::Denied, "{error}");
    assert!(error.detail.contains("invalid_grant"), "{error}");
    std::fs::write(&path, second.to_string()).unwrap();
    gcp.wrap(KEK, &DEK, &scope).await.unwrap();
}

#[tokio::test]
async fn as_a_workload_with_somebody_elses_token() {
    let google = Google::new().await;
    let dir = tempfile::tempdir().unwrap();
    let (path, subject) = (dir.path().join("federation.json"), dir.path().join("token"));
    let mut file = json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{}/sts", google.stub.url),
        "credential_source": {"file": subject},
        "service_account_impersonation_url": format!("{}/impersonate", google.stub.url),
    });
    let scope = scope("cards", None);
    std::fs::write(&subject, "the.pods.token\n").unwrap();
    std::fs::write(&path, file.to_string()).unwrap();
    google
        .by(path.clone())
        .wrap(KEK, &DEK, &scope)
        .await
        .unwrap();

    // The token in a document, and without another account.
    google.set(|state| state.token = "federated".to_owned());
    std::fs::write(&subject, r#"{"id_token":"the.pods.token","x":1}"#).unwrap();
    file["credential_source"]["format"] =
        json!({"type": "json", "subject_token_field_name": "id_token"});
    file.as_object_mut()
        .unwrap()
        .remove("service_account_impersonation_url");
    std::fs::write(&path, file.to_string()).unwrap();
    google
        .by(path.clone())
        .wrap(KEK, &DEK, &scope)
        .await
        .unwrap();
    assert_eq!(google.stub.count("/impersonate"), 1);

    // What is not built in, or nobody could use, and a token that is not taken.
    let asked = google.stub.asked().len();
    for (member, value) in [
        (
            "credential_source",
            json!({"url": "http://169.254.169.254/x"}),
        ),
        (
            "credential_source",
            json!({"executable": {"command": "/bin/x"}}),
        ),
        ("token_url", json!("http://sts.example/v1/token")),
        ("type", json!("authorized_user")),
        ("type", json!(null)),
    ] {
        let mut bad = file.clone();
        bad[member] = value;
        std::fs::write(&path, bad.to_string()).unwrap();
        let error = google.by(path.clone()).wrap(KEK, &DEK, &scope).await;
        let error = error.unwrap_err();
        assert_eq!(error.failure, Failure::Unreachable, "{error}");
        let shown = path.display().to_string();
        assert!(error.detail.contains(&shown), "{error}");
    }
    assert_eq!(google.stub.asked().len(), asked);
    std::fs::write(&path, file.to_string()).unwrap();
    std::fs::write(&subject, r#"{"id_token":"another.token"}"#).unwrap();
    let error = google.by(path).wrap(KEK, &DEK, &scope).await.unwrap_err();
    assert_eq!(error.failure, Failure::Denied, "{error}");
}

#[tokio::test]
async fn what_changed_on_the_way_is_not_used() {
    let google = Google::new().await;
    let gcp = google.as_machine();
    let scope = scope("cards", None);
    let blob = gcp.wrap(KEK, &DEK, &scope).await.unwrap();
    for (member, value) in [
        ("ciphertext", STANDARD.encode("another").into()),
        ("ciphertextCrc32c", "7".into()),
        ("verifiedPlaintextCrc32c", false.into()),
        ("verifiedAdditionalAuthenticatedDataCrc32c", false.into()),
    ] {
        google.set(|state| state.spoil = Some((member, value)));
        let error = gcp.wrap(KEK, &DEK, &scope).await.unwrap_err();
        assert_eq!(error.failure, Failure::Unreachable, "{member}: {error}");
    }
    for (member, value) in [
        ("plaintext", STANDARD.encode([9; 32])),
        ("plaintextCrc32c", "7".to_owned()),
    ] {
        google.set(|state| state.spoil = Some((member, value.into())));
        let error = gcp.unwrap(KEK, &blob, &scope).await.unwrap_err();
        assert_eq!(error.failure, Failure::Unreachable, "{member}: {error}");
    }
}

#[tokio::test]
async fn nobody_but_googles_metadata_server_is_believed() {
    let token = json!({"access_token": "t", "expires_in": 3599}).to_string();
    let stub = Stub::new(move |_| Say::json(200, &token)).await;
    let gcp = gcp_at(&stub.url, Login::Metadata(stub.url.clone()), Duration::ZERO);
    let error = gcp
        .wrap(KEK, &DEK, &scope("cards", None))
        .await
        .unwrap_err();
    assert_eq!(error.failure, Failure::Malformed, "{error}");
    assert_eq!(stub.asked().len(), 1);
}

#[tokio::test]
async fn kms_check_tells_of_it() {
    let google = Google::new().await;
    let url = &google.stub.url;
    let kms = format!("google: {{type: gcp, endpoint: \"{url}\", metadata: \"{url}\"}}");
    let keys = format!("cards: {{seal_with: [\"google/{KEK}\"], open_also: [\"google/{NONE}\"]}}");
    let (code, told) = kms_check(&kms, &keys).await;
    assert_eq!(code, Some(1), "{told:?}");
    assert_eq!(told[0]["identity"], format!("gcp-kms:{KEK}"));
    assert_eq!(told[0]["outcome"], "ok", "{told:?}");
    assert_eq!(told[0]["authenticates_context"], true);
    assert_eq!(told[1]["outcome"], "not-found");
    google.set(|state| state.is_allowed = false);
    let (_, told) = kms_check(&kms, &keys).await;
    assert_eq!(told[0]["outcome"], "denied");
    let hint = told[0]["hint"].as_str().unwrap();
    assert!(hint.contains("cryptoKeyEncrypterDecrypter"), "{hint}");
}
