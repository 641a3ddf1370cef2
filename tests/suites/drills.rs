//! Drills: the agent itself under load, before real KMSs and a real database that stop, refuse and vanish.
//!
//! `FIELDVEIL_BAO`, `FIELDVEIL_LOCALSTACK` and `FIELDVEIL_MOTO` name programs as for the suites of the KMSs; PostgreSQL is Debian's.
//! `FIELDVEIL_DRILL_SECONDS` (10) is how long an outage lasts, `FIELDVEIL_DRILL_DATA_KEYS` (500) how many data keys move to another KMS.

#[path = "../support/bao.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod bao;
#[path = "../support/client.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod client;
#[path = "../support/emulator.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod emulator;
#[path = "../drills/fleet.rs"]
mod fleet;
#[path = "../agent/harness.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod harness;
#[path = "../drills/load.rs"]
mod load;
#[path = "../drills/migration.rs"]
mod migration;
#[path = "../drills/openbao.rs"]
mod openbao;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/relay.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod relay;
#[path = "../drills/site.rs"]
mod site;
#[path = "../drills/two_kms.rs"]
mod two_kms;
