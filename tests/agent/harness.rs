//! A small HTTP client, an upstream that keeps what it gets, and the program as a process. Blocking, so that a test reads
//! from top to bottom.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Everything here happens sooner.
pub const SOON: Duration = Duration::from_secs(20);

/// The order of the issue's curl line.
pub const ORDER: &str =
    r#"{"name":"Ada","ssn":"123-45-6789","cards":[{"number":"4111111111111111"}]}"#;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut of_name = fields.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        of_name.next().map(|(_, value)| value.trim())
    }
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Reads a head, without its empty line. None: nothing came.
fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if reader.read_line(&mut head).expect("a head") == 0 {
            assert!(head.is_empty(), "an unfinished head: {head}");
            return None;
        }
        if head[before..].trim_end().is_empty() {
            head.truncate(before);
            return Some(head);
        }
    }
}

fn length(head: &str) -> Option<usize> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let field = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    Some(field.1.trim().parse().expect("a length"))
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    stream
}

/// Reads the answer on a connection.
pub fn read_answer(stream: &TcpStream) -> Answer {
    read_next(stream).expect("an answer")
}

/// Reads the next answer on a connection, which sends no further one unasked. None: the connection ends before it.
pub fn read_next(mut stream: &TcpStream) -> Option<Answer> {
    let mut first = [0];
    if !matches!(stream.read(&mut first), Ok(1)) {
        return None;
    }
    let mut reader = BufReader::new(first.chain(stream));
    let head = read_head(&mut reader).expect("an answer");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status");
    let mut body = Vec::new();
    match length(&head) {
        Some(length) => {
            body.resize(length, 0);
            reader.read_exact(&mut body).expect("a whole body");
        }
        None => {
            reader.read_to_end(&mut body).expect("a body");
        }
    }
    Some(Answer {
        status,
        head,
        body: String::from_utf8(body).expect("UTF-8"),
    })
}

/// One request on a connection of its own; `line` is method and target.
pub fn ask(address: SocketAddr, line: &str, headers: &[&str], body: &str) -> Answer {
    let stream = connect(address);
    send(&stream, line, headers, body);
    read_answer(&stream)
}

pub fn send(mut stream: &TcpStream, line: &str, headers: &[&str], body: &str) {
    let mut text = format!(
        "{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
        stream.peer_addr().expect("connected")
    );
    headers
        .iter()
        .for_each(|header| text += &format!("{header}\r\n"));
    if !body.is_empty() {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    text += &format!("\r\n{body}");
    stream.write_all(text.as_bytes()).expect("sends");
}

pub const JSON: &str = "Content-Type: application/json";

pub fn get(address: SocketAddr, target: &str) -> Answer {
    ask(address, &format!("GET {target}"), &[], "")
}

pub fn post(address: SocketAddr, target: &str, body: &str) -> Answer {
    ask(address, &format!("POST {target}"), &[JSON], body)
}

/// An upstream: answers a POST with its body, a GET with the last body that came. Requests to a path with `slow` in it
/// wait until they are let go.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    kept: Arc<Mutex<VecDeque<(String, String)>>>,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Default)]
struct Gate {
    waiting: usize,
    open: bool,
}

impl Upstream {
    pub fn start() -> Upstream {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let upstream = Upstream {
            address: socket.local_addr().expect("bound"),
            kept: Arc::default(),
            gate: Arc::default(),
        };
        let serving = upstream.clone();
        thread::spawn(move || {
            for stream in socket.incoming() {
                let (serving, stream) = (serving.clone(), stream.expect("a connection"));
                thread::spawn(move || serving.serve(stream));
            }
        });
        upstream
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
        while let Some(head) = read_head(&mut reader) {
            let mut body = vec![0; length(&head).unwrap_or(0)];
            reader.read_exact(&mut body).expect("a body");
            let body = String::from_utf8(body).expect("UTF-8");
            if head
                .lines()
                .next()
                .is_some_and(|line| line.contains("slow"))
            {
                let (gate, changed) = &*self.gate;
                let mut gate = gate.lock().expect("the gate");
                gate.waiting += 1;
                changed.notify_all();
                drop(
                    changed
                        .wait_while(gate, |gate| !gate.open)
                        .expect("the gate"),
                );
            }
            let answer = if head.starts_with("POST") || head.starts_with("PUT") {
                self.kept
                    .lock()
                    .expect("kept")
                    .push_back((head, body.clone()));
                body
            } else {
                self.last()
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\n{JSON}\r\nContent-Length: {}\r\n\r\n",
                answer.len()
            );
            // The agent may be gone.
            let _ = stream.write_all((head + &answer).as_bytes());
        }
    }

    /// The body that came last.
    pub fn last(&self) -> String {
        self.kept
            .lock()
            .expect("kept")
            .back()
            .map(|(_, body)| body.clone())
            .unwrap_or_default()
    }

    /// The bodies that came, all of them.
    pub fn bodies(&self) -> Vec<String> {
        let kept = self.kept.lock().expect("kept");
        kept.iter().map(|(_, body)| body.clone()).collect()
    }

    pub fn count(&self) -> usize {
        self.kept.lock().expect("kept").len()
    }

    /// Waits until a request stands before the gate.
    pub fn await_slow(&self) {
        let (gate, changed) = &*self.gate;
        let gate = gate.lock().expect("the gate");
        let waited = changed.wait_timeout_while(gate, SOON, |gate| gate.waiting == 0);
        assert!(
            !waited.expect("the gate").1.timed_out(),
            "no slow request came"
        );
    }

    pub fn let_go(&self) {
        let (gate, changed) = &*self.gate;
        gate.lock().expect("the gate").open = true;
        changed.notify_all();
    }
}

/// The program, running.
pub struct Program {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    readers: Vec<thread::JoinHandle<()>>,
}

fn keep(from: impl Read + Send + 'static) -> (Arc<Mutex<String>>, thread::JoinHandle<()>) {
    let kept: Arc<Mutex<String>> = Arc::default();
    let writer = Arc::clone(&kept);
    let reading = thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let mut kept = writer.lock().expect("kept");
            kept.push_str(&line.expect("UTF-8"));
            kept.push('\n');
        }
    });
    (kept, reading)
}

/// The program with these arguments, and none of this process's settings.
pub fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fieldveil"));
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FIELDVEIL_"))
    {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs to the end: exit code, standard output, standard error.
pub fn done(command: &mut Command) -> (i32, String, String) {
    let output = command.output().expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code().expect("no signal"),
        text(output.stdout),
        text(output.stderr),
    )
}

impl Program {
    pub fn start(command: &mut Command) -> Program {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let (out, reading_out) = keep(child.stdout.take().expect("piped"));
        let (err, reading_err) = keep(child.stderr.take().expect("piped"));
        Program {
            child,
            out,
            err,
            readers: vec![reading_out, reading_err],
        }
    }

    pub fn out(&self) -> String {
        self.out.lock().expect("kept").clone()
    }

    pub fn err(&self) -> String {
        self.err.lock().expect("kept").clone()
    }

    /// Waits until something is found in what it printed.
    #[track_caller]
    pub fn wait_for<T>(&mut self, what: &str, mut find: impl FnMut(&str, &str) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = find(&self.out(), &self.err()) {
                return found;
            }
            let ended = self.child.try_wait().expect("a child");
            assert!(
                begun.elapsed() < SOON && ended.is_none(),
                "{what} did not come ({ended:?})\nout: {}\nerr: {}",
                self.out(),
                self.err()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The address of a listener, from the log in either format.
    #[track_caller]
    pub fn address(&mut self, listener: &str) -> SocketAddr {
        let text = format!("listener=\"{listener}\" address=");
        self.wait_for(&format!("the address of {listener}"), |_, err| {
            err.lines().find_map(
                |line| match serde_json::from_str::<serde_json::Value>(line) {
                    Ok(event) => {
                        let is_it =
                            event["message"] == "listening" && event["listener"] == listener;
                        is_it.then(|| {
                            event["address"]
                                .as_str()
                                .and_then(|text| text.parse().ok())
                                .expect("an address")
                        })
                    }
                    Err(_) => line.split_once(&text)?.1.split(' ').next()?.parse().ok(),
                },
            )
        })
    }

    /// Changes how many files it may open; `None` lets it open as many as it ever may.
    pub fn limit_files(&self, files: Option<u64>) {
        use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
        let pid = Some(Pid::from_child(&self.child));
        // A child may have what its parent may.
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit {
            current: files.or(maximum),
            maximum,
        };
        prlimit(pid, Resource::Nofile, limit).expect("its own user's, and no more than it may");
    }

    /// The time that processors spent on it.
    pub fn cpu_time(&self) -> Duration {
        let stat = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(stat).expect("it runs");
        // proc_pid_stat(5): behind the name, which ends with a parenthesis, utime and stime are the 12th and 13th, in hundredths.
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its end; what it printed is whole then.
    #[track_caller]
    pub fn end(mut self) -> (ExitStatus, String, String) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(
                begun.elapsed() < SOON,
                "it does not end\nerr: {}",
                self.err()
            );
            thread::sleep(Duration::from_millis(5));
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("read to the end");
        }
        (status, self.out(), self.err())
    }

    /// Told to end, it ends well.
    #[track_caller]
    pub fn terminate(self) -> (String, String) {
        self.signal(rustix::process::Signal::TERM);
        let (status, out, err) = self.end();
        assert_eq!(status.code(), Some(0), "{err}");
        (out, err)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Ended already, in most tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `fieldveil run` before an upstream, with flags alone: everything on free ports, logs in JSON unless asked otherwise.
pub fn run(upstream: &str, data: &Path, more: &[&str]) -> Command {
    let mut command = command([
        "run",
        "--listen",
        "127.0.0.1:0",
        "--probes",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]);
    command.args([
        "--seal",
        "$..ssn",
        "--seal",
        "$..number=pan",
        "--open",
        "$..*",
        "--upstream",
        upstream,
    ]);
    command.arg("--data-dir").arg(data).args(more);
    if !more.contains(&"--log-format") {
        command.args(["--log-format", "json"]);
    }
    command
}

/// A directory, and paths in it.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().expect("a directory"))
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, text).expect("a file");
        path
    }
}
