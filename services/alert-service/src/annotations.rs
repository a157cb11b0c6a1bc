//! Annotations with the alert's own labels and value put in: `{{ $labels.host_name }}` and `{{ $value }}`.
//!
//! Only these two forms of Prometheus's templates are known; anything else in braces stays as it was written.

use std::collections::BTreeMap;

/// `text` with what is known put in. Inserted text is never read again as a template.
#[must_use]
pub fn render(text: &str, labels: &BTreeMap<String, String>, value: f64) -> String {
    let mut rendered = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        let (before, from) = rest.split_at(open);
        rendered.push_str(before);
        let Some(close) = from.find("}}") else {
            rest = from;
            break;
        };
        let (template, after) = from.split_at(close + 2);
        match expression(template[2..close].trim(), labels, value) {
            Some(text) => rendered.push_str(&text),
            None => rendered.push_str(template),
        }
        rest = after;
    }
    rendered.push_str(rest);
    rendered
}

fn expression(expression: &str, labels: &BTreeMap<String, String>, value: f64) -> Option<String> {
    if expression == "$value" {
        return Some(value.to_string());
    }
    let name = expression.strip_prefix("$labels.")?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    // As in Prometheus, a label that is not there is empty.
    is_name.then(|| labels.get(name).cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_value_are_put_in_and_the_rest_is_left_alone() {
        let labels = BTreeMap::from([("host".to_owned(), "{{ $value }}".to_owned())]);
        let rendered = |text| render(text, &labels, 91.5);
        assert_eq!(rendered("cpu at {{ $value }}% on {{$labels.host}}"), "cpu at 91.5% on {{ $value }}");
        assert_eq!(rendered("{{ $labels.none }}|{{ $value | humanize }}"), "|{{ $value | humanize }}");
        assert_eq!(rendered("open {{ $value"), "open {{ $value");
        assert_eq!(rendered("plain"), "plain");
    }
}
