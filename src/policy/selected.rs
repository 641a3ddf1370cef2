//! Header fields that no rule selects: those by which messages are carried, and those that this agent reads or writes itself.

/// Fields by what they are for, and why no rule selects them.
const KEPT: [(&str, &[&str]); 5] = [
    (
        "it belongs to the connection",
        &[
            "connection",
            "keep-alive",
            "proxy-connection",
            "proxy-authenticate",
            "proxy-authorization",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "http2-settings",
            "expect",
        ],
    ),
    (
        "it says where the message goes and how its body is read",
        &[
            "host",
            "via",
            "content-length",
            "content-type",
            "content-encoding",
            "content-range",
            "content-digest",
            "content-md5",
            "repr-digest",
            "digest",
            "signature",
            "signature-input",
        ],
    ),
    (
        "clients and servers act by it themselves",
        &[
            "accept-encoding",
            "accept-ranges",
            "range",
            "if-range",
            "if-match",
            "if-none-match",
            "if-modified-since",
            "if-unmodified-since",
            "etag",
            "last-modified",
            "cache-control",
            "vary",
            "age",
            "date",
            "expires",
            "location",
            "retry-after",
            "alt-svc",
            "strict-transport-security",
            "fieldveil-result",
        ],
    ),
    (
        "it is a credential or a list of cookies, which the other side checks or keeps by its parts",
        &["authorization", "www-authenticate", "cookie", "set-cookie"],
    ),
    (
        "it means another method",
        &[
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
        ],
    ),
];

/// Why no rule selects this field, if so. `name`: in lower case.
pub(super) fn kept_from_rules(name: &str) -> Option<&'static str> {
    let twin = name.replace('_', "-");
    let mut kept = KEPT.iter();
    kept.find(|(_, names)| names.contains(&twin.as_str()))
        .map(|(why, _)| *why)
}
