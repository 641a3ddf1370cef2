//! fieldveil seals classified fields in an application's HTTP traffic on the way out, and opens them on the way back.
//!
//! The application talks to a listener on its own machine; the agent rewrites request and response bodies by a policy of
//! JSONPaths and forwards them. A sealed value is a *token* (FORMAT.md): a string in place of the value, which anyone may
//! store and nobody can read who may not ask the KMS for the key. Outside of the replaced values not a byte changes.
//!
//! # What happens to a request
//!
//! ```text
//! listener (and its door) -> proxy -> policy.route
//!                              |-> transform::plan(rules, body)      which values, which keys; pure
//!                              |-> keys.fetch(plan.needs()).await    the only wait for keys
//!                              |-> plan.apply(body, &ring)           the body with spans replaced; pure
//!                              '-> upstream, and the same three steps for the answer
//! ```
//!
//! Read [`proxy`] for the road, [`transform`] for the engine, [`seal`] for the cryptography and [`keys`] for where keys come
//! from and how long they stay: four modules, and you know the product. ARCHITECTURE.md has the plan of the house.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | KEK | a key-encryption key; it never leaves its KMS |
//! | DEK | a data-encryption key: 32 random bytes, in locked memory for the length of a lease |
//! | record | a DEK as the KMS wrapped it; it travels in the token |
//! | kid | a DEK's id, derived from it, so that a wrong key is known at once |
//! | class | a kind of data (`ssn`, `pan`); decides the key, and is bound to every token of it |
//! | context | what a token is bound to: class, tenant, and the values that a rule binds; authenticated, not hidden |
//! | lease, grace | how long a DEK may stay without the KMS agreeing again; how much longer when it cannot be reached |
//! | place | where a rule's path selects a value; *stray* is a token where no rule looks for one |
//! | ring | the keys for one body, index by index as its plan asked for them |
//!
//! # Reading order, top to bottom
//!
//! Imports go downward only, and a test keeps it so.

// The roof: commands, settings, and the one room that wires the others together.
pub mod app;
pub mod backfill;
pub mod cli;
pub mod redirect;
pub mod rehearsal;
pub mod settings;

// The edges: where connections and operators come in.
pub mod admin;
pub mod intercept;
pub mod listener;

// The road.
pub mod body;
pub mod error;
pub mod proxy;
pub mod upstream;

// Beside it: what is recorded and counted.
pub mod audit;
pub mod metrics;
pub mod telemetry;

// The key room.
pub mod arena;
pub mod entropy;
pub mod keys;
pub mod kms;
pub mod store;
pub mod tls;

// The ground floor: pure and synchronous; no sockets, files or clocks.
pub mod context;
pub mod dek;
pub mod diagnostic;
pub mod marked;
pub mod mask;
pub mod path;
pub mod policy;
pub mod scan;
pub mod seal;
pub mod token;
pub mod transform;
