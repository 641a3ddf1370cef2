//! The keyring's directory: who may use it, one writer at a time, and whole files or none.
//!
//! Everything is reached through a descriptor of the directory, following no link, so that nothing can be
//! swapped in between a check and its use.

use super::{KeyringError, Trouble};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{DirBuilder, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const FILE: &str = "keyring";
const NEW_FILE: &str = "keyring.new";
const LOCK_FILE: &str = "lock";

/// Far above what a few thousand versions take.
const FILE_LEN_MAX: u64 = 1 << 20;

/// Tells one file from the next; a rename always changes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// An open, private directory.
pub struct Directory {
    path: PathBuf,
    handle: File,
}

/// Held by the one writer; released when dropped.
pub struct Lock(#[expect(dead_code, reason = "the lock lives as long as its file is open")] File);

impl Directory {
    /// Opens a directory that exists.
    pub fn open(path: &Path) -> Result<Directory, KeyringError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(handle) => File::from(handle),
            Err(Errno::NOENT) => return Err(KeyringError::at(path, Trouble::Missing)),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let what = "is not a directory, or a link to one";
                return Err(KeyringError::at(path, Trouble::Odd(what)));
            }
            Err(error) => return Err(failed(path, "cannot be opened", error.into())),
        };
        let metadata = handle
            .metadata()
            .map_err(|error| failed(path, "cannot be looked at", error))?;
        check_private(path, &metadata, 0o077, 0o700)?;
        Ok(Directory {
            path: path.to_owned(),
            handle,
        })
    }

    /// Opens a directory, which is made (0700, like the parents that are missing) if it is not there.
    pub fn create(path: &Path) -> Result<Directory, KeyringError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| failed(path, "cannot be made", error))?;
        Directory::open(path)
    }

    pub fn file_path(&self) -> PathBuf {
        self.path.join(FILE)
    }

    pub fn exists(&self) -> Result<bool, KeyringError> {
        match rustix::fs::statat(&self.handle, FILE, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(failed(
                &self.file_path(),
                "cannot be looked at",
                error.into(),
            )),
        }
    }

    fn open_file(&self) -> Result<(File, Metadata), KeyringError> {
        let path = self.file_path();
        // Not to block on a pipe that someone put in the place.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(&self.handle, FILE, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Err(KeyringError::at(&path, Trouble::Missing)),
            Err(Errno::LOOP) => {
                return Err(KeyringError::at(&path, Trouble::Odd("is a symbolic link")));
            }
            Err(error) => return Err(failed(&path, "cannot be opened", error.into())),
        };
        let metadata = file
            .metadata()
            .map_err(|error| failed(&path, "cannot be looked at", error))?;
        if !metadata.is_file() {
            return Err(KeyringError::at(
                &path,
                Trouble::Odd("is not a regular file"),
            ));
        }
        // None: replaced since it was opened. It is whole, and the next look finds the new one.
        if metadata.nlink() > 1 {
            return Err(KeyringError::at(
                &path,
                Trouble::Odd("has a second name (a hard link)"),
            ));
        }
        check_private(&path, &metadata, 0o077, 0o600)?;
        Ok((file, metadata))
    }

    /// What file is there now.
    pub fn stamp(&self) -> Result<Stamp, KeyringError> {
        Ok(Stamp::of(&self.open_file()?.1))
    }

    /// The whole file.
    pub fn read(&self) -> Result<(Vec<u8>, Stamp), KeyringError> {
        let (mut file, metadata) = self.open_file()?;
        let path = self.file_path();
        if metadata.len() > FILE_LEN_MAX {
            return Err(KeyringError::at(
                &path,
                Trouble::Damaged("is far too long for a keyring"),
            ));
        }
        let mut bytes = Vec::new();
        Read::take(&mut file, FILE_LEN_MAX)
            .read_to_end(&mut bytes)
            .map_err(|error| failed(&path, "cannot be read", error))?;
        Ok((bytes, Stamp::of(&metadata)))
    }

    /// Becomes the one writer.
    pub fn lock(&self) -> Result<Lock, KeyringError> {
        let path = self.path.join(LOCK_FILE);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.handle, LOCK_FILE, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed(&path, "cannot be opened", error.into()))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock(file.into())),
            Err(Errno::WOULDBLOCK) => Err(KeyringError::at(&self.file_path(), Trouble::Busy)),
            Err(error) => Err(failed(&path, "cannot be locked", error.into())),
        }
    }

    /// Puts a new file in the place of the old one: written aside, synchronised, renamed, and the directory
    /// synchronised, so that after a crash there is the old file or the new one.
    pub fn replace(&self, _lock: &Lock, bytes: &[u8]) -> Result<Stamp, KeyringError> {
        let path = self.path.join(NEW_FILE);
        if bytes.len() as u64 > FILE_LEN_MAX {
            let what = "is full: it cannot hold more keys and versions";
            return Err(KeyringError::at(&self.file_path(), Trouble::Full(what)));
        }
        // What a crash left behind; the lock says that nobody is writing it.
        match rustix::fs::unlinkat(&self.handle, NEW_FILE, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(&path, "cannot be removed", error.into())),
        }
        let written = self.write_new(bytes);
        if written.is_err() {
            // The error being returned matters more than a second one here.
            let _ = rustix::fs::unlinkat(&self.handle, NEW_FILE, AtFlags::empty());
        }
        written.map_err(|error| failed(&path, "cannot be written", error))?;
        self.stamp()
    }

    fn write_new(&self, bytes: &[u8]) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(rustix::fs::openat(&self.handle, NEW_FILE, flags, mode)?);
        file.write_all(bytes)?;
        file.sync_all()?;
        rustix::fs::renameat(&self.handle, NEW_FILE, &self.handle, FILE)?;
        Ok(rustix::fs::fsync(&self.handle)?)
    }
}

fn failed(path: &Path, what: &'static str, error: io::Error) -> KeyringError {
    KeyringError::at(path, Trouble::Io(what, error))
}

/// Of the agent's user, and without the bits of `forbidden`.
fn check_private(
    path: &Path,
    metadata: &Metadata,
    forbidden: u32,
    wanted: u32,
) -> Result<(), KeyringError> {
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(KeyringError::at(
            path,
            Trouble::Odd("belongs to another user"),
        ));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(KeyringError::at(path, Trouble::Exposed(mode, wanted)));
    }
    Ok(())
}

/// Reads a secret that someone else put in its place: a passphrase or key file. Mounted secrets are links, and
/// belong to root and to the pod's group: both are taken, what everyone may read or the group may write is not.
pub fn read_secret(path: &Path, length_max: u64) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    // A pipe without a writer must not hold up the start; it is refused below.
    let mut file = File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(|error| failed(path, "cannot be opened", error))?;
    let metadata = file
        .metadata()
        .map_err(|error| failed(path, "cannot be looked at", error))?;
    if !metadata.is_file() {
        return Err(KeyringError::at(
            path,
            Trouble::Odd("is not a regular file"),
        ));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o027 != 0 {
        return Err(KeyringError::at(path, Trouble::Exposed(mode, 0o400)));
    }
    // With room for all of it: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length_max as usize + 1));
    Read::take(&mut file, length_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(path, "cannot be read", error))?;
    if bytes.len() as u64 > length_max {
        return Err(KeyringError::at(path, Trouble::Damaged("is too long")));
    }
    Ok(bytes)
}

/// Writes a new secret file (0600), which must not exist.
pub fn create_secret(path: &Path, bytes: &[u8]) -> Result<(), KeyringError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => file,
        Err(Errno::EXIST) => return Err(KeyringError::at(path, Trouble::Exists)),
        Err(error) => return Err(failed(path, "cannot be made", error.into())),
    };
    let mut file = File::from(file);
    // The name, too, must outlive a loss of power: what this unlocks is synchronised, and useless without it.
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(|error| failed(path, "cannot be written", error))
}
