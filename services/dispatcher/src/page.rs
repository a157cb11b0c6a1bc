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

/// A place, as callers see it.
#[must_use]
pub fn cursor(place: &str) -> String {
    URL_SAFE_NO_PAD.encode(place)
}

/// Reads a cursor; the empty one is the beginning.
///
/// # Errors
/// A text that no answer of ours contained.
pub fn place(cursor: &str) -> fault::Result<String> {
    let text = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.filter(|text| !text.contains('\0')).ok_or_else(misread)
}

/// Reads a cursor that is a row's number.
///
/// # Errors
/// As with [`place`].
pub fn row(cursor: &str) -> fault::Result<i64> {
    if cursor.is_empty() { Ok(i64::MAX) } else { place(cursor)?.parse().map_err(|_| misread()) }
}

/// Cuts off the item that was read to see whether there is a next page, and names the place of the last.
pub fn cut<T>(items: &mut Vec<T>, limit: usize, place: impl Fn(&T) -> String) -> String {
    if items.len() <= limit {
        return String::new();
    }
    items.truncate(limit);
    items.last().map(|last| cursor(&place(last))).unwrap_or_default()
}

fn misread() -> Fault {
    Fault::field("cursor", "take it from `next` of the page before")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_anything_else_is_refused() {
        assert_eq!(place(&cursor("ops")).unwrap(), "ops");
        assert_eq!(row(&cursor("17")).unwrap(), 17);
        assert_eq!(row("").unwrap(), i64::MAX);
        assert!(row(&cursor("x")).is_err() && place("%").is_err() && place(&cursor("\0")).is_err());
    }

    #[test]
    fn a_page_that_is_not_the_last_names_where_the_next_begins() {
        let mut items = vec!["a", "b", "c"];
        assert_eq!(cut(&mut items, 2, |item| (*item).to_owned()), cursor("b"));
        assert_eq!(items, ["a", "b"]);
        assert_eq!(cut(&mut items, 2, |item| (*item).to_owned()), "");
        assert_eq!(limit(0).unwrap(), 100);
        assert!(limit(1001).is_err());
    }
}
