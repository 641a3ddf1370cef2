//! For people who ask: what a selector selects in a message, as JSON text.

use super::multipart;
use super::{At, Message, Refusal, Selects, Shape, Spot, forms, select};
use crate::scan::text;

/// A value that was selected.
#[derive(Clone, PartialEq, Eq)]
pub struct Selected {
    /// Where: a JSONPath of one place, with another behind ` > ` for JSON within a string; else the selector.
    pub place: String,
    /// JSON text; of what is no JSON, a JSON string.
    pub json: Vec<u8>,
}

// No derived Debug: a value is the application's data.
impl std::fmt::Debug for Selected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Selected").field(&self.place).finish()
    }
}

/// The values of `message` that `at` selects, in their order. What cannot be decoded is left out.
///
/// # Errors
/// The body, where it is asked for, is not of its shape.
pub fn values(at: &At, message: &Message<'_>, depth_max: usize) -> Result<Vec<Selected>, Refusal> {
    let of_text = |text: &str| {
        let mut json = Vec::new();
        text::canonical_of_text(text, &mut json);
        Selected {
            place: at.as_str().to_owned(),
            json,
        }
    };
    let of_fields = |form: &[u8], wanted: &str| {
        forms::fields(form)
            .filter(|field| forms::decode(field.name).as_deref() == Some(wanted))
            .filter_map(|field| forms::decode(&form[field.start..field.end]))
            .map(|text| of_text(&text))
            .collect()
    };
    match at.place() {
        Selects::Json(path) => {
            let places = select(&[path], depth_max, message.body)?;
            let places = places.into_iter().flatten();
            Ok(places
                .map(|place| Selected {
                    json: message.body[place.start..place.end].to_vec(),
                    place: place.to_string(),
                })
                .collect())
        }
        Selects::Inside { outer, then } => {
            let mut found = Vec::new();
            for outer in select(&[outer], depth_max, message.body)?.concat() {
                let mut inner = Vec::new();
                let raw = outer.start + 1..outer.end - 1;
                if !outer.kind.is_string()
                    || text::unescape(&message.body[raw], &mut inner).is_err()
                {
                    continue;
                }
                for place in select(&[then], depth_max, &inner)
                    .unwrap_or_default()
                    .concat()
                {
                    found.push(Selected {
                        place: format!("{outer} > {place}"),
                        json: inner[place.start..place.end].to_vec(),
                    });
                }
            }
            Ok(found)
        }
        Selects::Named { spot, name } => match (spot, message.shape) {
            (Spot::Header, _) => {
                let lines = message.lines.iter().filter(|(known, _)| *known == &**name);
                let texts = lines.filter_map(|(_, value)| std::str::from_utf8(value).ok());
                Ok(texts.map(of_text).collect())
            }
            (Spot::Query, _) => Ok(of_fields(
                message.query.unwrap_or_default().as_bytes(),
                name,
            )),
            (Spot::Form, _) => Ok(of_fields(message.body, name)),
            (Spot::Part, Shape::Multipart { boundary }) => {
                let parts = multipart::parts(message.body, boundary)
                    .map_err(|(offset, what)| Refusal::BadForm { offset, what })?;
                let named = parts
                    .iter()
                    .filter(|part| part.names.contains(&name.to_string()));
                let texts = named.filter_map(|part| {
                    std::str::from_utf8(&message.body[part.start..part.end]).ok()
                });
                Ok(texts.map(of_text).collect())
            }
            (Spot::Part, _) => Ok(Vec::new()),
        },
    }
}
