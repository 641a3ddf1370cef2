//! The settings' `limits`, word by word.

use super::written::{millis, period, seconds};
use crate::diagnostic::quoted;
use crate::marked::amount::{show_size, size};
use crate::marked::{Findings, Node};
use std::ops::RangeInclusive;
use std::time::Duration;

#[derive(Default)]
pub(super) struct LimitWords {
    pub held_body: Option<u64>,
    pub held_total: Option<u64>,
    pub record: Option<u64>,
    pub window: Option<u64>,
    pub keys_per_body: Option<u64>,
    pub new_tenants: Option<u64>,
    pub in_flight: Option<u64>,
    pub connections: Option<u64>,
    pub streams: Option<u64>,
    pub drain: Option<Duration>,
    pub head_timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    pub body_timeout: Option<Duration>,
    pub body_rate: Option<u64>,
    pub write_timeout: Option<Duration>,
    pub answer_timeout: Option<Duration>,
    pub exchange_timeout: Option<Duration>,
    pub tunnel_idle: Option<Duration>,
    pub loopback_upstreams: Option<bool>,
}

pub(super) fn limits(node: &Node, findings: &mut Findings<'_>) -> LimitWords {
    let Some(mut fields) = findings.fields(node, "`limits`") else {
        return LimitWords::default();
    };
    let mut number =
        |word: &'static str, range: RangeInclusive<u64>, findings: &mut Findings<'_>| {
            let node = fields.take(word)?;
            findings.integer(node, &format!("`{word}`"), range)
        };
    let keys_per_body = number("keys_per_body", 1..=4096, findings);
    let new_tenants = number("new_tenants", 1..=100_000, findings);
    let in_flight = number("in_flight", 1..=1_000_000, findings);
    let connections = number("connections", 1..=1_000_000, findings);
    let streams = number("streams", 1..=1000, findings);
    let mut time =
        |word: &'static str, range: RangeInclusive<Duration>, findings: &mut Findings<'_>| {
            let node = fields.take(word)?;
            period(node, &format!("`{word}`"), range, findings)
        };
    let drain = time("drain", seconds(0, 3600), findings);
    let head_timeout = time("head_timeout", millis(100, 300), findings);
    let idle_timeout = time("idle_timeout", seconds(1, 3600), findings);
    let body_timeout = time("body_timeout", seconds(1, 3600), findings);
    let write_timeout = time("write_timeout", seconds(1, 3600), findings);
    let answer_timeout = time("answer_timeout", seconds(1, 3600), findings);
    let exchange_timeout = time("exchange_timeout", seconds(1, 24 * 3600), findings);
    let tunnel_idle = time("tunnel_idle", seconds(1, 24 * 3600), findings);
    let body_rate = fields
        .take("body_rate")
        .and_then(|node| bytes(node, "`body_rate`", 1..=1 << 30, findings));
    let held_body = fields
        .take("held_body")
        .and_then(|node| bytes(node, "`held_body`", 1 << 10..=1 << 30, findings));
    let window = fields
        .take("window")
        .and_then(|node| window(node, findings));
    let held_total = fields
        .take("held_total")
        .and_then(|node| bytes(node, "`held_total`", 1 << 20..=1 << 40, findings));
    let record = fields
        .take("record")
        .and_then(|node| bytes(node, "`record`", 1 << 10..=1 << 30, findings));
    let loopback = fields.take("loopback_upstreams");
    let loopback_upstreams =
        loopback.and_then(|node| findings.boolean(node, "`loopback_upstreams`"));
    fields.finish(findings);
    LimitWords {
        held_body,
        held_total,
        record,
        window,
        keys_per_body,
        new_tenants,
        in_flight,
        connections,
        streams,
        drain,
        head_timeout,
        idle_timeout,
        body_timeout,
        body_rate,
        write_timeout,
        answer_timeout,
        exchange_timeout,
        tunnel_idle,
        loopback_upstreams,
    }
}

/// `0B`, or a size that the longest token fits in.
fn window(node: &Node, findings: &mut Findings<'_>) -> Option<u64> {
    match size(&findings.text(node, "`window`")?.value) {
        Some(0) => Some(0),
        _ => bytes(node, "`window`, unless 0B,", 2 << 20..=64 << 20, findings),
    }
}

fn bytes(
    node: &Node,
    what: &str,
    range: RangeInclusive<u64>,
    findings: &mut Findings<'_>,
) -> Option<u64> {
    let text = findings.text(node, what)?;
    if let Some(found) = size(&text.value).filter(|found| range.contains(found)) {
        return Some(found);
    }
    let bounds = format!(
        "from {} to {}",
        show_size(*range.start()),
        show_size(*range.end())
    );
    let message = format!("{what} is a size {bounds}; {} is not", quoted(&text.value));
    findings.at_with_hint(
        "bad-size",
        text.span,
        message,
        "a whole number and one of B, KiB, MiB, GiB, as in 8MiB",
    );
    None
}
