//! Two agents with one PostgreSQL: what one seals the other opens, and what happens while the database is away.

use crate::harness::{command, done};
use crate::load::{Documents, Load, document};
use crate::postgres::Server;
use crate::relay::{Relay, Way};
use crate::site::{Agent, Site, wait_for};
use std::thread::sleep;
use std::time::{Duration, Instant};

const LEASE: Duration = Duration::from_secs(2);

const BOTH: &str = r#"{"ssn":"clear-ssn","email":"clear@b.example"}"#;
const EMAIL: &str = r#"{"email":"clear@b.example"}"#;

/// Characters of the shortest token that carries its data key.
const INLINE: usize = 160;

struct Fleet {
    site: Site,
    database: Server,
    relay: Relay,
}

impl Fleet {
    fn new() -> Fleet {
        let site = Site::with_deterministic();
        let args = ["keyring", "init", "--name", "local", "--dir"];
        let mut init = command(args);
        init.arg(site.place.path("keyring")).arg("--key-file");
        init.arg(site.place.path("kek")).arg("cards");
        let (exit, _, err) = done(&mut init);
        assert_eq!(exit, 0, "{err}");
        let database = Server::start(None);
        let relay = Relay::to(database.address);
        let kms = ["local: {type: keyring, dir: keyring, unlock: {key_file: kek}}".to_owned()];
        let cards = "seal_with: [local/cards], lease: 2s, grace: 5m";
        for (file, user, url) in [
            ("owner.yaml", "owner", database.url("owner")),
            (
                "a.yaml",
                "agent",
                format!("postgresql://agent:agent@{}/postgres", relay.address),
            ),
        ] {
            site.private(user, &url);
            let store = format!("store: {{type: postgres, url_file: {user}}}");
            site.settings(file, &kms, cards, &store);
        }
        site.store("init", "owner.yaml", &[]);
        database.sql("GRANT SELECT, INSERT, UPDATE ON fieldveil_deks TO agent");
        Fleet {
            site,
            database,
            relay,
        }
    }

    fn agent(&self) -> Agent {
        self.site.agent("a.yaml")
    }

    /// What stands at the upstream for a value.
    fn token(&self, number: usize, name: &str) -> String {
        let kept = self.site.upstream.kept(number);
        kept[name].as_str().expect("a token").to_owned()
    }

    /// A tenant that nobody knows yet: its values are sealed inline, or, where they must be the same everywhere, not at all.
    fn without_the_store(&self, agent: &Agent, tenant: &str, number: usize) {
        agent.keep(tenant, number, &document(number));
        let token = self.token(number, "ssn");
        assert!(token.len() > INLINE, "{token}");
        let answer = agent.ask(tenant, "/echo", Some(EMAIL));
        assert_eq!((answer.status, &*answer.code()), (503, "store-unreachable"));
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }

    /// A tenant that nobody knows yet: short tokens, of either kind.
    fn with_the_store(&self, agent: &Agent, tenant: &str, number: usize) {
        let mut round = 0;
        wait_for("the store's return", || {
            round += 1;
            let tenant = format!("{tenant}-{round}");
            let path = format!("/keep/{number}");
            let answer = agent.ask(&tenant, &path, Some(BOTH));
            answer.status == 200 && self.token(number, "ssn").len() < INLINE
        });
    }
}

#[test]
fn two_agents_with_one_database() {
    let mut fleet = Fleet::new();
    let (one, other) = (fleet.agent(), fleet.agent());
    let documents = Documents {
        tenant: "acme".to_owned(),
        count: 8,
        also: r#","email":"clear@b.example""#,
    };
    for number in 0..documents.count {
        one.keep("acme", number, &documents.document(number));
    }
    one.keep("acme", 100, BOTH);
    other.keep("acme", 101, BOTH);
    // Equal where that is asked for, and nowhere else; and short.
    assert_eq!(fleet.token(100, "email"), fleet.token(101, "email"));
    assert_ne!(fleet.token(100, "ssn"), fleet.token(101, "ssn"));
    for name in ["ssn", "email"] {
        assert!(fleet.token(100, name).len() < INLINE, "{name}");
    }
    // What the other made opens after a restart, here and there.
    other.program.terminate();
    let other = fleet.agent();
    for (agent, number) in [(&other, 100), (&one, 101)] {
        let answer = agent.ask("acme", &format!("/keep/{number}"), None);
        assert_eq!(answer.body, BOTH.as_bytes(), "{answer:?}");
    }
    other.keep("acme", 102, BOTH);
    assert_eq!(fleet.token(100, "email"), fleet.token(102, "email"));

    let loads = [&one, &other].map(|agent| Load::start(agent.out, &documents));
    loads.iter().for_each(Load::wait_until_right);

    // Stopped: whoever has its data keys goes on with them.
    fleet.database.stop();
    let stopped = Instant::now();
    fleet.without_the_store(&one, "new-1", 103);
    fleet.without_the_store(&other, "new-2", 104);
    sleep(LEASE * 3);
    one.keep("acme", 105, BOTH);
    assert_eq!(fleet.token(100, "email"), fleet.token(105, "email"));
    fleet.database.run();
    fleet.with_the_store(&one, "new-3", 106);
    fleet.with_the_store(&other, "new-4", 107);
    // What was sealed inline meanwhile opens everywhere, as what is in the store does.
    for (agent, tenant, number) in [(&other, "new-1", 103), (&one, "new-2", 104)] {
        let answer = agent.ask(tenant, &format!("/keep/{number}"), None);
        assert_eq!(answer.body, document(number).as_bytes(), "{answer:?}");
    }

    // Silent: nobody is told that it is gone.
    fleet.relay.turn(Way::Blackholes);
    fleet.without_the_store(&one, "new-5", 108);
    sleep(LEASE * 2);
    assert!(fleet.relay.connections() >= 2, "agents go by the relay");
    fleet.relay.turn(Way::Passes);
    fleet.with_the_store(&one, "new-6", 109);

    for load in &loads {
        load.wait_until_right();
        let (requests, longest) = load.all_right_since(stopped);
        println!(
            "{requests} requests through both outages of the store; the longest took {longest:?}"
        );
    }
    assert_eq!(fleet.site.upstream.in_clear(), 0);
}
