//! The one table of metrics: what is registered, and what `docs/metrics.md` shows.

/// One family of metrics as it is exposed.
#[derive(Debug)]
pub struct Row {
    /// With its suffixes, as a query names it (a histogram's without `_bucket`).
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Names of its labels, in the order in which they are given.
    pub labels: &'static [&'static str],
    /// What it counts, without a full stop.
    pub help: &'static str,
}

/// A family's type in OpenMetrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// A state of affairs.
    Gauge,
    /// Durations in buckets.
    Histogram,
    /// Always 1; the labels tell.
    Info,
}

impl Kind {
    /// The word of the format.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        }
    }
}

macro_rules! rows {
    ($($row:ident $kind:ident $name:literal [$($label:literal),*] $help:literal)*) => {
        $(
            #[doc = $help]
            pub const $row: Row = Row { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*
        /// All of them, in the order of the page.
        pub const TABLE: &[Row] = &[$($row),*];
    };
}

rows! {
    REQUESTS Counter "fieldveil_requests_total" ["listener", "route", "outcome"]
        "Requests by how they ended: `answered` by the upstream, `aborted`, or the code that refused them (errors.md); `route` is empty where no route took it"
    DURATION Histogram "fieldveil_request_duration_seconds" ["listener"]
        "From a request's head to the release of its answer's head"
    ADDED Histogram "fieldveil_request_added_seconds" ["listener"]
        "What the agent added to that: without the waits for the upstream and for the client's own bytes, with those for keys"
    UNMATCHED Counter "fieldveil_unmatched_requests_total" ["listener"]
        "Requests to a host that a policy names, which no route took (`unmatched: report`)"
    OBSERVED Counter "fieldveil_observed_refusals_total" ["listener", "route", "code"]
        "Requests that an observing route would have refused"
    CUT_OFF Counter "fieldveil_answers_cut_off_total" ["listener", "route", "reason"]
        "Answers that streamed and did not come to their end: `aborted` by the client, or the code of what ended them"
    CONNECTIONS Gauge "fieldveil_connections" ["listener"]
        "Open connections of the application"
    IN_FLIGHT Gauge "fieldveil_requests_in_flight" ["listener"]
        "Requests whose answer is not complete"
    ACCEPT_ERRORS Counter "fieldveil_accept_errors_total" ["listener"]
        "Times that the system gave the listener no connection, as when no more files may be opened; after each it pauses, for 10 ms to 1 s"

    PASSED Counter "fieldveil_tunnel_connections_total" ["listener", "outcome"]
        "Connections behind a CONNECT, an upgrade or a redirection by what became of them: `tunnelled` (counted at the end), `intercepted`, or why neither (forward.md)"
    PASSED_BYTES Counter "fieldveil_tunnel_bytes_total" ["listener", "direction"]
        "Bytes of tunnels that have ended, unseen; `direction` is `sent` (by the client) or `received`"

    FIELDS Counter "fieldveil_fields_total" ["class", "operation", "mode"]
        "Values by class and what was done: `sealed`, `kept` (sealed already), `opened`, `masked` (opened, and shown in part); `mode` is `observe` where a route only counts what it would do"
    LEFT Counter "fieldveil_tokens_left_total" ["route", "reason"]
        "Tokens at opening places that stayed sealed"
    STRAYS Counter "fieldveil_stray_tokens_total" ["route"]
        "Tokens where no rule seals or opens"
    UNCLAIMED Counter "fieldveil_unclaimed_values_total" ["route"]
        "Scalars that no rule names"
    PLAINTEXT Counter "fieldveil_plaintext_values_total" ["route"]
        "Values at the opening place of a named class that are no token"
    NEAR_MISSES Counter "fieldveil_near_misses_total" ["route"]
        "Members, fields, parameters and header fields whose names are those of a sealing rule but for their spelling"
    NULLED Counter "fieldveil_tokens_nulled_total" ["route"]
        "Of the tokens that stayed sealed, those that `null` stands for in the answer (`unopened: null`)"
    UNREAD Counter "fieldveil_unread_bodies_total" ["route", "reason"]
        "Bodies that passed sealed, because they could not be read"
    UNREAD_RECORDS Counter "fieldveil_unread_records_total" ["route", "reason"]
        "Records of streams (lines, events) that passed sealed, because they could not be read"

    HITS Counter "fieldveil_key_cache_hits_total" ["use"]
        "Data keys that were in memory when a body needed them; `use` is `seal` or `open`"
    MISSES Counter "fieldveil_key_cache_misses_total" ["use"]
        "Data keys that were not: the body waited for the KMS, or was refused"
    DATA_KEYS Gauge "fieldveil_data_keys" ["use"]
        "Plaintext data keys in memory"
    SURVIVAL Gauge "fieldveil_outage_survival_seconds" ["use"]
        "How long the first of the data keys in use lasts if no KMS answers from now on; absent while none is in use"
    MINTED Counter "fieldveil_data_keys_minted_total" []
        "Fresh data keys made"
    UNSTORED Counter "fieldveil_data_keys_unstored_total" []
        "Those of them that travel in tokens because the store could not be written"
    INCOMPLETE Gauge "fieldveil_data_keys_incomplete" []
        "Data keys that seal and that not all KEKs in `seal_with` have wrapped: what they seal now hangs on fewer KMSs"
    NEWCOMERS_REFUSED Counter "fieldveil_new_tenants_refused_total" []
        "Requests refused with `new-tenants`: more tenants without a data key came at a time than `limits.new_tenants` allows"
    RENEWED Counter "fieldveil_leases_renewed_total" []
        "Leases that the KMS extended"
    NOT_RENEWED Counter "fieldveil_leases_not_renewed_total" []
        "Attempts to extend a lease that failed"
    PURGED Counter "fieldveil_data_keys_purged_total" []
        "Data keys let go of before their time: the KMS said no, or an operator did"
    REVOKED Counter "fieldveil_data_keys_revoked_total" ["key", "reason"]
        "Of those, the ones that the KMS refused while they were in use"
    REFUSED_RECORDS Counter "fieldveil_records_refused_total" ["reason"]
        "Records in tokens that no KMS was asked about: `foreign` (of no KEK of the key), `over-budget` (too many in one body), `remembered` (refused a moment ago)"
    MEMORY_LOCKED Gauge "fieldveil_key_memory_locked" []
        "1: all key memory is locked, left out of core dumps and wiped on fork; 0: some could not be (RLIMIT_MEMLOCK)"
    KMS_CALLS Counter "fieldveil_kms_calls_total" ["kms", "verb", "outcome"]
        "Calls to a KMS: `wrap` or `unwrap`; `ok` or the kind of failure"
    KMS_DURATION Histogram "fieldveil_kms_call_duration_seconds" ["kms", "verb"]
        "How long they took"
    KMS_LEFT_ALONE Gauge "fieldveil_kms_left_alone" ["kms"]
        "1: the last calls to this KMS reached nobody, and no further ones are made but about one a second that finds out whether it is back"
    KMS_WITHHELD Counter "fieldveil_kms_calls_withheld_total" ["kms"]
        "Calls that were not made because of that"
    STORE_CALLS Counter "fieldveil_store_calls_total" ["store", "verb", "outcome"]
        "Calls to the store: `get`, `put`, `latest` or `rewrap`; `ok` or the kind of failure"
    STORE_DURATION Histogram "fieldveil_store_call_duration_seconds" ["store", "verb"]
        "How long they took"

    READY Gauge "fieldveil_ready" []
        "1: /readyz says yes"
    LINES_DROPPED Counter "fieldveil_log_lines_dropped_total" []
        "Lines of the log that nobody took in time: standard error was blocked"
    POLICY Info "fieldveil_policy_info" ["version"]
        "The version of the policies in force: the first 12 hexadecimal digits of the SHA-256 of their files, one after the other"
    POLICY_LOADED Gauge "fieldveil_policy_loaded_timestamp_seconds" []
        "When the policies in force were put in force, in seconds since 1970"
    POLICY_RELOADS Counter "fieldveil_policy_reloads_total" ["outcome"]
        "Reloads of the policies since the start: `loaded`, `unchanged`, or `refused` (the old ones stay in force)"
    CERTIFICATES_REFUSED Counter "fieldveil_certificates_refused_total" []
        "Changed certificate or key files that were no good: the old certificate stays in force"
    BUILD Info "fieldveil_build_info" ["version"]
        "The program's version"
}

/// `docs/metrics.md`: the table as Markdown.
pub fn page() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         `/metrics` of the probes' and of the admin listener answers in the OpenMetrics text format, which Prometheus reads.\n\
         Labels hold names that the policy and the settings give, and words of this program; never a value, a path or a user's id.\n\n\
         This page is made from the table in `src/metrics/table.rs`; a test keeps them equal.\n\n\
         | metric | type | labels | what |\n|---|---|---|---|\n",
    );
    for row in TABLE {
        let labels: Vec<String> = row
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        page.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            row.name,
            row.kind.word(),
            labels.join(" "),
            row.help
        ));
    }
    page.push_str(
        "\n## Buckets\n\n\
         Added latency from 10 microseconds to 1 second, whole requests from 100 microseconds to 60 seconds, calls to a KMS from\n\
         100 microseconds to 10 seconds; a value is counted in the first bucket that holds it.\n\n\
         ## What to watch\n\n\
         | question | query |\n|---|---|\n\
         | Does plaintext stand where tokens should? | `increase(fieldveil_plaintext_values_total[1h]) > 0` |\n\
         | Are requests refused, and why? | `sum by (outcome) (rate(fieldveil_requests_total{outcome!=\"answered\"}[5m]))` |\n\
         | What does the agent cost? | `histogram_quantile(0.99, sum by (le) (rate(fieldveil_request_added_seconds_bucket[5m])))` |\n\
         | How long can it do without the KMS? | `min(fieldveil_outage_survival_seconds) < 300` |\n\
         | Is a KMS away? | `max by (kms) (fieldveil_kms_left_alone) > 0` |\n\
         | Was a new policy refused? | `increase(fieldveil_policy_reloads_total{outcome=\"refused\"}[10m]) > 0` |\n\
         | Do all agents enforce the same policy? | `count(count by (version) (fieldveil_policy_info)) > 1` |\n\
         | Is a key withdrawn? | `increase(fieldveil_data_keys_revoked_total[5m]) > 0` |\n",
    );
    page
}
