//! The AWS provider against LocalStack, which enforces key states and contexts, and against moto, which denies.
//!
//! `FIELDVEIL_LOCALSTACK` and `FIELDVEIL_MOTO` name the Python programs of environments with `localstack-core[runtime]` and with
//! `moto[server]`.

#[path = "../support/emulator.rs"]
mod emulator;
#[path = "../providers/suite.rs"]
mod suite;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use emulator::Emulator;
use fieldveil::arena::Arena;
use fieldveil::dek::{Needs, SealNeed, schedule};
use fieldveil::keys::{Binding, KeySettings, Keys, Need, Settings as Room, TERMS};
use fieldveil::kms::aws::{Aws, Settings};
use fieldveil::kms::{Failure, Kms, os_random};
use fieldveil::token::{ClassHint, Record, Suite, Token};
use std::sync::Arc;
use std::time::Duration;
use suite::{DEK, Done, Subject, run, scope};

/// The provider, before an emulator.
fn provider(emulator: &Emulator) -> Aws {
    Aws::new(Settings {
        name: "aws".into(),
        region: Some("us-east-1".into()),
        endpoint: Some(emulator.url.clone()),
        credentials: Some(("id".into(), "secret".into())),
        trust: Default::default(),
        relogin_after: Duration::from_secs(3600),
    })
    .unwrap()
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
    let aws = provider(&emulator);
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
        kms: Arc::new(provider(emulator)),
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
    let (kek, other, aws) = (emulator.key(), emulator.key(), provider(&emulator));
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
