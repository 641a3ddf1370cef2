//! What a request would have told from outside its body (tenant, path, headers, query), taken from each record instead.

use crate::context::{Circumstances, Outside};
use crate::error::{Code, Error};
use crate::path::Path;
use crate::policy::TENANT_BYTES_MAX;
use crate::scan::{Kind, text};
use crate::token;
use crate::transform::{Action, Attitude, Manner, Place, Rule, Rules, places};
use std::borrow::Cow;

/// Values of each record that go into the context of its tokens.
pub struct Bound {
    /// The paths as rules that open nothing; `None`: there are none.
    rules: Option<Rules>,
    targets: Vec<Target>,
}

/// Where a value goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The tenant.
    Tenant,
    /// Indexes into [`Circumstances::outside`].
    Outside(Vec<usize>),
}

impl Bound {
    /// `paths`: where in a record each value stands; `manner`: that of the route's side.
    ///
    /// # Errors
    /// The paths are too complex together.
    pub fn new(paths: Vec<(Path, Target)>, manner: Manner) -> Result<Bound, String> {
        let manner = Manner {
            stray: Attitude::Allow,
            unclaimed: Attitude::Allow,
            ..manner
        };
        let (paths, targets): (Vec<Path>, Vec<Target>) = paths.into_iter().unzip();
        let rule = |at: Path| Rule {
            at: at.into(),
            action: Action::Open(Vec::new()),
            bind: Vec::new(),
            reveal: crate::transform::Reveal::default(),
            gather: false,
        };
        let rules = (!paths.is_empty())
            .then(|| Rules::compile(paths.into_iter().map(rule).collect(), manner))
            .transpose()
            .map_err(|error| error.what)?;
        Ok(Bound { rules, targets })
    }

    /// The circumstances of one record.
    ///
    /// # Errors
    /// It is no document, or has no tenant where one is to be taken from it.
    pub fn circumstances<'c>(
        &self,
        fixed: &'c Circumstances,
        body: &[u8],
    ) -> Result<Cow<'c, Circumstances>, Error> {
        let Some(rules) = &self.rules else {
            return Ok(Cow::Borrowed(fixed));
        };
        let found = places(rules, body).map_err(super::told)?;
        let mut circumstances = fixed.clone();
        for (rule, target) in self.targets.iter().enumerate() {
            let mut selected = found.iter().filter(|place| place.rules.contains(&rule));
            let value = match (selected.next(), selected.next()) {
                (None, _) => Outside::Missing,
                (Some(_), Some(_)) => Outside::Repeated,
                (Some(place), None) => value(place, body),
            };
            match target {
                Target::Tenant => circumstances.tenant = Some(tenant(value)?.into()),
                Target::Outside(indexes) => {
                    for index in indexes {
                        circumstances.outside[*index] = value.clone();
                    }
                }
            }
        }
        Ok(Cow::Owned(circumstances))
    }
}

fn tenant(value: Outside) -> Result<String, Error> {
    match value {
        Outside::Text(text) if !text.is_empty() && text.len() <= TENANT_BYTES_MAX => Ok(text),
        Outside::Text(_) => Err(Code::TenantMissing.because("empty or too long")),
        Outside::Missing => Err(Code::TenantMissing.because("missing")),
        Outside::Repeated => Err(Code::TenantMissing.because("repeated")),
    }
}

/// A string's text, or an integer's digits, as a path or a header would have them. What else there is, and what is
/// sealed, is missing.
fn value(place: &Place, body: &[u8]) -> Outside {
    let raw = &body[place.start..place.end];
    let mut decoded = Vec::new();
    match place.kind {
        Kind::Plain | Kind::Escaped => {
            if text::unescape(&raw[1..raw.len() - 1], &mut decoded).is_err()
                || token::is_reserved(&decoded)
            {
                return Outside::Missing;
            }
        }
        Kind::Number if raw.iter().all(|c| c.is_ascii_digit() || *c == b'-') => {
            decoded.extend_from_slice(raw);
        }
        _ => return Outside::Missing,
    }
    String::from_utf8(decoded).map_or(Outside::Missing, Outside::Text)
}
