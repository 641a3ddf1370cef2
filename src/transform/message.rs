//! A message as the engine sees it: a body of some shape and what rules select of the head; and what becomes of the head.

/// How a body is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape<'m> {
    /// One JSON document.
    Json,
    /// A JSON Merge Patch (RFC 7396): of a document's shape; `null` removes.
    MergePatch,
    /// A JSON Patch (RFC 6902): its values belong where its pointers point.
    JsonPatch,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `multipart/form-data`.
    Multipart {
        /// What stands between its parts.
        boundary: &'m str,
    },
    /// Not at all: it goes on as it is.
    Unread,
}

/// One message.
#[derive(Clone)]
pub struct Message<'m> {
    /// The body.
    pub body: &'m [u8],
    /// How it is read.
    pub shape: Shape<'m>,
    /// The lines of the header fields that the rules name ([`super::Rules::headers`]) or nearly name ([`super::Rules::is_near`]): names
    /// in lower case, and values.
    pub lines: Vec<(&'m str, &'m [u8])>,
    /// The query as it is sent, without `?`.
    pub query: Option<&'m str>,
}

impl<'m> Message<'m> {
    /// A JSON body, and no head.
    pub fn json(body: &'m [u8]) -> Message<'m> {
        Message {
            body,
            shape: Shape::Json,
            lines: Vec::new(),
            query: None,
        }
    }
}

// No derived Debug: a message is the application's data.
impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("bytes", &self.body.len())
            .field("lines", &self.lines.len())
            .field("query", &self.query.is_some())
            .finish_non_exhaustive()
    }
}

/// What is new in a message's head.
#[derive(Default, PartialEq, Eq)]
pub struct Heads {
    /// Values by their index in [`Message::lines`].
    pub lines: Vec<(usize, Vec<u8>)>,
    /// The query.
    pub query: Option<String>,
}

impl Heads {
    /// Nothing is.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.query.is_none()
    }
}

impl std::fmt::Debug for Heads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heads")
            .field("lines", &self.lines.len())
            .field("query", &self.query.is_some())
            .finish()
    }
}
