//! Queries as people write them, made into what the metrics store reads.

/// Rewrites dotted metric names (`system.memory.total`) to the stored form (`system_memory_total`).
///
/// A dot inside an identifier means nothing in PromQL, so no valid query changes. Strings, label matchers, durations
/// and numbers are left alone.
pub(crate) fn undot(query: &str) -> String {
    let mut out = String::with_capacity(query.len());
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' | '`' => quoted(rest, first),
            '0'..='9' => prefix(rest, |c| c.is_ascii_alphanumeric() || c == '.'),
            'a'..='z' | 'A'..='Z' | '_' | ':' => {
                let length = prefix(rest, |c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.'));
                push_name(&mut out, &rest[..length]);
                rest = &rest[length..];
                continue;
            }
            other => other.len_utf8(),
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

fn push_name(out: &mut String, word: &str) {
    let name = word.trim_end_matches('.');
    if name.contains('.') {
        out.push_str(&name.to_ascii_lowercase().replace('.', "_"));
    } else {
        out.push_str(name);
    }
    out.push_str(&word[name.len()..]);
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
    use super::undot;

    #[test]
    fn dotted_names_become_stored_names() {
        assert_eq!(undot("system.memory.total"), "system_memory_total");
        assert_eq!(undot("rate(System.Network.bytes_sent[5m])"), "rate(system_network_bytes_sent[5m])");
        assert_eq!(undot("a.b{x=\"c.d\"} > 0.5"), "a_b{x=\"c.d\"} > 0.5");
    }

    #[test]
    fn what_is_valid_stays_as_it_is() {
        for query in [
            "sum by (host_name) (rate(x_total{path=~\"/a.b/.*\"}[1h30m] offset 5m)) / 1.5e3",
            "job:x:rate5m{a='b.c', d=\"\\\"e.f\\\"\"}",
            "{__name__=~`a.b`}",
            "x @ 1609746000.123",
            "label_replace(up, \"a\", \"$1.x\", \"b\", \"(.*)\")",
        ] {
            assert_eq!(undot(query), query);
        }
    }

    #[test]
    fn nothing_breaks_it() {
        for query in ["", "\"", "a.", ".", "'\\", "ünïcode.x", "a..b"] {
            undot(query);
        }
    }
}
