//! `fieldveil keys status | purge`: asks a running agent's admin API, and shows what it says. It holds the token no longer than
//! the request takes, and prints it nowhere.

use super::exchange::exchange;
use super::{AdminArgs, Exit, KeysCommand, Output, trouble};
use crate::kms::keyring::read_secret;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Empty;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;
use zeroize::Zeroizing;

/// From the connection to the last byte of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of the token's file.
const TOKEN_BYTES_MAX: u64 = 4096;

/// What went wrong, and what to do about it.
struct Failed {
    exit: Exit,
    what: String,
    hint: Option<String>,
}

/// `fieldveil keys …`: 0; 64 without a token; 65 where there is no such key; 69 where no agent answers; 78 where it does not take the
/// token.
///
/// # Errors
/// Standard output cannot be written.
pub fn command(command: &KeysCommand, output: Output) -> io::Result<Exit> {
    let (agent, method, path) = match command {
        KeysCommand::Status(agent) => (agent, Method::GET, "/api/v1/keys".to_owned()),
        KeysCommand::Purge(args) => {
            // A name that needs escaping is none: the agent would not know it.
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if args.key.is_empty() || !args.key.bytes().all(fits) {
                trouble::tell("this is no name of a key", None, output)?;
                return Ok(Exit::Usage);
            }
            let path = format!("/api/v1/keys/{}/purge", args.key);
            (&args.agent, Method::POST, path)
        }
    };
    let answered = token(agent).and_then(|token| ask(agent.admin, method, &path, &token));
    let document = match answered {
        Ok(document) => document,
        Err(failed) => {
            trouble::tell(&failed.what, failed.hint.as_deref(), output)?;
            return Ok(failed.exit);
        }
    };
    let text = match (output, command) {
        (Output::Json, _) => format!("{document}\n"),
        (_, KeysCommand::Status(_)) => table(&document),
        (_, KeysCommand::Purge(args)) => format!(
            "let go of {} data keys of `{}`\n",
            document["purged"], args.key
        ),
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(Exit::Success)
}

fn token(agent: &AdminArgs) -> Result<Zeroizing<Vec<u8>>, Failed> {
    if let Some(file) = agent.file() {
        return read_secret(&file, TOKEN_BYTES_MAX).map_err(|error| Failed {
            exit: Exit::Configuration,
            what: error.to_string(),
            hint: None,
        });
    }
    match std::env::var_os(AdminArgs::VARIABLE) {
        Some(value) if !value.is_empty() => Ok(Zeroizing::new(value.into_vec())),
        _ => Err(Failed {
            exit: Exit::Usage,
            what: "the admin API wants its token".to_owned(),
            hint: Some(format!(
                "--token-file FILE, --data-dir DIR, or set {}",
                AdminArgs::VARIABLE
            )),
        }),
    }
}

fn unavailable(admin: SocketAddr, why: &str) -> Failed {
    Failed {
        exit: Exit::Unavailable,
        what: format!("no answer from the admin API at {admin}: {why}"),
        hint: Some("is the agent running, with `admin` in its settings or --admin?".to_owned()),
    }
}

fn ask(admin: SocketAddr, method: Method, path: &str, token: &[u8]) -> Result<Value, Failed> {
    let mut bearer = Zeroizing::new(b"Bearer ".to_vec());
    bearer.extend_from_slice(token.trim_ascii());
    let mut bearer = HeaderValue::from_bytes(&bearer).map_err(|_| Failed {
        exit: Exit::Configuration,
        what: "the token is not what a header can carry".to_owned(),
        hint: None,
    })?;
    bearer.set_sensitive(true);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(AUTHORIZATION, bearer)
        .body(Empty::new())
        .map_err(|error| unavailable(admin, &error.to_string()))?;
    let (status, body) =
        exchange(admin, request, PATIENCE).map_err(|why| unavailable(admin, &why))?;
    let document: Value = serde_json::from_slice(&body)
        .map_err(|_| unavailable(admin, "this is no admin API of fieldveil"))?;
    if status == StatusCode::OK {
        return Ok(document);
    }
    let exit = match status {
        StatusCode::UNAUTHORIZED => Exit::Configuration,
        StatusCode::NOT_FOUND => Exit::Data,
        _ => Exit::Unavailable,
    };
    let text = |name: &str| document[name].as_str().map(str::to_owned);
    Err(Failed {
        exit,
        what: text("title").unwrap_or_else(|| format!("the admin API answered {status}")),
        hint: text("detail"),
    })
}

/// One line for each key.
fn table(document: &Value) -> String {
    let mut text =
        String::from("key                       seals  without a KMS   opens  without a KMS\n");
    for key in document["keys"].as_array().into_iter().flatten() {
        let lasts = |side: &Value| match side["survives_ms"].as_u64() {
            Some(millis) => format!("{} s", millis / 1000),
            None => "-".to_owned(),
        };
        let (seal, open) = (&key["seal"], &key["open"]);
        let _ = write!(
            text,
            "{:<24} {:>6} {:>14} {:>7} {:>14}",
            key["name"].as_str().unwrap_or_default(),
            seal["data_keys"].as_u64().unwrap_or_default(),
            lasts(seal),
            open["data_keys"].as_u64().unwrap_or_default(),
            lasts(open),
        );
        match seal["incomplete"].as_u64() {
            Some(incomplete) if incomplete > 0 => {
                let _ = writeln!(text, "  {incomplete} not wrapped by every KMS");
            }
            _ => text.push('\n'),
        }
    }
    text
}
