//! Other policies under a running agent: by signal, by the admin API, by a changed directory; and those that are refused.

use crate::harness::{Answer, ORDER, Place, Program, SOON, Upstream, ask, command, get, post, run};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Seals these fields, each under the class of its name, and opens them.
fn policy(fields: &[(&str, &str)]) -> String {
    let each = |show: &dyn Fn(&str, &str) -> String| {
        let all: Vec<String> = fields.iter().map(|(field, key)| show(field, key)).collect();
        all.join(", ")
    };
    format!(
        "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {{name: orders}}\nclasses: {{{}}}\nroutes:\n  \
         - name: orders\n    match: {{methods: [POST]}}\n    request: {{rules: [{}]}}\n    response: {{rules: [{}]}}\n",
        each(&|field, key| format!("{field}: {{key: {key}}}")),
        each(&|field, _| format!("{{at: $..{field}, seal: {field}}}")),
        each(&|field, _| format!("{{at: $..{field}, open: {field}}}")),
    )
}

const SSN: &[(&str, &str)] = &[("ssn", "k")];
const BOTH: &[(&str, &str)] = &[("ssn", "k"), ("number", "k")];

struct Agent {
    program: Program,
    place: Place,
    upstream: Upstream,
}

impl Agent {
    /// With the policy in `policies`, unless something is there already; `words` go into the settings' `policy`.
    fn start(words: &str) -> Agent {
        let place = Place::new();
        place.write("policies/orders.yaml", &policy(SSN));
        Agent::at(place, words)
    }

    fn at(place: Place, words: &str) -> Agent {
        let upstream = Upstream::start();
        let settings = format!(
            "policy: {{dir: policies{words}}}\nlisteners: [{{name: out, bind: '127.0.0.1:0', upstream: api}}]\n\
             upstreams: {{api: {{url: '{}'}}}}\nkeys: {{k: {{seal_with: [local/k]}}, spare: {{seal_with: [local/spare]}}}}\n\
             admin: {{bind: '127.0.0.1:0'}}\nprobes: {{bind: '127.0.0.1:0'}}\nlog: {{format: json}}\n",
            upstream.url()
        );
        let file = place.write("settings.yaml", &settings);
        let mut command = command(["run", "--config"]);
        command.arg(file).arg("--data-dir").arg(place.path("data"));
        Agent {
            program: Program::start(&mut command),
            place,
            upstream,
        }
    }

    fn address(&mut self, listener: &str) -> SocketAddr {
        self.program.address(listener)
    }

    /// Sends an order, and says which of its fields the upstream saw sealed. The client gets all of them back.
    fn sealed(&mut self) -> (bool, bool) {
        let answer = post(self.address("out"), "/", ORDER);
        assert_eq!((answer.status, &*answer.body), (200, ORDER));
        let seen = self.upstream.last();
        (!seen.contains("123-45-6789"), !seen.contains("411111"))
    }

    fn reload(&mut self) -> Answer {
        let admin = self.address("admin");
        let token = std::fs::read_to_string(self.place.path("data/admin.token")).expect("a token");
        let authorization = format!("Authorization: Bearer {}", token.trim());
        ask(admin, "POST /-/reload", &[&authorization], "")
    }

    fn metric(&mut self, line: &str) -> bool {
        let page = get(self.address("probes"), "/metrics").body;
        page.lines().any(|found| found == line)
    }

    #[track_caller]
    fn eventually(&mut self, what: &str, mut is: impl FnMut(&mut Agent) -> bool) {
        let begun = Instant::now();
        while !is(self) {
            assert!(
                begun.elapsed() < SOON,
                "not so: {what}\n{}",
                self.program.err()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn version(text: &str) -> String {
    fieldveil::policy::version([text]).to_string()
}

/// Nobody looks at the files by itself.
const NEVER: &str = ", look_every: 1h";

#[test]
fn a_signal_puts_another_policy_in_force() {
    let mut agent = Agent::start(NEVER);
    assert_eq!(agent.sealed(), (true, false));
    agent.place.write("policies/orders.yaml", &policy(BOTH));
    agent.program.signal(Signal::HUP);
    let loaded = format!(
        "fieldveil_policy_info{{version=\"{}\"}} 1",
        version(&policy(BOTH))
    );
    agent.eventually("the new version", |agent| agent.metric(&loaded));
    assert_eq!(agent.sealed(), (true, true));
    assert!(agent.metric("fieldveil_policy_reloads_total{outcome=\"loaded\"} 1"));
    let (_, err) = agent.program.terminate();
    let versions: Vec<String> = err
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .filter(|event| event["target"] == "fieldveil::access")
        .map(|event| event["policy"].as_str().expect("a version").to_owned())
        .collect();
    assert_eq!(versions, [version(&policy(SSN)), version(&policy(BOTH))]);
}

#[test]
fn the_admin_api_reloads_and_says_what_came_of_it() {
    let mut agent = Agent::start(NEVER);
    let (old, new) = (version(&policy(SSN)), version(&policy(BOTH)));
    let unchanged = agent.reload();
    assert_eq!(
        (unchanged.status, unchanged.json()),
        (
            200,
            serde_json::json!({"outcome": "unchanged", "version": old, "candidate": null, "findings": []})
        )
    );

    agent.place.write("policies/orders.yaml", "kind: Polcy\n");
    let bad = agent.reload();
    assert_eq!((bad.status, &bad.json()["outcome"]), (422, &"bad".into()));
    assert_eq!(bad.json()["version"], old.as_str());
    let codes = bad.json()["findings"].to_string();
    assert!(codes.contains("orders.yaml:1:"), "{codes}");
    assert_eq!(agent.sealed(), (true, false), "the old one stays");
    let probes = agent.address("probes");
    let ready = get(probes, "/readyz?verbose");
    assert_eq!(ready.status, 200, "{}", ready.body);
    let note = format!("[+] policy: version {old} is in force; another one was refused (bad: ");
    assert!(ready.body.contains(&note), "{}", ready.body);

    agent.place.write(
        "policies/orders.yaml",
        &policy(&[("ssn", "k"), ("number", "none")]),
    );
    let missing = agent.reload();
    assert_eq!(
        (missing.status, &missing.json()["findings"][0]["code"]),
        (422, &"missing-key".into())
    );
    assert!(missing.json()["candidate"].is_string());

    // A key that the settings have, and that nobody needed so far.
    let spare = policy(&[("ssn", "k"), ("number", "spare")]);
    agent.place.write("policies/orders.yaml", &spare);
    let loaded = agent.reload();
    assert_eq!(
        (loaded.status, &loaded.json()["outcome"]),
        (200, &"loaded".into())
    );
    assert_eq!(loaded.json()["version"], version(&spare).as_str());
    assert_eq!(agent.sealed(), (true, true));

    agent.place.write("policies/orders.yaml", &policy(SSN));
    let weaker = agent.reload();
    assert_eq!(
        (weaker.status, &weaker.json()["outcome"]),
        (409, &"weaker".into())
    );
    assert_eq!(agent.sealed(), (true, true));
    assert!(agent.metric("fieldveil_policy_reloads_total{outcome=\"refused\"} 3"));
    assert!(agent.metric("fieldveil_policy_reloads_total{outcome=\"unchanged\"} 1"));
    assert_ne!(version(&spare), new);

    let admin = agent.address("admin");
    assert_eq!(ask(admin, "POST /-/reload", &[], "").status, 401);
    assert_eq!(ask(probes, "POST /-/reload", &[], "").status, 404);
    let (_, err) = agent.program.terminate();
    for word in [
        "missing-key",
        "new policy refused",
        "\"outcome\":\"weaker\"",
    ] {
        assert!(err.contains(word), "no {word} in {err}");
    }
}

#[test]
fn what_is_weaker_comes_in_force_where_that_is_allowed() {
    let place = Place::new();
    place.write("policies/orders.yaml", &policy(BOTH));
    let mut agent = Agent::at(place, &format!("{NEVER}, allow_weaker: true"));
    assert_eq!(agent.sealed(), (true, true));
    agent.place.write("policies/orders.yaml", &policy(SSN));
    let weaker = agent.reload();
    assert_eq!(
        (weaker.status, &weaker.json()["outcome"]),
        (200, &"loaded".into())
    );
    assert_ne!(
        weaker.json()["findings"],
        serde_json::json!([]),
        "and is told"
    );
    assert_eq!(agent.sealed(), (true, false));
    agent.program.terminate();
}

fn link(to: &str, at: &Path) {
    std::os::unix::fs::symlink(to, at).expect("a link");
}

/// As a kubelet swaps a ConfigMap: files lead through `..data`, which is replaced whole.
#[test]
fn a_swapped_directory_is_seen() {
    let place = Place::new();
    place.write("policies/..v1/orders.yaml", &policy(SSN));
    link("..v1", &place.path("policies/..data"));
    link("..data/orders.yaml", &place.path("policies/orders.yaml"));
    let mut agent = Agent::at(place, ", look_every: 100ms");
    assert_eq!(agent.sealed(), (true, false));

    agent.place.write("policies/..v2/orders.yaml", "nonsense");
    link("..v2", &agent.place.path("policies/..new"));
    let swap = |agent: &Agent| {
        std::fs::rename(
            agent.place.path("policies/..new"),
            agent.place.path("policies/..data"),
        )
        .expect("swapped");
    };
    swap(&agent);
    agent.eventually("refused", |agent| {
        agent.metric("fieldveil_policy_reloads_total{outcome=\"refused\"} 1")
    });
    assert_eq!(agent.sealed(), (true, false));

    agent
        .place
        .write("policies/..v3/orders.yaml", &policy(BOTH));
    link("..v3", &agent.place.path("policies/..new"));
    swap(&agent);
    agent.eventually("loaded", |agent| {
        agent.metric("fieldveil_policy_reloads_total{outcome=\"loaded\"} 1")
    });
    assert_eq!(agent.sealed(), (true, true));
    // What was refused was tried once, and what is in force is not loaded again.
    assert!(agent.metric("fieldveil_policy_reloads_total{outcome=\"refused\"} 1"));
    assert!(agent.metric("fieldveil_policy_reloads_total{outcome=\"unchanged\"} 0"));
    agent.program.terminate();
}

#[test]
fn an_agent_with_flags_alone_has_nothing_to_read_again() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let mut agent = Program::start(&mut run(&upstream.url(), &place.path("data"), &[]));
    let out = agent.address("out");
    agent.signal(Signal::HUP);
    agent.wait_for("told", |_, err| {
        err.contains("the policy is as it was").then_some(())
    });
    assert_eq!(post(out, "/", ORDER).status, 200);
    agent.terminate();
}
