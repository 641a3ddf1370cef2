//! What stands around the records of a body, by its kind.

/// In this order: what it opens with, what stands before and behind each record, what closes it.
pub struct Around {
    pub open: &'static str,
    pub before: &'static str,
    pub behind: &'static str,
    pub close: &'static str,
}

/// Of the kinds that are rewritten while they flow.
pub fn around(kind: &str) -> Around {
    let (open, before, behind, close) = match kind {
        "application/json" => ("[0", ",\n", "", "]"),
        "application/x-ndjson" => ("", "", "\n", ""),
        "application/json-seq" => ("", "\u{1e}", "\n", ""),
        "text/event-stream" => ("", "data: ", "\n\n", ""),
        _ => panic!("{kind} has no records"),
    };
    Around {
        open,
        before,
        behind,
        close,
    }
}

impl Around {
    pub fn record(&self, document: &str) -> String {
        format!("{}{document}{}", self.before, self.behind)
    }
}
