//! AWS's own chain of credentials, link by link, by the program and its environment: each at a stub of its own, which the KMS's stub then
//! sees in the signatures.

use super::program::kms_check_with;
use super::stub::{Asked, Say, Stub};
use super::talkers::ARN;
use serde_json::{Value, json};

/// AWS KMS, as far as signatures tell who asks: what was encrypted is what it was.
fn kms(asked: &Asked) -> Say {
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    let said = match asked.header("x-amz-target") {
        Some("TrentService.Encrypt") => {
            json!({"KeyId": ARN, "CiphertextBlob": body["Plaintext"]})
        }
        Some("TrentService.Decrypt") => {
            json!({"KeyId": ARN, "Plaintext": body["CiphertextBlob"]})
        }
        other => panic!("{other:?}"),
    };
    Say::json(200, &said.to_string())
}

/// What the metadata services give out.
fn credentials(id: &str) -> String {
    json!({
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": id,
        "SecretAccessKey": "hunter2",
        "Token": "a.session",
        "Expiration": "2037-01-01T00:00:00Z",
    })
    .to_string()
}

struct Chain {
    kms: Stub,
    dir: tempfile::TempDir,
}

impl Chain {
    async fn new() -> Chain {
        Chain {
            kms: Stub::new(kms).await,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// What `kms check` says of the key.
    async fn check(&self, variables: &[(&str, String)]) -> (Option<i32>, Value) {
        let text = format!("aws: {{type: aws, endpoint: \"{}\"}}", self.kms.url);
        let keys = format!("cards: {{seal_with: [\"aws/{ARN}\"]}}");
        let mut all = vec![
            ("HOME", self.dir.path().display().to_string()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        all.extend(variables.iter().cloned());
        let (code, mut told) = kms_check_with(&text, &keys, &all).await;
        (code, told.remove(0))
    }

    /// Whoever the chain leads to has this access key.
    async fn leads_to(&self, id: &str, variables: &[(&str, String)]) {
        let (code, told) = self.check(variables).await;
        assert_eq!(code, Some(0), "{id}: {told}");
        let asked = self.kms.asked();
        assert!(!asked.is_empty());
        for asked in asked {
            let signed = asked.header("authorization").unwrap();
            assert!(signed.contains(&format!("Credential={id}/")), "{signed}");
        }
    }
}

#[tokio::test]
async fn variables() {
    let chain = Chain::new().await;
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIAVARIABLE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "hunter2".to_owned()),
    ];
    chain.leads_to("AKIAVARIABLE", &variables).await;
}

#[tokio::test]
async fn a_profile_in_a_file() {
    let chain = Chain::new().await;
    let text = "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = hunter2\n\
                [payments]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = hunter2\n";
    let file = chain.file("credentials", text);
    let variables = [
        ("AWS_SHARED_CREDENTIALS_FILE", file),
        ("AWS_PROFILE", "payments".to_owned()),
    ];
    chain.leads_to("AKIAPROFILE", &variables).await;
}

#[tokio::test]
async fn a_web_identity_as_pods_have_it() {
    let chain = Chain::new().await;
    let sts = Stub::new(|asked| {
        assert_eq!(asked.line, "POST /");
        for part in [
            "Action=AssumeRoleWithWebIdentity",
            "RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Ffieldveil",
            "WebIdentityToken=the.pods.token",
        ] {
            assert!(asked.body.contains(part), "{part}");
        }
        let said = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult><Credentials>\
             <AccessKeyId>ASIAWEB</AccessKeyId><SecretAccessKey>hunter2</SecretAccessKey>\
             <SessionToken>a.session</SessionToken><Expiration>2037-01-01T00:00:00Z</Expiration>\
             </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
        Say::Answer(200, "", said.to_owned())
    })
    .await;
    let variables = [
        (
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            chain.file("token", "the.pods.token"),
        ),
        (
            "AWS_ROLE_ARN",
            "arn:aws:iam::111122223333:role/fieldveil".to_owned(),
        ),
        ("AWS_ENDPOINT_URL_STS", sts.url.clone()),
    ];
    chain.leads_to("ASIAWEB", &variables).await;
    let session = chain.kms.asked();
    assert_eq!(session[0].header("x-amz-security-token"), Some("a.session"));
}

#[tokio::test]
async fn a_containers_credentials() {
    let chain = Chain::new().await;
    let container = Stub::new(|asked| {
        assert_eq!(asked.line, "GET /v1/credentials");
        assert_eq!(asked.header("authorization"), Some("the.containers.token"));
        Say::json(200, &credentials("ASIACONTAINER"))
    })
    .await;
    let token = chain.file("container-token", "the.containers.token");
    let variables = [
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("{}/v1/credentials", container.url),
        ),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token),
    ];
    chain.leads_to("ASIACONTAINER", &variables).await;
}

#[tokio::test]
async fn an_instances_role() {
    let chain = Chain::new().await;
    let metadata = Stub::new(|asked| {
        let token = asked.header("x-aws-ec2-metadata-token");
        match &*asked.line {
            "PUT /latest/api/token" => {
                let lives = "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n";
                Say::Answer(200, lives, "a.session".to_owned())
            }
            _ if token != Some("a.session") => Say::json(401, ""),
            line if line.ends_with("/security-credentials/fieldveil") => {
                Say::json(200, &credentials("ASIAINSTANCE"))
            }
            line if line.contains("/security-credentials") => {
                Say::Answer(200, "", "fieldveil".to_owned())
            }
            _ => Say::json(404, ""),
        }
    })
    .await;
    let variables = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url.clone())];
    chain.leads_to("ASIAINSTANCE", &variables).await;
}

#[tokio::test]
async fn nobody() {
    let chain = Chain::new().await;
    let nowhere = [("AWS_EC2_METADATA_DISABLED", "true".to_owned())];
    let (code, told) = chain.check(&nowhere).await;
    assert_eq!(code, Some(69), "{told}");
    assert_eq!(told["outcome"], "unreachable");
    assert!(
        told["hint"].as_str().unwrap().contains("credentials"),
        "{told}"
    );
    assert!(chain.kms.asked().is_empty());
}
