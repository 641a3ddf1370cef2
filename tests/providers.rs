//! Every KMS provider against the same cases, and what each makes of every answer: against servers of the tests' own, so that
//! plain `cargo test` needs nothing else. The real servers are in `tests/suites/`.

mod providers {
    pub mod answers;
    #[cfg(feature = "aws")]
    mod aws_chain;
    pub mod azure;
    mod faults;
    pub mod gcp;
    pub mod login;
    pub mod program;
    pub mod stub;
    pub mod suite;
    pub mod talkers;
    mod wire;
}

#[path = "support/relay.rs"]
mod relay;
