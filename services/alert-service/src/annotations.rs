//! Annotations with the alert's own labels and value put in: `{{ $labels.host_name }}` and `{{ $value }}`.
//!
//! Only these two forms of Prometheus's templates are known; anything else in braces stays as it was written. What they
//! become is bounded: a short template may ask for a long label again and again.

use std::collections::{BTreeMap, HashMap};

/// Bytes of one annotation, and of all of an alert with their names.
pub const MOST: usize = 4 << 10;
pub const MOST_TOGETHER: usize = 64 << 10;

/// Stands where a text was cut.
const CUT: &str = "…";

/// All of `annotations`; those that come first by name when there is no room for all.
#[must_use]
pub fn render_all<'a>(
    annotations: &HashMap<String, String>,
    label: impl Fn(&str) -> Option<&'a str>,
    value: f64,
) -> BTreeMap<String, String> {
    let sorted: BTreeMap<&String, &String> = annotations.iter().collect();
    let mut room = MOST_TOGETHER;
    let mut rendered = BTreeMap::new();
    for (name, text) in sorted {
        let Some(left) = room.checked_sub(name.len() + CUT.len()) else { break };
        let text = render(text, &label, value, MOST.min(left));
        room = left.saturating_sub(text.len());
        rendered.insert(name.clone(), text);
    }
    rendered
}

/// `text` with what is known put in, cut to `most` bytes. Inserted text is never read again as a template.
fn render<'a>(text: &str, label: &impl Fn(&str) -> Option<&'a str>, value: f64, most: usize) -> String {
    let mut rendered = String::with_capacity(text.len().min(most));
    let mut rest = text;
    while let Some(open) = rest.find("{{").filter(|_| rendered.len() <= most) {
        let (before, from) = rest.split_at(open);
        rendered.push_str(before);
        let Some(close) = from.find("}}") else {
            rest = from;
            break;
        };
        let (template, after) = from.split_at(close + 2);
        match expression(template[2..close].trim(), label, value) {
            Some(text) => rendered.push_str(&text),
            None => rendered.push_str(template),
        }
        rest = after;
    }
    rendered.push_str(rest);
    if rendered.len() > most {
        rendered.truncate(rendered.floor_char_boundary(most.saturating_sub(CUT.len())));
        rendered.push_str(CUT);
    }
    rendered
}

fn expression<'a>(expression: &str, label: &impl Fn(&str) -> Option<&'a str>, value: f64) -> Option<String> {
    if expression == "$value" {
        return Some(value.to_string());
    }
    let name = expression.strip_prefix("$labels.")?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    // As in Prometheus, a label that is not there is empty.
    is_name.then(|| label(name).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pairs: &[(&str, &str)], host: &str) -> BTreeMap<String, String> {
        let annotations = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        render_all(&annotations, |name| (name == "host").then_some(host), 91.5)
    }

    #[test]
    fn labels_and_value_are_put_in_and_the_rest_is_left_alone() {
        let rendered = |text| all(&[("a", text)], "{{ $value }}").remove("a").unwrap();
        assert_eq!(rendered("cpu at {{ $value }}% on {{$labels.host}}"), "cpu at 91.5% on {{ $value }}");
        assert_eq!(rendered("{{ $labels.none }}|{{ $value | humanize }}"), "|{{ $value | humanize }}");
        assert_eq!(rendered("open {{ $value"), "open {{ $value");
        assert_eq!(rendered("plain"), "plain");
    }

    #[test]
    fn what_a_small_template_becomes_is_bounded_one_by_one_and_together() {
        let template = "{{$labels.host}}".repeat(250);
        let names: Vec<String> = (10..40).map(|n| format!("a{n}")).collect();
        let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), template.as_str())).collect();
        let rendered = all(&pairs, &"ä".repeat(500));
        assert!(rendered.values().all(|text| text.len() <= MOST && text.ends_with(CUT)), "{rendered:?}");
        let bytes: usize = rendered.iter().map(|(name, text)| name.len() + text.len()).sum();
        assert!(bytes <= MOST_TOGETHER && bytes > MOST_TOGETHER - 2 * MOST, "{bytes}");
        assert_eq!(rendered.first_key_value().unwrap().0, "a10");
    }
}
