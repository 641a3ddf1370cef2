//! `policies/payments.yaml` at work.

use crate::agent::Agent;
use crate::client::{Answer, Client};
use crate::engine::masked;
use crate::upstream::Echo;
use serde_json::Value;

const CUSTOMER: &str = r#"{
  "name": "Ada", "ssn": "078-05-1120", "email": "ada@example.com", "notes": {"vip": true, "text": ["likes cats"]},
  "cards": [
    {"id": "c1", "brand": "visa", "number": "4111111111111111", "cvc": "123", "expires": "12/30"},
    {"id": 2, "number": 5500005555555559, "cvv": 456}
  ]
}"#;
const SEALED: &str = r#"{
  "name": "Ada", "ssn": <>, "email": <>, "notes": <>,
  "cards": [
    {"id": "c1", "brand": "visa", "number": <>, "cvc": <>, "expires": "12/30"},
    {"id": 2, "number": <>, "cvv": <>}
  ]
}"#;

struct Shop {
    echo: Echo,
    agent: Agent,
}

impl Shop {
    fn open() -> Shop {
        let echo = Echo::start();
        // Behind a reverse listener the host is the upstream's.
        let policy = include_str!("../../policies/payments.yaml");
        let policy = policy.replace("host: api.payments.example", "host: 127.0.0.1");
        let agent = Agent::with_policy(echo.address, &policy);
        Shop { echo, agent }
    }

    fn ask_as(&self, merchant: &str, path: &str, body: &str) -> Answer {
        let client = &mut Client::to(self.agent.address);
        let lines = format!("Content-Type: application/json\r\n{merchant}");
        client.post_as(&lines, path, body.as_bytes())
    }

    fn ask(&self, path: &str, body: &str) -> Answer {
        self.ask_as("X-Merchant: acme\r\nX-Caller: billing\r\n", path, body)
    }

    /// What the API got of the last request.
    fn seen(&self) -> String {
        let got = self.echo.take().pop().expect("a request");
        String::from_utf8(got.body).expect("UTF-8")
    }

    #[track_caller]
    fn refused(&self, answer: &Answer, status: u16, code: &str) {
        assert_eq!((answer.status, &*answer.code()), (status, code));
        assert!(self.echo.take().is_empty(), "the API heard of it");
    }
}

#[test]
fn a_customer_is_sealed_and_comes_back() {
    let shop = Shop::open();
    let answer = shop.ask("/v1/customers/42", CUSTOMER);
    assert_eq!(answer.status, 200);
    let seen = shop.seen();
    assert_eq!(masked(seen.as_bytes()), SEALED);

    // Everything opens but the verification codes, which no rule opens.
    let (sent, got): (Value, Value) = (
        serde_json::from_str(CUSTOMER).expect("JSON"),
        serde_json::from_slice(&answer.body).expect("JSON"),
    );
    for member in ["name", "ssn", "email", "notes"] {
        assert_eq!(got[member], sent[member]);
    }
    for card in 0..2 {
        assert_eq!(got["cards"][card]["number"], sent["cards"][card]["number"]);
    }
    assert_eq!(masked(&answer.body).matches("<>").count(), 2);

    // Tokens that come back at their own place are kept; at another customer's, or another card's, or a code's, they are refused.
    let stored: Value = serde_json::from_str(&seen).expect("JSON");
    let token = |place: &str| {
        stored
            .pointer(place)
            .and_then(Value::as_str)
            .expect("a token")
    };
    let (ssn, number) = (token("/ssn"), token("/cards/0/number"));
    let again = format!(r#"{{"ssn": "{ssn}", "cards": [{{"id": "c1", "number": "{number}"}}]}}"#);
    assert_eq!(shop.ask("/v1/customers/42", &again).status, 200);
    assert_eq!(shop.seen(), again);
    let other_card = format!(r#"{{"cards": [{{"id": "c2", "number": "{number}"}}]}}"#);
    let code = format!(r#"{{"cards": [{{"cvc": "{}"}}]}}"#, token("/cards/0/cvc"));
    for (path, body) in [
        ("/v1/customers/43", &again),
        ("/v1/customers/42", &other_card),
        ("/v1/customers/42", &code),
    ] {
        shop.refused(&shop.ask(path, body), 422, "token-refused");
    }
    let other_merchant = shop.ask_as("X-Merchant: globex\r\n", "/v1/customers/42", &again);
    shop.refused(&other_merchant, 422, "token-refused");
    shop.refused(
        &shop.ask_as("", "/v1/customers/42", CUSTOMER),
        400,
        "tenant-missing",
    );
    let unbound = r#"{"cards": [{"number": "4111111111111111"}]}"#;
    shop.refused(&shop.ask("/v1/customers/42", unbound), 422, "bind");
}

#[test]
fn who_is_not_billing_sees_the_end_of_a_number_and_cannot_write_it_back() {
    let shop = Shop::open();
    for caller in [
        "",
        "X-Caller: support\r\n",
        "X-Caller: billing\r\nX-Caller: billing\r\n",
    ] {
        let lines = format!("X-Merchant: acme\r\n{caller}");
        let answer = shop.ask_as(&lines, "/v1/customers/42", CUSTOMER);
        let got: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(got["cards"][0]["number"], "••••1111");
        assert_eq!(got["cards"][1]["number"], "••••", "a number is no text");
        assert_eq!(masked(shop.seen().as_bytes()), SEALED);
        let back = r#"{"cards": [{"id": "c1", "number": "••••1111"}]}"#;
        let answer = shop.ask_as(&lines, "/v1/customers/42", back);
        shop.refused(&answer, 422, "masked-value");
    }
}

#[test]
fn a_charge_seals_the_sources_that_are_cards() {
    let shop = Shop::open();
    let charge = r#"{"reference": "r-1", "receipt": {"email": "ada@example.com"}, "sources": [
        {"type": "card", "id": "c1", "number": "4111111111111111"}, {"type": "iban", "id": "i1", "number": "DE02"}]}"#;
    let answer = shop.ask("/v1/charges", charge);
    assert_eq!(
        (answer.status, std::str::from_utf8(&answer.body)),
        (200, Ok(charge))
    );
    assert_eq!(
        masked(shop.seen().as_bytes()),
        r#"{"reference": "r-1", "receipt": {"email": <>}, "sources": [
        {"type": "card", "id": "c1", "number": <>}, {"type": "iban", "id": "i1", "number": "DE02"}]}"#
    );
    let two = r#"{"sources": [{"type": "iban", "type": "card", "id": "c1", "number": "4111111111111111"}]}"#;
    shop.refused(&shop.ask("/v1/charges", two), 422, "unevaluable");
}

#[test]
fn events_are_watched_and_other_things_pass() {
    let shop = Shop::open();
    shop.ask("/v1/customers/42", CUSTOMER);
    let sealed = shop.seen();
    for path in ["/v1/events/2026/11", "/v1/other"] {
        let answer = shop.ask(path, &sealed);
        assert_eq!(
            (answer.status, answer.body),
            (200, sealed.clone().into_bytes()),
            "{path}"
        );
        assert_eq!(shop.seen(), sealed);
    }
}
