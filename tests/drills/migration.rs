//! From OpenBao to AWS KMS while traffic runs: twenty references to each of the data keys, none of which changes.

use crate::bao::Bao;
use crate::emulator::Emulator;
use crate::load::{Documents, Load, document};
use crate::site::{Agent, MARK, Site, number};
use std::time::Instant;

/// Documents that move have numbers from here on.
const FIRST: usize = 1_000;

/// Twenty values of one tenant, and so under one data key.
fn twenty(number: usize) -> String {
    let one = |at| format!(r#"{{"ssn":"{MARK}{number}-{at}"}}"#);
    let all: Vec<String> = (0..20).map(one).collect();
    format!("[{}]", all.join(","))
}

/// Does something for every document that moves, eight at a time.
fn for_each(documents: usize, work: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for part in 0..8 {
            let work = &work;
            scope.spawn(move || {
                (FIRST..FIRST + documents)
                    .filter(|number| number % 8 == part)
                    .for_each(work);
            });
        }
    });
}

fn opens(agent: &Agent, number: usize) {
    let answer = agent.ask(&format!("t{number}"), &format!("/keep/{number}"), None);
    assert_eq!(
        answer.body,
        twenty(number).as_bytes(),
        "{number}: {answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_references_move_to_another_kms() {
    let data_keys = number("FIELDVEIL_DRILL_DATA_KEYS", 500) as usize;
    let mut bao = Bao::start().await;
    let localstack = Emulator::localstack().await;
    let arn = localstack.key();
    let site = Site::new();
    let (vault, aws) = (site.vault(&bao).await, Site::aws(&localstack));
    let terms = "lease: 5s, grace: 0s";
    let store = "store: {type: embedded, file: store}";
    let settings = |file: &str, kms: &[String], keks: &str| {
        site.settings(file, kms, &format!("{keks}, {terms}"), store);
    };
    settings(
        "old.yaml",
        std::slice::from_ref(&vault),
        "seal_with: [vault/cards]",
    );
    let both = format!("seal_with: [\"aws/{arn}\"], open_also: [vault/cards]");
    settings("both.yaml", &[vault, aws.clone()], &both);
    settings("new.yaml", &[aws], &format!("seal_with: [\"aws/{arn}\"]"));
    site.store("init", "old.yaml", &[]);

    let agent = site.agent("old.yaml");
    let begun = Instant::now();
    for_each(data_keys, |number| {
        agent.keep(&format!("t{number}"), number, &twenty(number));
    });
    let documents = Documents {
        tenant: "acme".to_owned(),
        count: 8,
        also: "",
    };
    for number in 0..documents.count {
        agent.keep(&documents.tenant, number, &document(number));
    }
    let made = begun.elapsed();
    agent.program.terminate();
    let before: Vec<_> = (FIRST..FIRST + data_keys)
        .map(|number| site.upstream.kept(number))
        .collect();

    // New settings everywhere, then the records, while agents run.
    let agent = site.agent("both.yaml");
    let load = Load::start(agent.out, &documents);
    load.wait_until_right();
    let begun = Instant::now();
    let moved = site.store("rewrap", "both.yaml", &[]);
    let took = begun.elapsed();
    assert!(
        moved["rewrapped"].as_u64() >= Some(data_keys as u64),
        "{moved}"
    );
    let again = site.store("rewrap", "both.yaml", &[]);
    assert_eq!(again["rewrapped"], 0, "{again}");

    // OpenBao goes, for good.
    bao.server.kill().expect("it runs");
    bao.server.wait().expect("ends");
    let verified = site.store("verify", "new.yaml", &[]);
    assert_eq!(verified["failed"], 0, "{verified}");
    for_each(data_keys, |number| opens(&agent, number));
    let fresh = site.agent("new.yaml");
    for_each(data_keys, |number| opens(&fresh, number));
    // The tokens are what they were.
    for (number, before) in (FIRST..).zip(&before) {
        assert_eq!(site.upstream.kept(number), *before);
    }
    load.wait_until_right();
    let (requests, longest) = load.all_right_since(begun);
    assert_eq!(site.upstream.in_clear(), 0);
    println!(
        "{data_keys} data keys made in {made:?} and moved in {took:?}; {requests} requests meanwhile, the longest took {longest:?}"
    );
}
