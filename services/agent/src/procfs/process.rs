//! `/proc/<pid>/stat` and `/proc/<pid>/cmdline`.

use super::Malformed;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessStat {
    pub pid: i32,
    pub name: String,
    pub ppid: i32,
    /// User and system time together, in clock ticks.
    pub cpu_ticks: u64,
    pub threads: i32,
    /// Clock ticks after boot.
    pub start_ticks: u64,
    pub resident_pages: u64,
}

/// The name stands in parentheses and may itself hold blanks and parentheses, so it ends at the last one.
pub fn stat(text: &str) -> Result<ProcessStat, Malformed> {
    parse(text).ok_or(Malformed { file: "/proc/<pid>/stat", field: "fields" })
}

fn parse(text: &str) -> Option<ProcessStat> {
    let (pid, rest) = text.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    // Counted from the state, which proc(5) calls field 3.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let ticks = |number| field(number)?.parse::<u64>().ok();
    Some(ProcessStat {
        pid: pid.parse().ok()?,
        name: name.to_owned(),
        ppid: field(4)?.parse().ok()?,
        cpu_ticks: ticks(14)? + ticks(15)?,
        threads: field(20)?.parse().ok()?,
        start_ticks: ticks(22)?,
        resident_pages: ticks(24)?,
    })
}

/// Longest command line that is reported, in bytes: a Java process can have 100 KiB of class path.
const COMMAND_LINE_BYTES: usize = 4096;

/// Arguments are separated by NUL; kernel threads have none.
pub fn command_line(raw: &[u8]) -> String {
    let cut = &raw[..raw.len().min(COMMAND_LINE_BYTES)];
    String::from_utf8_lossy(cut).replace('\0', " ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let text =
            "77 (a) b (x)) S 1 77 77 0 -1 4194560 1 2 3 4 50 25 6 7 20 0 9 0 1234 4096000 321 18446744073709551615 0";
        assert_eq!(
            stat(text).unwrap(),
            ProcessStat {
                pid: 77,
                name: "a) b (x)".to_owned(),
                ppid: 1,
                cpu_ticks: 75,
                threads: 9,
                start_ticks: 1234,
                resident_pages: 321,
            }
        );
    }

    #[test]
    fn a_cut_stat_is_malformed() {
        assert!(stat("77 (sh) S 1 77").is_err());
        assert!(stat("").is_err());
    }

    #[test]
    fn arguments_are_joined_and_cut() {
        assert_eq!(command_line(b"sleep\x00100\x00"), "sleep 100");
        assert_eq!(command_line(b""), "");
        assert_eq!(command_line(&[b'x'; 10_000]).len(), COMMAND_LINE_BYTES);
    }
}
