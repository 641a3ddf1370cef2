//! The kind of YAML that the language takes, as JSON: plain numbers and booleans are such, the rest is text.
use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

enum Frame {
    List(Vec<Value>),
    Map(Map<String, Value>, Option<String>),
}

pub fn read(text: &str) -> Option<Value> {
    let mut stack: Vec<Frame> = Vec::new();
    let mut root = None;
    for event in Parser::new_from_str(text) {
        let (event, _) = event.ok()?;
        let done = match event {
            Event::Scalar(value, style, ..) => {
                let plain = style == ScalarStyle::Plain;
                let parsed = plain
                    .then(|| serde_json::from_str::<Value>(&value).ok())
                    .flatten();
                let empty = plain && matches!(&*value, "" | "~");
                match parsed {
                    _ if empty => Value::Null,
                    Some(parsed) if !parsed.is_string() => parsed,
                    _ => Value::from(value.into_owned()),
                }
            }
            Event::SequenceStart(..) => {
                stack.push(Frame::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                stack.push(Frame::Map(Map::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match stack.pop()? {
                Frame::List(items) => Value::Array(items),
                Frame::Map(members, _) => Value::Object(members),
            },
            Event::Alias(_) => return None,
            _ => continue,
        };
        match stack.last_mut() {
            None => root = Some(done),
            Some(Frame::List(items)) => items.push(done),
            Some(Frame::Map(members, key)) => match key.take() {
                Some(key) => {
                    members.insert(key, done);
                }
                None => {
                    *key = Some(
                        done.as_str()
                            .map_or_else(|| done.to_string(), str::to_owned),
                    )
                }
            },
        }
    }
    root
}
