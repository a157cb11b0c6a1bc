//! Pages of a list: how long they are, and the opaque place where the next begins.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fault::Fault;

/// Items on a page when the caller does not say.
const DEFAULT_LIMIT: u32 = 100;

/// The most items on a page.
const MAX_LIMIT: u32 = 1000;

/// The number of items asked for.
///
/// # Errors
/// More than a page holds.
pub fn limit(asked: u32) -> fault::Result<usize> {
    let asked = if asked == 0 { DEFAULT_LIMIT } else { asked };
    if asked > MAX_LIMIT {
        return Err(Fault::field("limit", format!("a page has at most {MAX_LIMIT} items")));
    }
    usize::try_from(asked).map_err(Fault::internal)
}

/// The place behind an alert that began at `starts`.
#[must_use]
pub fn cursor(starts: u64, id: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{starts}:{id}"))
}

/// Reads a cursor; the empty one is the beginning.
///
/// # Errors
/// A text that no answer of ours contained.
pub fn place(cursor: &str) -> fault::Result<Option<(u64, String)>> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let read = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let (starts, id) = text.split_once(':')?;
        let starts = starts.parse().ok().filter(|starts| i64::try_from(*starts).is_ok())?;
        let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| (starts, id.to_owned()))
    };
    read().map(Some).ok_or_else(|| Fault::field("cursor", "take it from `next` of the page before"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_anything_else_is_refused() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(place(&cursor(7, id)).unwrap(), Some((7, id.to_owned())));
        assert_eq!(place("").unwrap(), None);
        for bad in ["x", "%%", &cursor(u64::MAX, id), &cursor(7, "\0")] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_page_has_a_default_and_a_most() {
        assert_eq!(limit(0).unwrap(), 100);
        assert_eq!(limit(1000).unwrap(), 1000);
        assert!(limit(1001).is_err());
    }
}
