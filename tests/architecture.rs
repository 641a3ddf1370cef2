//! The house's plan, kept: imports go downward only, the ground floor touches no outside, and some crates are named in one room alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The rooms from roof to ground; what a room imports stands below it. ARCHITECTURE.md shows the same list.
const ROOMS: &[&str] = &[
    "main",
    "cli",
    "app",
    "settings",
    "rehearsal",
    "backfill",
    "redirect", // roof
    "admin",
    "listener",
    "intercept", // edges
    "proxy",
    "body",
    "upstream",
    "error", // road
    "telemetry",
    "metrics",
    "audit", // side
    "keys",
    "store",
    "kms",
    "tls",
    "arena",
    "entropy", // keys
    "policy",
    "marked",
    "diagnostic",
    "transform",
    "context",
    "mask",
    "scan",
    "path",
    "token",
    "seal",
    "dek", // floor
];

/// The ground floor begins here.
const FLOOR: &str = "policy";

/// What the ground floor never names.
const OUTSIDE: &[&str] = &[
    "tokio",
    "hyper",
    "reqwest",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "Instant::now",
    "SystemTime",
    "getrandom",
];

/// Crates and words that belong to one room.
const OWNED: &[(&str, &str)] = &[
    ("jsonpath_rust", "path"),
    ("aes_gcm", "seal"),
    ("aws_lc_rs::aead", "seal"),
    ("aes_siv", "seal"),
    ("unsafe {", "arena"),
    ("getrandom::", "entropy"),
    ("prometheus_client", "metrics"),
    ("moka", "keys"),
    ("argon2", "kms"),
    ("redb", "store"),
    ("tokio_postgres", "store"),
    ("compression_codecs", "body"),
    ("reqwest::", "kms"),
    ("rcgen::", "intercept"),
    ("aws_sdk_kms", "kms"),
    ("cryptoki", "kms"),
    ("crc32c::", "kms"),
];

/// The sources without their tests and comments, by room.
fn rooms() -> BTreeMap<String, String> {
    fn walk(at: &Path, room: Option<&str>, rooms: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let room = room.unwrap_or(&stem);
            if path.is_dir() {
                walk(&path, Some(room), rooms);
            } else if path.extension().is_some_and(|e| e == "rs")
                && stem != "tests"
                && room != "lib"
            {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
                let lines = code
                    .lines()
                    .filter(|line| !line.trim_start().starts_with("//"));
                let room = rooms.entry(room.to_owned()).or_default();
                lines.for_each(|line| {
                    room.push_str(line);
                    room.push('\n');
                });
            }
        }
    }
    let mut rooms = BTreeMap::new();
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        None,
        &mut rooms,
    );
    rooms
}

/// The rooms that `code` names behind `crate::` (in the binary, `fieldveil::`).
fn imports(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for prefix in ["crate::", "fieldveil::"] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            let group = rest
                .strip_prefix('{')
                .map_or(rest, |group| group.split('}').next().unwrap());
            let parts = if group.len() == rest.len() {
                vec![rest]
            } else {
                group.split(',').collect()
            };
            for part in parts {
                let part = part.trim_start();
                let end = part
                    .find(|c: char| !c.is_alphanumeric() && c != '_')
                    .unwrap_or(part.len());
                found.push(&part[..end]);
            }
        }
    }
    found
}

#[test]
fn imports_go_downward_only() {
    let place = |room: &str| ROOMS.iter().position(|known| *known == room);
    let mut wrong = Vec::new();
    for (room, code) in rooms() {
        let Some(at) = place(&room) else {
            wrong.push(format!("{room} is not in the plan"));
            continue;
        };
        for import in imports(&code) {
            if import != room && place(import).is_some_and(|below| below < at) {
                wrong.push(format!("{room} imports {import}, which stands above it"));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_ground_floor_touches_no_outside() {
    let floor = ROOMS.iter().position(|room| *room == FLOOR).unwrap();
    for (room, code) in rooms() {
        if ROOMS[floor..].contains(&room.as_str()) {
            for outside in OUTSIDE {
                assert!(!code.contains(outside), "{room} names {outside}");
            }
        }
    }
}

#[test]
fn crates_and_words_stay_in_their_rooms() {
    let rooms = rooms();
    for (word, owner) in OWNED {
        assert!(
            rooms[*owner].contains(word),
            "{owner} no longer names {word}: mend this list"
        );
        for (room, code) in &rooms {
            assert!(
                room == owner || !code.contains(word),
                "{room} names {word}, which is {owner}'s"
            );
        }
    }
}
