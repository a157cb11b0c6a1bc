//! How an attribute is called where labels are, and how its text reads there: in series, selectors, rules, lists and live
//! streams alike.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

/// Bytes of a label's name; VictoriaMetrics cuts names at 256.
const MOST_NAME_BYTES: usize = 200;
/// Bytes of a label's value; VictoriaMetrics cuts or refuses longer ones, by its version.
const MOST_VALUE_BYTES: usize = 4096;

/// The label's name of an attribute: `service.name` is `service_name`.
///
/// What Prometheus's older character set does not have becomes `_`, several in a row one, and no name begins with a digit or
/// holds a colon. Letters of other scripts stay apart by their code points ([`escaped`]), and so does punctuation in a name
/// that is nothing else; what is too long, by a hash behind its beginning. A name that has this form already keeps it, so it
/// does not matter in which form somebody writes it.
#[must_use]
pub fn label_name(attribute: &str) -> String {
    let mut name = String::with_capacity(attribute.len() + 1);
    let is_punctuation = !attribute.contains(|c: char| c.is_ascii_alphanumeric() || !c.is_ascii());
    if attribute.starts_with(|c: char| c.is_ascii_digit()) {
        name.push('_');
    }
    for c in attribute.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c);
            continue;
        }
        separate(&mut name);
        if !c.is_ascii() || (is_punctuation && c != '_') {
            // Writing to a string cannot fail.
            let _ = write!(name, "{}_", escaped(c));
        }
    }
    if name.is_empty() {
        name.push('_');
    }
    if name.len() > MOST_NAME_BYTES { shortened(&name, MOST_NAME_BYTES, '_') } else { name }
}

/// The label's value of an attribute's text: without NUL, which stores cannot keep, and where it is longer than stores take,
/// its beginning with a hash of the whole, so that no two become one.
#[must_use]
pub fn label_value(text: &str) -> Cow<'_, str> {
    label_value_within(text, MOST_VALUE_BYTES)
}

/// As [`label_value`], of at most `bytes` bytes: for labels that stand in very many places.
#[must_use]
pub fn label_value_within(text: &str, bytes: usize) -> Cow<'_, str> {
    let whole = if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) };
    if whole.len() > bytes { Cow::Owned(shortened(&whole, bytes, '~')) } else { whole }
}

/// A character that names cannot hold, in characters that they can: `ö` is `uf6`.
#[must_use]
pub fn escaped(c: char) -> impl Display {
    std::fmt::from_fn(move |f| write!(f, "u{:x}", u32::from(c)))
}

fn separate(name: &mut String) {
    if !name.ends_with('_') {
        name.push('_');
    }
}

/// The beginning of a text with a hash of the whole behind it, together at most `bytes` bytes (and at least 33).
#[must_use]
pub fn shortened(text: &str, bytes: usize, before_hash: char) -> String {
    let hash = xxhash_rust::xxh3::xxh3_128(text.as_bytes());
    let beginning = &text[..text.floor_char_boundary(bytes.saturating_sub(33))];
    format!("{}{before_hash}{hash:032x}", beginning.trim_end_matches(before_hash))
}

#[cfg(test)]
mod tests {
    use super::{label_name, label_value};

    #[test]
    fn one_attribute_has_one_name_in_whatever_form_it_is_written() {
        for (attribute, label) in [
            ("service.name", "service_name"),
            ("http.status_code", "http_status_code"),
            ("a::b", "a_b"),
            ("a./b", "a_b"),
            ("1st", "_1st"),
            ("__name__", "_name_"),
            ("größe", "gr_uf6_udf_e"),
            ("温度", "_u6e29_u5ea6_"),
            ("湿度", "_u6e7f_u5ea6_"),
            ("%", "_u25_"),
            ("-", "_u2d_"),
            ("_", "_"),
            ("", "_"),
        ] {
            assert_eq!(label_name(attribute), label);
            assert_eq!(label_name(label), label);
        }
    }

    #[test]
    fn what_is_too_long_stays_apart() {
        for (one, other) in [("a".repeat(500), "a".repeat(501)), ("温".repeat(80), "温".repeat(81))] {
            let (one, other) = (label_name(&one), label_name(&other));
            assert_ne!(one, other);
            assert!(one.len() <= 200 && label_name(&one) == one, "{one}");
        }
        let (one, other) = ("é".repeat(3_000), "é".repeat(3_001));
        let (one, other) = (label_value(&one), label_value(&other));
        assert_ne!(one, other);
        assert!(one.len() <= 4_096 && label_value(&one) == one);
    }

    #[test]
    fn a_value_has_no_nul() {
        assert_eq!(label_value("a\0b"), "a\u{fffd}b");
        assert_eq!(label_value("a b"), "a b");
    }
}
