//! A case's bodies as they are sent: JSON, tokens made, records framed, files read.

use crate::body::held::{Declared, declared};
use crate::body::records::Framing;
use crate::context::Class;
use crate::diagnostic::quoted;
use crate::marked::Findings;
use crate::policy::{Policies, Policy};
use crate::rehearsal::script::{Body, KeptWords, Piece, SplitWords};
use crate::rehearsal::{Kept, Keys};
use http::HeaderMap;

/// Makes the bodies of one case.
pub(super) struct Maker<'m> {
    pub policies: &'m Policies,
    pub keys: &'m Keys,
    /// The bytes of a file by the name that a case knows it by.
    pub read: &'m dyn Fn(&str) -> Result<Vec<u8>, String>,
}

impl Maker<'_> {
    /// The bytes of a body under these headers; `None`: a finding says why there are none.
    pub(super) fn bytes(
        &self,
        body: &Body,
        headers: &HeaderMap,
        findings: &mut Findings<'_>,
    ) -> Option<Vec<u8>> {
        match body {
            Body::Pieces(pieces) => self.pieces(pieces, findings),
            Body::Form(form) => Some(form.clone().into_bytes()),
            Body::File(name) => (self.read)(&name.value)
                .map_err(|what| {
                    let message = format!("{} cannot be read: {what}", quoted(&name.value));
                    findings.at("unreadable", name.span, message);
                })
                .ok(),
            Body::Records(records) => {
                let framing = match declared(headers) {
                    Declared::Records(framing) => framing,
                    _ => Framing::Lines,
                };
                let mut out = Vec::new();
                for record in records {
                    for text in self.record(record, findings)? {
                        frame(framing, &text, &mut out);
                    }
                }
                Some(out)
            }
        }
    }

    fn pieces(&self, pieces: &[Piece], findings: &mut Findings<'_>) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                Piece::Token(words) => {
                    let token = self.token(words, findings)?;
                    bytes.extend_from_slice(format!("\"{token}\"").as_bytes());
                }
                // It was found where it is written.
                Piece::Split(_) => return None,
            }
        }
        Some(bytes)
    }

    /// A record, or one for each piece of its text.
    fn record(&self, record: &[Piece], findings: &mut Findings<'_>) -> Option<Vec<Vec<u8>>> {
        let split = record
            .iter()
            .enumerate()
            .find_map(|(at, piece)| match piece {
                Piece::Split(words) => Some((at, words)),
                _ => None,
            });
        let Some((at, words)) = split else {
            return Some(vec![self.pieces(record, findings)?]);
        };
        let before = self.pieces(&record[..at], findings)?;
        let after = self.pieces(&record[at + 1..], findings)?;
        let text: Vec<char> = self.text(words, findings)?.chars().collect();
        let pieces = text.chunks(words.each.max(1)).map(|piece| {
            let piece: String = piece.iter().collect();
            let json = serde_json::Value::from(piece).to_string();
            [&before, json.as_bytes(), &after].concat()
        });
        Some(pieces.collect())
    }

    fn text(&self, words: &SplitWords, findings: &mut Findings<'_>) -> Option<String> {
        let mut text = String::new();
        for piece in &words.text {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Token(words) => text.push_str(&self.token(words, findings)?),
                Piece::Split(_) => return None,
            }
        }
        Some(text)
    }

    fn token(&self, words: &KeptWords, findings: &mut Findings<'_>) -> Option<String> {
        let (policy, class) = class_named(self.policies, &words.class.value)?;
        if policy.tenant.is_some() && words.tenant.is_none() {
            let message = "the policy declares a tenant, so its tokens have one";
            findings.at("missing-word", words.span, message);
            return None;
        }
        let bind: Vec<(String, String)> = words
            .bind
            .iter()
            .map(|(name, value)| (name.value.clone(), value.clone()))
            .collect();
        let kept = Kept {
            class: &class,
            tenant: words.tenant.as_deref().filter(|_| policy.tenant.is_some()),
            bind: &bind,
            value: &words.value,
        };
        self.keys
            .token(&kept)
            .map_err(|refusal| {
                let message = format!("no token can be made of this: {}", refusal.word());
                findings.at("bad-token", words.span, message);
            })
            .ok()
    }
}

/// The policy that has a class of this name, and the class as it was under that name.
fn class_named<'p>(policies: &'p Policies, name: &str) -> Option<(&'p Policy, Class)> {
    policies.iter().find_map(|policy| {
        let class = policy
            .classes
            .iter()
            .find(|class| class.names().any(|known| **known == *name))?;
        let mut class = Class::clone(class);
        class.name = name.into();
        Some((policy, class))
    })
}

/// Writes a record as its stream has it.
fn frame(framing: Framing, text: &[u8], out: &mut Vec<u8>) {
    match framing {
        Framing::Lines => {}
        Framing::Sequence => out.push(0x1e),
        Framing::Events => {
            for line in text.split(|byte| *byte == b'\n') {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(line);
                out.push(b'\n');
            }
            return out.push(b'\n');
        }
    }
    out.extend_from_slice(text);
    out.push(b'\n');
}
