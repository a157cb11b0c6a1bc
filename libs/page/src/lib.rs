//! Pages of a list: how many items they hold, and the opaque place where the next begins.
//!
//! A service reads one item more than was asked for: if it is there, there is a next page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fault::Fault;

/// Items on a page when the caller does not say.
const DEFAULT_LIMIT: usize = 100;

/// The most items on a page.
const MAX_LIMIT: usize = 1_000;

/// The number of items asked for; 0 leaves it to us.
///
/// # Errors
/// More than a page holds.
pub fn limit(asked: u32) -> fault::Result<usize> {
    match usize::try_from(asked).unwrap_or(usize::MAX) {
        0 => Ok(DEFAULT_LIMIT),
        limit if limit <= MAX_LIMIT => Ok(limit),
        _ => Err(Fault::field("limit", format!("write a number from 1 to {MAX_LIMIT}"))),
    }
}

/// A place, as callers see it.
#[must_use]
pub fn cursor(place: &str) -> String {
    URL_SAFE_NO_PAD.encode(place)
}

/// Reads a cursor with `parse`; `None` for the empty one, which is the beginning.
///
/// # Errors
/// A text that no answer of ours contained.
pub fn place<T>(cursor: &str, parse: impl FnOnce(&str) -> Option<T>) -> fault::Result<Option<T>> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let text = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    // Postgres takes no NUL.
    let place = text.filter(|text| !text.contains('\0')).and_then(|text| parse(&text));
    place.map(Some).ok_or_else(|| Fault::field("cursor", "take it from `next` of the page before, or leave it out"))
}

/// Cuts off the item that was read to see whether there is a next page, and gives the cursor of the last that stays;
/// empty when there is no next page.
pub fn cut<T>(items: &mut Vec<T>, limit: usize, place: impl Fn(&T) -> String) -> String {
    if items.len() <= limit {
        return String::new();
    }
    items.truncate(limit);
    items.last().map(|last| cursor(&place(last))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_hundred_items_unless_asked_and_a_thousand_at_most() {
        assert_eq!(limit(0).unwrap(), 100);
        assert_eq!(limit(1_000).unwrap(), 1_000);
        assert!(limit(1_001).is_err());
    }

    #[test]
    fn a_cursor_reads_back_and_anything_else_is_refused() {
        let row = |cursor: &str| place(cursor, |text| text.parse::<i64>().ok());
        assert_eq!(row(&cursor("17")).unwrap(), Some(17));
        assert_eq!(row("").unwrap(), None);
        for foreign in ["17", "%", &cursor("x"), &cursor("\0")] {
            assert!(row(foreign).is_err(), "{foreign}");
        }
        assert!(place(&cursor("a\0b"), |text| Some(text.to_owned())).is_err());
    }

    #[test]
    fn a_page_that_is_not_the_last_names_where_the_next_begins() {
        let mut items = vec!["a", "b", "c"];
        assert_eq!(cut(&mut items, 2, |item| (*item).to_owned()), cursor("b"));
        assert_eq!(items, ["a", "b"]);
        assert_eq!(cut(&mut items, 2, |item| (*item).to_owned()), "");
    }
}
