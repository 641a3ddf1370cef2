//! A data key under two KMSs, an OpenBao and a LocalStack: either is killed, both say no.

use crate::bao::{Bao, NO_POLICY, POLICY};
use crate::emulator::Emulator;
use crate::load::{Documents, Load, What, document, nothing_but};
use crate::site::{Agent, Site};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const LEASE: Duration = Duration::from_secs(2);

/// A site whose data keys are wrapped by both, and kept documents. No grace: what goes on without a KMS does so by the other one.
async fn begun(bao: &Bao, localstack: &Emulator) -> (Site, Agent, Documents, String) {
    let site = Site::new();
    let arn = localstack.key();
    let cards = format!("seal_with: [vault/cards, \"aws/{arn}\"], need: any, lease: 2s, grace: 0s");
    let kms = [site.vault(bao).await, Site::aws(localstack)];
    site.settings("a.yaml", &kms, &cards, "");
    let agent = site.agent("a.yaml");
    let documents = Documents {
        tenant: "acme".to_owned(),
        count: 8,
        also: "",
    };
    for number in 0..documents.count {
        agent.keep(&documents.tenant, number, &document(number));
    }
    (site, agent, documents, arn)
}

/// Several leases of traffic without one of them, and an agent that never knew it.
async fn goes_on(site: &Site, load: &Load, documents: &Documents) {
    let killed = Instant::now();
    sleep(LEASE * 3).await;
    let (requests, longest) = load.all_right_since(killed);
    let agent = site.agent("a.yaml");
    for number in 0..documents.count {
        let answer = agent.ask(&documents.tenant, &format!("/keep/{number}"), None);
        assert_eq!(answer.body, document(number).as_bytes(), "{answer:?}");
    }
    load.all_right_since(killed);
    assert_eq!(site.upstream.in_clear(), 0);
    println!("{requests} requests without one of two KMSs; the longest took {longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn either_is_killed_and_both_say_no() {
    let mut localstack = Emulator::localstack().await;
    let mut bao = Bao::start().await;
    let (site, agent, documents, _) = begun(&bao, &localstack).await;
    let load = Load::start(agent.out, &documents);
    load.wait_until_right();
    bao.server.kill().expect("it runs");
    bao.server.wait().expect("ends");
    goes_on(&site, &load, &documents).await;
    drop(load);

    let bao = Bao::start().await;
    let (site, agent, documents, arn) = begun(&bao, &localstack).await;
    let load = Load::start(agent.out, &documents);
    load.wait_until_right();
    denied_at_both(&bao, &localstack, &arn, &load).await;
    localstack.server.kill().expect("it runs");
    localstack.server.wait().expect("ends");
    goes_on(&site, &load, &documents).await;
}

async fn denied_at_both(bao: &Bao, localstack: &Emulator, arn: &str, load: &Load) {
    bao.policy(NO_POLICY).await;
    localstack.boto3(&format!("kms.disable_key(KeyId='{arn}')"));
    let withdrawn = Instant::now();
    sleep(LEASE * 2).await;
    let after = load.since(withdrawn + LEASE);
    let denied = What::Refused(503, "keys-denied".to_owned());
    nothing_but(&after, [denied, What::LeftSealed]);
    bao.policy(POLICY).await;
    localstack.boto3(&format!("kms.enable_key(KeyId='{arn}')"));
    load.wait_until_right();
}
