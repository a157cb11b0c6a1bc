//! Levels of log records (OpenTelemetry logs data model, "Severity Fields").

/// The names that searches and rules use, with the lowest severity number of each.
const LEVELS: [(&str, i16); 6] = [("trace", 1), ("debug", 5), ("info", 9), ("warn", 13), ("error", 17), ("fatal", 21)];

/// The lowest severity number of a level's name; the field's other spellings are taken too.
pub(crate) fn number(level: &str) -> Option<i16> {
    let level = level.trim().to_ascii_lowercase();
    let name = match level.as_str() {
        "warning" => "warn",
        "err" => "error",
        "critical" | "crit" | "alert" | "emerg" | "emergency" | "panic" => "fatal",
        "notice" | "information" => "info",
        other => other,
    };
    LEVELS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The name of a severity number; empty for 0, which says nothing.
pub(crate) fn name(number: i16) -> &'static str {
    LEVELS.iter().rev().find(|(_, lowest)| number >= *lowest).map_or("", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::{name, number};

    #[test]
    fn numbers_and_names_agree() {
        assert_eq!(number("Warning"), Some(13));
        assert_eq!(number("critical"), Some(21));
        assert_eq!(number("loud"), None);
        assert_eq!((name(0), name(10), name(17), name(24)), ("", "info", "error", "fatal"));
    }
}
