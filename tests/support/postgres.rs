//! A PostgreSQL of the test's own, on a free port and a Unix socket, with a user `owner` who may make tables and a user `agent` who may
//! nothing yet; gone with the test.
//!
//! `FIELDVEIL_POSTGRES_BIN` names the directory of its programs, where it is not Debian's.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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

/// A certificate chain and its key, in PEM: then TLS is spoken over TCP, and nothing else.
pub struct Certificate {
    pub chain: String,
    pub key: String,
}

pub struct Server {
    /// Over TCP.
    pub address: SocketAddr,
    dir: tempfile::TempDir,
    secured: bool,
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
    pub fn start(certificate: Option<&Certificate>) -> Server {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("bound");
        drop(socket);
        let own = |path: &Path| {
            if let Some((uid, gid)) = user() {
                chown(path, Some(uid), Some(gid)).expect("chown");
            }
        };
        own(dir.path());
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
        if let Some(certificate) = certificate {
            let files = [
                ("chain.pem", &certificate.chain),
                ("key.pem", &certificate.key),
            ];
            for (name, text) in files {
                let path = dir.path().join("data").join(name);
                std::fs::write(&path, text).expect("a file");
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("made");
                own(&path);
            }
            // In clear not even with the right password.
            let rules = "local all all scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
            std::fs::write(dir.path().join("data/pg_hba.conf"), rules).expect("a file");
        }
        let mut server = Server {
            address,
            dir,
            secured: certificate.is_some(),
            process: None,
        };
        server.run();
        server.sql("CREATE USER agent PASSWORD 'agent'");
        server
    }

    pub fn run(&mut self) {
        let mut postgres = program("postgres", self.dir.path());
        let port = self.address.port().to_string();
        postgres.args(["-D", "data", "-c", "fsync=off", "-p", &port]);
        postgres.args(["-c", "listen_addresses=127.0.0.1"]);
        if self.secured {
            let tls = ["ssl=on", "ssl_cert_file=chain.pem", "ssl_key_file=key.pem"];
            tls.iter().for_each(|one| {
                postgres.args(["-c", one]);
            });
        }
        postgres.arg("-k").arg(self.dir.path());
        let quiet = postgres.stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(quiet.spawn().expect("starts"));
        let begun = Instant::now();
        let mut ready = program("pg_isready", self.dir.path());
        ready.args(["-q", "-p", &port, "-h"]).arg(self.dir.path());
        while !ready.status().expect("runs").success() {
            assert!(begun.elapsed() < SOON, "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// At once, as a crash is.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let pid = rustix::process::Pid::from_child(&process);
            rustix::process::kill_process(pid, rustix::process::Signal::QUIT).expect("it runs");
            process.wait().expect("ends");
        }
    }

    pub fn sql(&self, sql: &str) {
        let mut psql = program("psql", self.dir.path());
        let port = self.address.port().to_string();
        psql.args(["-U", "owner", "-d", "postgres", "-p", &port]);
        psql.args(["-v", "ON_ERROR_STOP=1", "-c", sql, "-h"]);
        succeed(psql.arg(self.dir.path()));
    }

    /// Over the Unix socket, as this user, whose password is his name.
    pub fn url(&self, user: &str) -> String {
        let dir = self.dir.path().display().to_string().replace('/', "%2F");
        let port = self.address.port();
        format!("postgresql://{user}:{user}@{dir}:{port}/postgres")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
