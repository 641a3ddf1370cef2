use super::*;
use std::cell::RefCell;

const FILE: &str = "\
environment: production
policy: {dir: policies}
listeners:
  - {name: out, bind: 127.0.0.1:8080, upstream: api}
upstreams:
  api: {url: https://api.example.com, tls: {ca: ca.pem}}
kms:
  local: {type: keyring, dir: keyring, unlock: {key_file: /run/secrets/kek}}
keys:
  cards: {seal_with: [local/cards], open_also: [local/old], lease: 5m}
admin: {bind: 127.0.0.1:9901, token_file: /run/secrets/admin}
";

fn with_file(text: &str, overrides: Overrides) -> Result<Settings, Vec<Diagnostic>> {
    let overrides = Overrides {
        config: Some("/etc/fieldveil/settings.yaml".into()),
        ..overrides
    };
    Settings::load(&overrides, |path| {
        assert_eq!(path, Path::new("/etc/fieldveil/settings.yaml"));
        Ok(text.to_owned())
    })
}

fn flags(overrides: Overrides) -> Result<Settings, Vec<Diagnostic>> {
    Settings::load(&overrides, |_| panic!("there is no file to read"))
}

/// The flags of a first try.
fn quick() -> Overrides {
    Overrides {
        upstream: Some("http://127.0.0.1:9000".into()),
        seal: vec!["$..ssn".into()],
        data_dir: Some("data".into()),
        ..Overrides::default()
    }
}

#[track_caller]
fn keyring_of(settings: &Settings) -> &Keyring {
    match &settings.kms[0].provider {
        Provider::Keyring(keyring) => keyring,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn codes(settings: Result<Settings, Vec<Diagnostic>>) -> Vec<String> {
    let found = settings.expect_err("must be refused");
    found
        .iter()
        .map(|d| format!("{}: {}", d.file, d.code))
        .collect()
}

#[test]
fn a_file_with_defaults() {
    let settings = with_file(FILE, Overrides::default()).unwrap();
    assert_eq!(settings.environment.as_deref(), Some("production"));
    // Relative paths stand beside the file.
    assert_eq!(
        settings.policy,
        PolicySource::Directory("/etc/fieldveil/policies".into())
    );
    let api = settings.upstream("api").unwrap();
    assert_eq!(api.url.to_string(), "https://api.example.com");
    assert_eq!(api.ca, Ca::File("/etc/fieldveil/ca.pem".into()));
    assert_eq!((api.connect.as_secs(), api.response.as_secs()), (5, 60));
    assert_eq!(api.idle, None);
    assert_eq!(
        keyring_of(&settings).dir,
        Path::new("/etc/fieldveil/keyring")
    );
    assert_eq!(
        keyring_of(&settings).unlock,
        Unlock::KeyFile("/run/secrets/kek".into())
    );
    assert!(!keyring_of(&settings).initialise);
    let cards = &settings.keys[0];
    assert_eq!(
        (cards.lease.as_secs(), cards.grace, cards.rotate),
        (300, GRACE_DEFAULT, ROTATE_DEFAULT)
    );
    assert_eq!(
        cards.open_also,
        [Kek {
            kms: "local".into(),
            kek: "old".into()
        }]
    );
    assert_eq!(
        settings.admin.map(|admin| admin.token),
        Some(Secret::File("/run/secrets/admin".into()))
    );
    assert_eq!((settings.probes, settings.other_keys), (None, None));
    assert_eq!(
        (settings.limits, settings.log),
        (Limits::default(), Log::default())
    );
}

#[test]
fn flags_alone_are_enough() {
    let settings = flags(Overrides {
        admin: Some("127.0.0.1:9901".into()),
        ..quick()
    })
    .unwrap();
    assert_eq!(settings.listeners[0].bind.to_string(), "127.0.0.1:8080");
    assert_eq!(
        settings.listeners[0].upstream,
        Destination::One(Arc::clone(&settings.upstreams[0].name))
    );
    assert_eq!(
        settings.policy,
        PolicySource::Flags {
            seal: vec!["$..ssn".into()],
            open: Vec::new()
        }
    );
    let keyring = keyring_of(&settings);
    assert_eq!(keyring.dir, Path::new("data/keyring"));
    assert_eq!(keyring.unlock, Unlock::KeyFile("data/keyring.key".into()));
    assert!(keyring.initialise);
    let admin = settings.admin.as_ref().unwrap();
    assert_eq!(
        (&admin.token, admin.initialise),
        (&Secret::File("data/admin.token".into()), true)
    );
    // Whatever keys the policies name, they are in the keyring.
    let keys = settings
        .keys_for(&["default".into(), "cards".into()])
        .unwrap();
    assert_eq!(
        keys[1].seal_with,
        [Kek {
            kms: LOCAL_KMS.into(),
            kek: "cards".into()
        }]
    );
}

#[test]
fn what_is_missing_is_said_all_at_once() {
    let found = flags(Overrides::default()).unwrap_err();
    let hints: Vec<_> = found.iter().filter_map(|d| d.hint.as_deref()).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        hints[0].contains("--upstream")
            && hints[1].contains("--seal")
            && hints[2].contains("--data-dir"),
        "{hints:?}"
    );
    let no_token = Overrides {
        data_dir: None,
        admin: Some("127.0.0.1:1".into()),
        config: None,
        ..quick()
    };
    assert_eq!(codes(flags(no_token)).len(), 2);
}

#[test]
fn flags_go_over_the_file() {
    let overrides = Overrides {
        environment: Some("staging".into()),
        listen: Some("[::1]:1".into()),
        upstream: Some("http://127.0.0.1:9000".into()),
        policies: Some("here".into()),
        admin: Some("localhost:2".into()),
        probes: Some("0.0.0.0:3".into()),
        log_format: Some(LogFormat::Json),
        log_level: Some(LogLevel::Trace),
        admin_token_in_environment: true,
        ..Overrides::default()
    };
    let settings = with_file(&FILE.replace(", tls: {ca: ca.pem}", ""), overrides).unwrap();
    assert_eq!(settings.environment.as_deref(), Some("staging"));
    assert_eq!(settings.listeners[0].bind.to_string(), "[::1]:1");
    assert_eq!(
        settings.upstreams[0].url.to_string(),
        "http://127.0.0.1:9000"
    );
    assert_eq!(settings.policy, PolicySource::Directory("here".into()));
    let admin = settings.admin.unwrap();
    assert_eq!(
        (admin.bind.to_string().as_str(), admin.token),
        (
            "127.0.0.1:2",
            Secret::Environment(ADMIN_TOKEN_VARIABLE.into())
        )
    );
    assert_eq!(settings.probes.map(|probes| probes.port()), Some(3));
    assert_eq!(
        settings.log,
        Log {
            format: LogFormat::Json,
            level: LogLevel::Trace
        }
    );
}

#[test]
fn flags_that_contradict_are_refused() {
    let seal = Overrides {
        seal: vec!["$".into()],
        ..Overrides::default()
    };
    assert_eq!(codes(with_file(FILE, seal)), ["--seal: conflict"]);
    let data = Overrides {
        data_dir: Some("d".into()),
        ..Overrides::default()
    };
    assert_eq!(codes(with_file(FILE, data)), ["--data-dir: conflict"]);
    let two = FILE
        .replace("upstreams:\n", "upstreams:\n  b: {url: http://b}\n")
        .replace(
            "listeners:\n",
            "listeners:\n  - {name: b, bind: 127.0.0.1:1, upstream: b}\n",
        );
    let both = Overrides {
        listen: Some("127.0.0.1:7".into()),
        upstream: Some("http://c".into()),
        ..Overrides::default()
    };
    let mut found = codes(with_file(&two, both));
    found.sort();
    assert_eq!(
        found,
        ["--listen: ambiguous-flag", "--upstream: ambiguous-flag"]
    );
}

#[test]
fn bad_flags_are_named() {
    for (overrides, expected) in [
        (
            Overrides {
                upstream: Some("api.example.com".into()),
                ..quick()
            },
            "--upstream: bad-url",
        ),
        (
            Overrides {
                listen: Some("here".into()),
                ..quick()
            },
            "--listen: bad-address",
        ),
        (
            Overrides {
                admin: Some("9901".into()),
                ..quick()
            },
            "--admin: bad-address",
        ),
        (
            Overrides {
                probes: Some("1.2.3:4".into()),
                ..quick()
            },
            "--probes: bad-address",
        ),
        (
            Overrides {
                environment: Some("a b".into()),
                ..quick()
            },
            "--environment: bad-name",
        ),
        (
            Overrides {
                upstream_ca: Some("f".into()),
                ..quick()
            },
            "command line: tls-without-https",
        ),
        (
            Overrides {
                probes: Some("127.0.0.1:8080".into()),
                ..quick()
            },
            "command line: duplicate-address",
        ),
    ] {
        assert_eq!(codes(flags(overrides)), [expected]);
    }
}

#[test]
fn secrets_are_never_shown() {
    let url = Overrides {
        upstream: Some("https://u:hunter2@api".into()),
        ..quick()
    };
    let mut all = vec![flags(url).unwrap_err()];
    for text in [
        FILE.replace("key_file: /run/secrets/kek", "passphrase: hunter2"),
        FILE.replace("key_file: /run/secrets/kek", "pasword: 1, secret: hunter2"),
        FILE.replace("token_file: /run/secrets/admin", "token: hunter2, tokn: 1"),
        FILE.replace("https://api", "https://u:hunter2@api")
            .replace("name: out", "nam: out"),
        FILE.replace(
            "key_file: /run/secrets/kek",
            "password: hunter2, password: &x 1",
        ),
        FILE.replace("key_file: /run/secrets/kek", "password: \"hunter2\": b"),
        FILE.replace("dir: keyring, ", "password:\n    hunter2, "),
    ] {
        all.push(with_file(&text, Overrides::default()).expect_err(&text));
    }
    for found in all.iter().flatten() {
        assert!(!found.render(false).contains("hunter2"), "{found}");
        assert!(!found.to_json().to_string().contains("hunter2"), "{found}");
    }
}

#[test]
fn keys_that_policies_use_must_be_there() {
    let settings = with_file(FILE, Overrides::default()).unwrap();
    assert_eq!(
        settings.keys_for(&["cards".into()]).map(|keys| keys.len()),
        Ok(1)
    );
    let found = settings
        .keys_for(&["card".into(), "cards".into(), "x".into()])
        .unwrap_err();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].hint.as_deref(), Some("did you mean `cards`?"));
    assert_eq!(
        found[1].hint.as_deref(),
        Some("add it: keys: {x: {seal_with: [KMS/KEK]}}")
    );
}

#[test]
fn the_environment_can_hold_the_passphrase() {
    let bare = FILE.replace(", unlock: {key_file: /run/secrets/kek}", "");
    let set = Overrides {
        passphrase_in_environment: true,
        ..Overrides::default()
    };
    let unlock = |text: &str, overrides: Overrides| {
        keyring_of(&with_file(text, overrides).unwrap())
            .unlock
            .clone()
    };
    assert_eq!(
        unlock(&bare, set.clone()),
        Unlock::Passphrase(Secret::Environment(PASSPHRASE_VARIABLE.into()))
    );
    // What the file says about this keyring is not silently replaced.
    assert_eq!(
        unlock(FILE, set),
        Unlock::KeyFile("/run/secrets/kek".into())
    );
}

#[test]
fn an_unreadable_file_is_one_finding() {
    let asked = RefCell::new(Vec::new());
    let overrides = Overrides {
        config: Some("none.yaml".into()),
        ..quick()
    };
    let found = Settings::load(&overrides, |path| {
        asked.borrow_mut().push(path.to_owned());
        Err(io::Error::from(io::ErrorKind::NotFound))
    })
    .unwrap_err();
    assert_eq!(
        found.iter().map(|d| d.code).collect::<Vec<_>>(),
        ["unreadable"]
    );
    assert_eq!(asked.into_inner(), [Path::new("none.yaml")]);
}

proptest::proptest! {
    #[test]
    fn loading_never_panics(cut in 0..FILE.len(), byte in proptest::prelude::any::<u8>()) {
        let mut text = FILE.as_bytes().to_vec();
        text[cut] = byte;
        if let Err(found) = with_file(&String::from_utf8_lossy(&text), Overrides::default()) {
            proptest::prop_assert!(!found.is_empty());
        }
    }
}
