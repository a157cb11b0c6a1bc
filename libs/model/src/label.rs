//! How an attribute is called where labels are: in series, selectors, rules, lists and live streams alike.

use std::fmt::{Display, Write as _};

/// The label's name of an attribute: `service.name` is `service_name`.
///
/// What Prometheus's older character set does not have becomes `_`, several in a row one, and no name begins with a digit or
/// holds a colon. Letters of other scripts stay apart by their code points ([`escaped`]), and so does punctuation in a name
/// that is nothing else. A name that has this form already keeps it, so it does not matter in which form somebody writes it.
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
    name
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

#[cfg(test)]
mod tests {
    use super::label_name;

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
}
