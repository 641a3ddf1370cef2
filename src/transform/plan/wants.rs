//! What a plan asks of the key room: one need for each key that seals, and for each record that is to open.

use super::{Planner, RECORDS_MAX, Sealed};
use crate::context::Class;
use crate::dek::{OpenNeed, Scope, SealNeed};
use crate::token::Token;
use sha2::{Digest, Sha256};
use std::sync::Arc;

impl Planner<'_, '_> {
    pub(super) fn sealing_need(&mut self, class: usize) -> usize {
        // One body has one tenant, and few keys.
        let Class { key, suite, .. } = &*self.plan.rules.classes[class];
        let same = |need: &SealNeed| {
            let known = &need.scope.key;
            need.suite == *suite && (Arc::ptr_eq(known, key) || known == key)
        };
        let known = self.plan.needs.sealing.iter().position(same);
        known.unwrap_or_else(|| {
            let scope = self.scope(class);
            let sealing = &mut self.plan.needs.sealing;
            sealing.push(SealNeed {
                scope,
                suite: *suite,
                values: 0,
            });
            sealing.len() - 1
        })
    }

    fn scope(&self, class: usize) -> Scope {
        Scope {
            key: self.plan.rules.classes[class].key.clone(),
            tenant: self.circumstances.tenant.clone(),
        }
    }

    pub(super) fn opening_need(&mut self, class: usize, token: &Token<'_>) -> Option<usize> {
        if let Some((known, need)) = self.last {
            let last = &self.plan.needs.opening[need];
            if known == class && last.kid == token.kid && last.record.as_deref() == token.record {
                return Some(need);
            }
        }
        let digest: [u8; 32] = Sha256::digest(token.record.unwrap_or_default()).into();
        let opening = &self.plan.needs.opening;
        let need = match self.records.get(&(class, token.kid, digest)) {
            Some(&known) => known,
            None if opening.len() >= RECORDS_MAX => return None,
            None => {
                let need = OpenNeed {
                    scope: self.scope(class),
                    kid: token.kid,
                    record: token.record.map(Into::into),
                };
                let opening = &mut self.plan.needs.opening;
                opening.push(need);
                self.records
                    .insert((class, token.kid, digest), opening.len() - 1);
                opening.len() - 1
            }
        };
        self.last = Some((class, need));
        Some(need)
    }

    pub(super) fn sealed(&mut self, token: &Token<'_>) -> Sealed {
        let from = self.plan.payloads.len();
        if let Some(nonce) = token.nonce {
            self.plan.payloads.extend_from_slice(nonce);
        }
        self.plan.payloads.extend_from_slice(token.sealed);
        Sealed {
            suite: token.suite,
            kid: token.kid,
            payload: from..self.plan.payloads.len(),
        }
    }
}
