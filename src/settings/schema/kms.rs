//! The types of KMSs.

use super::super::kms::{FEDERATED, METADATA, SERVICE_ACCOUNT};
use super::{client_tls, count, one_of, or, text, typed, words};
use crate::policy::schema::mapping;
use serde_json::Value;

pub(super) fn keyring() -> Value {
    let mut unlock = mapping(
        "What the keyring's keys are encrypted under",
        &[
            ("key_file", "A file of 32 bytes", text()),
            ("passphrase_file", "A file with a passphrase", text()),
        ],
    );
    unlock["oneOf"] = one_of(&["key_file", "passphrase_file"]);
    typed(
        "keyring",
        "The embedded key store",
        &[
            ("dir!", "Its directory", text()),
            ("unlock", "How it is unlocked", unlock),
        ],
    )
}

pub(super) fn transit() -> Value {
    let mount = |default: &str| or(text(), default);
    let mut approle = mapping(
        "As an AppRole",
        &[
            ("mount", "Where the method is mounted", mount("approle")),
            ("role_id!", "Which role", text()),
            ("secret_id_file", "A file with the secret id", text()),
            ("secret_id_env", "The variable with the secret id", text()),
        ],
    );
    approle["oneOf"] = one_of(&["secret_id_file", "secret_id_env"]);
    let kubernetes = mapping(
        "As the service account of a pod",
        &[
            ("mount", "Where the method is mounted", mount("kubernetes")),
            ("role!", "Which role", text()),
            (
                "jwt_file",
                "The service account's token",
                or(text(), SERVICE_ACCOUNT),
            ),
        ],
    );
    let mut auth = mapping(
        "How the agent logs in",
        &[
            ("token_file", "A file with a token", text()),
            ("token_env", "The variable with a token", text()),
            ("approle", "As an AppRole", approle),
            ("kubernetes", "As the service account of a pod", kubernetes),
        ],
    );
    auth["oneOf"] = one_of(&["token_file", "token_env", "approle", "kubernetes"]);
    typed(
        "transit",
        "The transit engine of HashiCorp Vault or OpenBao",
        &[
            (
                "address!",
                "http://HOST[:PORT] or https://HOST[:PORT]",
                text(),
            ),
            (
                "identity!",
                "What tokens know it by, wherever it is",
                text(),
            ),
            ("mount", "Where the engine is mounted", mount("transit")),
            ("namespace", "Sent with every request", text()),
            ("tls", "TLS with it", client_tls()),
            ("auth!", "How the agent logs in", auth),
        ],
    )
}

pub(super) fn aws() -> Value {
    typed(
        "aws",
        "AWS KMS",
        &[
            ("region", "Where credentials are asked for", text()),
            ("endpoint", "Instead of AWS's own addresses", text()),
            ("tls", "TLS with it", client_tls()),
        ],
    )
}

pub(super) fn gcp() -> Value {
    typed(
        "gcp",
        "Google Cloud KMS",
        &[
            ("endpoint", "Instead of Google's own address", text()),
            (
                "metadata",
                "The metadata server, instead of the usual one",
                text(),
            ),
            (
                "credentials_file",
                "Who the agent is, instead of what the metadata server says",
                text(),
            ),
            ("tls", "TLS with the endpoint", client_tls()),
        ],
    )
}

pub(super) fn azure() -> Value {
    let app = [
        ("tenant!", "The directory's id or domain", text()),
        ("client_id!", "The application's id", text()),
    ];
    let managed = mapping(
        "As the identity of the machine",
        &[
            ("client_id", "Which one, where it has several", text()),
            (
                "metadata",
                "The metadata service",
                or(text(), format!("http://{METADATA}")),
            ),
        ],
    );
    let mut words_of_secret = app.to_vec();
    words_of_secret.extend([
        ("secret_file", "A file with the secret", text()),
        ("secret_env", "The variable with the secret", text()),
    ]);
    let mut secret = mapping("As an application, with its secret", &words_of_secret);
    secret["oneOf"] = one_of(&["secret_file", "secret_env"]);
    let mut words_of_workload = app.to_vec();
    let token = or(text(), FEDERATED);
    words_of_workload.push(("token_file", "The federated token", token));
    let workload = mapping(
        "As an application, with a federated token",
        &words_of_workload,
    );
    let mut auth = mapping(
        "Who the agent is",
        &[
            ("managed_identity", "The machine's identity", managed),
            ("client_secret", "An application, with its secret", secret),
            (
                "workload_identity",
                "An application, with a federated token",
                workload,
            ),
        ],
    );
    auth["oneOf"] = one_of(&["managed_identity", "client_secret", "workload_identity"]);
    let algorithm = or(words(&["RSA-OAEP-256", "A256KW"]), "RSA-OAEP-256");
    typed(
        "azure",
        "Azure Key Vault or Managed HSM",
        &[
            ("vault!", "The vault's host name", text()),
            ("endpoint", "Instead of the vault's own address", text()),
            ("algorithm", "How its keys wrap", algorithm),
            (
                "authority",
                "Who gives out tokens to applications, instead of the public cloud's",
                text(),
            ),
            ("tls", "TLS with it", client_tls()),
            ("auth!", "Who the agent is", auth),
        ],
    )
}

pub(super) fn pkcs11() -> Value {
    let mut pkcs11 = typed(
        "pkcs11",
        "The token of an HSM",
        &[
            ("library!", "The file of the HSM's library", text()),
            ("token!", "The token's label", text()),
            ("pin_file", "A file with the user's PIN", text()),
            ("pin_env", "The variable with the user's PIN", text()),
            ("sessions", "Calls at a time", count(64, 4)),
        ],
    );
    pkcs11["oneOf"] = one_of(&["pin_file", "pin_env"]);
    pkcs11
}
