//! The agent itself, on sockets: the binary with flags or a policy, or the whole of it in process.

#[path = "support/agent.rs"]
mod agent;
#[path = "wire/bad_input.rs"]
mod bad_input;
#[path = "support/client.rs"]
mod client;
#[path = "support/documents.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod documents;
#[path = "wire/echo.rs"]
mod echo;
#[path = "support/engine.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod engine;
#[path = "support/large.rs"]
mod large;
#[path = "wire/large.rs"]
mod large_arrays;
#[path = "wire/payments.rs"]
mod payments;
#[path = "support/ring.rs"]
mod ring;
#[path = "support/spans.rs"]
mod spans;
#[path = "support/upstream.rs"]
mod upstream;
