//! The keyring's file under attack, its directory's rights, and rotation under a running process.

use super::*;
use crate::kms::os_random;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;
use zeroize::Zeroizing;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn arena() -> Arena {
    Arena::new().unwrap()
}

fn key(byte: u8) -> Unlock {
    Unlock::Key(Zeroizing::new([byte; 32]))
}

fn passphrase(text: &str) -> Unlock {
    Unlock::Passphrase(Zeroizing::new(text.as_bytes().to_vec()))
}

fn scope(tenant: Option<&str>) -> Scope {
    Scope {
        key: "cards".into(),
        tenant: tenant.map(Into::into),
    }
}

/// A keyring `local` with the keys `a` and `b` in a directory of its own.
fn made(unlock: &Unlock) -> (TempDir, PathBuf, Keyring) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("keyring");
    let keyring = Keyring::init_at_cost(
        &dir,
        unlock,
        "local",
        &["b", "a"],
        arena(),
        os_random(),
        NOW,
        Cost::LEAST,
    )
    .unwrap();
    (parent, dir, keyring)
}

fn open(dir: &Path, unlock: &Unlock) -> Result<Keyring, KeyringError> {
    Keyring::open(dir, unlock, arena(), os_random())
}

#[track_caller]
fn trouble<T>(result: Result<T, KeyringError>) -> Trouble {
    let error = result.err().expect("refused");
    assert!(!error.hint().is_empty());
    assert!(!error.to_string().is_empty());
    error.trouble
}

async fn wrap(keyring: &Keyring, kek: &str) -> Result<Vec<u8>, Failure> {
    let wrapped = keyring.wrap(kek, &[5; 32], &scope(Some("t"))).await;
    wrapped.map_err(|error| error.failure)
}

async fn unwrap(keyring: &Keyring, kek: &str, blob: &[u8]) -> Result<Unwrapped, Failure> {
    let unwrapped = keyring.unwrap(kek, blob, &scope(Some("t"))).await;
    unwrapped.map_err(|error| error.failure)
}

#[tokio::test]
async fn what_is_wrapped_unwraps_in_its_context_alone() {
    for (_parent, dir, keyring) in [made(&key(1)), made(&passphrase("correct horse battery"))] {
        let blob = wrap(&keyring, "a").await.unwrap();
        assert_eq!(blob.len(), 4 + 12 + 32 + 16);
        assert_eq!(blob[..4], [0, 0, 0, 1]);
        let unwrapped = unwrap(&keyring, "a", &blob).await.unwrap();
        assert_eq!(unwrapped.dek[..], [5; 32]);
        assert!(!unwrapped.superseded);
        assert_eq!(
            unwrap(&keyring, "b", &blob).await.err(),
            Some(Failure::Malformed)
        );
        assert_eq!(
            unwrap(&keyring, "c", &blob).await.err(),
            Some(Failure::NotFound)
        );
        for other in [scope(None), scope(Some("")), scope(Some("T"))] {
            let error = keyring.unwrap("a", &blob, &other).await.err().unwrap();
            assert_eq!(error.failure, Failure::Malformed);
        }
        assert_eq!(keyring.uri("a"), "keyring:local/a");
        assert!(dir.join("keyring").exists());
    }
}

#[tokio::test]
async fn a_blob_is_refused_if_any_byte_differs() {
    let (_parent, _, keyring) = made(&key(1));
    let blob = wrap(&keyring, "a").await.unwrap();
    for at in 0..blob.len() {
        let mut changed = blob.clone();
        changed[at] ^= 1;
        assert!(unwrap(&keyring, "a", &changed).await.is_err(), "byte {at}");
        assert!(
            unwrap(&keyring, "a", &blob[..at]).await.is_err(),
            "cut at {at}"
        );
    }
    let longer = [&blob[..], b"x"].concat();
    assert!(unwrap(&keyring, "a", &longer).await.is_err());
}

#[tokio::test]
async fn blobs_survive_closing_and_opening() {
    for unlock in [key(1), passphrase("correct horse battery")] {
        let (_parent, dir, keyring) = made(&unlock);
        let blob = wrap(&keyring, "a").await.unwrap();
        drop(keyring);
        let keyring = open(&dir, &unlock).unwrap();
        assert!(unwrap(&keyring, "a", &blob).await.is_ok());
    }
}

#[test]
fn a_file_is_refused_if_any_byte_differs() {
    let (_parent, dir, keyring) = made(&key(1));
    drop(keyring);
    let path = dir.join("keyring");
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        for flip in [1, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            fs::write(&path, &bytes).unwrap();
            assert!(open(&dir, &key(1)).is_err(), "byte {at} ^ {flip}");
        }
        fs::write(&path, &good[..at]).unwrap();
        assert!(open(&dir, &key(1)).is_err(), "cut at {at}");
    }
    fs::write(&path, [&good[..], b"\0"].concat()).unwrap();
    assert!(open(&dir, &key(1)).is_err(), "one byte more");
    fs::write(&path, &good).unwrap();
    assert!(open(&dir, &key(1)).is_ok());
}

#[test]
fn a_header_with_a_passphrase_is_bounded_and_authenticated() {
    let unlock = passphrase("correct horse battery");
    let (_parent, dir, keyring) = made(&unlock);
    drop(keyring);
    let path = dir.join("keyring");
    let good = fs::read(&path).unwrap();
    let costs = "fieldveil keyring v1\n".len() + 1 + "local".len() + 1;
    // Huge costs must be refused before anything is computed with them.
    for (field, value) in [
        (0, u32::MAX),
        (0, 1),
        (0, 0),
        (1, u32::MAX),
        (1, 0),
        (2, 17),
        (2, 0),
    ] {
        let mut bytes = good.clone();
        bytes[costs + field * 4..][..4].copy_from_slice(&u32::to_be_bytes(value));
        fs::write(&path, &bytes).unwrap();
        let found = trouble(open(&dir, &unlock));
        assert!(
            matches!(found, Trouble::Damaged(_)),
            "{field} {value}: {found:?}"
        );
    }
    // Within the bounds, but not what it was made with.
    for (field, value) in [(0, 8 * 1024 + 1), (1, 2), (2, 2)] {
        let mut bytes = good.clone();
        bytes[costs + field * 4..][..4].copy_from_slice(&u32::to_be_bytes(value));
        fs::write(&path, &bytes).unwrap();
        let found = trouble(open(&dir, &unlock));
        assert!(
            matches!(found, Trouble::WontOpen),
            "{field} {value}: {found:?}"
        );
    }
}

#[test]
fn the_wrong_unlock_is_told_apart() {
    let (_parent, dir, _) = made(&key(1));
    assert!(matches!(trouble(open(&dir, &key(2))), Trouble::WontOpen));
    let other = trouble(open(&dir, &passphrase("correct horse battery")));
    assert!(matches!(other, Trouble::OtherUnlock("a key file")));
    let (_parent, dir, _) = made(&passphrase("correct horse battery"));
    let wrong = trouble(open(&dir, &passphrase("correct horse batterz")));
    assert!(matches!(wrong, Trouble::WontOpen));
    assert!(matches!(
        trouble(open(&dir, &key(1))),
        Trouble::OtherUnlock("a passphrase")
    ));
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let (_parent, dir, _) = made(&key(1));
    let path = dir.join("keyring");
    for (bytes, expect) in [
        (&b"fieldveil keyring v2\n........"[..], "OtherFormat"),
        (b"", "Damaged(\"is not a keyring\")"),
        (b"{}", "Damaged(\"is not a keyring\")"),
        (b"fieldveil keyring v1\n", "Damaged(\"is cut short\")"),
    ] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(format!("{:?}", trouble(open(&dir, &key(1)))), expect);
    }
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(2 << 20).unwrap();
    assert!(matches!(trouble(open(&dir, &key(1))), Trouble::Damaged(_)));
    fs::remove_file(&path).unwrap();
    assert!(matches!(trouble(open(&dir, &key(1))), Trouble::Missing));
    assert!(matches!(
        trouble(open(&dir.join("no"), &key(1))),
        Trouble::Missing
    ));
}

#[test]
fn rights_are_private_or_refused() {
    let (_parent, dir, keyring) = made(&key(1));
    keyring.rotate("a", NOW).unwrap();
    let path = dir.join("keyring");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    assert_eq!(
        (mode(&dir), mode(&path), mode(&dir.join("lock"))),
        (0o700, 0o600, 0o600)
    );
    for open_to in [0o640, 0o604, 0o660, 0o601, 0o610] {
        set(&path, open_to);
        let found = trouble(open(&dir, &key(1)));
        assert!(matches!(found, Trouble::Exposed(found, 0o600) if found == open_to));
        assert!(keyring.rotate("a", NOW).is_err());
    }
    set(&path, 0o600);
    for open_to in [0o750, 0o705, 0o777, 0o711] {
        set(&dir, open_to);
        let found = trouble(open(&dir, &key(1)));
        assert!(matches!(found, Trouble::Exposed(found, 0o700) if found == open_to));
    }
    set(&dir, 0o500);
    assert!(open(&dir, &key(1)).is_ok());
}

#[test]
fn links_and_odd_files_are_refused() {
    let (parent, dir, _) = made(&key(1));
    let path = dir.join("keyring");
    let link = parent.path().join("link");
    symlink(&dir, &link).unwrap();
    assert!(matches!(trouble(open(&link, &key(1))), Trouble::Odd(_)));

    let second = parent.path().join("second");
    fs::hard_link(&path, &second).unwrap();
    assert!(matches!(trouble(open(&dir, &key(1))), Trouble::Odd(_)));
    fs::remove_file(&path).unwrap();
    symlink(&second, &path).unwrap();
    assert!(matches!(
        trouble(open(&dir, &key(1))),
        Trouble::Odd("is a symbolic link")
    ));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(trouble(open(&dir, &key(1))), Trouble::Odd(_)));
    fs::remove_dir(&path).unwrap();
    let fifo = rustix::fs::CWD;
    let pipe = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(fifo, &path, pipe, 0o600.into(), 0).unwrap();
    assert!(
        matches!(trouble(open(&dir, &key(1))), Trouble::Odd(_)),
        "and does not block"
    );

    // What someone planted where the new file will be written is not written through.
    fs::remove_file(&path).unwrap();
    fs::rename(&second, &path).unwrap();
    let bait = parent.path().join("bait");
    fs::write(&bait, "bait").unwrap();
    symlink(&bait, dir.join("keyring.new")).unwrap();
    open(&dir, &key(1)).unwrap().rotate("a", NOW).unwrap();
    assert_eq!(fs::read(&bait).unwrap(), b"bait");
    assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
    symlink(&bait, dir.join("lock2")).unwrap();
    fs::remove_file(dir.join("lock")).unwrap();
    symlink(&bait, dir.join("lock")).unwrap();
    assert!(open(&dir, &key(1)).unwrap().rotate("a", NOW).is_err());
}

#[test]
fn init_never_touches_an_existing_keyring() {
    let (_parent, dir, _) = made(&key(1));
    let before = fs::read(dir.join("keyring")).unwrap();
    let again = Keyring::init(&dir, &key(1), "local", &["a"], arena(), os_random(), NOW);
    assert!(matches!(trouble(again), Trouble::Exists));
    fs::write(dir.join("keyring"), b"damaged").unwrap();
    let again = Keyring::init(&dir, &key(1), "local", &["a"], arena(), os_random(), NOW);
    assert!(
        matches!(trouble(again), Trouble::Exists),
        "not even a damaged one"
    );
    fs::write(dir.join("keyring"), before).unwrap();
    assert!(open(&dir, &key(1)).is_ok());
}

#[test]
fn names_and_passphrases_are_checked_first() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("k");
    let long = "x".repeat(65);
    for bad in ["", "A", "a/b", "../a", "-a", ".a", "a b", "é", "a\0", &long] {
        for (name, keys) in [(bad, &["a"][..]), ("local", &[bad])] {
            let made = Keyring::init(&dir, &key(1), name, keys, arena(), os_random(), NOW);
            assert!(matches!(trouble(made), Trouble::BadName(_)), "{bad:?}");
        }
    }
    let twice = Keyring::init(&dir, &key(1), "l", &["a", "a"], arena(), os_random(), NOW);
    assert!(matches!(trouble(twice), Trouble::KeyExists(_)));
    let weak = passphrase("short");
    let made = Keyring::init(&dir, &weak, "l", &["a"], arena(), os_random(), NOW);
    assert!(matches!(trouble(made), Trouble::WeakPassphrase));
    assert!(!dir.exists(), "nothing was made");
}

#[tokio::test]
async fn a_running_process_follows_a_rotation() {
    let (_parent, dir, running) = made(&key(1));
    let old = wrap(&running, "a").await.unwrap();
    let operator = open(&dir, &key(1)).unwrap();
    assert_eq!(operator.rotate("a", NOW).unwrap(), 2);
    let new = wrap(&running, "a").await.unwrap();
    assert_eq!(new[..4], [0, 0, 0, 2]);
    assert!(unwrap(&running, "a", &old).await.unwrap().superseded);
    assert!(!unwrap(&running, "a", &new).await.unwrap().superseded);
    assert_eq!(wrap(&running, "b").await.unwrap()[..4], [0, 0, 0, 1]);
    operator.add("c", NOW).unwrap();
    assert!(wrap(&running, "c").await.is_ok());
    assert_eq!(
        running.rotate("a", NOW).unwrap(),
        3,
        "on top of what the other wrote"
    );
    assert_eq!(operator.status().unwrap().keys[0].current, 3);
}

#[tokio::test]
async fn a_keyring_that_is_gone_or_broken_is_unreachable_until_it_is_back() {
    let (_parent, dir, running) = made(&key(1));
    let path = dir.join("keyring");
    let blob = wrap(&running, "a").await.unwrap();
    let good = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(
        unwrap(&running, "a", &blob).await.err(),
        Some(Failure::Unreachable)
    );
    for bytes in [&good[..40], b"junk"] {
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(wrap(&running, "a").await.err(), Some(Failure::Unreachable));
    }
    fs::write(&path, &good).unwrap();
    assert!(unwrap(&running, "a", &blob).await.is_ok());
    // Another keyring in the same place is not the one that was opened.
    fs::remove_file(&path).unwrap();
    Keyring::init(&dir, &key(1), "local", &["a"], arena(), os_random(), NOW).unwrap();
    assert_eq!(
        unwrap(&running, "a", &blob).await.err(),
        Some(Failure::Unreachable)
    );
    assert!(matches!(trouble(running.status()), Trouble::Replaced));
}

#[test]
fn one_writer_at_a_time() {
    let (_parent, dir, keyring) = made(&key(1));
    let held = Directory::open(&dir).unwrap().lock().unwrap();
    assert!(matches!(trouble(keyring.rotate("a", NOW)), Trouble::Busy));
    drop(held);
    assert_eq!(keyring.rotate("a", NOW).unwrap(), 2);
}

#[test]
fn readers_see_the_old_file_or_the_new_one() {
    let (_parent, dir, writer) = made(&key(1));
    fs::write(dir.join("keyring.new"), b"what a crash left behind").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            let mut last = 1;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let current = open(&dir, &key(1)).unwrap().status().unwrap().keys[0].current;
                assert!(current >= last);
                (last, reads) = (current, reads + 1);
            }
            reads
        });
        for version in 2..60 {
            assert_eq!(writer.rotate("a", NOW).unwrap(), version);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    let left: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let (_parent, dir, keyring) = made(&key(1));
    let before = fs::read(dir.join("keyring")).unwrap();
    // A directory in the way of the new file: it cannot be unlinked, so it cannot be written.
    fs::create_dir(dir.join("keyring.new")).unwrap();
    assert!(matches!(trouble(keyring.rotate("a", NOW)), Trouble::Io(..)));
    assert_eq!(fs::read(dir.join("keyring")).unwrap(), before);
    assert_eq!(keyring.status().unwrap().keys[0].current, 1);
    fs::remove_dir(dir.join("keyring.new")).unwrap();
    assert_eq!(keyring.rotate("a", NOW).unwrap(), 2);
}

#[test]
fn without_randomness_nothing_is_made() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("k");
    let broken: Random = Arc::new(|_| Err(io::ErrorKind::Other.into()));
    let made = Keyring::init(&dir, &key(1), "l", &["a"], arena(), broken, NOW);
    assert!(matches!(trouble(made), Trouble::Random(_)));
    assert!(!dir.exists());
}

#[test]
fn key_files_and_passphrase_files() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("secret");
    let put = |bytes: &[u8], mode| {
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let hex = "00ff".repeat(16);
    for bytes in [
        hex.clone(),
        hex.to_uppercase(),
        format!("{hex}\n"),
        format!("{hex}\r\n"),
    ] {
        put(bytes.as_bytes(), 0o440);
        let Unlock::Key(key) = Unlock::from_key_file(&path).unwrap() else {
            panic!("a key");
        };
        assert_eq!(key[..4], [0, 0xFF, 0, 0xFF]);
    }
    put(&[9; 32], 0o400);
    assert!(matches!(Unlock::from_key_file(&path), Ok(Unlock::Key(key)) if *key == [9; 32]));
    for bytes in [
        &b""[..],
        &[9; 31],
        &[9; 33],
        &[b'g'; 64],
        &[b'0'; 66],
        &[b'0'; 1000],
    ] {
        put(bytes, 0o400);
        assert!(matches!(
            trouble(Unlock::from_key_file(&path)),
            Trouble::Damaged(_)
        ));
    }
    for mode in [0o404, 0o444, 0o420, 0o640 | 0o002] {
        put(&[9; 32], mode);
        assert!(
            matches!(trouble(Unlock::from_key_file(&path)), Trouble::Exposed(..)),
            "{mode:o}"
        );
    }
    put(b"correct horse battery\r\n", 0o400);
    let Unlock::Passphrase(text) = Unlock::from_passphrase_file(&path).unwrap() else {
        panic!("a passphrase");
    };
    assert_eq!(&text[..], b"correct horse battery");
    put(b"\n\n", 0o400);
    assert!(Unlock::from_passphrase_file(&path).is_err());
    put(&[b'x'; 5000], 0o400);
    assert!(Unlock::from_passphrase_file(&path).is_err());

    fs::remove_file(&path).unwrap();
    let made = Unlock::create_key_file(&path, &os_random()).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let (Unlock::Key(made), Ok(Unlock::Key(read))) = (made, Unlock::from_key_file(&path)) else {
        panic!("keys");
    };
    assert_eq!(made, read);
    assert!(matches!(
        trouble(Unlock::create_key_file(&path, &os_random())),
        Trouble::Exists
    ));
}

#[test]
fn nothing_secret_is_printed() {
    assert_eq!(format!("{:?}", key(0x5A)), "Key(..)");
    assert_eq!(format!("{:?}", passphrase("secret")), "Passphrase(..)");
    let keyring = Keyring::in_memory("m", &["a"], arena(), os_random()).unwrap();
    assert_eq!(format!("{keyring:?}"), "Keyring { name: \"m\", .. }");
}

#[tokio::test]
async fn an_in_memory_keyring_rotates_too() {
    let keyring = Keyring::in_memory("m", &["a"], arena(), os_random()).unwrap();
    let old = wrap(&keyring, "a").await.unwrap();
    assert_eq!(keyring.rotate("a", NOW).unwrap(), 2);
    assert!(unwrap(&keyring, "a", &old).await.unwrap().superseded);
    assert!(keyring.rotate("b", NOW).is_err());
    assert_eq!(keyring.status().unwrap().unlock, "memory");
}

#[test]
fn memory_is_given_back() {
    let (_parent, dir, keyring) = made(&key(1));
    drop(keyring);
    let arena = arena();
    let keyring = Keyring::open(&dir, &key(1), arena.clone(), os_random()).unwrap();
    assert_eq!(arena.held(), 3, "two keys and the file's");
    keyring.rotate("a", NOW).unwrap();
    assert_eq!(arena.held(), 4);
    drop(keyring);
    assert_eq!(arena.held(), 0);
}
