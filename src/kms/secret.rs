//! A secret that lets the agent in at a KMS: given once, or in a file that is read at every need, since files are renewed
//! under a running agent. It is in no error and no `Debug` output.

use super::{Failure, KmsError};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Bytes of a file with a secret; a service account's token has some thousand.
const FILE_BYTES_MAX: usize = 64 << 10;

/// Where a secret is.
#[derive(Clone)]
pub enum Secret {
    /// Here, for as long as the process lives.
    Given(Arc<Zeroizing<String>>),
    /// In this file; white space at its end is none of it.
    File(PathBuf),
}

impl Secret {
    /// The secret as it is now: visible ASCII, not empty. A file is read off the async threads.
    ///
    /// # Errors
    /// Unreachable: the file cannot be read, or holds something else. It may be mended any moment.
    pub async fn read(&self) -> Result<Zeroizing<String>, KmsError> {
        match self {
            Secret::Given(secret) => Ok(Zeroizing::clone(secret)),
            Secret::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || from_file(&path)).await;
                read.unwrap_or_else(|_| {
                    let what = "the reader of a secret was cut off";
                    Err(KmsError::new(Failure::Unreachable, what))
                })
            }
        }
    }

    /// As [`Secret::read`], on a thread that may block.
    ///
    /// # Errors
    /// As there.
    pub fn read_blocking(&self) -> Result<Zeroizing<String>, KmsError> {
        match self {
            Secret::Given(secret) => Ok(Zeroizing::clone(secret)),
            Secret::File(path) => from_file(path),
        }
    }
}

/// The bytes of a file with credentials of several parts, read off the async threads.
///
/// # Errors
/// Unreachable: it cannot be read, or is over 64 KiB long. It may be mended any moment.
pub async fn document(path: &Path) -> Result<Zeroizing<Vec<u8>>, KmsError> {
    let failed = |what: &str| {
        let what = format!("{}: {what}", path.display());
        KmsError::new(Failure::Unreachable, what)
    };
    let at = path.to_owned();
    let bytes = tokio::task::spawn_blocking(move || bytes(&at)).await;
    let bytes = bytes.map_err(|_| failed("the reader was cut off"))?;
    let bytes = bytes.map_err(|error| failed(&format!("cannot be read: {error}")))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(failed("is over 64 KiB long"));
    }
    Ok(bytes)
}

fn from_file(path: &Path) -> Result<Zeroizing<String>, KmsError> {
    let shown = path.display();
    let failed = |what: &str| KmsError::new(Failure::Unreachable, format!("{shown}: {what}"));
    match read(path) {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => Err(failed("holds no secret of visible characters")),
        Err(error) => Err(failed(&format!("cannot be read: {error}"))),
    }
}

/// One byte more than may be, if there is one.
fn bytes(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 1));
    File::open(path)?
        .take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read(path: &Path) -> io::Result<Option<Zeroizing<String>>> {
    let bytes = bytes(path)?;
    let secret = bytes.trim_ascii();
    let fits = !secret.is_empty()
        && bytes.len() <= FILE_BYTES_MAX
        && secret.iter().all(u8::is_ascii_graphic);
    Ok(std::str::from_utf8(secret)
        .ok()
        .filter(|_| fits)
        .map(|text| Zeroizing::new(text.to_owned())))
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Given(_) => f.write_str("Secret"),
            Secret::File(path) => write!(f, "Secret({})", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_at_every_need() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let secret = Secret::File(path.clone());
        let missing = secret.read().await.unwrap_err();
        assert_eq!(missing.failure, Failure::Unreachable);
        for text in ["first\n", "second"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(*secret.read().await.unwrap(), text.trim());
        }
        for text in [
            "",
            "\n",
            "two words",
            "\u{e9}",
            &"x".repeat(FILE_BYTES_MAX + 1),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = secret.read().await.unwrap_err();
            assert!(!error.detail.contains("words"), "{error}");
        }
    }
}
