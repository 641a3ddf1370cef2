use super::*;
use crate::arena::Arena;
use crate::audit::{Observe as _, Passed, Reason, Record, Side};
use crate::context::Class;
use crate::kms::fake::Fake;
use crate::kms::os_random;
use crate::policy::Policy;
use crate::transform::Tally;
use http::Method;
use std::collections::{BTreeMap, BTreeSet};

const POLICY: &str = "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {name: p}\n\
    classes: {ssn: {key: k}, pan: {key: k}}\n\
    routes: [{name: people, match: {}, request: {rules: [{at: $..ssn, seal: ssn}]}}]\n";

fn policies() -> Policies {
    Policies::new(vec![Policy::load(POLICY, "p.yaml", None).unwrap()]).unwrap()
}

#[track_caller]
fn check(metrics: &Metrics, line: &str) {
    let text = metrics.encode();
    assert!(
        text.lines().any(|found| found == line),
        "no `{line}` in\n{text}"
    );
}

fn room(observe: Calls) -> Keys {
    let kms: Arc<dyn crate::kms::Kms> = Arc::new(Fake::new("fake"));
    let key = keys::KeySettings {
        name: "k".into(),
        seal_with: vec![keys::Binding {
            kms,
            kek: "k".into(),
        }],
        need: keys::Need::Any,
        open_also: vec![],
        terms: keys::TERMS,
    };
    let mut settings = keys::Settings::new(vec![key], Arena::new().unwrap(), os_random());
    settings.observe = Arc::new(observe);
    Keys::new(settings).unwrap()
}

/// Everything that can be counted, once.
async fn everything() -> Metrics {
    let metrics = Metrics::new();
    let policies = policies();
    let listener = "out".into();
    let accesses = Arc::new(metrics.accesses(&listener, &policies));
    let route = &policies.routes().next().unwrap().name;
    let ssn = &policies.iter().next().unwrap().classes[0];
    let record = |observing| {
        let mut record = Record::open(listener.clone(), Some(Method::POST), accesses.clone());
        record.route(route, observing);
        record
    };
    let tally = Tally {
        sealed: vec![(Arc::clone(ssn), 2)],
        kept: vec![(Arc::clone(ssn), 1)],
        opened: vec![(Arc::clone(ssn), 3)],
        masked: vec![(Arc::clone(ssn), 7)],
        left: vec![("foreign", 4)],
        strays: 5,
        unclaimed: 6,
        plaintext: 7,
        near_misses: 8,
        nulled: 9,
    };
    let mut answered = record(false);
    answered.tally(Side::Request, tally.clone());
    answered.unread("coding");
    answered.flows(Side::Response).unread("too-large");
    answered.released(200, None);
    drop(answered);
    record(false).answered(200, None);
    let why = Reason {
        code: "not-json",
        fault: "client",
        note: "",
    };
    record(false).refused(why, 400, None);
    let mut observing = record(true);
    observing.tally(Side::Response, tally);
    observing.would_refuse(why);
    observing.answered(200, None);
    let mut unmatched = Record::open(listener.clone(), Some(Method::GET), accesses.clone());
    unmatched.unmatched();
    drop(unmatched);
    accesses.passed(&Passed {
        id: None,
        listener: listener.clone(),
        outcome: "tunnelled",
        sent_bytes: 21,
        received_bytes: 43,
        open: Duration::ZERO,
    });
    let keys = room(metrics.calls());
    let scope = crate::dek::Scope {
        key: "k".into(),
        tenant: None,
    };
    let needs = crate::dek::Needs {
        sealing: vec![crate::dek::SealNeed {
            scope,
            suite: crate::dek::Suite::Xaes256Gcm,
            values: 1,
        }],
        opening: vec![],
    };
    keys.fetch(&needs).await.unwrap();
    keys::Observe::purged(&metrics.calls(), "k", "denied");
    keys::Observe::store_call(&metrics.calls(), "embedded", "get", "ok", 5);
    metrics.watch(keys, || Reading {
        listeners: vec![Listening {
            name: "out".into(),
            connections: 2,
            requests: 1,
            accept_errors: 5,
        }],
        ready: true,
        lines_dropped: 9,
        certificates_refused: 3,
        policy: PolicyReading {
            version: "0123456789ab".into(),
            loaded_at: 17.0,
            loaded: 1,
            unchanged: 2,
            refused: 4,
        },
    });
    metrics
}

#[tokio::test]
async fn what_happened_is_counted() {
    let metrics = everything().await;
    for line in [
        r#"fieldveil_policy_info{version="0123456789ab"} 1"#,
        r#"fieldveil_policy_loaded_timestamp_seconds 17.0"#,
        r#"fieldveil_policy_reloads_total{outcome="refused"} 4"#,
        r#"fieldveil_requests_total{listener="out",route="people",outcome="answered"} 2"#,
        r#"fieldveil_requests_total{listener="out",route="people",outcome="not-json"} 1"#,
        r#"fieldveil_requests_total{listener="out",route="people",outcome="aborted"} 1"#,
        r#"fieldveil_requests_total{listener="out",route="",outcome="aborted"} 1"#,
        r#"fieldveil_request_duration_seconds_count{listener="out"} 5"#,
        r#"fieldveil_request_added_seconds_bucket{le="+Inf",listener="out"} 5"#,
        r#"fieldveil_unmatched_requests_total{listener="out"} 1"#,
        r#"fieldveil_tunnel_connections_total{listener="out",outcome="tunnelled"} 1"#,
        r#"fieldveil_tunnel_bytes_total{listener="out",direction="received"} 43"#,
        r#"fieldveil_observed_refusals_total{listener="out",route="people",code="not-json"} 1"#,
        r#"fieldveil_fields_total{class="ssn",operation="sealed",mode="enforce"} 2"#,
        r#"fieldveil_fields_total{class="ssn",operation="kept",mode="enforce"} 1"#,
        r#"fieldveil_fields_total{class="ssn",operation="opened",mode="enforce"} 3"#,
        r#"fieldveil_fields_total{class="ssn",operation="opened",mode="observe"} 3"#,
        r#"fieldveil_fields_total{class="ssn",operation="masked",mode="enforce"} 7"#,
        r#"fieldveil_fields_total{class="pan",operation="sealed",mode="enforce"} 0"#,
        r#"fieldveil_tokens_left_total{route="people",reason="foreign"} 8"#,
        r#"fieldveil_stray_tokens_total{route="people"} 10"#,
        r#"fieldveil_unclaimed_values_total{route="people"} 12"#,
        r#"fieldveil_plaintext_values_total{route="people"} 14"#,
        r#"fieldveil_near_misses_total{route="people"} 16"#,
        r#"fieldveil_tokens_nulled_total{route="people"} 18"#,
        r#"fieldveil_unread_bodies_total{route="people",reason="coding"} 1"#,
        r#"fieldveil_unread_records_total{route="people",reason="too-large"} 1"#,
        r#"fieldveil_answers_cut_off_total{listener="out",route="people",reason="aborted"} 1"#,
        r#"fieldveil_kms_calls_total{kms="fake",verb="wrap",outcome="ok"} 1"#,
        r#"fieldveil_kms_left_alone{kms="fake"} 0.0"#,
        r#"fieldveil_kms_calls_withheld_total{kms="fake"} 0"#,
        r#"fieldveil_kms_call_duration_seconds_count{kms="fake",verb="wrap"} 1"#,
        r#"fieldveil_data_keys_revoked_total{key="k",reason="denied"} 1"#,
        r#"fieldveil_store_calls_total{store="embedded",verb="get",outcome="ok"} 1"#,
        r#"fieldveil_store_call_duration_seconds_count{store="embedded",verb="get"} 1"#,
        r#"fieldveil_key_cache_misses_total{use="seal"} 1"#,
        r#"fieldveil_data_keys{use="seal"} 1.0"#,
        "fieldveil_data_keys_minted_total 1",
        r#"fieldveil_connections{listener="out"} 2.0"#,
        r#"fieldveil_requests_in_flight{listener="out"} 1.0"#,
        r#"fieldveil_accept_errors_total{listener="out"} 5"#,
        "fieldveil_ready 1.0",
        "fieldveil_log_lines_dropped_total 9",
        "fieldveil_certificates_refused_total 3",
        concat!(
            "fieldveil_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1"
        ),
    ] {
        check(&metrics, line);
    }
}

/// Other policies, whose names are the same and stand elsewhere.
#[test]
fn names_count_not_addresses() {
    let metrics = Metrics::new();
    let accesses = Arc::new(metrics.accesses(&"out".into(), &policies()));
    let other = policies();
    let mut record = Record::open("out".into(), Some(Method::POST), accesses);
    record.route(&other.routes().next().unwrap().name, false);
    let class: Arc<Class> = Arc::clone(&other.iter().next().unwrap().classes[0]);
    record.tally(
        Side::Request,
        Tally {
            sealed: vec![(class, 2)],
            ..Tally::default()
        },
    );
    record.answered(200, None);
    check(
        &metrics,
        r#"fieldveil_requests_total{listener="out",route="people",outcome="answered"} 1"#,
    );
    check(
        &metrics,
        r#"fieldveil_fields_total{class="ssn",operation="sealed",mode="enforce"} 2"#,
    );
}

/// The classes in a tally are those of the policy: the quick way is the usual one.
#[test]
fn the_usual_is_found_by_address() {
    let policies = policies();
    let accesses = Metrics::new().accesses(&"out".into(), &policies);
    let route = policies.routes().next().unwrap();
    let plan =
        crate::transform::plan(&route.request, br#"{"ssn":1}"#, &Default::default()).unwrap();
    let needs = plan.needs();
    let ring = crate::dek::Ring {
        sealing: needs
            .sealing
            .iter()
            .map(|_| Arc::new(sealing_key()))
            .collect(),
        opening: vec![],
    };
    let mut out = Vec::new();
    let tally = plan
        .apply(br#"{"ssn":1}"#, &ring, &mut |bytes| bytes.fill(1), &mut out)
        .unwrap();
    let [(class, 1)] = &tally.sealed[..] else {
        panic!("{tally:?}")
    };
    assert!(accesses.knows(&route.name, class));
}

fn sealing_key() -> crate::dek::SealingKey {
    struct Plain([u8; crate::dek::MATERIAL_LEN]);
    impl crate::dek::Material for Plain {
        fn expose(&self) -> &[u8; crate::dek::MATERIAL_LEN] {
            &self.0
        }
    }
    let mut material = [0; crate::dek::MATERIAL_LEN];
    let kid = crate::dek::schedule(&[7; 32], &mut material);
    crate::dek::SealingKey {
        dek: crate::dek::Dek::new(kid, Box::new(Plain(material))),
        record: crate::token::Record::build(&[([0; 8], &[1])]).unwrap(),
        stored: false,
    }
}

/// Family by family: type and label names, as they are exposed.
fn exposed(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    let mut current: Option<(String, String)> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            current = Some((format!("{name}{suffix}"), kind.to_owned()));
        } else if let (false, Some((name, kind))) = (line.starts_with('#'), &current) {
            let labels = line
                .split_once('{')
                .map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
            let names = labels
                .split("\",")
                .filter_map(|label| label.split_once('='));
            let names: BTreeSet<String> = names
                .map(|(name, _)| name.to_owned())
                .filter(|name| name != "le")
                .collect();
            let known = families
                .entry(name.clone())
                .or_insert((kind.clone(), names.clone()));
            assert_eq!(known.1, names, "{line}");
        }
    }
    families
}

#[tokio::test]
async fn the_table_is_what_is_exposed() {
    let metrics = everything().await;
    let expected: BTreeMap<_, _> = TABLE
        .iter()
        .map(|row| {
            let labels = row.labels.iter().map(|label| (*label).to_owned()).collect();
            (row.name.to_owned(), (row.kind.word().to_owned(), labels))
        })
        .collect();
    let mut found = exposed(&metrics.encode());
    // Absent while no data key opens; it is asked for below.
    assert_eq!(
        found
            .remove("fieldveil_outage_survival_seconds")
            .map(|found| found.0),
        Some("gauge".to_owned())
    );
    let mut expected_now = expected.clone();
    expected_now.remove("fieldveil_outage_survival_seconds");
    assert_eq!(found, expected_now);
    check(&metrics, "# EOF");
}

#[test]
fn names_follow_the_conventions() {
    let mut names = BTreeSet::new();
    for row in TABLE {
        assert!(names.insert(row.name), "{} twice", row.name);
        assert!(row.name.starts_with("fieldveil_"));
        assert_eq!(
            row.name.ends_with("_total"),
            row.kind == Kind::Counter,
            "{}",
            row.name
        );
        assert_eq!(
            row.name.ends_with("_info"),
            row.kind == Kind::Info,
            "{}",
            row.name
        );
        if row.kind == Kind::Histogram {
            assert!(row.name.ends_with("_seconds"), "{}", row.name);
        }
        assert!(!row.help.ends_with('.') && !row.help.contains('|'));
    }
}

/// Set `FIELDVEIL_BLESS=1` to write the page anew.
#[test]
fn the_table_is_the_page_in_the_docs() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    if std::env::var_os("FIELDVEIL_BLESS").is_some() {
        std::fs::write(path, page()).expect("docs/metrics.md is writable");
    }
    let found = std::fs::read_to_string(path).expect("docs/metrics.md");
    assert!(
        found == page(),
        "docs/metrics.md differs from the table; FIELDVEIL_BLESS=1 writes it"
    );
}

#[test]
fn threads_count_without_loss() {
    let metrics = Metrics::new();
    let policies = policies();
    let accesses = Arc::new(metrics.accesses(&"out".into(), &policies));
    let route = &policies.routes().next().unwrap().name;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    let mut record =
                        Record::open("out".into(), Some(Method::GET), accesses.clone());
                    record.route(route, false);
                    record.answered(200, None);
                }
            });
        }
    });
    check(
        &metrics,
        r#"fieldveil_requests_total{listener="out",route="people",outcome="answered"} 4000"#,
    );
}
