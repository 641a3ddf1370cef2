//! The provider of PKCS #11 against SoftHSM: the suite of all providers, then what only a token does.
//!
//! `FIELDVEIL_SOFTHSM` names SoftHSM's library, `SOFTHSM2_CONF` its configuration, whose tokens are the tests' own, and
//! `FIELDVEIL_PKCS11_PYTHON` a Python with python-pkcs11. The library is one for the process, so the tests take turns.

#[path = "../providers/suite.rs"]
mod suite;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11 as Library};
use cryptoki::error::{Error, RvError};
use fieldveil::arena::Arena;
use fieldveil::dek::{Kid, Needs, SealNeed, schedule};
use fieldveil::keys::{Binding, KeySettings, Keys, Need, Settings as Room, TERMS};
use fieldveil::kms::pkcs11::{Pkcs11, RESTART_AFTER, Settings};
use fieldveil::kms::secret::Secret;
use fieldveil::kms::{Failure, Kms, context_aad, os_random};
use fieldveil::token::{Record, Suite};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use suite::{DEK, Done, Subject, run, scope};
use tokio::sync::{Mutex, MutexGuard};

const PIN: &str = "4711";
const WRONG: &str = "0815";

fn named(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is set, as tests/run does"))
}

fn done(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {err}");
    String::from_utf8(out.stdout).unwrap()
}

/// A token of its own, with the keys `cards` and `identity`.
struct Hsm {
    label: String,
    /// Where SoftHSM keeps it.
    dir: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Hsm {
    async fn new() -> Hsm {
        static TURN: Mutex<()> = Mutex::const_new(());
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let turn = TURN.lock().await;
        let number = COUNT.fetch_add(1, Relaxed);
        let label = format!("veil {} {number}", std::process::id());
        let before = tokens();
        done(Command::new("softhsm2-util").args([
            "--init-token",
            "--free",
            "--label",
            &label,
            "--pin",
            PIN,
            "--so-pin",
            "5678",
        ]));
        let dir = tokens().into_iter().find(|dir| !before.contains(dir));
        let hsm = Hsm {
            label,
            dir: dir.expect("SOFTHSM2_CONF's tokens are under its own directory"),
            _turn: turn,
        };
        hsm.hand(&["make", "cards", "01"]);
        hsm.hand(&["make", "identity", "01"]);
        hsm
    }

    fn hand(&self, line: &[&str]) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suites/softhsm.py");
        done(
            Command::new(named("FIELDVEIL_PKCS11_PYTHON"))
                .args([script, &named("FIELDVEIL_SOFTHSM"), &self.label, PIN])
                .args(line),
        )
    }

    /// Where the token is put to be away.
    fn aside(&self) -> PathBuf {
        self.dir.parent().unwrap().with_file_name(&self.label)
    }

    fn pkcs11(&self, pin: Secret, sessions: usize, restart_after: Duration) -> Pkcs11 {
        Pkcs11::new(Settings {
            name: "hsm".into(),
            library: named("FIELDVEIL_SOFTHSM").into(),
            token: self.label.clone(),
            pin,
            sessions,
            random: os_random(),
            restart_after,
        })
        .unwrap()
    }

    fn usual(&self) -> Pkcs11 {
        self.pkcs11(given(PIN), 4, Duration::ZERO)
    }
}

/// The directories of the tokens, beside the configuration.
fn tokens() -> Vec<PathBuf> {
    let conf = named("SOFTHSM2_CONF");
    let dir = Path::new(&conf).parent().unwrap().join("tokens");
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn given(pin: &str) -> Secret {
    Secret::Given(Arc::new(pin.to_owned().into()))
}

struct Real {
    hsm: Hsm,
    pkcs11: Pkcs11,
}

impl Subject for Real {
    fn kms(&self) -> &dyn Kms {
        &self.pkcs11
    }
    fn kek(&self) -> String {
        "cards".into()
    }
    fn other(&self) -> String {
        "identity".into()
    }
    fn missing(&self) -> String {
        "none".into()
    }
    fn row(&self) -> Option<&'static str> {
        Some("`pkcs11`")
    }
    fn rotate(&self) -> Option<Done<'_>> {
        Some(Box::pin(async {
            self.hsm.hand(&["make", "cards", "02"]);
        }))
    }
    fn disable(&self) -> Option<(Done<'_>, Done<'_>)> {
        let switch = |to: &'static str| async move {
            self.hsm.hand(&["switch", "cards", to]);
        };
        Some((Box::pin(switch("off")), Box::pin(switch("on"))))
    }
    // A token knows who is logged in, and no more.
    fn deny(&self) -> Option<(Done<'_>, Done<'_>)> {
        None
    }
    fn delete(&self) -> Option<(Done<'_>, Failure)> {
        let deleted = async {
            self.hsm.hand(&["delete", "identity"]);
        };
        Some((Box::pin(deleted), Failure::NotFound))
    }
}

#[tokio::test]
async fn the_suite() {
    let hsm = Hsm::new().await;
    let pkcs11 = hsm.usual();
    run(&Real { hsm, pkcs11 }).await;
}

#[tokio::test]
async fn a_token_that_goes_is_unreachable_and_comes_back() {
    let hsm = Hsm::new().await;
    let pkcs11 = hsm.usual();
    let scope = scope("cards", None);
    let blob = pkcs11.wrap("cards", &DEK, &scope).await.unwrap();
    let aside = hsm.aside();
    std::fs::rename(&hsm.dir, &aside).unwrap();
    let error = pkcs11.unwrap("cards", &blob, &scope).await.unwrap_err();
    assert_eq!(error.failure, Failure::Unreachable, "{error}");
    std::fs::rename(&aside, &hsm.dir).unwrap();
    let opened = pkcs11.unwrap("cards", &blob, &scope).await.unwrap();
    assert_eq!(&opened.dek[..], &DEK);
}

#[tokio::test]
async fn a_token_that_comes_later_is_found() {
    let hsm = Hsm::new().await;
    let aside = hsm.aside();
    std::fs::rename(&hsm.dir, &aside).unwrap();
    let scope = scope("cards", None);
    let (patient, eager) = (hsm.pkcs11(given(PIN), 1, RESTART_AFTER), hsm.usual());
    let error = patient.wrap("cards", &DEK, &scope).await.unwrap_err();
    assert_eq!(error.failure, Failure::Unreachable, "{error}");
    std::fs::rename(&aside, &hsm.dir).unwrap();
    eager.wrap("cards", &DEK, &scope).await.unwrap();
    // The library is one for both.
    patient.wrap("cards", &DEK, &scope).await.unwrap();
}

/// Somebody else in the process ends the library, as nobody should.
#[tokio::test]
async fn lost_sessions_are_opened_again() {
    let hsm = Hsm::new().await;
    let scope = scope("cards", Some("acme"));
    let library = Library::new(named("FIELDVEIL_SOFTHSM")).unwrap();
    for (restart_after, begun) in [(RESTART_AFTER, true), (Duration::ZERO, false)] {
        let pkcs11 = hsm.pkcs11(given(PIN), 4, restart_after);
        let blob = pkcs11.wrap("cards", &DEK, &scope).await.unwrap();
        for _ in 0..2 {
            library.clone().finalize().unwrap();
            if begun {
                let args = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
                library.initialize(args).unwrap();
            }
            let opened = pkcs11.unwrap("cards", &blob, &scope).await.unwrap();
            assert_eq!(&opened.dek[..], &DEK);
        }
    }
}

#[tokio::test]
async fn a_refused_pin_is_not_tried_again() {
    let hsm = Hsm::new().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pin");
    std::fs::write(&file, WRONG).unwrap();
    let pkcs11 = hsm.pkcs11(Secret::File(file.clone()), 2, Duration::ZERO);
    let scope = scope("cards", None);
    for said in ["PinIncorrect", "not tried again", "not tried again"] {
        let error = pkcs11.wrap("cards", &DEK, &scope).await.unwrap_err();
        assert_eq!(error.failure, Failure::Denied, "{error}");
        assert!(error.detail.contains(said), "{error}");
        assert!(!error.detail.contains(WRONG), "{error}");
    }
    std::fs::write(&file, PIN).unwrap();
    pkcs11.wrap("cards", &DEK, &scope).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    pkcs11.wrap("cards", &DEK, &scope).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_share_a_few_sessions() {
    let hsm = Hsm::new().await;
    let pkcs11 = Arc::new(hsm.pkcs11(given(PIN), 2, RESTART_AFTER));
    let calls: Vec<_> = (0..40)
        .map(|number| {
            let pkcs11 = Arc::clone(&pkcs11);
            tokio::spawn(async move {
                let scope = scope("cards", Some(&number.to_string()));
                let blob = pkcs11.wrap("cards", &DEK, &scope).await.unwrap();
                pkcs11.unwrap("cards", &blob, &scope).await.unwrap()
            })
        })
        .collect();
    for call in calls {
        assert_eq!(&call.await.unwrap().dek[..], &DEK);
    }
    let shown = format!("{pkcs11:?}");
    let kept = ["sessions: 1", "sessions: 2"];
    assert!(kept.iter().any(|kept| shown.contains(kept)), "{shown}");
}

#[tokio::test]
async fn the_library_is_finalised_with_its_last_user() {
    let hsm = Hsm::new().await;
    let scope = scope("cards", None);
    let library = Library::new(named("FIELDVEIL_SOFTHSM")).unwrap();
    let is_up = || match library.get_library_info() {
        Ok(_) => true,
        Err(Error::Pkcs11(RvError::CryptokiNotInitialized, _)) => false,
        Err(error) => panic!("{error}"),
    };
    assert!(!is_up());
    let (one, other) = (hsm.usual(), hsm.usual());
    assert!(!is_up(), "nothing is called before it is needed");
    one.wrap("cards", &DEK, &scope).await.unwrap();
    other.wrap("cards", &DEK, &scope).await.unwrap();
    drop(one);
    assert!(is_up());
    other.wrap("cards", &DEK, &scope).await.unwrap();
    drop(other);
    assert!(!is_up());
    hsm.usual().wrap("cards", &DEK, &scope).await.unwrap();
}

#[tokio::test]
async fn several_keys_that_cannot_be_told_apart_open_and_do_not_wrap() {
    let hsm = Hsm::new().await;
    let pkcs11 = hsm.usual();
    let scope = scope("cards", None);
    let blob = pkcs11.wrap("cards", &DEK, &scope).await.unwrap();
    // The same number, written otherwise.
    hsm.hand(&["make", "cards", "0001"]);
    let error = pkcs11.wrap("cards", &DEK, &scope).await.unwrap_err();
    assert_eq!(error.failure, Failure::Malformed, "{error}");
    let opened = pkcs11.unwrap("cards", &blob, &scope).await.unwrap();
    assert!(!opened.superseded);
    // 0x0100 is more than 0xFF and than 0x01.
    hsm.hand(&["make", "cards", "ff"]);
    let last = pkcs11.wrap("cards", &DEK, &scope).await.unwrap();
    hsm.hand(&["make", "cards", "0100"]);
    assert!(
        pkcs11
            .unwrap("cards", &last, &scope)
            .await
            .unwrap()
            .superseded
    );
}

/// SoftHSM locks its files, and waits where somebody else has them.
#[tokio::test(flavor = "multi_thread")]
async fn an_hsm_that_hangs_takes_its_turns_and_no_more_and_comes_back() {
    let hsm = Hsm::new().await;
    let pkcs11 = hsm.pkcs11(given(PIN), 2, RESTART_AFTER);
    let scope = scope("cards", None);
    let blob = pkcs11.wrap("cards", &DEK, &scope).await.unwrap();
    let held = "import fcntl, pathlib, sys\n\
                files = [path.open('r+b') for path in pathlib.Path(sys.argv[1]).iterdir()]\n\
                for file in files: fcntl.lockf(file, fcntl.LOCK_EX)\n\
                print('held', flush=True)\n\
                sys.stdin.read()\n";
    let mut holder = Command::new(named("FIELDVEIL_PKCS11_PYTHON"))
        .args(["-c", held])
        .arg(&hsm.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let said = holder.stdout.take().unwrap();
    BufReader::new(said).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    let brief = Duration::from_millis(100);
    for _ in 0..5 {
        let call = pkcs11.unwrap("cards", &blob, &scope);
        assert!(tokio::time::timeout(brief, call).await.is_err());
    }
    drop(holder.stdin.take());
    holder.wait().unwrap();
    let opened = pkcs11.unwrap("cards", &blob, &scope).await.unwrap();
    assert_eq!(&opened.dek[..], &DEK);
    let shown = format!("{pkcs11:?}");
    assert!(!shown.contains("sessions: 3"), "{shown}");
}

/// A token's blob, by somebody else's client, is the DEK whose kid the token names.
#[tokio::test]
async fn python_pkcs11_opens_our_records() {
    let hsm = Hsm::new().await;
    let binding = Binding {
        kms: Arc::new(hsm.usual()),
        kek: "cards".into(),
    };
    let key = KeySettings {
        name: "cards".into(),
        seal_with: vec![binding],
        need: Need::Any,
        open_also: Vec::new(),
        terms: TERMS,
    };
    let keys = Keys::new(Room::new(vec![key], Arena::new().unwrap(), os_random())).unwrap();
    let scope = scope("cards", Some("acme"));
    let need = SealNeed {
        scope: scope.clone(),
        values: 1,
        suite: Suite::Xaes256Gcm,
    };
    let needs = Needs {
        sealing: vec![need],
        opening: Vec::new(),
    };
    let ring = keys.fetch(&needs).await.unwrap();
    let record = Record::parse(&ring.sealing[0].record).unwrap();
    let (_, blob) = record.wrappings().next().unwrap();
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let context = hex(&context_aad(&scope).unwrap());
    let opened = hsm.hand(&["open", "cards", &hex(blob), &context]);
    let bytes: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&opened[2 * at..][..2], 16).unwrap())
        .collect();
    let kid: Kid = schedule(&bytes.try_into().unwrap(), &mut [0; 96]);
    assert_eq!(kid, ring.sealing[0].dek.kid());
    keys.close().await;
}

/// From a settings file, by the program.
#[tokio::test]
async fn kms_check_tells_of_it() {
    let hsm = Hsm::new().await;
    let dir = tempfile::tempdir().unwrap();
    let pin = dir.path().join("pin");
    std::fs::write(&pin, format!("{PIN}\n")).unwrap();
    std::fs::create_dir(dir.path().join("policies")).unwrap();
    let text = format!(
        "policy: {{dir: policies}}\nkms:\n  hsm: {{type: pkcs11, library: {}, token: \"{}\", pin_file: {}}}\nkeys:\n  cards: {{seal_with: [hsm/cards], open_also: [hsm/none]}}\n",
        named("FIELDVEIL_SOFTHSM"),
        hsm.label,
        pin.display()
    );
    let settings = dir.path().join("settings.yaml");
    std::fs::write(&settings, text).unwrap();
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fieldveil"));
        command.args(["kms", "check", "--output", "json", "--settings"]);
        let out = command.arg(&settings).output().unwrap();
        let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        (out.status.code(), told["kms"].clone())
    };
    let (code, told) = check();
    assert_eq!(code, Some(1), "{told}");
    let label = hsm.label.replace(' ', "%20");
    let identity = format!("pkcs11:token={label};object=cards");
    assert_eq!(told[0]["identity"], identity);
    assert_eq!(
        (&told[0]["outcome"], &told[0]["blob_bytes"]),
        (&"ok".into(), &63.into())
    );
    assert_eq!(told[1]["outcome"], "not-found");
    assert!(
        told[1]["hint"].as_str().unwrap().contains("--keygen"),
        "{told}"
    );
    std::fs::write(&pin, WRONG).unwrap();
    let (code, told) = check();
    assert_eq!(code, Some(1), "{told}");
    assert_eq!(told[0]["outcome"], "denied");
    assert!(!told.to_string().contains(WRONG));
}
