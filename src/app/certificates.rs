//! Certificates and keys from files, and again when the files change: a mounted secret is swapped under a running agent.
//!
//! Files are looked at every few seconds, through whatever symbolic links lead to them. What is new is put in force
//! whole, or, if it is no good, not at all: then the old stays, the log says so, and a counter does.

use super::StartError;
use crate::settings::{ClientCa, TlsFiles};
use crate::tls::{Clients, Identity};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use zeroize::Zeroizing;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Bytes of a certificate's or a key's file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Changed files that were no good, since the start: for the metrics.
pub type Refused = Arc<AtomicU64>;

/// A certificate in force and the files that it came from.
pub struct Certificate {
    /// Whose: `listener out`, `upstream api`.
    who: String,
    files: TlsFiles,
    identity: Identity,
    /// What was looked at last.
    stamp: Stamp,
}

/// What a file is known by, without reading it: device, number, length, and when it was changed. Of both files; those
/// that cannot be looked at are none.
type Stamp = [Option<(u64, u64, u64, i64, i64)>; 2];

fn stamp(files: &TlsFiles) -> Stamp {
    [&files.cert, &files.key].map(|path| {
        let found = std::fs::metadata(path).ok()?;
        Some((
            found.dev(),
            found.ino(),
            found.len(),
            found.mtime(),
            found.mtime_nsec(),
        ))
    })
}

impl Certificate {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// They cannot be read, or are no certificate and key.
    pub fn read(who: String, files: TlsFiles) -> Result<Certificate, StartError> {
        let stamp = stamp(&files);
        let made = pem(&files).and_then(|(cert, key)| {
            Identity::new(&cert, &key).map_err(|bad| format!("{}: {bad}", files.cert.display()))
        });
        let identity = made.map_err(|what| {
            StartError::Settings(
                format!("{who}: {what}"),
                "correct `tls` in the settings, or the files".to_owned(),
            )
        })?;
        Ok(Certificate {
            who,
            files,
            identity,
            stamp,
        })
    }

    /// What connections are made with; the same for ever, whatever files come.
    pub fn identity(&self) -> Identity {
        self.identity.clone()
    }

    /// Puts changed files in force. True: they changed and are no good.
    fn look(&mut self) -> bool {
        let now = stamp(&self.files);
        if now == self.stamp {
            return false;
        }
        self.stamp = now;
        let replaced = pem(&self.files).and_then(|(cert, key)| {
            self.identity
                .replace(&cert, &key)
                .map_err(|bad| bad.to_string())
        });
        match &replaced {
            Ok(()) => tracing::info!(of = self.who, "new certificate in force"),
            Err(why) => {
                tracing::error!(
                    of = self.who,
                    why,
                    "new certificate refused; the old one stays"
                )
            }
        }
        replaced.is_err()
    }
}

/// Whose certificates a listener takes from its clients, as the settings say.
///
/// # Errors
/// The file cannot be read, or holds none of an authority.
pub fn clients(listener: &str, ca: &ClientCa) -> Result<Clients, StartError> {
    let shown = ca.file.display();
    let made = bounded(&ca.file)
        .map_err(|error| format!("cannot be read: {error}"))
        .and_then(|pem| Clients::new(&pem, ca.required).map_err(|bad| bad.to_string()));
    made.map_err(|what| {
        StartError::Settings(
            format!("listener {listener}: {shown}: {what}"),
            "correct `client_ca` in the listener's `tls`, or the file".to_owned(),
        )
    })
}

/// Certificate and key, as their files have them.
fn pem(files: &TlsFiles) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), String> {
    let read = |path: &Path| {
        bounded(path).map_err(|error| format!("{}: cannot be read: {error}", path.display()))
    };
    Ok((read(&files.cert)?, Zeroizing::new(read(&files.key)?)))
}

fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let length = std::fs::metadata(path)?.len();
    if length > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    std::fs::read(path)
}

/// Looks again and again; never returns.
pub async fn watch(mut certificates: Vec<Certificate>, refused: Refused) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let looked = tokio::task::spawn_blocking(move || {
            let bad = certificates
                .iter_mut()
                .filter_map(|one| one.look().then_some(()));
            let bad = bad.count() as u64;
            (certificates, bad)
        });
        let Ok((back, bad)) = looked.await else {
            return;
        };
        certificates = back;
        refused.fetch_add(bad, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    /// As Kubernetes mounts a secret: files are links into `..data`, which is a link to a directory.
    fn mount(at: &Path, version: &str, (cert, key): &(String, String)) {
        let dir = at.join(version);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("tls.crt"), cert).unwrap();
        fs::write(dir.join("tls.key"), key).unwrap();
        let next = at.join("..next");
        std::os::unix::fs::symlink(version, &next).unwrap();
        fs::rename(next, at.join("..data")).unwrap();
    }

    fn files(at: &Path) -> TlsFiles {
        let link = |name: &str| -> PathBuf {
            let link = at.join(name);
            std::os::unix::fs::symlink(Path::new("..data").join(name), &link).unwrap();
            link
        };
        TlsFiles {
            cert: link("tls.crt"),
            key: link("tls.key"),
        }
    }

    #[test]
    fn a_mounted_secret_is_swapped() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second, third) = (made(), made(), made());
        mount(dir.path(), "..1", &first);
        let mut one = Certificate::read("listener out".into(), files(dir.path())).unwrap();
        assert!(!one.look());
        mount(dir.path(), "..2", &second);
        assert!(!one.look());
        // A key that is another's: refused once, not at every look; then mended.
        mount(dir.path(), "..3", &(third.0.clone(), second.1.clone()));
        assert!(one.look());
        assert!(!one.look());
        fs::remove_file(dir.path().join("..data")).unwrap();
        assert!(one.look());
        mount(dir.path(), "..4", &third);
        assert!(!one.look());
    }

    #[test]
    fn what_is_not_there_ends_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = made();
        fs::write(dir.path().join("cert"), cert).unwrap();
        fs::write(dir.path().join("key"), &key).unwrap();
        let files = |cert: &str, key: &str| TlsFiles {
            cert: dir.path().join(cert),
            key: dir.path().join(key),
        };
        assert!(Certificate::read("x".into(), files("cert", "key")).is_ok());
        for bad in [
            files("none", "key"),
            files("cert", "none"),
            files("key", "cert"),
        ] {
            let Err(StartError::Settings(what, _)) = Certificate::read("x".into(), bad) else {
                panic!("it starts");
            };
            assert!(!what.contains(key.trim()), "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = made();
        let files = TlsFiles {
            cert: dir.path().join("cert"),
            key: dir.path().join("key"),
        };
        fs::write(&files.cert, cert).unwrap();
        fs::write(&files.key, key).unwrap();
        let one = Certificate::read("x".into(), files.clone()).unwrap();
        let refused = Refused::default();
        let watching = tokio::spawn(watch(vec![one], refused.clone()));
        fs::write(&files.key, "nonsense").unwrap();
        while refused.load(Relaxed) == 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        tokio::time::sleep(LOOK_EVERY * 3).await;
        assert_eq!(refused.load(Relaxed), 1);
        watching.abort();
    }
}
