//! Why a body is not rewritten, in the words of the error table.

use crate::audit::Side;
use crate::body::coded::Undecoded;
use crate::body::coding::Undecodable;
use crate::body::held::Declared;
use crate::dek::Unopened;
use crate::error::{Code, Error};
use crate::transform::{Refusal, Rules, Spot};

/// What stopped a rewriting.
pub enum Failure {
    /// The body, or the policy's view of it.
    Body(Refusal),
    /// Its content codings.
    Coded(Undecoded),
    /// The keys.
    Keys(Error),
    /// No memory is left for what would come of it. Not `ever`: nor would all of it be enough.
    Room { ever: bool },
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Body(refusal)
    }
}

impl From<Undecoded> for Failure {
    fn from(undecoded: Undecoded) -> Failure {
        Failure::Coded(undecoded)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Keys(error)
    }
}

impl Failure {
    /// It is the message that could not be read: what of it can be read on its own is no worse for it.
    pub fn is_unread(&self) -> bool {
        matches!(self, Failure::Body(_) | Failure::Coded(_))
    }

    /// The error, and, where it means that the body could not be read rather than that it is not wanted, the word for
    /// that.
    pub fn on(self, side: Side) -> (Error, Option<&'static str>) {
        match self {
            Failure::Keys(error) => (error, Some("keys")),
            Failure::Coded(undecoded) => {
                let (error, why) = match undecoded {
                    Undecoded::Undecodable(why) => self::undecoded(why, side),
                    Undecoded::NoRoom => {
                        let code = match side {
                            Side::Request => Code::Busy,
                            Side::Response => Code::UpstreamUnreadable,
                        };
                        (code.because("without its codings"), "no-room")
                    }
                };
                (error, Some(why))
            }
            Failure::Room { ever } => {
                let code = match (side, ever) {
                    (Side::Response, _) => Code::UpstreamUnreadable,
                    (Side::Request, true) => Code::Busy,
                    (Side::Request, false) => Code::TooMany,
                };
                (
                    code.because("no room for the body rewritten"),
                    Some("no-room"),
                )
            }
            Failure::Body(refusal) => {
                let readable = !matches!(
                    refusal,
                    Refusal::NotJson { .. }
                        | Refusal::TooDeep { .. }
                        | Refusal::NotInner { .. }
                        | Refusal::BadForm { .. }
                        | Refusal::Patch { .. }
                        | Refusal::TooMany
                        | Refusal::Window { .. }
                        | Refusal::Unevaluable { .. }
                );
                let error = match side {
                    Side::Request => request_code(&refusal).because(note(&refusal)),
                    Side::Response if matches!(refusal, Refusal::Unchecked { .. }) => {
                        request_code(&refusal).because(note(&refusal))
                    }
                    Side::Response if readable => Code::UpstreamRefused.because(note(&refusal)),
                    Side::Response => Code::UpstreamUnreadable.because(note(&refusal)),
                };
                (error, (!readable).then(|| refusal.word()))
            }
        }
    }
}

/// A body whose codings cannot be taken off, with the word for that.
pub fn undecoded(why: Undecodable, side: Side) -> (Error, &'static str) {
    let code = match (side, why) {
        (Side::Response, _) => Code::UpstreamUnreadable,
        (Side::Request, Undecodable::Broken) => Code::CodingBroken,
        (Side::Request, Undecodable::Inflation) => Code::Inflation,
        (Side::Request, Undecodable::TooLarge) => Code::BodyTooLarge,
    };
    (code.because("without its codings"), why.word())
}

fn request_code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::NotJson { .. } => Code::NotJson,
        Refusal::TooDeep { .. } => Code::TooDeep,
        Refusal::Bind { .. } => Code::Bind,
        Refusal::Token { .. } | Refusal::Unopened { .. } => Code::TokenRefused,
        Refusal::Unchecked { why, .. } => match why {
            Unopened::OverBudget => Code::TooMany,
            _ => Code::KeysUnreachable,
        },
        Refusal::Stray { .. } => Code::Stray,
        Refusal::Unclaimed { .. } => Code::Unclaimed,
        Refusal::Masked { .. } => Code::Masked,
        Refusal::Plaintext { .. } => Code::Plaintext,
        Refusal::NearMiss { .. } => Code::NearMiss,
        Refusal::Composite { .. } => Code::Composite,
        Refusal::TooLong { .. } | Refusal::Window { .. } => Code::ValueTooLong,
        Refusal::NotInner { .. } => Code::InnerNotJson,
        Refusal::BadForm { .. } => Code::BadForm,
        Refusal::NotText { .. } => Code::NotText,
        Refusal::Patch { .. } => Code::PatchRefused,
        Refusal::TooMany => Code::TooMany,
        Refusal::Unevaluable { .. } => Code::Unevaluable,
    }
}

/// For the log: the word, and where. Offsets and fixed phrases only.
fn note(refusal: &Refusal) -> String {
    let word = refusal.word();
    match refusal {
        Refusal::NotJson { offset, what }
        | Refusal::BadForm { offset, what }
        | Refusal::NotText { offset, what }
        | Refusal::Patch { offset, what } => format!("{word} at byte {offset}: {what}"),
        Refusal::TooDeep { offset }
        | Refusal::Token { offset }
        | Refusal::Unchecked { offset, .. }
        | Refusal::Stray { offset }
        | Refusal::Unclaimed { offset }
        | Refusal::Masked { offset }
        | Refusal::Plaintext { offset }
        | Refusal::Unopened { offset }
        | Refusal::NearMiss { offset }
        | Refusal::Composite { offset }
        | Refusal::NotInner { offset }
        | Refusal::Window { offset }
        | Refusal::TooLong { offset } => format!("{word} at byte {offset}"),
        Refusal::Bind { name, what } => format!("{word} {name}: {what}"),
        Refusal::TooMany => word.to_owned(),
        Refusal::Unevaluable { what } => format!("{word}: {what}"),
    }
}

/// Why a request's declared type or coding keeps it from being read under these rules.
pub fn of_request(declared: Declared, rules: &Rules) -> Option<Error> {
    match declared {
        Declared::Coded => Some(Code::ContentCoding.into()),
        declared if reads(rules, declared) => None,
        _ => Some(Code::ContentType.into()),
    }
}

/// Some rule is for bodies that are declared so.
pub fn reads(rules: &Rules, declared: Declared) -> bool {
    match declared {
        Declared::Json | Declared::MergePatch | Declared::JsonPatch | Declared::Records(_) => {
            rules.reads_json()
        }
        Declared::Form => rules.reads(Spot::Form),
        Declared::Multipart => rules.reads(Spot::Part),
        Declared::Other | Declared::Coded => false,
    }
}
