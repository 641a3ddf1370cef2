//! The row *unreachable* of docs/kms.md, in every way that a network has to be it: each provider behind the relay, under the key room that
//! gives its calls their deadline.

use super::stub::{Say, Stub, within};
use super::suite::{DEK, scope};
use super::talkers::talkers;
use crate::relay::{Relay, Way};
use fieldveil::arena::Arena;
use fieldveil::dek::{Needs, OpenNeed, SealNeed, Suite, Unopened, schedule};
use fieldveil::keys::{Binding, Failure, KeySettings, Keys, Need, Settings, TERMS};
use fieldveil::kms::{self, Kms, os_random};
use fieldveil::token::{Record, kek_id};
use std::sync::Arc;
use std::time::Duration;

/// Longer than any call lasts.
const LONG: Duration = Duration::from_secs(600);

/// Nobody is reached: ways in which a call ends without an answer, or never.
const FAULTS: [Way; 5] = [
    Way::Cuts,
    Way::Blackholes,
    Way::Delays(LONG),
    Way::Drips(Duration::from_millis(100)),
    Way::Garbles,
];

fn room(kms: &Arc<dyn Kms>, kek: &str, deadline: Duration) -> Keys {
    let binding = Binding {
        kms: Arc::clone(kms),
        kek: kek.into(),
    };
    let key = KeySettings {
        name: "cards".into(),
        seal_with: vec![binding],
        need: Need::Any,
        open_also: Vec::new(),
        terms: TERMS,
    };
    let mut settings = Settings::new(vec![key], Arena::new().unwrap(), os_random());
    settings.deadline = deadline;
    Keys::new(settings).unwrap()
}

fn sealing() -> Needs {
    let need = SealNeed {
        scope: scope("cards", None),
        suite: Suite::Xaes256Gcm,
        values: 1,
    };
    Needs {
        sealing: vec![need],
        opening: Vec::new(),
    }
}

/// A record of `DEK` under this KEK.
fn opening(kms: &dyn Kms, kek: &str, blob: &[u8]) -> Needs {
    let need = OpenNeed {
        scope: scope("cards", None),
        kid: schedule(&DEK, &mut [0; 96]),
        record: Some(Record::build(&[(kek_id(&kms.uri(kek)), blob)]).unwrap()),
    };
    Needs {
        sealing: Vec::new(),
        opening: vec![need],
    }
}

/// Whether there is a key to seal with; whether the record opens.
async fn both(keys: &Keys, opening: &Needs) -> (Result<(), Failure>, Result<(), Unopened>) {
    let sealing = sealing();
    let (sealed, opened) = tokio::join!(keys.fetch(&sealing), keys.fetch(opening));
    let opened = opened.unwrap().opening.remove(0);
    (
        sealed.map(|_| ()).map_err(|error| error.failure),
        opened.map(|_| ()),
    )
}

/// Every fault of every provider at once: each waits for its own deadline, and for its own server's return.
#[tokio::test]
async fn in_every_way_it_is_unreachable_and_comes_back() {
    let count = talkers("http://127.0.0.1:1").len();
    let mut cases = tokio::task::JoinSet::new();
    for fault in FAULTS {
        for at in 0..count {
            cases.spawn(async move {
                let stub = Stub::new(|_| Say::Silence).await;
                let server = stub.url.trim_start_matches("http://").parse().unwrap();
                let relay = Relay::to(server);
                let talker = talkers(&format!("http://{}", relay.address)).remove(at);
                stub.tell(talker.well);
                let case = format!("{} {fault:?}", talker.name);
                let keys = room(&talker.kms, talker.kek, Duration::from_millis(500));
                let record = opening(&*talker.kms, talker.kek, &talker.blob);

                relay.turn(fault);
                let gone = both(&keys, &record).await;
                let unreachable = Failure::Kms(kms::Failure::Unreachable);
                let expected = (Err(unreachable), Err(Unopened::Unreachable));
                assert_eq!(gone, expected, "{case}");
                assert!(relay.connections() > 0, "{case}");

                // The same room, without a word from anybody.
                relay.turn(Way::Passes);
                let back = within(async {
                    while both(&keys, &record).await != (Ok(()), Ok(())) {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                });
                assert!(back.await.is_some(), "{case}: it does not come back");

                // Warm, nothing of it is noticed, and nobody is called.
                relay.turn(fault);
                let (before, asked) = (keys.snapshot(), stub.asked().len());
                assert_eq!(both(&keys, &record).await, (Ok(()), Ok(())), "{case}");
                let after = keys.snapshot();
                assert_eq!(after.sealing_misses, before.sealing_misses, "{case}");
                assert_eq!(after.opening_misses, before.opening_misses, "{case}");
                assert_eq!(stub.asked().len(), asked, "{case}");
                keys.close().await;
            });
        }
    }
    while let Some(case) = cases.join_next().await {
        case.unwrap();
    }
}

/// Late is not gone: within the deadline, an answer is one, however it trickles in.
#[tokio::test]
async fn slow_within_the_deadline_is_an_answer() {
    for slow in [
        Way::Delays(Duration::from_millis(30)),
        Way::Drips(Duration::from_millis(1)),
    ] {
        let stub = Stub::new(|_| Say::Silence).await;
        let relay = Relay::to(stub.url.trim_start_matches("http://").parse().unwrap());
        relay.turn(slow);
        for talker in talkers(&format!("http://{}", relay.address)) {
            stub.tell(talker.well);
            let keys = room(&talker.kms, talker.kek, LONG);
            let record = opening(&*talker.kms, talker.kek, &talker.blob);
            let answered = both(&keys, &record).await;
            assert_eq!(answered, (Ok(()), Ok(())), "{} {slow:?}", talker.name);
            keys.close().await;
        }
    }
}
