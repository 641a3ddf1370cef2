//! Keys for rehearsals: derived from the names of key and tenant, so that the same test gives the same tokens on every machine.
//!
//! They protect nothing: whoever reads this file knows them. No agent takes them for keys, since their tokens name a KEK
//! that no settings can have.

use crate::context::{Circumstances, Class};
use crate::dek::{
    Dek, MATERIAL_LEN, Material, Needs, Ring, Scope, SealingKey, Suite, Unopened, schedule,
};
use crate::error::Error;
use crate::path::Path;
use crate::policy::DEPTH_MAX;
use crate::proxy::KeySource;
use crate::token::{KekId, Record, kek_id};
use crate::transform::{
    Action, Attitude, Bind, BindSource, Manner, Refusal, Reveal, Rule, Rules, plan,
};
use sha2::{Digest, Sha256};
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A key room without a KMS.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// How many random blocks were drawn, from it and its clones.
    drawn: Arc<AtomicU64>,
}

struct Plain(Box<[u8; MATERIAL_LEN]>);

impl Material for Plain {
    fn expose(&self) -> &[u8; MATERIAL_LEN] {
        &self.0
    }
}

/// A token that a test puts into a body: what the application or the upstream may have kept from earlier.
#[derive(Clone, Debug)]
pub struct Kept<'k> {
    /// Its class; the name may be a former one.
    pub class: &'k Class,
    /// Of the token; `None` where the policy declares none.
    pub tenant: Option<&'k str>,
    /// Names, and values as JSON text (a string or an integer).
    pub bind: &'k [(String, String)],
    /// The plaintext as JSON text.
    pub value: &'k str,
}

impl Keys {
    /// The one key of a scope and suite; that of deterministic classes is a stored one.
    fn key(&self, scope: &Scope, suite: Suite) -> Arc<SealingKey> {
        let stored = suite == Suite::Aes256Siv;
        let (dek, blob) = (digest(secret(stored), scope), digest(b"blob", scope));
        let mut material = Box::new([0; MATERIAL_LEN]);
        let kid = schedule(&dek, &mut material);
        let record = Record::build(&[(kek(&scope.key), &blob)]).expect("one wrapping of 32 bytes");
        Arc::new(SealingKey {
            dek: Dek::new(kid, Box::new(Plain(material))),
            record,
            stored,
        })
    }

    /// What the key room would answer if every KMS were there and said yes.
    pub fn ring(&self, needs: &Needs) -> Ring {
        let opening = needs.opening.iter().map(|need| {
            let suite = match need.record {
                Some(_) => Suite::Xaes256Gcm,
                None => Suite::Aes256Siv,
            };
            let key = self.key(&need.scope, suite);
            let own = kek(&need.scope.key);
            match need.record.as_deref() {
                record if need.kid == key.dek.kid() && record == key.inline() => {
                    let mut material = Box::new([0; MATERIAL_LEN]);
                    let kid = schedule(&digest(secret(key.stored), &need.scope), &mut material);
                    Ok(Arc::new(Dek::new(kid, Box::new(Plain(material)))))
                }
                Some(record) if wrapped_under(record, own) => Err(Unopened::Mismatch),
                Some(_) => Err(Unopened::Foreign),
                None => Err(Unopened::NotFound),
            }
        });
        Ring {
            sealing: needs
                .sealing
                .iter()
                .map(|need| self.key(&need.scope, need.suite))
                .collect(),
            opening: opening.collect(),
        }
    }

    /// The text of a token, made by the engine itself: a small document with the value and what it is bound to is sealed.
    ///
    /// # Errors
    /// A bound value is neither a text nor a whole number, or the value is too long.
    pub fn token(&self, kept: &Kept<'_>) -> Result<String, Refusal> {
        let path = |text: &str| Path::parse(text).expect("a path without names of others");
        let bind = |(index, (name, _)): (usize, &(String, String))| Bind {
            name: name.as_str().into(),
            source: BindSource::Root(path(&format!("$.bind[{index}]"))),
        };
        let rule = Rule {
            at: path("$.value").into(),
            action: Action::Seal(Arc::new(kept.class.clone())),
            bind: kept.bind.iter().enumerate().map(bind).collect(),
            reveal: Reveal::default(),
            gather: false,
        };
        let manner = Manner {
            stray: Attitude::Allow,
            unclaimed: Attitude::Allow,
            depth_max: DEPTH_MAX + 1,
            ..Manner::default()
        };
        let rules = Rules::compile(vec![rule], manner).map_err(|error| Refusal::Bind {
            name: error.what.into(),
            what: "name",
        })?;
        let bound: Vec<&str> = kept.bind.iter().map(|(_, value)| value.as_str()).collect();
        let body = format!(r#"{{"bind":[{}],"value":{}}}"#, bound.join(","), kept.value);
        let circumstances = Circumstances {
            tenant: kept.tenant.map(Into::into),
            ..Circumstances::default()
        };
        let plan = plan(&rules, body.as_bytes(), &circumstances)?;
        let ring = self.ring(plan.needs());
        let mut out = Vec::new();
        plan.apply(
            body.as_bytes(),
            &ring,
            &mut |buffer| self.random(buffer),
            &mut out,
        )?;
        let text = String::from_utf8_lossy(&out);
        // The token is the last string, and needs no escape.
        let token = text.trim_end_matches("\"}").rsplit('"').next();
        Ok(token.unwrap_or_default().to_owned())
    }
}

impl KeySource for Keys {
    fn fetch<'k>(
        &'k self,
        needs: &'k Needs,
    ) -> Pin<Box<dyn Future<Output = Result<Ring, Error>> + Send + 'k>> {
        Box::pin(ready(Ok(self.ring(needs))))
    }

    /// Different in each call, the same in each run.
    fn random(&self, buffer: &mut [u8]) {
        for block in buffer.chunks_mut(32) {
            let mut hash = Sha256::new_with_prefix(b"fieldveil rehearsal: random");
            hash.update(self.drawn.fetch_add(1, Relaxed).to_be_bytes());
            block.copy_from_slice(&hash.finalize()[..block.len()]);
        }
    }
}

fn secret(stored: bool) -> &'static [u8] {
    if stored { b"durable" } else { b"dek" }
}

fn kek(key: &str) -> KekId {
    kek_id(&format!("rehearsal:{key}"))
}

fn wrapped_under(record: &[u8], kek: KekId) -> bool {
    Record::parse(record).is_ok_and(|record| record.wrappings().any(|(id, _)| id == kek))
}

/// SHA-256 over what is asked for and a scope, each part with its length.
fn digest(what: &[u8], scope: &Scope) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(b"fieldveil rehearsal: keys that protect nothing");
    let tenant = scope.tenant.as_deref();
    for part in [
        what,
        scope.key.as_bytes(),
        tenant.unwrap_or_default().as_bytes(),
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update([u8::from(tenant.is_some())]);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dek::OpenNeed;
    use crate::token::{ClassHint, Token};

    fn class() -> Class {
        Class {
            name: "ssn".into(),
            formerly: Vec::new(),
            key: "identity".into(),
            suite: Suite::Xaes256Gcm,
            keep_sealed: true,
            mask: None,
        }
    }

    fn kept<'k>(class: &'k Class, tenant: Option<&'k str>, value: &'k str) -> Kept<'k> {
        Kept {
            class,
            tenant,
            bind: &[],
            value,
        }
    }

    #[test]
    fn a_token_is_the_same_in_every_run_and_no_two_are_alike() {
        let class = class();
        let (keys, again) = (Keys::default(), Keys::default());
        let first = keys.token(&kept(&class, None, "\"1\"")).expect("a token");
        assert_eq!(
            first,
            again.token(&kept(&class, None, "\"1\"")).expect("a token")
        );
        assert_ne!(
            first,
            keys.token(&kept(&class, None, "\"1\"")).expect("a token")
        );
        let mut payload = Vec::new();
        let token = Token::decode(first.as_bytes(), &mut payload).expect("a token");
        assert_eq!(token.class, ClassHint::of("ssn"));
    }

    #[test]
    fn a_record_opens_in_its_scope_only() {
        let class = class();
        let keys = Keys::default();
        let text = keys.token(&kept(&class, Some("acme"), "{\"a\": \"}\"}"));
        let text = text.expect("a token");
        let mut payload = Vec::new();
        let token = Token::decode(text.as_bytes(), &mut payload).expect("a token");
        let ask = |key: &str, tenant: Option<&str>, record: Option<&[u8]>| {
            let scope = Scope {
                key: key.into(),
                tenant: tenant.map(Into::into),
            };
            let needs = Needs {
                sealing: Vec::new(),
                opening: vec![OpenNeed {
                    scope,
                    kid: token.kid,
                    record: record.map(Into::into),
                }],
            };
            let mut ring = keys.ring(&needs);
            ring.opening.remove(0).map(|dek| dek.kid())
        };
        assert_eq!(ask("identity", Some("acme"), token.record), Ok(token.kid));
        assert_eq!(
            ask("identity", Some("b"), token.record),
            Err(Unopened::Mismatch)
        );
        assert_eq!(ask("identity", None, token.record), Err(Unopened::Mismatch));
        assert_eq!(
            ask("cards", Some("acme"), token.record),
            Err(Unopened::Foreign)
        );
        assert_eq!(ask("identity", Some("acme"), None), Err(Unopened::NotFound));
    }

    #[test]
    fn what_cannot_be_bound_makes_no_token() {
        let class = class();
        let bind = [("record".to_owned(), "[1]".to_owned())];
        let kept = Kept {
            bind: &bind,
            ..kept(&class, None, "1")
        };
        assert!(matches!(
            Keys::default().token(&kept),
            Err(Refusal::Bind { .. })
        ));
    }
}
