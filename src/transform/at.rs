//! What a rule selects: values of a JSON document by path, values of JSON inside of a string, or named values elsewhere in the message.

use crate::path::{Path, PathError, Step};
use std::fmt;
use std::sync::Arc;

/// What a rule selects.
#[derive(Clone)]
pub struct At {
    text: Arc<str>,
    place: Selects,
}

/// The kinds of place.
#[derive(Clone, Debug)]
pub enum Selects {
    /// Values of the JSON body.
    Json(Path),
    /// Strings of the JSON body that hold a JSON document themselves, and values of that.
    Inside {
        /// Selects the strings, in the body.
        outer: Path,
        /// Selects values, in the document that such a string holds.
        then: Path,
    },
    /// Values that have a name, anywhere but in JSON.
    Named {
        /// Where.
        spot: Spot,
        /// Decoded; of a header in lower case.
        name: Arc<str>,
    },
}

/// Where a message has named values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spot {
    /// A header field, each line of it.
    Header,
    /// A parameter of the query.
    Query,
    /// A field of a form (`application/x-www-form-urlencoded`).
    Form,
    /// A part of a form (`multipart/form-data`).
    Part,
}

impl Spot {
    /// Its word in policies.
    pub fn word(self) -> &'static str {
        match self {
            Spot::Header => "header",
            Spot::Query => "query",
            Spot::Form => "form",
            Spot::Part => "part",
        }
    }
}

impl From<Path> for At {
    fn from(path: Path) -> At {
        At {
            text: path.as_str().into(),
            place: Selects::Json(path),
        }
    }
}

impl At {
    /// Values of this name at this spot.
    pub fn named(spot: Spot, name: &str) -> At {
        At {
            text: format!("{}:{name}", spot.word()).into(),
            place: Selects::Named {
                spot,
                name: name.into(),
            },
        }
    }

    /// Values that `then` selects in the documents that the strings at `outer` hold.
    pub fn inside(outer: Path, then: Path) -> At {
        At {
            text: format!("json:{} then:{}", outer.as_str(), then.as_str()).into(),
            place: Selects::Inside { outer, then },
        }
    }

    /// Reads what [`At::as_str`] writes; the name of a header in any case.
    ///
    /// # Errors
    /// Those of [`Path::parse`].
    pub fn parse(text: &str) -> Result<At, PathError> {
        let inside = text
            .strip_prefix("json:")
            .and_then(|rest| rest.split_once(" then:"));
        if let Some((outer, then)) = inside {
            let then = Path::parse(then)?;
            return Ok(At::inside(Path::parse(outer)?, then));
        }
        let spots = [Spot::Header, Spot::Query, Spot::Form, Spot::Part];
        let named = spots.into_iter().find_map(|spot| {
            let name = text.strip_prefix(spot.word())?.strip_prefix(':')?;
            Some(match spot {
                Spot::Header => At::named(spot, &name.to_ascii_lowercase()),
                _ => At::named(spot, name),
            })
        });
        named.map_or_else(|| Path::parse(text).map(At::from), Ok)
    }

    /// In a few words: `$..ssn`, `query:email`, `json:$.payload then:$.ssn`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What kind of place it is.
    pub fn place(&self) -> &Selects {
        &self.place
    }

    /// The path in the body: to the value, or to the string that holds it.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Selects::Json(path) | Selects::Inside { outer: path, .. } => Some(path),
            Selects::Named { .. } => None,
        }
    }

    /// The steps that the scanner follows in the body; `None` where there are none, or the document must be evaluated.
    pub fn steps(&self) -> Option<&[Step]> {
        self.path().and_then(Path::steps)
    }

    /// Some value of JSON is found by evaluating the document.
    pub fn is_evaluated(&self) -> bool {
        self.path().is_some_and(|path| path.steps().is_none())
    }

    /// As [`Path::covers`]: whether all that `other` selects is selected here, or (`below`) lies within what is.
    pub fn covers(&self, other: &At, below: bool) -> Option<bool> {
        match (&self.place, &other.place) {
            (Selects::Json(one), Selects::Json(two)) => one.covers(two, below),
            (Selects::Json(one), Selects::Inside { outer, .. }) if below => one.covers(outer, true),
            (
                Selects::Inside { outer, then },
                Selects::Inside {
                    outer: other,
                    then: within,
                },
            ) if outer.covers(other, false) == Some(true) => then.covers(within, below),
            (Selects::Inside { .. }, Selects::Inside { .. }) => None,
            (one, two) => Some(one.same_name(two)),
        }
    }

    /// As [`Path::meets`]: whether some value can be selected by both.
    pub fn meets(&self, other: &At, below: bool) -> Option<bool> {
        match (&self.place, &other.place) {
            (Selects::Json(one), Selects::Json(two)) => one.meets(two, below),
            (Selects::Json(one), Selects::Inside { outer, .. }) if below => one.meets(outer, true),
            (
                Selects::Inside { outer, then },
                Selects::Inside {
                    outer: other,
                    then: within,
                },
            ) => match outer.meets(other, false) {
                Some(true) => then.meets(within, below),
                known => known,
            },
            (one, two) => Some(one.same_name(two)),
        }
    }
}

impl Selects {
    fn same_name(&self, other: &Selects) -> bool {
        match (self, other) {
            (
                Selects::Named { spot, name },
                Selects::Named {
                    spot: other,
                    name: called,
                },
            ) => spot == other && name == called,
            _ => false,
        }
    }
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("At").field(&self.text).finish()
    }
}
