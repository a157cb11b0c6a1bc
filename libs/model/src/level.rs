//! Levels of log records: the one table of how sources spell them (OpenTelemetry logs data model, "Severity Fields").

/// The names that searches, rules and live streams use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

/// Four numbers belong to each level; the last of them is 24.
const NUMBERS_A_LEVEL: u8 = 4;

impl Level {
    pub const ALL: [Self; 6] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Fatal];

    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// The lowest of its severity numbers: who asks for a level asks for this number and above.
    pub fn lowest(self) -> u8 {
        match self {
            Self::Trace => 1,
            Self::Debug => 5,
            Self::Info => 9,
            Self::Warn => 13,
            Self::Error => 17,
            Self::Fatal => 21,
        }
    }

    /// The level of an OTLP severity number; none for 0, which says nothing, and for what is no such number.
    pub fn of_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|level| {
            let lowest = i32::from(level.lowest());
            (lowest..lowest + i32::from(NUMBERS_A_LEVEL)).contains(&number)
        })
    }

    /// The level that a word means, in any of the field's spellings.
    pub fn of_word(word: &str) -> Option<Self> {
        severity_number(word).and_then(|number| Self::of_number(number.into()))
    }
}

/// The prefix of OTLP's own names, as some exporters write them into the text.
const ENUM_PREFIX: &[u8] = b"severity_number_";
const LONGEST_WORD: usize = ENUM_PREFIX.len() + "debug4".len();

/// The OTLP severity number (1 to 24) that a word means: OpenTelemetry's names and what syslog, klog, Java, .NET,
/// Python, Go, Serilog, npm and PostgreSQL write. Case and surrounding blanks do not count.
///
/// Notice is above info and below warn; critical, alert and emergency are fatal and rise in this order.
pub fn severity_number(word: &str) -> Option<u8> {
    let word = word.trim().as_bytes();
    let mut lower = [0; LONGEST_WORD];
    let lower = lower.get_mut(..word.len())?;
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    let word = lower.strip_prefix(ENUM_PREFIX).unwrap_or(lower);
    known(word).or_else(|| ranked(word))
}

fn known(word: &[u8]) -> Option<u8> {
    Some(match word {
        b"trace" | b"trc" | b"t" | b"verbose" | b"vrb" | b"v" | b"finest" | b"finer" | b"silly" => 1,
        b"debug" | b"dbg" | b"d" | b"fine" | b"config" => 5,
        b"info" | b"inf" | b"i" | b"information" | b"informational" | b"log" => 9,
        b"notice" => 10,
        b"warn" | b"wrn" | b"w" | b"warning" => 13,
        b"error" | b"err" | b"e" | b"eror" | b"severe" => 17,
        b"fatal" | b"ftl" | b"f" | b"critical" | b"crit" | b"c" | b"panic" | b"dpanic" => 21,
        b"alert" => 22,
        b"emerg" | b"emergency" => 23,
        _ => return None,
    })
}

/// `warn2`: OTLP's names for the numbers between the levels.
fn ranked(word: &[u8]) -> Option<u8> {
    let (rank, name) = word.split_last()?;
    let rank = rank.checked_sub(b'0').filter(|rank| (2..=NUMBERS_A_LEVEL).contains(rank))?;
    let level = Level::ALL.into_iter().find(|level| level.name().as_bytes() == name)?;
    Some(level.lowest() + rank - 1)
}

/// The OTLP severity number of a syslog severity (RFC 5424, table 2), which is the lowest three bits of a priority.
pub fn syslog_severity_number(severity: u8) -> Option<u8> {
    const NAMES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
    NAMES.get(usize::from(severity)).and_then(|name| severity_number(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_found_by_its_name_and_by_each_of_its_numbers() {
        for level in Level::ALL {
            assert_eq!(Level::of_word(level.name()), Some(level));
            for number in level.lowest()..level.lowest() + NUMBERS_A_LEVEL {
                assert_eq!(Level::of_number(number.into()), Some(level));
            }
        }
        assert_eq!([-1, 0, 25].map(Level::of_number), [None; 3]);
    }

    #[test]
    fn the_fields_spellings_are_known_and_other_words_are_not() {
        let rows = [
            ("Warning", 13),
            ("wrn", 13),
            ("ERR", 17),
            ("E", 17),
            ("Critical", 21),
            ("NOTICE", 10),
            ("Information", 9),
            (" verbose ", 1),
            ("SEVERITY_NUMBER_WARN", 13),
            ("SEVERITY_NUMBER_ERROR3", 19),
            ("DEBUG4", 8),
            ("SEVERE", 17),
            ("emerg", 23),
        ];
        for (word, number) in rows {
            assert_eq!(severity_number(word), Some(number), "{word}");
        }
        for word in
            ["", "loud", "my-own-word", "error1", "error5", "severity_number_unspecified", "informational terrors"]
        {
            assert_eq!(severity_number(word), None, "{word}");
        }
    }

    #[test]
    fn syslog_counts_the_other_way_round() {
        let levels = [0, 2, 3, 4, 5, 6, 7].map(|severity| syslog_severity_number(severity).unwrap());
        assert_eq!(levels, [23, 21, 17, 13, 10, 9, 5]);
        assert_eq!(syslog_severity_number(8), None);
    }
}
