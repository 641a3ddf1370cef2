//! One KMS, an OpenBao: stopped under load, withdrawn, sealed.

use crate::bao::{Bao, NO_POLICY, POLICY};
use crate::load::{Documents, Load, What, document, nothing_but};
use crate::site::{Agent, Site, number, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const CARDS: &str = "seal_with: [vault/cards]";

async fn begun(bao: &Bao, site: &Site, cards: &str) -> (Agent, Documents) {
    site.settings("a.yaml", &[site.vault(bao).await], cards, "");
    let agent = site.agent("a.yaml");
    let documents = Documents {
        tenant: "acme".to_owned(),
        count: 8,
        also: "",
    };
    for number in 0..documents.count {
        agent.keep(&documents.tenant, number, &document(number));
    }
    (agent, documents)
}

/// For as long as there is grace, nobody notices: not at the first renewal, and not at the twentieth.
#[tokio::test(flavor = "multi_thread")]
async fn openbao_stopped_under_load() {
    let outage = Duration::from_secs(number("FIELDVEIL_DRILL_SECONDS", 10));
    let bao = Bao::start().await;
    let site = Site::new();
    let grace = outage.as_secs() + 60;
    let cards = format!("{CARDS}, lease: 2s, grace: {grace}s");
    let (agent, documents) = begun(&bao, &site, &cards).await;
    let load = Load::start(agent.out, &documents);
    load.wait_until_right();
    let renewed = || agent.metric("fieldveil_leases_renewed_total", &[]);
    wait_for("a renewal", || renewed() >= 2.0);
    let survival = |using| agent.metric("fieldveil_outage_survival_seconds", &[using]);
    let pid = Pid::from_child(&bao.server);

    kill_process(pid, Signal::STOP).expect("it runs");
    let stopped = Instant::now();
    let before = agent.calls(&[]);
    sleep(outage).await;
    // It was noticed by those who look, and nobody was stormed: one call a second once it is known, and the first few.
    let unreachable = agent.calls(&["unreachable"]);
    assert!(unreachable >= 1.0, "no renewal was tried");
    let calls = agent.calls(&[]) - before;
    let seconds = stopped.elapsed().as_secs_f64();
    assert!(calls <= 20.0 + 4.0 * seconds, "{calls} in {seconds}");
    for using in ["seal", "open"] {
        let left = survival(using);
        let most = grace as f64 + 2.0 - (seconds - 2.0);
        assert!(left > 0.0 && left <= most, "{using}: {left} of {most}");
    }
    let (requests, longest) = load.all_right_since(stopped);

    let before = renewed();
    kill_process(pid, Signal::CONT).expect("it runs");
    wait_for("the next renewal", || renewed() > before + 1.0);
    load.wait_until_right();
    load.all_right_since(stopped);
    assert_eq!(site.upstream.in_clear(), 0);
    println!(
        "{requests} requests in {seconds:.0} s without OpenBao, {calls} calls to it; the longest took {longest:?}"
    );
}

/// A no is obeyed within a lease, by sealing and by opening.
#[tokio::test(flavor = "multi_thread")]
async fn openbao_withdraws_the_right() {
    let bao = Bao::start().await;
    let site = Site::new();
    let lease = Duration::from_secs(3);
    let cards = format!("{CARDS}, lease: 3s, grace: 1h");
    let (agent, documents) = begun(&bao, &site, &cards).await;
    let load = Load::start(agent.out, &documents);
    load.wait_until_right();
    bao.policy(NO_POLICY).await;
    let withdrawn = Instant::now();
    sleep(lease + Duration::from_secs(2)).await;
    let after = load.since(withdrawn + lease);
    let denied = What::Refused(503, "keys-denied".to_owned());
    nothing_but(&after, [denied, What::LeftSealed]);
    assert!(agent.metric("fieldveil_data_keys_revoked_total", &["denied"]) >= 1.0);
    assert_eq!(agent.metric("fieldveil_data_keys", &[]), 0.0);
    bao.policy(POLICY).await;
    load.wait_until_right();
    assert_eq!(site.upstream.in_clear(), 0);
}

/// OpenBao is unsealed, and has taken its seat.
async fn unseal(bao: &Bao) {
    bao.put("sys/unseal", json!({"key": bao.unseal_key})).await;
    while bao.ask("GET", "transit/keys/cards", Value::Null).await.0 != 200 {
        sleep(Duration::from_millis(10)).await;
    }
}

/// What is purged by hand is gone at once: without the KMS there is nothing to seal or open with.
#[tokio::test(flavor = "multi_thread")]
async fn purged_by_hand_while_openbao_is_sealed() {
    let bao = Bao::start().await;
    let site = Site::new();
    let cards = format!("{CARDS}, lease: 1m, grace: 1h");
    let (agent, documents) = begun(&bao, &site, &cards).await;
    let load = Load::start(agent.out, &documents);
    load.wait_until_right();
    let status = site.keys(&agent, &["status"]);
    let cards = &status["keys"][0];
    let held = [&cards["seal"]["data_keys"], &cards["open"]["data_keys"]];
    // Of no tenant there is one, too: the agent asks for it when it starts.
    assert_eq!(held, [&2, &1], "{status}");
    bao.put("sys/seal", json!({})).await;
    let sealed = Instant::now();
    sleep(Duration::from_secs(1)).await;
    load.all_right_since(sealed);
    let purged = site.keys(&agent, &["purge", "cards"]);
    assert_eq!(purged["purged"], 3);
    let purged = Instant::now();
    sleep(Duration::from_secs(1)).await;
    nothing_but(
        &load.since(purged),
        [
            What::Refused(503, "keys-unreachable".to_owned()),
            What::LeftSealed,
        ],
    );
    unseal(&bao).await;
    load.wait_until_right();
    assert_eq!(site.upstream.in_clear(), 0);
}

/// While it is sealed there is no new data key; warm traffic goes on, and it is in use again within two seconds of its return.
#[tokio::test(flavor = "multi_thread")]
async fn openbao_sealed_and_unsealed() {
    let bao = Bao::start().await;
    let site = Site::new();
    let cards = format!("{CARDS}, lease: 1m, grace: 1h");
    let (agent, documents) = begun(&bao, &site, &cards).await;
    let load = Load::start(agent.out, &documents);
    load.wait_until_right();
    let begin = Instant::now();
    let mut recoveries = Vec::new();
    for round in 0..4 {
        let tenant = format!("new-{round}");
        let new = || agent.ask(&tenant, "/echo", Some(&document(0)));
        let (before, sealed) = (agent.calls(&[]), Instant::now());
        bao.put("sys/seal", json!({})).await;
        let mut refused = 0;
        while sealed.elapsed() < Duration::from_secs(3) {
            let answer = new();
            assert_eq!((answer.status, &*answer.code()), (503, "keys-unreachable"));
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            refused += 1;
            sleep(Duration::from_millis(20)).await;
        }
        let alone = || agent.metric("fieldveil_kms_left_alone", &["vault"]);
        let withheld = agent.metric("fieldveil_kms_calls_withheld_total", &["vault"]);
        assert_eq!(alone(), 1.0);
        assert!(withheld > 10.0, "{withheld}");
        unseal(&bao).await;
        let back = Instant::now();
        wait_for("its return", || new().status == 200);
        recoveries.push(back.elapsed());
        assert_eq!(alone(), 0.0);
        let (calls, seconds) = (agent.calls(&[]) - before, sealed.elapsed().as_secs_f64());
        assert!(calls <= 20.0 + 4.0 * seconds, "{calls} in {seconds}");
        assert!(refused > 30, "{refused}: nobody asked");
    }
    // A busy machine adds to each of them, and takes nothing away.
    let quickest = recoveries.iter().min().expect("rounds");
    assert!(*quickest <= Duration::from_secs(2), "{recoveries:?}");
    load.all_right_since(begin);
    assert_eq!(site.upstream.in_clear(), 0);
    println!("in use again after {recoveries:?}");
}
