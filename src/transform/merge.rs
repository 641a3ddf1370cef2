//! Arrays of a JSON Merge Patch (RFC 7396): members outside of them are merged, and removed by `null`; arrays are replaced whole.

use super::Refusal;
use crate::scan;

/// The outermost arrays of a document, as (first byte, behind the last) in their order.
pub(super) struct Arrays(Vec<(usize, usize)>);

impl Arrays {
    /// True within an array.
    pub(super) fn hold(&self, at: usize) -> bool {
        let after = self.0.partition_point(|(start, _)| *start < at);
        after > 0 && at < self.0[after - 1].1
    }
}

/// Finds them.
///
/// # Errors
/// The body is no document.
pub(super) fn arrays(body: &[u8], depth_max: usize) -> Result<Arrays, Refusal> {
    scan::validate(depth_max, body)?;
    let mut found: Vec<(usize, usize)> = Vec::new();
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, byte) in body.iter().enumerate() {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[') => {
                if depth == 0 {
                    found.push((at, body.len()));
                }
                depth += 1;
            }
            (false, b']') => {
                depth -= 1;
                if let (0, Some(last)) = (depth, found.last_mut()) {
                    last.1 = at + 1;
                }
            }
            _ => {}
        }
    }
    Ok(Arrays(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outermost_arrays() {
        let text = r#"{"a":null,"b":[null,[1]],"c\"[":{"d":null},"e":[]}"#;
        let arrays = arrays(text.as_bytes(), 8).unwrap();
        let inside: String = text
            .char_indices()
            .map(|(at, c)| if arrays.hold(at) { c } else { '_' })
            .collect();
        assert_eq!(
            inside.trim_matches('_'),
            "null,[1]]________________________]"
        );
    }
}
