//! What forward and transparent listeners need of files: the agent's own CA, and who may use them.

use super::StartError;
use crate::body::Body;
use crate::intercept::Authority;
use crate::kms::keyring::read_secret;
use crate::listener::{Credentials, Forward, Transparent};
use crate::settings::{OwnCa, Settings, Silent};
use crate::upstream::{self, OwnAddresses, Targets};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Bytes of the CA's certificate, its key, and of credentials.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What one forward or transparent listener is made with.
pub struct Forwarding {
    /// Where its requests go.
    pub targets: Arc<Targets<Body>>,
    way: Way,
}

/// The listener's own part.
enum Way {
    Forward(Forward),
    Transparent(Transparent),
}

impl Forwarding {
    /// Of a forward listener.
    pub fn forward(&self) -> Option<Forward> {
        match &self.way {
            Way::Forward(forward) => Some(forward.clone()),
            Way::Transparent(_) => None,
        }
    }
    /// Of a transparent one.
    pub fn transparent(&self) -> Option<Transparent> {
        match &self.way {
            Way::Forward(_) => None,
            Way::Transparent(transparent) => Some(transparent.clone()),
        }
    }
}

/// Of all forward and transparent listeners, by name. `known`: the upstreams of the settings, which lend what they say to targets at their URLs.
///
/// # Errors
/// The CA or credentials cannot be read, or are none; there are no roots to trust.
pub fn prepare(
    settings: &Settings,
    known: &[upstream::Settings],
    own: &OwnAddresses,
) -> Result<HashMap<Arc<str>, Forwarding>, StartError> {
    let mut all = HashMap::new();
    let forward = settings
        .listeners
        .iter()
        .filter_map(|one| Some((one, one.upstream.forward()?)));
    let mut authority = None;
    for (listener, forward) in forward {
        let wrong = |what: String| {
            StartError::Settings(
                format!("listener {}: {what}", listener.name),
                "correct the listener in the settings, or the files".to_owned(),
            )
        };
        let ca = settings.ca.as_ref();
        let ca = ca.ok_or_else(|| wrong("there is no `ca`".to_owned()))?;
        let authority = match &authority {
            Some(authority) => Arc::clone(authority),
            None => Arc::clone(authority.insert(Arc::new(read_authority(ca, SystemTime::now())?))),
        };
        let credentials = forward.credentials.as_deref().map(read_credentials);
        let loopback = forward.loopback && settings.limits.loopback_upstreams;
        // Whatever no upstream of the settings is: the system's roots, and what an upstream has by default.
        let mut otherwise =
            upstream::Settings::new(http::Uri::from_static("https://unnamed.invalid"));
        otherwise.mark = settings.mark;
        let targets = Targets::new(otherwise, known.to_vec(), loopback, own.clone());
        let way = match forward.transparent {
            Some(silent) => Way::Transparent(Transparent {
                authority,
                silent: silent == Silent::Tunnel,
                quiet: settings.limits.tunnel_idle,
            }),
            None => Way::Forward(Forward {
                authority,
                credentials: credentials.transpose()?,
                quiet: settings.limits.tunnel_idle,
            }),
        };
        all.insert(
            Arc::clone(&listener.name),
            Forwarding {
                targets: Arc::new(targets.map_err(|error| wrong(error.to_string()))?),
                way,
            },
        );
    }
    Ok(all)
}

/// The agent's own CA, as the settings name it; good at `now`.
///
/// # Errors
/// A file cannot be read, its key is not private, the two are none of ours, or they have expired.
pub fn read_authority(ca: &OwnCa, now: SystemTime) -> Result<Authority, StartError> {
    let wrong = |what: String| {
        StartError::Settings(
            what,
            "correct `ca` in the settings, or make one: `fieldveil ca init`".to_owned(),
        )
    };
    let shown = ca.files.cert.display();
    let certificate = read_certificate(&ca.files.cert).map_err(wrong)?;
    let key = read_secret(&ca.files.key, FILE_BYTES_MAX)?;
    let authority = Authority::new(&certificate, &key, ca.names.clone())
        .map_err(|bad| wrong(format!("{shown}: {bad}")))?;
    if authority.good_until() <= now {
        return Err(wrong(format!("{shown}: it has expired")));
    }
    Ok(authority)
}

/// The certificate's file.
///
/// # Errors
/// What is wrong, with the file's name.
pub fn read_certificate(path: &Path) -> Result<Vec<u8>, String> {
    let read = || {
        let length = std::fs::metadata(path)?.len();
        match length > FILE_BYTES_MAX {
            true => Err(std::io::ErrorKind::FileTooLarge.into()),
            false => std::fs::read(path),
        }
    };
    read().map_err(|error| format!("{}: cannot be read: {error}", path.display()))
}

/// Who may use a listener.
///
/// # Errors
/// The file cannot be read, is not private, or holds something else.
pub fn read_credentials(path: &Path) -> Result<Credentials, StartError> {
    let text = read_secret(path, FILE_BYTES_MAX)?;
    Credentials::new(&text).map_err(|bad| {
        StartError::Settings(
            format!("{}: {bad}", path.display()),
            "one user:password a line".to_owned(),
        )
    })
}
