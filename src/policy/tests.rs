use super::*;
use crate::context::{Circumstances, Outside};
use proptest::prelude::*;

const PAYMENTS: &str = include_str!("../../policies/payments.yaml");

#[track_caller]
fn load(text: &str, environment: Option<&str>) -> Policy {
    Policy::load(text, "test.yaml", environment).unwrap_or_else(|found| {
        let shown: Vec<_> = found
            .iter()
            .map(|diagnostic| diagnostic.render(false))
            .collect();
        panic!("{}", shown.join("\n"))
    })
}

/// A policy with these routes, one a line: name, then `match`.
#[track_caller]
fn routes(top: &str, lines: &[(&str, &str)]) -> Policies {
    let mut text = format!(
        "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {{name: p}}\n{top}\nclasses: {{c: {{key: k}}}}\nroutes:\n"
    );
    for (name, matching) in lines {
        text.push_str(&format!(
            "  - {{name: {name}, match: {matching}, request: {{rules: [{{at: $..x, seal: c}}]}}}}\n"
        ));
    }
    Policies::new(vec![load(&text, None)]).expect("one policy")
}

fn who(policies: &Policies, method: &str, host: &str, path: &str) -> String {
    match policies.route(method, host, path) {
        Ok(Matched::Route { route, .. }) => route.name.to_string(),
        Ok(Matched::Unmatched { attitude }) => format!("{attitude:?}"),
        Err(refused) => format!("refused: {}", refused.what),
    }
}

#[test]
fn the_shipped_policy_loads() {
    let policy = load(PAYMENTS, None);
    assert_eq!(&*policy.name, "payments");
    assert_eq!(
        policy.tenant,
        Some(TenantSource::Header("x-merchant".into()))
    );
    assert_eq!(policy.unmatched, Unmatched::Report);
    assert_eq!(policy.classes.len(), 5);
    let names: Vec<&str> = policy.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["customers", "customer-reads", "charges", "events"]);
    let customers = &policy.routes[0];
    assert!(customers.request.seals() && !customers.request.opens());
    assert!(!customers.response.seals() && customers.response.opens());
    assert!(policy.routes[1].request.is_empty());
    assert_eq!(customers.outside, [OutsideSource::Path("id".into())]);
    assert_eq!(policy.routes[3].mode, Mode::Observe);
    let keep = |name: &str| {
        policy
            .classes
            .iter()
            .find(|class| &*class.name == name)
            .map(|class| class.keep_sealed)
    };
    assert_eq!(
        [keep("ssn"), keep("pan"), keep("cvc")],
        [Some(true), Some(true), Some(false)]
    );
    assert_eq!(
        load(PAYMENTS, Some("production")).unmatched,
        Unmatched::Reject
    );
    assert_eq!(
        load(PAYMENTS, Some("development")).unmatched,
        Unmatched::Report
    );
    let found = Policy::load(PAYMENTS, "p", Some("prodution")).unwrap_err();
    assert_eq!(found[0].code, "unknown-environment");
    assert_eq!(found[0].hint.as_deref(), Some("did you mean `production`?"));
    let keys: Vec<_> = Policies::new(vec![policy]).unwrap().keys();
    assert_eq!(keys, ["cards", "contact", "identity"].map(Arc::from));
}

#[test]
fn an_environment_changes_modes_and_attitudes() {
    let text = "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {name: p}\nroutes:\n  - {name: r, match: {}, mode: observe}\n\
                environments:\n  live: {routes: {r: {mode: enforce}}}\n";
    assert_eq!(load(text, None).routes[0].mode, Mode::Observe);
    assert_eq!(load(text, Some("live")).routes[0].mode, Mode::Enforce);
    // A policy that tells no environments apart takes any.
    let plain = text.split("environments").next().unwrap();
    assert_eq!(load(plain, Some("live")).routes[0].mode, Mode::Observe);
}

#[test]
fn environments_change_what_bodies_meet() {
    use crate::transform::{Refusal, plan};
    let check = |environment: Option<&str>| {
        let policy = load(PAYMENTS, environment);
        plan(
            &policy.routes[0].request,
            br#"{"nickname": "a"}"#,
            &Circumstances {
                tenant: Some("m".into()),
                outside: vec![Outside::Text("7".into())],
                ..Circumstances::default()
            },
        )
        .map(|_| ())
    };
    assert_eq!(check(None), Ok(()));
    assert!(matches!(
        check(Some("production")),
        Err(Refusal::Unclaimed { .. })
    ));
}

#[test]
fn an_environment_goes_over_the_file() {
    use crate::transform::{Refusal, plan};
    let text = "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {name: p}\nclasses: {c: {key: k}}\nroutes:\n\
                \x20 - {name: r, match: {}, request: {stray: reject, unclaimed: reject, rules: [{at: $.x, seal: c}]}}\n\
                environments:\n  lax: {routes: {r: {request: {stray: allow, unclaimed: allow}}}}\n  same: {}\n";
    let check = |environment: Option<&str>, body: &str| {
        let policy = load(text, environment);
        plan(
            &policy.routes[0].request,
            body.as_bytes(),
            &Circumstances::default(),
        )
        .map(|_| ())
    };
    let (stray, unclaimed) = (r#"{"y": "fv1~AAAA~"}"#, r#"{"y": 1}"#);
    for environment in [None, Some("same")] {
        assert!(
            matches!(check(environment, stray), Err(Refusal::Stray { .. })),
            "{environment:?}"
        );
        assert!(
            matches!(
                check(environment, unclaimed),
                Err(Refusal::Unclaimed { .. })
            ),
            "{environment:?}"
        );
    }
    assert_eq!(
        (check(Some("lax"), stray), check(Some("lax"), unclaimed)),
        (Ok(()), Ok(()))
    );
}

#[test]
fn an_environment_reaches_every_word_beside_rules() {
    use crate::transform::{Attitude, Fallback};
    let text = include_str!("../../tests/policy_cases/environment-reaches-all-words.yaml");
    let manners = |environment| {
        let policy = load(text, environment);
        let route = &policy.routes[0];
        [route.request.manner(), route.response.manner()]
    };
    let [request, response] = manners(None);
    assert_eq!(
        (request.stray, response.stray),
        (Attitude::Report, Attitude::Allow)
    );
    for manner in [request, response] {
        assert_eq!(manner.unclaimed, Attitude::Allow);
        assert_eq!([manner.near_miss, manner.plaintext], [Attitude::Report; 2]);
        assert_eq!(manner.unopened, Fallback::Leave);
    }
    let [request, response] = manners(Some("production"));
    assert_eq!(
        (request.stray, response.stray),
        (Attitude::Reject, Attitude::Allow)
    );
    for manner in [request, response] {
        let all = [manner.unclaimed, manner.near_miss, manner.plaintext];
        assert_eq!(all, [Attitude::Reject; 3]);
    }
    let unopened = [request.unopened, response.unopened];
    assert_eq!(unopened, [Fallback::Reject, Fallback::Null]);
}

#[test]
fn who_asks_is_what_the_route_says() {
    let text = "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {name: p}\ncaller: {header: X-Caller}\n\
                classes: {c: {key: k}}\nroutes:\n\
                \x20 - {name: a, match: {path: /a}, response: {rules: [{at: $.x, open: c, reveal: {default: none, callers: {billing: full}}}]}}\n\
                \x20 - {name: b, match: {path: /b}, caller: {peer: uid}}\n\
                \x20 - {name: c, match: {path: /c}, caller: {mtls: san}}\n";
    let policy = load(text, None);
    let [a, b, c] = policy.routes.as_slice() else {
        panic!("three routes")
    };
    let says = |name: &str| {
        assert_eq!(name, "x-caller");
        Outside::Text("billing".into())
    };
    let peer = Peer {
        uid: Some(1000),
        name: Some("spiffe://example.org/web"),
    };
    let name = |route: &Route, peer| route.caller(says, peer).map(|name| name.to_string());
    assert_eq!(name(a, peer).as_deref(), Some("billing"));
    assert_eq!(name(a, Peer::default()).as_deref(), Some("billing"));
    assert_eq!(name(b, peer).as_deref(), Some("1000"));
    assert_eq!(name(c, peer).as_deref(), Some("spiffe://example.org/web"));
    assert_eq!(
        (name(b, Peer::default()), name(c, Peer::default())),
        (None, None)
    );
    for (odd, expected) in [
        (Outside::Missing, None),
        (Outside::Repeated, None),
        (Outside::Text(String::new()), None),
        (Outside::Text("x".repeat(257)), None),
        (Outside::Text("x".repeat(256)), Some(256)),
    ] {
        assert_eq!(
            a.caller(|_| odd.clone(), peer).map(|name| name.len()),
            expected
        );
    }
    assert_eq!(a.listed("billing").map(|name| &**name), Some("billing"));
    assert_eq!((a.listed("Billing"), b.listed("1000")), (None, None));
}

#[test]
fn hosts_and_methods() {
    let policies = routes(
        "unmatched: reject",
        &[
            ("exact", "{host: API.example.com, methods: [POST, PUT]}"),
            ("port", "{host: 'api.example.com:8443'}"),
            ("wild", "{host: '*.tenants.example.com.'}"),
            ("six", "{host: '[::1]'}"),
            ("long-six", "{host: '[2001:DB8:0:0::1]'}"),
            ("four", "{host: 10.0.0.5}"),
            ("mapped", "{host: '[::ffff:10.0.0.6]'}"),
        ],
    );
    for (method, host, expected) in [
        ("POST", "api.example.com", "exact"),
        ("PUT", "Api.Example.COM.", "exact"),
        ("POST", "api.example.com:9", "exact"),
        // A lenient server may take it for POST.
        ("post", "api.example.com", "exact"),
        ("GET", "api.example.com:8443", "port"),
        // A request without a port may mean any; so may one whose port is none.
        ("GET", "api.example.com", "port"),
        ("GET", "api.example.com:", "port"),
        ("GET", "api.example.com:08443", "port"),
        ("GET", "api.example.com:x", "port"),
        ("GET", "api.example.com:444", "Reject"),
        ("GET", "a.tenants.example.com", "wild"),
        ("GET", "a.b.tenants.example.com", "Pass"),
        ("GET", "tenants.example.com", "Pass"),
        ("GET", ".tenants.example.com", "Pass"),
        ("GET", "[::1]:80", "six"),
        ("GET", "[::1]", "six"),
        ("GET", "[0:0:0:0:0:0:0:1]:80", "six"),
        ("GET", "[2001:db8::1]", "long-six"),
        ("GET", "[2001:db8::2]", "Pass"),
        // Connected to as the address in IPv4 that is mapped.
        ("GET", "[::ffff:10.0.0.5]:80", "four"),
        ("GET", "[::FFFF:A00:5]", "four"),
        ("GET", "10.0.0.6", "mapped"),
        ("GET", "xapi.example.com", "Pass"),
        ("GET", "api.example.com.evil.org", "Pass"),
        ("GET", "", "Pass"),
        ("GET", ":", "Pass"),
        ("GET", "]:[", "Pass"),
    ] {
        assert_eq!(
            who(&policies, method, host, "/"),
            expected,
            "{method} {host}"
        );
    }
}

#[test]
fn no_spelling_comes_past_a_route() {
    let policies = routes(
        "",
        &[
            ("cards", "{host: h, path: '/v1/cards/{id}'}"),
            ("files", "{host: h, path: '/v1/files/{rest*}'}"),
        ],
    );
    for (path, expected) in [
        ("/v1/cards/7", "cards"),
        ("/v1/cards/7/", "cards"),
        ("/v1/%63ards/7", "cards"),
        ("/%76%31/%63%61%72%64%73/7", "cards"),
        ("//v1/cards/7", "cards"),
        ("/v1//cards///7//", "cards"),
        ("/v1/./cards/./7/.", "cards"),
        ("/v1/%2e/cards/7", "cards"),
        ("/x/../v1/cards/7", "cards"),
        ("/x/%2E%2e/v1/cards/7", "cards"),
        ("/../v1/cards/7", "cards"),
        ("/v1/cards/x/../7", "cards"),
        ("/v1/cards;a=b/7", "cards"),
        ("/v1;/cards/7", "cards"),
        ("/;x/v1/cards/7", "cards"),
        ("/v1/cards/7;a=b", "cards"),
        ("/x/..;/v1/cards/7", "cards"),
        ("/v1/cards/%37", "cards"),
        ("/v1/cards/7;", "cards"),
        // One server's cards are another one's something else: whoever resolves it, it is sealed.
        ("/v1/cards/7/../8", "cards"),
        ("/v1/cards/..", "cards"),
        ("/v1/files/a/../b", "files"),
        ("/v1/files", "files"),
        ("/v1/files/", "files"),
        ("/v1/files/a//b", "files"),
        // Two servers, two routes: refused.
        ("/v1/files/../cards/7", "refused: ambiguous"),
        ("/v1/files/x/../../cards/7", "refused: ambiguous"),
        ("/v1/files//../../cards/7", "refused: ambiguous"),
        // What no honest client sends, and servers read differently.
        ("/v1%2Fcards/7", "refused: encoded-slash"),
        ("/v1/cards%2f7", "refused: encoded-slash"),
        ("/v1\\cards\\7", "refused: backslash"),
        ("/v1%5ccards/7", "refused: backslash"),
        ("/v1/cards%00/7", "refused: control-character"),
        ("/v1/%2563ards/7", "refused: double-encoded"),
        ("/v1/%c3%28ards/7", "refused: not-utf8"),
        ("/v1/%u0063ards/7", "refused: bad-percent-encoding"),
        ("/v1/cards/7%", "refused: bad-percent-encoding"),
        ("v1/cards/7", "refused: not-absolute"),
        ("http://h/v1/cards/7", "refused: not-absolute"),
        // Other resources.
        ("/v1/cards", "Report"),
        ("/v1/cards/7/limits", "Report"),
        ("/v1/cardsx/7", "Report"),
        ("/v2/cards/7", "Report"),
        ("/", "Report"),
        ("", "Report"),
        ("*", "Report"),
    ] {
        assert_eq!(who(&policies, "POST", "h", path), expected, "{path}");
        // Where no route names the host, its paths are nobody's business.
        assert_eq!(who(&policies, "POST", "other", path), "Pass", "{path}");
    }
}

#[test]
fn a_bound_parameter_has_one_value() {
    let text = "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {name: p}\nclasses: {c: {key: k}}\nroutes:\n\
                \x20 - name: r\n    match: {path: '/{id}/{rest*}'}\n    request: {rules: [{at: $.x, seal: c, bind: {b: {path: id}}}]}\n";
    let policies = Policies::new(vec![load(text, None)]).unwrap();
    // `rest` is not bound, so its spelling does not matter; `id` is.
    for (path, expected) in [
        ("/7/a//b/..", "r"),
        ("/7//a", "r"),
        ("/7;v=1/a", "refused: ambiguous"),
        ("/8/../7/a", "refused: ambiguous"),
        ("/./7/a", "refused: ambiguous"),
    ] {
        assert_eq!(who(&policies, "POST", "h", path), expected, "{path}");
    }
}

#[test]
fn the_first_route_wins_and_its_parameters_are_decoded() {
    let policies = routes(
        "",
        &[
            ("me", "{path: /users/me}"),
            ("user", "{path: '/users/{id}/{what}'}"),
            ("rest", "{path: '/users/{all*}'}"),
            ("any", "{}"),
        ],
    );
    for (path, expected) in [
        ("/users/me", "me"),
        ("/users/7/a", "user"),
        ("/users/7", "rest"),
        ("/x", "any"),
        ("*", "any"),
    ] {
        assert_eq!(who(&policies, "GET", "whoever", path), expected, "{path}");
    }
    let parameters = |path: &str| match policies.route("GET", "h", path) {
        Ok(Matched::Route { parameters, .. }) => parameters,
        other => panic!("{other:?}"),
    };
    let user = parameters("/users/a%20b%C3%A9%25/%7Bx%7D");
    assert_eq!(
        (user.get("id"), user.get("what"), user.get("none")),
        (Some("a bé%"), Some("{x}"), None)
    );
    assert_eq!(parameters("/users/1/2/3").get("all"), Some("1/2/3"));
    assert_eq!(parameters("/users").get("all"), Some(""));
    assert!(!format!("{user:?}").contains("bé"), "values are not shown");
}

#[test]
fn a_path_that_decides_nothing_is_not_refused() {
    let policies = routes(
        "",
        &[
            ("post", "{host: h, methods: [POST]}"),
            ("paths", "{host: h, path: '/a/{x}'}"),
        ],
    );
    assert_eq!(who(&policies, "POST", "h", "/group%2Fproject"), "post");
    assert_eq!(
        who(&policies, "GET", "h", "/group%2Fproject"),
        "refused: encoded-slash"
    );
    let by_method = routes(
        "unmatched: reject",
        &[("post", "{host: h, methods: [POST], path: /a}")],
    );
    assert_eq!(who(&by_method, "GET", "h", "/%2f"), "Reject");
}

#[test]
fn the_strictest_policy_decides_about_the_unmatched() {
    let one = |name: &str, unmatched: &str, matching: &str| {
        let text = format!(
            "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {{name: {name}}}\nunmatched: {unmatched}\n\
             routes: [{{name: {name}, match: {matching}}}]\n"
        );
        load(&text, None)
    };
    let policies = Policies::new(vec![
        one("a", "pass", "{host: h, path: /a}"),
        one("b", "reject", "{host: h, path: /b}"),
        one("c", "pass", "{host: i, path: /c}"),
    ])
    .unwrap();
    assert_eq!(who(&policies, "GET", "h", "/x"), "Reject");
    assert_eq!(who(&policies, "GET", "i", "/x"), "Pass");
    assert_eq!(who(&policies, "GET", "h", "/b"), "b");
    // A route without a host names every host.
    let all = Policies::new(vec![one("a", "reject", "{path: /a}")]).unwrap();
    assert_eq!(who(&all, "GET", "whatever", "/x"), "Reject");
    assert_eq!(who(&Policies::default(), "GET", "h", "/x"), "Pass");
}

#[test]
fn names_are_unique_over_files() {
    let text = |policy: &str, route: &str| {
        format!(
            "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {{name: {policy}}}\nroutes: [{{name: {route}, match: {{}}}}]\n"
        )
    };
    let codes = |a: (&str, &str), b: (&str, &str)| -> Vec<&str> {
        let policies = vec![load(&text(a.0, a.1), None), load(&text(b.0, b.1), None)];
        Policies::new(policies)
            .err()
            .unwrap_or_default()
            .iter()
            .map(|diagnostic| diagnostic.code)
            .collect()
    };
    assert_eq!(codes(("a", "r"), ("b", "s")), [""; 0]);
    assert_eq!(codes(("a", "r"), ("a", "s")), ["duplicate-policy"]);
    assert_eq!(codes(("a", "r"), ("b", "r")), ["duplicate-route"]);
}

#[test]
fn circumstances_of_a_request() {
    let text = "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {name: p}\nTENANT\nclasses: {c: {key: k}}\nroutes:\n\
                \x20 - name: r\n    match: {path: '/{org}/{id}'}\n    request:\n      rules:\n\
                \x20       - {at: $.x, seal: c, bind: {a: {path: id}, b: {header: X-Case}, d: {query: q}}}\n\
                \x20       - {at: $.y, seal: c, bind: {e: {header: x-case}, f: {sibling: s}}}\n";
    let collect = |tenant: &str, query: Option<&str>| {
        let policies = Policies::new(vec![load(&text.replace("TENANT", tenant), None)]).unwrap();
        let Ok(Matched::Route { route, parameters }) =
            policies.route("POST", "acme.example.com", "/o%20x/7")
        else {
            panic!()
        };
        assert_eq!(
            route.outside.len(),
            3,
            "a header that is named twice is taken once"
        );
        let header = |name: &str| match name {
            "x-case" => Outside::Text("C".into()),
            "x-two" => Outside::Repeated,
            _ => Outside::Missing,
        };
        route.circumstances(&parameters, header, query, "acme.example.com:443")
    };
    let values = |query: Outside| vec![Outside::Text("7".into()), Outside::Text("C".into()), query];
    let q = Outside::Text("a b".into());
    assert_eq!(
        collect("", Some("q=a+b")),
        Ok(Circumstances {
            tenant: None,
            outside: values(q),
            ..Circumstances::default()
        })
    );
    assert_eq!(
        collect("", None),
        Ok(Circumstances {
            tenant: None,
            outside: values(Outside::Missing),
            ..Circumstances::default()
        })
    );
    assert_eq!(
        collect("", Some("q=1&q=2")),
        Ok(Circumstances {
            tenant: None,
            outside: values(Outside::Repeated),
            ..Circumstances::default()
        })
    );
    let tenant = |tenant: &str| {
        collect(tenant, None)
            .map(|c| c.tenant.as_deref().map(str::to_owned))
            .map_err(|m| m.what)
    };
    assert_eq!(tenant("tenant: {value: one}"), Ok(Some("one".into())));
    assert_eq!(tenant("tenant: {header: X-CASE}"), Ok(Some("C".into())));
    assert_eq!(tenant("tenant: {header: X-None}"), Err("missing"));
    assert_eq!(tenant("tenant: {header: X-Two}"), Err("repeated"));
    assert_eq!(tenant("tenant: {path: org}"), Ok(Some("o x".into())));
    assert_eq!(tenant("tenant: {host: 1}"), Ok(Some("acme".into())));
    assert_eq!(tenant("tenant: {host: 4}"), Err("missing"));
}

#[test]
fn high_scrutiny_without_a_bind_refuses_tokens() {
    let keeps = |class: &str, bind: &str| {
        let text = format!(
            "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {{name: p}}\nclasses: {{c: {class}}}\nroutes:\n\
             \x20 - {{name: r, match: {{}}, request: {{rules: [{{at: $.x, seal: c{bind}}}]}}}}\n"
        );
        load(&text, None).classes[0].keep_sealed
    };
    assert!(keeps("{key: k}", ""));
    assert!(!keeps("{key: k, scrutiny: high}", ""));
    assert!(keeps(
        "{key: k, scrutiny: high}",
        ", bind: {b: {sibling: id}}"
    ));
    assert!(keeps("{key: k, scrutiny: high, sealed: keep}", ""));
    assert!(!keeps(
        "{key: k, sealed: refuse}",
        ", bind: {b: {sibling: id}}"
    ));
}

fn flags(seal: &[&str], open: &[&str]) -> Result<Policy, Vec<String>> {
    let own = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };
    Policy::from_flags(&own(seal), &own(open))
        .map_err(|found| found.iter().map(|d| d.render(false)).collect())
}

#[test]
fn a_policy_of_flags() {
    let policy = flags(
        &["$..ssn", "$[?@.kind == 'card'].number=pan", "$.a=pan"],
        &["$..*"],
    )
    .unwrap();
    let classes: Vec<(&str, &str)> = policy
        .classes
        .iter()
        .map(|class| (&*class.name, &*class.key))
        .collect();
    assert_eq!(classes, [("field", "default"), ("pan", "default")]);
    assert!(policy.routes[0].request.seals() && policy.routes[0].response.opens());
    let policies = Policies::new(vec![policy]).unwrap();
    assert_eq!(who(&policies, "PATCH", "any.host:1", "/%2F/odd"), "flags");
    let only_open = flags(&[], &["$..*"]).unwrap();
    assert!(only_open.routes[0].request.is_empty() && only_open.routes[0].response.opens());
    assert_eq!(&*only_open.classes[0].name, "field");
}

#[test]
fn bad_flags_are_shown_with_their_place() {
    let found = flags(&["$..ssn", "ssn", "$.a=b c"], &["$["]).unwrap_err();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[0].starts_with("--seal:1:1: error[bad-path]"),
        "{}",
        found[0]
    );
    assert!(
        found[1].starts_with("--seal:1:5: error[bad-name]"),
        "{}",
        found[1]
    );
    assert!(found[2].starts_with("--open:1:"), "{}", found[2]);
    let many: Vec<String> = (0..CLASSES_MAX + 1).map(|n| format!("$.a=c{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(flags(&many, &[]).unwrap_err()[0].contains("too-many"));
    assert!(flags(&["$.a"; RULES_MAX + 1], &[]).unwrap_err()[0].contains("too-many"));
}

proptest! {
    #[test]
    fn matching_never_panics(method in "\\PC{0,6}", host in "\\PC{0,12}|[a-z.:\\[\\]0-9]{0,12}", path in "\\PC{0,24}|/[%/.;a-f0-9]{0,24}") {
        let policies = routes("", &[("a", "{path: '/a/{id}/b'}"), ("b", "{host: '*.b', path: '/{rest*}'}"), ("c", "{path: '/{x}'}")]);
        if let Ok(Matched::Route { route, parameters }) = policies.route(&method, &host, &path) {
            let _ = route.circumstances(&parameters, |_| Outside::Missing, Some(&path), &host);
        }
    }

    /// Respelling a path that takes a route never makes it pass unmatched.
    #[test]
    fn respelling_never_comes_past(id in "[a-z0-9]{1,6}", seed in proptest::collection::vec(0u8..7, 12)) {
        let policies = routes("", &[("r", "{path: '/v1/cards/{id}'}")]);
        let mut path = String::new();
        let mut choice = seed.iter().cycle();
        let mut next = || *choice.next().unwrap_or(&0);
        for segment in ["v1", "cards", id.as_str()] {
            path.push_str(["/", "//", "/./", "/x/../", "/%2e/", "/;p/", "/"][usize::from(next())]);
            for c in segment.chars() {
                if next() == 0 { path.push_str(&format!("%{:02X}", u32::from(c))) } else { path.push(c) }
            }
            if next() == 1 { path.push_str(";a=b") }
        }
        let taken = policies.route("POST", "h", &path);
        prop_assert!(!matches!(taken, Ok(Matched::Unmatched { .. })), "{}", path);
    }

    #[test]
    fn loading_never_panics(cut in 0..PAYMENTS.len(), byte in any::<u8>()) {
        let mut text = PAYMENTS.as_bytes().to_vec();
        text[cut] = byte;
        let text = String::from_utf8_lossy(&text);
        if let Err(found) = Policy::load(&text, "p", None) {
            prop_assert!(!found.is_empty());
            for diagnostic in found {
                let _ = diagnostic.render(true);
            }
        }
    }
}
