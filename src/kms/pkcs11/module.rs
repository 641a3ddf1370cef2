//! The HSM's library in this process: loaded once, initialised when it is first needed, finalised when its last user goes.
//!
//! A process has one of each library, whatever the number of tokens (PKCS #11 v3.0, section 5.4), so this is kept in one place for
//! all. A library that has lost its device for good, or does not see a token that came later, is often only mended by ending
//! and beginning it: that is done when no other call is under way, and makes another epoch, whose sessions are others.

use super::BadLibrary;
use super::verdict::Trouble;
use crate::kms::Failure;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

/// The libraries of this process, and how many use each.
static LOADED: Mutex<Vec<(Arc<Module>, usize)>> = Mutex::new(Vec::new());

struct Module {
    path: PathBuf,
    library: Pkcs11,
    epoch: RwLock<Epoch>,
}

/// From one initialisation to the next.
#[derive(Default)]
struct Epoch {
    number: u64,
    /// When it began; None: the library is not initialised.
    since: Option<Instant>,
    /// Somebody else in this process did it, and will end it.
    borrowed: bool,
}

/// A use of a library. With the last one the library is finalised.
pub struct Used {
    module: Arc<Module>,
    restart_after: Duration,
}

/// The library, initialised, for as long as this is held.
pub struct Entered<'a> {
    pub library: &'a Pkcs11,
    /// Sessions of another one are no more.
    pub epoch: u64,
    _inside: RwLockReadGuard<'a, Epoch>,
}

/// Loads a library, unless it is loaded.
pub fn load(path: &Path, restart_after: Duration) -> Result<Used, BadLibrary> {
    let bad = |what: &str| BadLibrary(format!("{}: {what}", path.display()));
    let whole = std::fs::canonicalize(path).map_err(|error| bad(&error.to_string()))?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((module, uses)) = loaded.iter_mut().find(|(module, _)| module.path == whole) {
        *uses += 1;
        return Ok(Used {
            module: Arc::clone(module),
            restart_after,
        });
    }
    let library = Pkcs11::new(&whole).map_err(|error| match error {
        Error::LibraryLoading(_) => bad("cannot be loaded as a library for this machine"),
        _ => bad("is no library of PKCS #11"),
    })?;
    let module = Arc::new(Module {
        path: whole,
        library,
        epoch: RwLock::default(),
    });
    loaded.push((Arc::clone(&module), 1));
    Ok(Used {
        module,
        restart_after,
    })
}

impl Module {
    fn begin(&self, epoch: &mut Epoch) -> Result<(), Trouble> {
        let args = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        epoch.borrowed = match self.library.initialize(args) {
            Ok(()) => false,
            Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => true,
            Err(error) => return Err(error.into()),
        };
        epoch.number += 1;
        epoch.since = Some(Instant::now());
        Ok(())
    }

    fn end(&self, epoch: &mut Epoch) {
        let begun = epoch.since.take().is_some();
        if begun && !epoch.borrowed {
            // What it says does not matter: it is over.
            let _ = self.library.clone().finalize();
        }
    }
}

impl Used {
    /// Initialises the library where it is not.
    pub fn enter(&self) -> Result<Entered<'_>, Trouble> {
        let epoch = &self.module.epoch;
        // Once it may end again between the two locks; for ever, it would not.
        for _ in 0..3 {
            if let Some(entered) = self.inside() {
                return Ok(entered);
            }
            let mut changed = epoch.write().unwrap_or_else(PoisonError::into_inner);
            if changed.since.is_none() {
                self.module.begin(&mut changed)?;
            }
        }
        let what = "the HSM's library was ended meanwhile";
        Err(Trouble::new(Failure::Unreachable, what))
    }

    /// Where it is initialised already.
    pub fn inside(&self) -> Option<Entered<'_>> {
        let epoch = &self.module.epoch;
        let inside = epoch.read().unwrap_or_else(PoisonError::into_inner);
        inside.since.is_some().then_some(Entered {
            library: &self.module.library,
            epoch: inside.number,
            _inside: inside,
        })
    }

    /// Ends the library and begins it anew, unless that was done since `epoch`, or a moment ago, or calls are under way. Whether a
    /// further try is worth it.
    pub fn restart(&self, epoch: u64) -> bool {
        let Ok(mut changed) = self.module.epoch.try_write() else {
            return false;
        };
        if changed.number != epoch || changed.since.is_none() {
            return true;
        }
        let is_young = |since: Instant| since.elapsed() < self.restart_after;
        if changed.borrowed || changed.since.is_some_and(is_young) {
            return false;
        }
        self.module.end(&mut changed);
        // If it cannot be begun, the next to enter says why.
        true
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let found = loaded
            .iter()
            .position(|(module, _)| Arc::ptr_eq(module, &self.module));
        let Some(at) = found else { return };
        loaded[at].1 -= 1;
        if loaded[at].1 == 0 {
            let (module, _) = loaded.swap_remove(at);
            // Nobody is inside: who enters holds a use.
            let mut epoch = module.epoch.write().unwrap_or_else(PoisonError::into_inner);
            module.end(&mut epoch);
        }
    }
}
