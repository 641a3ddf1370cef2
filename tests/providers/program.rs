//! The program itself, from a settings file: `fieldveil kms check`.

use serde_json::Value;
use std::process::Command;

/// Its exit code, and what it tells of each KEK. `kms` and `keys` are the lines under these words.
pub async fn kms_check(kms: &str, keys: &str) -> (Option<i32>, Vec<Value>) {
    kms_check_with(kms, keys, &[]).await
}

/// In an environment that has these variables, and none of the surroundings'.
pub async fn kms_check_with(
    kms: &str,
    keys: &str,
    variables: &[(&str, String)],
) -> (Option<i32>, Vec<Value>) {
    let variables: Vec<(String, String)> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("policies")).unwrap();
    let settings = dir.path().join("settings.yaml");
    let text = format!("policy: {{dir: policies}}\nkms:\n  {kms}\nkeys:\n  {keys}\n");
    std::fs::write(&settings, text).unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fieldveil"));
        command.args(["kms", "check", "--output", "json", "--settings"]);
        command.env_clear().envs(variables);
        command.arg(&settings).output().unwrap()
    });
    let out = ended.await.unwrap();
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    let all = told["kms"].as_array().unwrap().clone();
    (out.status.code(), all)
}
