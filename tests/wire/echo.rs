//! Generated documents through the agent and back, before an upstream that keeps raw bytes.

use crate::agent::Agent;
use crate::client::Client;
use crate::documents::{Luck, SECRETS, document};
use crate::engine::masked;
use crate::spans;
use crate::upstream::Echo;

const DOCUMENTS: usize = 10_000;
const CONNECTIONS: usize = 4;

#[test]
fn ten_thousand_documents_come_back_as_they_were() {
    let echo = Echo::start();
    let agent = Agent::start(echo.address, &["--seal", "$..ssn", "--open", "$..*"]);
    let mut luck = Luck::new("echo");
    let mut lines: Vec<_> = (0..CONNECTIONS)
        .map(|_| Client::to(agent.address))
        .collect();
    let (mut sealed, mut secrets) = (0, 0);
    for number in 0..DOCUMENTS {
        let text = document(&mut luck);
        let answer = lines[number % CONNECTIONS].post("/people", text.as_bytes());
        assert_eq!(answer.status, 200, "{text}: {answer:?}");
        assert!(answer.body == text.as_bytes(), "came back changed: {text}");

        let got = echo.take();
        assert_eq!(got.len(), 1);
        let masked = masked(&got[0].body);
        let is_ssn = |path: &str| path.ends_with("['ssn']");
        assert_eq!(masked, spans::replaced(text.as_bytes(), is_ssn), "{text}");
        let seen = String::from_utf8_lossy(&got[0].body);
        for secret in SECRETS {
            secrets += usize::from(text.contains(secret));
            assert!(
                !seen.contains(secret) && !got[0].head.contains(secret),
                "{text}"
            );
        }
        let values = masked.matches("<>").count();
        sealed += values;
        let result = answer.header("fieldveil-result").expect("a result");
        assert!(
            result.contains(&format!("sealed={values}")),
            "{result}: {text}"
        );
        assert!(
            result.contains(&format!("opened={values}")),
            "{result}: {text}"
        );
    }
    assert!(
        sealed > DOCUMENTS / 2 && secrets > DOCUMENTS / 4,
        "the documents test nothing"
    );
    assert!(
        echo.connections() <= CONNECTIONS * 2,
        "the upstream's connections are reused"
    );
    let log = agent.log();
    for secret in SECRETS {
        assert!(!log.contains(secret), "a value is in the log");
    }
}
