//! The whole agent, in process and as the program: port 0, real sockets, real files, real signals.

#[path = "agent/demo.rs"]
mod demo;
#[path = "agent/doctor.rs"]
mod doctor;
#[path = "agent/ends.rs"]
mod ends;
#[path = "agent/faces.rs"]
mod faces;
#[path = "agent/filters.rs"]
mod filters;
#[path = "agent/forward.rs"]
mod forward;
#[path = "agent/harness.rs"]
mod harness;
#[path = "agent/kms.rs"]
mod kms;
#[path = "agent/refused.rs"]
mod refused;
#[path = "agent/reload.rs"]
mod reload;
#[path = "agent/started.rs"]
mod started;
#[path = "agent/stores.rs"]
mod stores;
#[path = "agent/traffic.rs"]
mod traffic;
