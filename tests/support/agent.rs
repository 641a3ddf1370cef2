//! The agent itself: the binary, started with flags or a policy, its data directory in a temporary place.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// It ends when this is dropped.
pub struct Agent {
    pub address: SocketAddr,
    child: Child,
    dir: TempDir,
}

impl Agent {
    /// `fieldveil run` before this upstream, with further flags.
    pub fn start(upstream: SocketAddr, flags: &[&str]) -> Agent {
        Agent::start_in(TempDir::new().expect("a directory"), upstream, flags)
    }

    /// `fieldveil run` with this text as its only policy.
    pub fn with_policy(upstream: SocketAddr, policy: &str) -> Agent {
        let dir = TempDir::new().expect("a directory");
        let policies = dir.path().join("policies");
        std::fs::create_dir(&policies).expect("a directory");
        std::fs::write(policies.join("policy.yaml"), policy).expect("a file");
        let policies = policies.display().to_string();
        Agent::start_in(dir, upstream, &["--policies", &policies])
    }

    /// As [`Agent::start`], with this text as its settings.
    pub fn with_settings(upstream: SocketAddr, settings: &str, flags: &[&str]) -> Agent {
        let dir = TempDir::new().expect("a directory");
        let file = dir.path().join("settings.yaml");
        std::fs::write(&file, settings).expect("a file");
        let file = file.display().to_string();
        Agent::start_in(dir, upstream, &[&["--config", &file], flags].concat())
    }

    /// The most bytes that it had resident so far (proc(5), VmHWM).
    pub fn resident_most(&self) -> usize {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        1024 * kib.expect("in kB").parse::<usize>().expect("a number")
    }

    fn start_in(dir: TempDir, upstream: SocketAddr, flags: &[&str]) -> Agent {
        let log = File::create(dir.path().join("log")).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_fieldveil"))
            .arg("run")
            .args(["--listen", "127.0.0.1:0"])
            .args(["--upstream", &format!("http://{upstream}")])
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(["--log-format", "json", "--log-level", "debug"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        let mut agent = Agent {
            address: upstream,
            child,
            dir,
        };
        let begun = Instant::now();
        loop {
            if let Some(address) = agent.listening() {
                agent.address = address;
                return agent;
            }
            if let Ok(Some(status)) = agent.child.try_wait() {
                panic!("the agent ended, {status}: {}", agent.log());
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", agent.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Where it listens, as its log says.
    fn listening(&self) -> Option<SocketAddr> {
        self.log().lines().find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            (line["message"] == "listening").then(|| line["address"].as_str()?.parse().ok())?
        })
    }

    /// What it wrote so far, to standard output and standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).expect("its log")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
