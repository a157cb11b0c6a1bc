//! Units in words, as names of series end with them.

/// UCUM's short units, as the OpenTelemetry Collector's translator knows them, and spellings that people use instead.
const NAMES: [(&str, &str); 33] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("\u{b5}s", "microseconds"),
    ("\u{3bc}s", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tebibytes"),
    ("KBy", "kilobytes"),
    ("kBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("bit", "bits"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("kg", "kilograms"),
    ("Cel", "celsius"),
    ("\u{b0}C", "celsius"),
    ("K", "kelvin"),
    ("Pa", "pascals"),
    ("Hz", "hertz"),
    ("%", "percent"),
];

const PER_NAMES: [(&str, &str); 8] = [
    ("s", "second"),
    ("m", "minute"),
    ("min", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

/// The word for a unit; a unit that is not known is its own. `1` and annotations (`{request}`) are none.
pub(crate) fn name(unit: &str) -> &str {
    if unit == "1" { "" } else { find(&NAMES, unit) }
}

/// The word for what stands behind a unit's slash.
pub(crate) fn per_name(unit: &str) -> &str {
    find(&PER_NAMES, unit)
}

fn find<'a>(names: &[(&str, &'static str)], unit: &'a str) -> &'a str {
    if unit.contains(['{', '}']) {
        return "";
    }
    names.iter().find(|(short, _)| *short == unit).map_or(unit, |(_, name)| name)
}

/// Every word that [`name`] knows.
pub(crate) fn words() -> impl Iterator<Item = &'static str> + Clone {
    NAMES.iter().map(|(_, name)| *name)
}

/// Every word that [`per_name`] knows.
pub(crate) fn per_words() -> impl Iterator<Item = &'static str> + Clone {
    PER_NAMES.iter().map(|(_, name)| *name)
}
