//! The store in a real PostgreSQL, started here on a Unix socket of its own. `tests/run` installs it and turns this suite on.

#[path = "../store_conformance/mod.rs"]
mod store_conformance;

use fieldveil::store::postgres::{Place, Postgres};
use fieldveil::store::{Failure, OWN, Put, Store};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store_conformance::{conforms, row, scope};

/// Everything here happens sooner.
const SOON: Duration = Duration::from_secs(60);

/// Where Debian keeps the programs, unless told otherwise.
fn bin() -> PathBuf {
    if let Some(bin) = std::env::var_os("FIELDVEIL_POSTGRES_BIN") {
        return bin.into();
    }
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL (Debian: postgresql)");
    let mut found: Vec<PathBuf> = versions
        .map(|version| version.expect("a directory").path().join("bin"))
        .collect();
    found.sort();
    found.pop().expect("a version")
}

/// PostgreSQL does not run as root: uid and gid of its own user, where this is root.
fn user() -> Option<(u32, u32)> {
    rustix::process::geteuid().is_root().then(|| {
        let id = |flag: &str| {
            let said = Command::new("id").args([flag, "postgres"]).output();
            let said = String::from_utf8(said.expect("id runs").stdout).expect("UTF-8");
            said.trim().parse().expect("the user postgres")
        };
        (id("-u"), id("-g"))
    })
}

struct Server {
    dir: tempfile::TempDir,
    process: Option<Child>,
}

fn program(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(bin().join(name));
    command
        .env("LC_ALL", "C")
        .env("PGPASSWORD", "owner")
        .current_dir(dir);
    if let Some((uid, gid)) = user() {
        command.uid(uid).gid(gid);
    }
    command
}

fn succeed(command: &mut Command) {
    let output = command.output().expect("runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
}

impl Server {
    fn start() -> Server {
        let dir = tempfile::tempdir().expect("a directory");
        if let Some((uid, gid)) = user() {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).expect("chown");
        }
        let password = dir.path().join("password");
        std::fs::write(&password, "owner").expect("a file");
        let mut initdb = program("initdb", dir.path());
        initdb.args([
            "-D",
            "data",
            "-U",
            "owner",
            "--auth=scram-sha-256",
            "--no-sync",
        ]);
        succeed(initdb.arg("--pwfile").arg(&password));
        let mut server = Server { dir, process: None };
        server.run();
        server.sql("CREATE USER agent PASSWORD 'agent'");
        server
    }

    fn run(&mut self) {
        let mut postgres = program("postgres", self.dir.path());
        postgres.args([
            "-D",
            "data",
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-k",
        ]);
        postgres.arg(self.dir.path());
        let quiet = postgres.stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(quiet.spawn().expect("starts"));
        let begun = Instant::now();
        let mut ready = program("pg_isready", self.dir.path());
        ready.arg("-q").arg("-h").arg(self.dir.path());
        while !ready.status().expect("runs").success() {
            assert!(begun.elapsed() < SOON, "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// At once, as a crash is.
    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let pid = rustix::process::Pid::from_child(&process);
            rustix::process::kill_process(pid, rustix::process::Signal::QUIT).expect("it runs");
            process.wait().expect("ends");
        }
    }

    fn sql(&self, sql: &str) {
        let mut psql = program("psql", self.dir.path());
        psql.args([
            "-U",
            "owner",
            "-d",
            "postgres",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sql,
            "-h",
        ]);
        succeed(psql.arg(self.dir.path()));
    }

    fn place(&self, user: &str, password: &str) -> Place {
        let dir = self.dir.path().display().to_string().replace('/', "%2F");
        Place::new(
            &format!("postgresql://{user}:{password}@{dir}/postgres"),
            None,
        )
        .expect("a URL")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_conforms_with_an_agents_rights_and_keeps() {
    let mut server = Server::start();
    let owner = server.place("owner", "owner");
    let agent = server.place("agent", "agent");
    let store: Arc<dyn Store> = Arc::new(Postgres::new(agent.clone()));
    let unready = store.count().await.map_err(|error| error.failure);
    assert_eq!(unready, Err(Failure::Refused), "it is not set up");
    let made = tokio::join!(Postgres::init(&owner), Postgres::init(&owner));
    let mut made = [made.0.expect("made"), made.1.expect("made")];
    made.sort_unstable();
    assert_eq!(made, [false, true], "one of them");
    assert!(store.count().await.is_err(), "an agent has no right yet");
    server.sql("GRANT SELECT, INSERT, UPDATE ON fieldveil_deks TO agent");
    conforms(&store).await;
    let wrong = Postgres::new(server.place("agent", "wrong"));
    let refused = wrong.count().await.map_err(|error| error.failure);
    assert_eq!(refused, Err(Failure::Refused));
    // A crash loses nothing, and the connection comes back by itself.
    let last = row(9_000, scope("last", Some("t")), OWN);
    assert_eq!(store.put_if_absent(&last).await, Ok(Put::Made));
    let counted = store.count().await.expect("counts");
    server.stop();
    let away = store.get(last.kid).await.map_err(|error| error.failure);
    assert_eq!(away, Err(Failure::Unreachable));
    server.run();
    assert_eq!(store.count().await, Ok(counted));
}
