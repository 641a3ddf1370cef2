//! The whole road in process, on port 0, with real sockets: raw clients, raw upstreams.

#[path = "road/again.rs"]
mod again;
#[path = "road/callers.rs"]
mod callers;
#[path = "road/coded.rs"]
mod coded;
#[path = "road/edges.rs"]
mod edges;
#[path = "road/floods.rs"]
mod floods;
#[path = "road/forward.rs"]
mod forward;
#[path = "road/frames.rs"]
mod frames;
#[path = "road/framing.rs"]
mod framing;
#[path = "road/gathered.rs"]
mod gathered;
#[path = "road/harness.rs"]
mod harness;
#[path = "heads/mod.rs"]
mod heads;
#[path = "road/hosts.rs"]
mod hosts;
#[path = "road/lies.rs"]
mod lies;
#[path = "road/life.rs"]
mod life;
#[path = "road/limits.rs"]
mod limits;
#[path = "road/logs.rs"]
mod logs;
#[path = "road/multiplexed.rs"]
mod multiplexed;
#[path = "road/pieces.rs"]
mod pieces;
#[path = "road/records.rs"]
mod records;
#[path = "road/refused.rs"]
mod refused;
#[path = "road/rehearsed.rs"]
mod rehearsed;
#[path = "road/resets.rs"]
mod resets;
#[path = "road/rewriting.rs"]
mod rewriting;
#[path = "road/selectors.rs"]
mod selectors;
#[path = "road/signed.rs"]
mod signed;
#[path = "road/splits.rs"]
mod splits;
#[path = "road/streams.rs"]
mod streams;
#[path = "road/tls.rs"]
mod tls;
#[path = "road/upgrades.rs"]
mod upgrades;
#[path = "road/words.rs"]
mod words;
