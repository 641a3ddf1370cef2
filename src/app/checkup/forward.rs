//! What forward listeners hang on: the agent's own CA, and who may use them.

use super::super::forward::{read_authority, read_credentials};
use super::{Check, State, exposed};
use crate::settings::Settings;
use std::time::{Duration, SystemTime};

/// Clients have to be told of another CA in time.
const ENDS_SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// Looks at the CA of the settings, and at the credentials of each forward listener.
pub fn check(settings: &Settings, now: SystemTime, all: &mut Vec<Check>) {
    if let Some(ca) = &settings.ca {
        let name = ca.files.cert.display().to_string();
        match read_authority(ca, now) {
            Err(error) => all.extend(Check::failed("certificate", &name, &error)),
            Ok(authority) => {
                let left = authority.good_until().duration_since(now);
                let days = left.unwrap_or_default().as_secs() / (24 * 3600);
                let what = format!("the agent's own CA, good for {days} days");
                let check = |state, what: String| Check::new("certificate", &*name, state, what);
                all.push(if days * 24 * 3600 < ENDS_SOON.as_secs() {
                    check(State::Warn, what)
                        .hint("make another (`fieldveil ca init`), and have clients trust it before this one ends")
                } else if ca.names.is_empty() {
                    check(State::Warn, format!("{what}; it may vouch for every host"))
                        .hint("`ca: {names: [example.com]}`, and a CA made for them: whoever gets the key can stand in for no other host")
                } else {
                    check(State::Ok, what)
                });
                all.extend(exposed(&ca.files.key));
            }
        }
    }
    for listener in &settings.listeners {
        let forward = listener.upstream.forward();
        let Some(path) = forward.and_then(|forward| forward.credentials.as_deref()) else {
            continue;
        };
        let name = path.display().to_string();
        match read_credentials(path) {
            Ok(_) => {
                let what = format!("who may use the listener `{}`, private", listener.name);
                all.push(Check::new("secret", name, State::Ok, what));
            }
            Err(error) => all.extend(Check::failed("secret", &name, &error)),
        }
    }
}
