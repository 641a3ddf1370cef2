//! Which words there are, and what the checked settings say of each.

use super::{Collector, Origin, Place, Shown};
use crate::keys::Need;
use crate::marked::amount::{show_duration, show_size};
use crate::settings::{
    Admin, Azure, AzureAuth, Bind, Ca, GcpLogin, Kek, Key, Kms, LOCAL_KMS, Limits, Listener,
    LogFormat, Overrides, OwnCa, PolicySource, Provider, Secret, Settings, Silent, Speak,
    StoreKind, TlsFiles, Transit, TransitAuth, Unlock, Upstream,
};

/// The places that flags and variables speak of, each with its origin.
pub(super) fn laid_over(
    settings: &Settings,
    overrides: &Overrides,
    given: &dyn Fn(&str) -> Origin,
) -> Vec<(Place, Origin)> {
    let top = Place::default();
    let mut laid = Vec::new();
    let mut lay = |is_given: bool, name: &str, place: Place| {
        if is_given {
            laid.push((place, given(name)));
        }
    };
    lay(
        overrides.environment.is_some(),
        "environment",
        top.word("environment"),
    );
    lay(
        overrides.policies.is_some(),
        "policies",
        top.word("policy").word("dir"),
    );
    lay(
        overrides.listen.is_some(),
        "listen",
        top.word("listeners").item(0).word("bind"),
    );
    if let [only] = settings.upstreams.as_slice() {
        let place = top.word("upstreams").word(&only.name);
        lay(overrides.upstream.is_some(), "upstream", place.word("url"));
        lay(
            overrides.upstream_ca.is_some(),
            "upstream_ca",
            place.word("tls").word("ca"),
        );
    }
    let admin = top.word("admin");
    lay(overrides.admin.is_some(), "admin", admin.word("bind"));
    let made = (settings.admin.as_ref()).is_some_and(|admin| admin.initialise);
    lay(made, "data_dir", admin.word("token_file"));
    lay(
        overrides.probes.is_some(),
        "probes",
        top.word("probes").word("bind"),
    );
    let log = top.word("log");
    lay(
        overrides.log_format.is_some(),
        "log_format",
        log.word("format"),
    );
    lay(
        overrides.log_level.is_some(),
        "log_level",
        log.word("level"),
    );
    lay(
        overrides.data_dir.is_some(),
        "data_dir",
        top.word("kms").word(LOCAL_KMS),
    );
    laid
}

pub(super) fn collect(
    settings: &Settings,
    given: &dyn Fn(&str) -> Origin,
    all: &mut Collector<'_>,
) {
    let top = Place::default();
    all.maybe(top.word("environment"), settings.environment.as_ref());
    policy(settings, given, &top.word("policy"), all);
    for (at, listener) in settings.listeners.iter().enumerate() {
        self::listener(listener, &top.word("listeners").item(at), all);
    }
    for upstream in &settings.upstreams {
        self::upstream(upstream, &top.word("upstreams").word(&upstream.name), all);
    }
    for kms in &settings.kms {
        self::kms(kms, &top.word("kms").word(&kms.name), all);
    }
    for key in &settings.keys {
        self::key(key, &top.word("keys").word(&key.name), all);
    }
    if let Some(kms) = &settings.other_keys {
        let place = top.word("keys").word("*").word("seal_with").item(0);
        let kek = format!("{kms}/(the key's name)");
        all.unwritable(place, &kek, given("data_dir"));
    }
    store(settings, &top.word("store"), all);
    if let Some(ca) = &settings.ca {
        own_ca(ca, &top.word("ca"), all);
    }
    if let Some(mark) = settings.mark {
        all.number(top.word("redirect").word("mark"), mark as usize);
    }
    if let Some(admin) = &settings.admin {
        self::admin(admin, &top.word("admin"), all);
    }
    all.maybe(top.word("probes").word("bind"), settings.probes);
    limits(&settings.limits, &top.word("limits"), all);
    let log = top.word("log");
    let format = match settings.log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    all.text(log.word("format"), format);
    all.text(log.word("level"), settings.log.level);
}

fn policy(
    settings: &Settings,
    given: &dyn Fn(&str) -> Origin,
    place: &Place,
    all: &mut Collector<'_>,
) {
    let reload = settings.reload;
    let every = show_duration(reload.look_every);
    match &settings.policy {
        PolicySource::Directory(dir) => {
            all.text(place.word("dir"), dir.display());
            all.text(place.word("look_every"), every);
            let weaker = Shown::Switch(reload.allow_weaker);
            all.put(place.word("allow_weaker"), weaker);
        }
        PolicySource::Flags { seal, open } => {
            for (word, paths) in [("seal", seal), ("open", open)] {
                for (at, path) in paths.iter().enumerate() {
                    all.unwritable(place.word(word).item(at), path, given(word));
                }
            }
        }
    }
}

fn tls_files(files: Option<&TlsFiles>, place: &Place, all: &mut Collector<'_>) {
    all.maybe(place.word("cert"), files.map(|files| files.cert.display()));
    all.maybe(place.word("key"), files.map(|files| files.key.display()));
}

fn listener(listener: &Listener, place: &Place, all: &mut Collector<'_>) {
    all.text(place.word("name"), &listener.name);
    all.text(place.word("bind"), &listener.bind);
    if let Bind::Unix { mode, .. } = &listener.bind {
        all.text(place.word("socket_mode"), format_args!("{mode:04o}"));
    }
    // One that the file has is shown as it is there: a word for one, or a mapping of hosts.
    if all.node(place).is_none() {
        let name = listener.upstream.names().first().copied();
        all.maybe(place.word("upstream"), name);
    }
    let tls = place.word("tls");
    tls_files(listener.tls.as_ref(), &tls, all);
    if let Some(ca) = &listener.client_ca {
        all.text(tls.word("client_ca"), ca.file.display());
        let wanted = if ca.required { "required" } else { "optional" };
        all.text(tls.word("client_cert"), wanted);
    }
    all.put(place.word("http2"), Shown::Switch(listener.http2));
    if let Some(forward) = listener.upstream.forward() {
        let mode = match forward.transparent {
            Some(_) => "transparent",
            None => "forward",
        };
        all.text(place.word("mode"), mode);
        let uncovered = if forward.covered_only {
            "refuse"
        } else {
            "tunnel"
        };
        all.text(place.word("uncovered"), uncovered);
        if let Some(silent) = forward.transparent {
            let silent = match silent {
                Silent::Refuse => "refuse",
                Silent::Tunnel => "tunnel",
            };
            all.text(place.word("silent"), silent);
        }
        let credentials = forward.credentials.as_ref().map(|file| file.display());
        all.maybe(place.word("credentials_file"), credentials);
        let loopback = Shown::Switch(forward.loopback);
        all.put(place.word("loopback_upstreams"), loopback);
    }
}

fn own_ca(ca: &OwnCa, place: &Place, all: &mut Collector<'_>) {
    // A directory in the file is shown as it is there.
    if all.node(&place.word("dir")).is_none() {
        tls_files(Some(&ca.files), place, all);
    }
    for (at, name) in ca.names.texts().enumerate() {
        all.text(place.word("names").item(at), name);
    }
}

fn ca(ca: &Ca, place: Place, all: &mut Collector<'_>) {
    match ca {
        Ca::System => all.text(place, "system"),
        Ca::File(file) => all.text(place, file.display()),
    }
}

fn upstream(upstream: &Upstream, place: &Place, all: &mut Collector<'_>) {
    all.text(place.word("url"), &upstream.url);
    if upstream.url.tls {
        ca(&upstream.ca, place.word("tls").word("ca"), all);
        tls_files(upstream.identity.as_ref(), &place.word("tls"), all);
    }
    let version = match upstream.speak {
        Speak::Either => "auto",
        Speak::Http1 => "1.1",
        Speak::Http2 => "2",
    };
    all.text(place.word("http"), version);
    all.text(place.word("connect"), show_duration(upstream.connect));
    all.text(place.word("response"), show_duration(upstream.response));
    if let Some(idle) = upstream.idle {
        all.text(place.word("idle"), show_duration(idle));
    }
}

/// A secret's place under the words that say it in the file.
fn secret(secret: &Secret, place: &Place, file: &str, variable: &str, all: &mut Collector<'_>) {
    match secret {
        Secret::File(path) => all.text(place.word(file), path.display()),
        Secret::Environment(name) => all.text(place.word(variable), name),
    }
}

fn kms(kms: &Kms, place: &Place, all: &mut Collector<'_>) {
    all.text(place.word("type"), kms.provider.word());
    let provider = &kms.provider;
    if let Provider::Keyring(keyring) = provider {
        all.text(place.word("dir"), keyring.dir.display());
        let unlock = place.word("unlock");
        match &keyring.unlock {
            Unlock::KeyFile(file) => all.text(unlock.word("key_file"), file.display()),
            Unlock::Passphrase(Secret::File(file)) => {
                all.text(unlock.word("passphrase_file"), file.display());
            }
            Unlock::Passphrase(Secret::Environment(variable)) => {
                all.secret(unlock.word("passphrase"), unlock.clone(), variable);
            }
        }
    }
    if let Provider::Transit(transit) = provider {
        self::transit(transit, place, all);
    }
    if let Provider::Aws(aws) = provider {
        all.maybe(place.word("region"), aws.region.as_ref());
        all.maybe(place.word("endpoint"), aws.endpoint.as_ref());
        ca(&aws.ca, place.word("tls").word("ca"), all);
    }
    if let Provider::Gcp(gcp) = provider {
        all.maybe(place.word("endpoint"), gcp.endpoint.as_ref());
        if gcp.endpoint.as_ref().is_none_or(|endpoint| endpoint.tls) {
            ca(&gcp.ca, place.word("tls").word("ca"), all);
        }
        match &gcp.login {
            GcpLogin::Metadata(server) => all.maybe(place.word("metadata"), server.as_ref()),
            GcpLogin::File(file) => all.text(place.word("credentials_file"), file.display()),
        }
    }
    if let Provider::Azure(azure) = provider {
        self::azure(azure, place, all);
    }
    if let Provider::Pkcs11(pkcs11) = provider {
        all.text(place.word("library"), pkcs11.library.display());
        all.text(place.word("token"), &pkcs11.token);
        secret(&pkcs11.pin, place, "pin_file", "pin_env", all);
        all.number(place.word("sessions"), pkcs11.sessions);
    }
}

fn azure(azure: &Azure, place: &Place, all: &mut Collector<'_>) {
    all.text(place.word("vault"), &azure.vault);
    all.maybe(place.word("endpoint"), azure.endpoint.as_ref());
    let algorithm = if azure.aes { "A256KW" } else { "RSA-OAEP-256" };
    all.text(place.word("algorithm"), algorithm);
    all.maybe(place.word("authority"), azure.authority.as_ref());
    if azure.endpoint.as_ref().is_none_or(|endpoint| endpoint.tls) {
        ca(&azure.ca, place.word("tls").word("ca"), all);
    }
    let auth = place.word("auth");
    let app = |place: &Place, tenant: &str, id: &str, all: &mut Collector<'_>| {
        all.text(place.word("tenant"), tenant);
        all.text(place.word("client_id"), id);
    };
    match &azure.auth {
        AzureAuth::Managed {
            client_id,
            metadata,
        } => {
            let auth = auth.word("managed_identity");
            all.maybe(auth.word("client_id"), client_id.as_ref());
            all.text(auth.word("metadata"), metadata);
        }
        AzureAuth::ClientSecret {
            tenant,
            client_id,
            secret: place,
        } => {
            let auth = auth.word("client_secret");
            app(&auth, tenant, client_id, all);
            secret(place, &auth, "secret_file", "secret_env", all);
        }
        AzureAuth::Workload {
            tenant,
            client_id,
            token_file,
        } => {
            let auth = auth.word("workload_identity");
            app(&auth, tenant, client_id, all);
            all.text(auth.word("token_file"), token_file.display());
        }
    }
}

fn transit(transit: &Transit, place: &Place, all: &mut Collector<'_>) {
    all.text(place.word("address"), &transit.address);
    all.text(place.word("identity"), &transit.identity);
    all.text(place.word("mount"), &transit.mount);
    all.maybe(place.word("namespace"), transit.namespace.as_ref());
    if transit.address.tls {
        ca(&transit.ca, place.word("tls").word("ca"), all);
        tls_files(transit.certificate.as_ref(), &place.word("tls"), all);
    }
    let auth = place.word("auth");
    match &transit.auth {
        TransitAuth::Token(token) => secret(token, &auth, "token_file", "token_env", all),
        TransitAuth::AppRole {
            mount,
            role_id,
            secret_id,
        } => {
            let auth = auth.word("approle");
            all.text(auth.word("mount"), mount);
            all.text(auth.word("role_id"), role_id);
            secret(secret_id, &auth, "secret_id_file", "secret_id_env", all);
        }
        TransitAuth::Kubernetes {
            mount,
            role,
            jwt_file,
        } => {
            let auth = auth.word("kubernetes");
            all.text(auth.word("mount"), mount);
            all.text(auth.word("role"), role);
            all.text(auth.word("jwt_file"), jwt_file.display());
        }
    }
}

fn key(key: &Key, place: &Place, all: &mut Collector<'_>) {
    let keks = |keks: &[Kek], word: &str, all: &mut Collector<'_>| {
        for (at, kek) in keks.iter().enumerate() {
            let text = format!("{}/{}", kek.kms, kek.kek);
            all.text(place.word(word).item(at), text);
        }
    };
    keks(&key.seal_with, "seal_with", all);
    let need = match key.need {
        Need::Any => "any",
        Need::All => "all",
    };
    all.text(place.word("need"), need);
    keks(&key.open_also, "open_also", all);
    all.text(place.word("lease"), show_duration(key.lease));
    all.text(place.word("grace"), show_duration(key.grace));
    all.text(place.word("rotate"), show_duration(key.rotate));
}

fn store(settings: &Settings, place: &Place, all: &mut Collector<'_>) {
    let Some(store) = &settings.store else {
        return all.text(place.word("type"), "none");
    };
    match &store.kind {
        StoreKind::Embedded { file } => {
            all.text(place.word("type"), "embedded");
            all.text(place.word("file"), file.display());
        }
        StoreKind::Postgres {
            url_file,
            ca: vouching,
            tls,
        } => {
            all.text(place.word("type"), "postgres");
            all.text(place.word("url_file"), url_file.display());
            ca(vouching, place.word("tls").word("ca"), all);
            if let Some(required) = tls {
                let place = place.word("tls").word("required");
                all.put(place, Shown::Switch(*required));
            }
        }
    }
    all.text(place.word("deadline"), show_duration(store.deadline));
}

fn admin(admin: &Admin, place: &Place, all: &mut Collector<'_>) {
    all.text(place.word("bind"), admin.bind);
    let file = place.word("token_file");
    match &admin.token {
        Secret::File(path) => all.text(file, path.display()),
        Secret::Environment(variable) => all.secret(place.word("token"), file, variable),
    }
}

fn limits(limits: &Limits, place: &Place, all: &mut Collector<'_>) {
    let size = |bytes: usize| show_size(bytes as u64);
    all.text(place.word("held_body"), size(limits.held_body));
    all.text(place.word("held_total"), size(limits.held_total));
    all.text(place.word("record"), size(limits.record));
    all.text(place.word("window"), size(limits.window));
    all.number(place.word("keys_per_body"), limits.keys_per_body);
    all.number(place.word("new_tenants"), limits.new_tenants);
    all.number(place.word("in_flight"), limits.in_flight);
    all.number(place.word("connections"), limits.connections);
    all.number(place.word("streams"), limits.streams as usize);
    for (word, period) in [
        ("drain", limits.drain),
        ("head_timeout", limits.head_timeout),
        ("idle_timeout", limits.idle_timeout),
        ("body_timeout", limits.body_timeout),
        ("write_timeout", limits.write_timeout),
        ("answer_timeout", limits.answer_timeout),
        ("exchange_timeout", limits.exchange_timeout),
        ("tunnel_idle", limits.tunnel_idle),
    ] {
        all.text(place.word(word), show_duration(period));
    }
    all.text(place.word("body_rate"), show_size(limits.body_rate));
    let loopback = Shown::Switch(limits.loopback_upstreams);
    all.put(place.word("loopback_upstreams"), loopback);
}
