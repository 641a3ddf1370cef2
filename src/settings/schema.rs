//! The settings' language as a JSON Schema (draft 2020-12), for editors: completion, help, defaults and the coarser mistakes.
//!
//! A test holds its words against those that the reader knows, and its defaults against those that the agent goes by. What words mean
//! together (names that refer to something, bounds of amounts) the reader alone can tell.

mod kms;

use super::written::{KEYS_MAX, PLACES_MAX};
use super::{GRACE_DEFAULT, LEASE_DEFAULT, Limits, ROTATE_DEFAULT, Reload};
use crate::marked::amount::{show_duration, show_size};
use crate::policy::NAME_CHARS_MAX;
use crate::policy::schema::mapping;
use crate::token::WRAPPINGS_MAX;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Letters, digits, `.`, `_` and `-`, the first a letter or digit.
const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9._-]*$";
/// A whole number and a unit.
const DURATION: &str = "^(0|[1-9][0-9]*)(ms|s|m|h|d)$";
const SIZE: &str = "^(0|[1-9][0-9]*)(B|KiB|MiB|GiB)$";

fn text() -> Value {
    json!({"type": "string", "minLength": 1})
}

fn name() -> Value {
    json!({"type": "string", "pattern": NAME, "maxLength": NAME_CHARS_MAX})
}

fn or(mut schema: Value, default: impl Into<Value>) -> Value {
    schema["default"] = default.into();
    schema
}

fn period(default: Duration) -> Value {
    json!({"type": "string", "pattern": DURATION, "default": show_duration(default)})
}

fn bytes(default: u64) -> Value {
    json!({"type": "string", "pattern": SIZE, "default": show_size(default)})
}

fn count(max: u64, default: usize) -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": max, "default": default})
}

fn switch(default: bool) -> Value {
    json!({"type": "boolean", "default": default})
}

fn words(words: &[&str]) -> Value {
    json!({"enum": words})
}

/// Things by names of one's own choice.
fn named(what: &str, max: usize, schema: Value) -> Value {
    json!({
        "type": "object",
        "description": what,
        "maxProperties": max,
        "propertyNames": name(),
        "additionalProperties": schema,
    })
}

fn reference(to: &str) -> Value {
    json!({"$ref": format!("#/$defs/{to}")})
}

/// Exactly one of some words of a mapping.
fn one_of(words: &[&str]) -> Value {
    let each = words.iter().map(|word| json!({"required": [word]}));
    each.collect()
}

/// The schema of a settings file.
pub fn settings() -> Value {
    let (limits, reload) = (limits(), Reload::default());
    let policy = mapping(
        "What is enforced",
        &[
            ("dir!", "All *.yaml files below it", text()),
            (
                "allow_weaker",
                "A changed policy may protect less than the one in force",
                switch(reload.allow_weaker),
            ),
            (
                "look_every",
                "How often the files are looked at for changes",
                period(reload.look_every),
            ),
        ],
    );
    let admin = mapping(
        "The admin API",
        &[
            ("bind!", "ADDRESS:PORT", text()),
            ("token_file", "A file with the bearer token", text()),
        ],
    );
    let probes = mapping(
        "/livez, /readyz and /metrics without a token",
        &[("bind!", "ADDRESS:PORT", text())],
    );
    let redirect = mapping(
        "What the rules of `fieldveil redirect` know the agent's own connections by",
        &[(
            "mark!",
            "Of sockets to upstreams (SO_MARK), as in `redirect up --mark`",
            json!({"type": "integer", "minimum": 1, "maximum": u32::MAX}),
        )],
    );
    let log = mapping(
        "The agent's own log",
        &[
            (
                "format",
                "The shape of a line",
                or(words(&["text", "json"]), "text"),
            ),
            (
                "level",
                "The least weight that is logged",
                or(words(&["error", "warn", "info", "debug", "trace"]), "info"),
            ),
        ],
    );
    let listeners =
        json!({"type": "array", "maxItems": PLACES_MAX, "items": reference("listener")});
    let mut whole = mapping(
        "Where one agent stands",
        &[
            (
                "environment",
                "Selects an environment of the policies",
                name(),
            ),
            ("policy", "What is enforced", policy),
            ("listeners", "Where applications connect", listeners),
            (
                "upstreams",
                "Services behind the agent",
                named("Services by name", PLACES_MAX, reference("upstream")),
            ),
            (
                "kms",
                "Where keys are kept",
                named("KMSs by name", PLACES_MAX, any_of(KMS_TYPES)),
            ),
            (
                "keys",
                "What is behind the policies' key names",
                named("Keys by name", KEYS_MAX, reference("key")),
            ),
            (
                "store",
                "Where wrapped data keys are kept",
                any_of(STORE_TYPES),
            ),
            (
                "ca",
                "The agent's own CA, by which it stands in for hosts that a policy names",
                own_ca(),
            ),
            (
                "redirect",
                "By what redirection leaves the agent's connections alone",
                redirect,
            ),
            ("admin", "The admin API", admin),
            ("probes", "Probes and metrics", probes),
            ("limits", "What the agent takes at most", limits),
            ("log", "The agent's own log", log),
        ],
    );
    whole["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    whole["title"] = json!("fieldveil settings");
    whole["$defs"] = Value::Object(definitions());
    whole
}

const KMS_TYPES: &[&str] = &[
    "kms-keyring",
    "kms-transit",
    "kms-aws",
    "kms-gcp",
    "kms-azure",
    "kms-pkcs11",
];
const STORE_TYPES: &[&str] = &["store-none", "store-embedded", "store-postgres"];

/// Mappings that their `type` tells apart.
fn any_of(definitions: &[&str]) -> Value {
    let each: Vec<Value> = definitions.iter().map(|to| reference(to)).collect();
    json!({"anyOf": each})
}

fn definitions() -> Map<String, Value> {
    let mut all = Map::new();
    let mut define = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    define("listener", listener());
    define("upstream", upstream());
    define("key", key());
    define("kms-keyring", kms::keyring());
    define("kms-transit", kms::transit());
    define("kms-aws", kms::aws());
    define("kms-gcp", kms::gcp());
    define("kms-azure", kms::azure());
    define("kms-pkcs11", kms::pkcs11());
    let mut none = typed("none", "Wrapped data keys travel in the tokens", &[]);
    none["properties"]["type"]["default"] = json!("none");
    define("store-none", none);
    let deadline = || {
        (
            "deadline",
            "For one call to the store",
            period(super::store::DEADLINE_DEFAULT),
        )
    };
    let embedded = [("file!", "The store's file", text()), deadline()];
    define(
        "store-embedded",
        typed(
            "embedded",
            "A file, for the agents of one machine",
            &embedded,
        ),
    );
    let tls = mapping(
        "TLS with the database",
        &[
            (
                "ca",
                "`system`, or a file of PEM certificates",
                or(text(), "system"),
            ),
            (
                "required",
                "TLS is spoken, and the certificate checked; by default wherever the database is not on this machine",
                json!({"type": "boolean"}),
            ),
        ],
    );
    let postgres = [
        ("url_file!", "A file with the database's URL", text()),
        ("tls", "TLS with the database", tls),
        deadline(),
    ];
    define(
        "store-postgres",
        typed("postgres", "PostgreSQL, for a fleet", &postgres),
    );
    all
}

/// A mapping that its `type` tells from others.
fn typed(kind: &str, what: &str, words: &[(&str, &str, Value)]) -> Value {
    let mut all = vec![("type!", "Which it is", json!({"const": kind}))];
    all.extend(words.iter().cloned());
    mapping(what, &all)
}

fn listener() -> Value {
    let tls = mapping(
        "TLS on every connection",
        &[
            ("cert!", "The certificate chain, PEM", text()),
            ("key!", "Its key, PEM", text()),
            (
                "client_ca",
                "Certificates of the authorities whose clients may show a certificate, PEM",
                text(),
            ),
            (
                "client_cert",
                "With `client_ca`: whether a client without one is turned away",
                or(words(&["required", "optional"]), "required"),
            ),
        ],
    );
    let hosts = json!({"type": "object", "minProperties": 1, "additionalProperties": text()});
    let mut listener = mapping(
        "Where applications connect",
        &[
            ("name!", "In records and metrics; unique", name()),
            (
                "mode",
                "What arrives goes to the listener's upstream, or, as to a proxy, wherever it says",
                or(words(&["reverse", "forward", "transparent"]), "reverse"),
            ),
            ("bind!", "ADDRESS:PORT or unix:PATH", text()),
            (
                "socket_mode",
                "Permissions of a Unix socket, three octal digits",
                json!({"type": ["string", "integer"], "default": "0600"}),
            ),
            ("upstream", "The upstream that everything goes to", text()),
            (
                "upstreams",
                "Names of upstreams by the request's host",
                hosts,
            ),
            ("tls", "TLS on every connection", tls),
            ("http2", "HTTP/2 is spoken, too", switch(true)),
            (
                "uncovered",
                "`mode: forward` or `transparent`: hosts that no policy names",
                or(words(&["tunnel", "refuse"]), "tunnel"),
            ),
            (
                "silent",
                "`mode: transparent`: connections on which the server speaks first",
                or(words(&["refuse", "tunnel"]), "refuse"),
            ),
            (
                "credentials_file",
                "`mode: forward`: a file with user:password lines",
                text(),
            ),
            (
                "loopback_upstreams",
                "`mode: forward` or `transparent`: whether this machine's own addresses may be reached",
                switch(false),
            ),
        ],
    );
    let forward =
        json!({"required": ["mode"], "properties": {"mode": {"enum": ["forward", "transparent"]}}});
    listener["oneOf"] = one_of(&["upstream", "upstreams"]);
    if let Some(ways) = listener["oneOf"].as_array_mut() {
        ways.push(forward);
    }
    listener
}

fn own_ca() -> Value {
    let names = json!({"type": "array", "items": text(), "minItems": 1, "maxItems": 256});
    let mut ca = mapping(
        "The agent's own CA",
        &[
            ("dir", "Where `ca.pem` and `ca.key` are", text()),
            ("cert", "The certificate, PEM, instead", text()),
            ("key", "Its key, PEM", text()),
            (
                "names",
                "Domains and addresses that it may vouch for; without: every host",
                names,
            ),
        ],
    );
    ca["oneOf"] = json!([{"required": ["dir"]}, {"required": ["cert", "key"]}]);
    ca
}

/// How a service's certificate is checked, and which one it is shown.
fn client_tls() -> Value {
    mapping(
        "TLS with it",
        &[
            (
                "ca",
                "`system`, or a file of PEM certificates to trust instead",
                or(text(), "system"),
            ),
            (
                "cert",
                "Shown to one that asks for a client certificate, PEM",
                text(),
            ),
            ("key", "The certificate's key, PEM", text()),
        ],
    )
}

fn upstream() -> Value {
    mapping(
        "A service behind the agent",
        &[
            ("url!", "http://HOST[:PORT] or https://HOST[:PORT]", text()),
            ("tls", "TLS with it", client_tls()),
            (
                "http",
                "Versions of HTTP",
                json!({"enum": ["auto", "1.1", "2", 1.1, 2], "default": "auto"}),
            ),
            (
                "connect",
                "To the end of the TLS handshake",
                period(super::checked::CONNECT_DEFAULT),
            ),
            (
                "response",
                "From the request's end to the response's head",
                period(super::checked::RESPONSE_DEFAULT),
            ),
            (
                "idle",
                "How long an unused connection is kept: less long than the server keeps it",
                json!({"type": "string", "pattern": DURATION}),
            ),
        ],
    )
}

fn key() -> Value {
    let keks = |min: usize, max: usize| json!({"type": "array", "minItems": min, "maxItems": max, "items": text()});
    mapping(
        "What is behind a key name of the policies",
        &[
            (
                "seal_with!",
                "KMS/KEK: what wraps new data keys",
                keks(1, WRAPPINGS_MAX),
            ),
            (
                "need",
                "How many of them have to wrap a fresh data key",
                or(words(&["any", "all"]), "any"),
            ),
            (
                "open_also",
                "KEKs whose tokens open, too",
                keks(0, PLACES_MAX),
            ),
            (
                "lease",
                "How long a plaintext data key may stay without the KMS agreeing again",
                period(LEASE_DEFAULT),
            ),
            (
                "grace",
                "How much longer while the KMS cannot be reached",
                period(GRACE_DEFAULT),
            ),
            (
                "rotate",
                "How long a data key seals",
                period(ROTATE_DEFAULT),
            ),
        ],
    )
}

fn limits() -> Value {
    let limits = Limits::default();
    mapping(
        "What the agent takes at most",
        &[
            (
                "held_body",
                "Bytes of a matched body that are held",
                bytes(limits.held_body as u64),
            ),
            (
                "held_total",
                "Memory for all bodies that are held at a time",
                bytes(limits.held_total as u64),
            ),
            (
                "record",
                "Bytes of one record of a stream: a line, an event",
                bytes(limits.record as u64),
            ),
            (
                "window",
                "Bytes that a JSON document over held_body keeps undecided while it is rewritten in pieces; 0B: it is refused",
                bytes(limits.window as u64),
            ),
            (
                "keys_per_body",
                "Data keys that one body may ask the KMS for",
                count(4096, limits.keys_per_body),
            ),
            (
                "new_tenants",
                "Tenants without a data key that may get one, per second and key",
                count(100_000, limits.new_tenants),
            ),
            (
                "in_flight",
                "Requests at once, of each listener",
                count(1_000_000, limits.in_flight),
            ),
            (
                "connections",
                "Connections at once, of each listener",
                count(1_000_000, limits.connections),
            ),
            (
                "streams",
                "Requests at once on one connection of HTTP/2",
                count(1000, limits.streams as usize),
            ),
            (
                "drain",
                "How long requests in flight may go on after SIGTERM",
                period(limits.drain),
            ),
            (
                "head_timeout",
                "To the complete head of a request",
                period(limits.head_timeout),
            ),
            (
                "idle_timeout",
                "A connection without a request",
                period(limits.idle_timeout),
            ),
            (
                "body_timeout",
                "For the next byte of a request's body",
                period(limits.body_timeout),
            ),
            (
                "body_rate",
                "Bytes in a second that a request's body must come in",
                bytes(limits.body_rate),
            ),
            (
                "write_timeout",
                "For the client to take the next byte of an answer",
                period(limits.write_timeout),
            ),
            (
                "answer_timeout",
                "For the next piece of an answer that is passed on as it comes",
                period(limits.answer_timeout),
            ),
            (
                "exchange_timeout",
                "From a request's head to its answer's last byte",
                period(limits.exchange_timeout),
            ),
            (
                "tunnel_idle",
                "A tunnel in which nothing moves for so long is closed",
                period(limits.tunnel_idle),
            ),
            (
                "loopback_upstreams",
                "Upstreams may be at loopback addresses",
                switch(limits.loopback_upstreams),
            ),
        ],
    )
}
