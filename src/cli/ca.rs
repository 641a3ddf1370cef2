//! `fieldveil ca init | print | trust`: the CA by which the agent stands in for hosts, made, shown, and explained to clients. The key is
//! written once and never shown.

use super::{CaArgs, CaCommand, CaInitArgs, Exit, Output, trouble};
use crate::app::forward::read_certificate;
use crate::intercept::{Names, made};
use crate::kms::keyring::create_secret;
use crate::settings::{OwnCa, Settings};
use crate::tls::system_roots;
use serde_json::json;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Why a command was not done.
enum Undone {
    /// What is wrong, and what to do.
    Wrong(String, Option<String>),
    /// The settings are.
    Settings(Vec<crate::diagnostic::Diagnostic>),
}

fn wrong(what: impl Into<String>, hint: &str) -> Undone {
    Undone::Wrong(what.into(), Some(hint.to_owned()))
}

/// `fieldveil ca …`: 0, or 78 with what is wrong.
///
/// # Errors
/// Standard output cannot be written.
pub fn command(command: &CaCommand, output: Output) -> io::Result<Exit> {
    let done = match command {
        CaCommand::Init(args) => init(args, output),
        CaCommand::Print(args) => print(args, output),
        CaCommand::Trust(args) => trust(&args.ca, args.bundle.as_deref(), output),
    };
    match done {
        Ok(text) => {
            io::stdout().lock().write_all(text.as_bytes())?;
            Ok(Exit::Success)
        }
        Err(Undone::Wrong(what, hint)) => {
            trouble::tell(&what, hint.as_deref(), output)?;
            Ok(Exit::Configuration)
        }
        Err(Undone::Settings(found)) => {
            trouble::findings(&found, output)?;
            Ok(Exit::Configuration)
        }
    }
}

/// The CA of the settings, or that of a directory with these names.
fn which(args: &CaArgs, names: &[String]) -> Result<OwnCa, Undone> {
    if let Some(dir) = &args.dir {
        let names = Names::new(names.iter().map(String::as_str));
        return Ok(OwnCa {
            files: OwnCa::files_in(dir),
            names: names
                .map_err(|bad| wrong(format!("--name: {bad}"), "fieldveil ca init --help"))?,
        });
    }
    let config = args.config.as_deref().unwrap_or(Path::new(""));
    let ca = Settings::load_own_ca(config, |path| std::fs::read_to_string(path));
    ca.map_err(Undone::Settings)?.ok_or_else(|| {
        wrong(
            "the settings have no `ca`",
            "add it: `ca: {dir: DIR, names: [example.com]}`; or give --dir",
        )
    })
}

fn init(args: &CaInitArgs, output: Output) -> Result<String, Undone> {
    let OwnCa { files, names } = which(&args.ca, &args.names)?;
    let (cert, key) = made(&names, SystemTime::now(), args.days)
        .map_err(|error| Undone::Wrong(error.to_string(), None))?;
    for path in [&files.cert, &files.key] {
        if path.symlink_metadata().is_ok() {
            let what = format!("{} exists already", path.display());
            return Err(wrong(
                what,
                "clients trust the CA that is there; remove both files to make another",
            ));
        }
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(|error| unwritable(dir, &error))?;
        }
    }
    create_secret(&files.key, key.as_bytes())
        .map_err(|error| Undone::Wrong(error.to_string(), None))?;
    write_new(&files.cert, cert.as_bytes())?;
    if output == Output::Json {
        let document = json!({
            "ok": true, "cert": files.cert, "key": files.key, "days": args.days, "constrained": !names.is_empty(),
        });
        return Ok(format!("{document}\n"));
    }
    let (cert, key) = (files.cert.display(), files.key.display());
    let mut text = format!(
        "made {cert}, good for {} days, and its key {key}\n",
        args.days
    );
    if names.is_empty() {
        text += "it may vouch for every host: whoever has the key can stand in for all of them, to every client that trusts it; see --name and `ca.names`\n";
    }
    text += "clients have to trust it: fieldveil ca trust\n";
    Ok(text)
}

fn certificate(args: &CaArgs) -> Result<(PathBuf, String), Undone> {
    let path = which(args, &[])?.files.cert;
    let bytes = read_certificate(&path).map_err(|what| wrong(what, "fieldveil ca init"))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        wrong(
            format!("{} is not PEM", path.display()),
            "fieldveil ca init",
        )
    })?;
    Ok((path, text))
}

fn print(args: &CaArgs, output: Output) -> Result<String, Undone> {
    let (path, text) = certificate(args)?;
    Ok(match output {
        Output::Json => format!("{}\n", json!({"ok": true, "cert": path, "pem": text})),
        _ => text,
    })
}

/// Who is told by what. `{ca}` is the certificate's file, `{bundle}` one with the system's roots, too.
const CLIENTS: &[(&str, &str)] = &[
    (
        "system store, Debian, Ubuntu and Alpine (curl, Go, .NET, Ruby, PHP, git, wget)",
        "cp {ca} /usr/local/share/ca-certificates/fieldveil.crt && update-ca-certificates",
    ),
    (
        "system store, Fedora and RHEL",
        "cp {ca} /etc/pki/ca-trust/source/anchors/fieldveil.pem && update-ca-trust",
    ),
    (
        "Node (axios, fetch, got)",
        "export NODE_EXTRA_CA_CERTS={ca}",
    ),
    ("Python: requests", "export REQUESTS_CA_BUNDLE={bundle}"),
    (
        "Python: httpx, aiohttp, urllib; Go; Ruby; whatever uses OpenSSL",
        "export SSL_CERT_FILE={bundle}",
    ),
    ("curl", "export CURL_CA_BUNDLE={bundle}"),
    ("git", "export GIT_SSL_CAINFO={bundle}"),
    ("AWS command line and SDKs", "export AWS_CA_BUNDLE={bundle}"),
    ("Deno", "export DENO_CERT={ca}"),
    (
        "Java",
        "cp $JAVA_HOME/lib/security/cacerts truststore && keytool -importcert -noprompt -alias fieldveil -file {ca} -keystore truststore \
         -storepass changeit && export JAVA_TOOL_OPTIONS=\"-Djavax.net.ssl.trustStore=$PWD/truststore\"",
    ),
];

fn trust(args: &CaArgs, bundle: Option<&Path>, output: Output) -> Result<String, Undone> {
    let (path, own) = certificate(args)?;
    let path = std::path::absolute(&path).unwrap_or(path);
    if let Some(bundle) = bundle {
        let roots =
            system_roots().map_err(|error| wrong(error.to_string(), "install ca-certificates"))?;
        write_over(bundle, format!("{roots}{own}").as_bytes())?;
    }
    let bundled = bundle.map_or("BUNDLE".to_owned(), |bundle| {
        let bundle = std::path::absolute(bundle).unwrap_or(bundle.to_owned());
        bundle.display().to_string()
    });
    let filled = |what: &str| {
        what.replace("{ca}", &path.display().to_string())
            .replace("{bundle}", &bundled)
    };
    if output == Output::Json {
        let clients: Vec<_> = CLIENTS
            .iter()
            .map(|(who, what)| json!({"client": who, "do": filled(what)}))
            .collect();
        let document = json!({"ok": true, "cert": path, "bundle": bundle, "clients": clients});
        return Ok(format!("{document}\n"));
    }
    let mut text = String::new();
    for (who, what) in CLIENTS {
        text += &format!("# {who}\n{}\n\n", filled(what));
    }
    if bundle.is_none() {
        text += "# BUNDLE holds the system's roots and this certificate: fieldveil ca trust --bundle FILE writes it\n";
    }
    Ok(text)
}

fn unwritable(path: &Path, error: &io::Error) -> Undone {
    Undone::Wrong(
        format!("{}: cannot be written: {error}", path.display()),
        None,
    )
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Undone> {
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| unwritable(path, &error))
}

/// Whole or not at all: clients may be reading it.
fn write_over(path: &Path, bytes: &[u8]) -> Result<(), Undone> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| unwritable(path, &error))
}
