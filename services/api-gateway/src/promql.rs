//! Queries as people write them, made into what the metrics store reads.
//!
//! Metric names as instruments have them (`system.memory.total`, `http.server.request.duration.bucket`) become the stored
//! ones, by the same function that rules and live streams use ([`series::WantedName`]); label names with dots
//! (`service.name`) become labels ([`model::label_name`]). A dot inside an identifier means nothing in PromQL, so no valid query
//! changes. Comments, strings, numbers and durations are left alone.

use model::label_name;
use series::WantedName;

/// Words whose parentheses hold label names.
const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Rewrites a query or a selector.
pub(crate) fn stored(query: &str) -> String {
    Rewriter { rest: query, out: String::with_capacity(query.len()), places: Vec::new(), grouping: false }.run()
}

/// Where in a query a word stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Expression,
    Labels,
    Selector,
}

struct Rewriter<'a> {
    rest: &'a str,
    out: String,
    /// Open parentheses and braces.
    places: Vec<Place>,
    /// The last word was one whose parentheses hold label names.
    grouping: bool,
}

impl<'a> Rewriter<'a> {
    fn run(mut self) -> String {
        while let Some(first) = self.rest.chars().next() {
            match first {
                '#' => self.copy(prefix(self.rest, |c| c != '\n')),
                '"' | '\'' | '`' if self.place() == Place::Selector => self.quoted_in_selector(first),
                '"' | '\'' | '`' => self.copy(quoted(self.rest, first)),
                '0'..='9' => self.copy(prefix(self.rest, |c| c.is_ascii_alphanumeric() || c == '.')),
                'a'..='z' | 'A'..='Z' | '_' | ':' => self.word(),
                '(' => self.open(if self.grouping { Place::Labels } else { Place::Expression }),
                '{' => self.open(Place::Selector),
                ')' | '}' => {
                    self.places.pop();
                    self.copy(1);
                }
                other => self.copy(other.len_utf8()),
            }
            if !first.is_whitespace() && !first.is_ascii_alphabetic() {
                self.grouping = false;
            }
        }
        self.out
    }

    fn place(&self) -> Place {
        self.places.last().copied().unwrap_or(Place::Expression)
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn copy(&mut self, length: usize) {
        let taken = self.take(length);
        self.out.push_str(taken);
    }

    fn open(&mut self, place: Place) {
        self.places.push(place);
        self.copy(1);
    }

    fn word(&mut self) {
        let length = prefix(self.rest, |c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.'));
        let word = self.take(length);
        let name = word.trim_end_matches('.');
        match self.place() {
            Place::Selector if name == "__name__" => self.name_matcher(),
            Place::Selector | Place::Labels if name.contains('.') => self.out.push_str(&label_name(name)),
            Place::Expression if name.contains('.') => self.metric(name),
            _ => {
                self.out.push_str(name);
                self.grouping = GROUPING.iter().any(|grouping| grouping.eq_ignore_ascii_case(name));
            }
        }
        self.out.push_str(&word[name.len()..]);
    }

    /// A metric in an expression, with or without a selector behind it.
    fn metric(&mut self, written: &str) {
        let wanted = WantedName::new(written);
        if let Some(name) = wanted.exact() {
            self.out.push_str(name);
            return;
        }
        self.out.push_str(&format!("{{__name__=~{}", literal(&wanted.regex())));
        let inside = self.rest.trim_start();
        match inside.strip_prefix('{') {
            Some(selector) if selector.trim_start().starts_with('}') => {
                self.rest = selector.trim_start();
                self.places.push(Place::Selector);
            }
            Some(selector) => {
                self.rest = selector;
                self.out.push(',');
                self.places.push(Place::Selector);
            }
            None => self.out.push('}'),
        }
    }

    /// `__name__="..."` in a selector: a name as people write it; expressions are left to whoever wrote them.
    fn name_matcher(&mut self) {
        self.out.push_str("__name__");
        self.copy(prefix(self.rest, char::is_whitespace));
        let operator = prefix(self.rest, |c| matches!(c, '=' | '!' | '~'));
        let operator = self.take(operator);
        let space = self.take(prefix(self.rest, char::is_whitespace));
        let quote = self.rest.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'));
        let wanted = quote.and_then(|quote| {
            let text = &self.rest[..quoted(self.rest, quote)];
            let wanted = WantedName::new(unquote(text)?);
            wanted.exact().is_none().then_some((text.len(), wanted))
        });
        let (operator, wanted) = match (operator, wanted) {
            ("=", Some(wanted)) => ("=~", Some(wanted)),
            ("!=", Some(wanted)) => ("!~", Some(wanted)),
            (operator, _) => (operator, None),
        };
        self.out.push_str(operator);
        self.out.push_str(space);
        match (wanted, quote) {
            (Some((length, wanted)), _) => {
                self.take(length);
                self.out.push_str(&literal(&wanted.regex()));
            }
            (None, Some(quote)) => self.copy(quoted(self.rest, quote)),
            (None, None) => {}
        }
    }

    /// A string in a selector: a value behind its operator, or a quoted name (`{"http.requests","service.name"="x"}`).
    fn quoted_in_selector(&mut self, quote: char) {
        let length = quoted(self.rest, quote);
        let is_value = self.out.trim_end().ends_with(['=', '~']);
        let Some(name) = unquote(&self.rest[..length]).filter(|_| !is_value) else { return self.copy(length) };
        self.take(length);
        if self.rest.trim_start().starts_with(['=', '!']) {
            self.out.push_str(&label_name(name));
            return;
        }
        let wanted = WantedName::new(name);
        match wanted.exact() {
            Some(name) => self.out.push_str(&format!("__name__={}", literal(name))),
            None => self.out.push_str(&format!("__name__=~{}", literal(&wanted.regex()))),
        }
    }
}

fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The text of a literal that is written without escapes.
fn unquote(literal: &str) -> Option<&str> {
    let quote = literal.chars().next()?;
    let text = literal.strip_prefix(quote)?.strip_suffix(quote)?;
    (quote == '`' || !text.contains('\\')).then_some(text)
}

fn prefix(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// Length of the string literal that `text` begins with; one without an end goes to the end.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> String {
        format!("__name__=~{}", literal(&WantedName::new(name).regex()))
    }

    #[test]
    fn dotted_names_are_looked_for_as_they_are_stored() {
        let memory = named("system.memory.total");
        let cases = [
            ("system.memory.total".to_owned(), format!("{{{memory}}}")),
            ("rate(System.Network.sent[5m])".to_owned(), format!("rate({{{}}}[5m])", named("System.Network.sent"))),
            ("a.b{x=\"c.d\"} > 0.5".to_owned(), format!("{{{},x=\"c.d\"}} > 0.5", named("a.b"))),
            ("a.b { } + a_b".to_owned(), format!("{{{}}} + a_b", named("a.b"))),
            ("{__name__=\"system.memory.total\"}".to_owned(), format!("{{{memory}}}")),
            ("{ __name__ != `system.memory.total`, a='b' }".to_owned(), {
                let regex = memory.replace("__name__=~", "");
                format!("{{ __name__ !~ {regex}, a='b' }}")
            }),
            ("{\"system.memory.total\", \"host.name\"=\"x.y\"}".to_owned(), format!("{{{memory}, host_name=\"x.y\"}}")),
            ("# it's the panel\nsystem.memory.total".to_owned(), format!("# it's the panel\n{{{memory}}}")),
            ("# a `tick\nsystem.memory.total * 1".to_owned(), format!("# a `tick\n{{{memory}}} * 1")),
        ];
        for (written, expected) in cases {
            assert_eq!(stored(&written), expected, "{written}");
        }
    }

    #[test]
    fn dotted_labels_become_labels_wherever_labels_stand() {
        assert_eq!(
            stored("sum by (service.name, host.name) (x{service.name=~\"a.*\"}) / on (service.name) group_left y"),
            "sum by (service_name, host_name) (x{service_name=~\"a.*\"}) / on (service_name) group_left y"
        );
        assert_eq!(stored("sum without(le)(rate(x[1m]))"), "sum without(le)(rate(x[1m]))");
    }

    #[test]
    fn what_is_valid_stays_as_it_is() {
        for query in [
            "sum by (host_name) (rate(x_total{path=~\"/a.b/.*\"}[1h30m] offset 5m)) / 1.5e3",
            "job:x:rate5m{a='b.c', d=\"\\\"e.f\\\"\"}",
            "{__name__=~`a.b`}",
            "{__name__=\"a_b\"}",
            "x @ 1609746000.123",
            "label_replace(up, \"a\", \"$1.x\", \"b\", \"(.*)\")",
            "x{a=\"b\" or c=\"d\"}",
        ] {
            assert_eq!(stored(query), query);
        }
    }

    #[test]
    fn nothing_breaks_it() {
        for query in [
            "",
            "\"",
            "a.",
            ".",
            "'\\",
            "ünïcode.x",
            "a..b",
            "{",
            "}",
            "a.b{",
            "{__name__",
            "{__name__=",
            "a.b}}((",
            "#",
        ] {
            stored(query);
        }
    }
}
