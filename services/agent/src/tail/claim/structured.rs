//! What a line in JSON or logfmt says of itself.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar {
    Text(String),
    Number(i64),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    pub level: Option<Scalar>,
    pub time: Option<Scalar>,
}

enum Field {
    Level,
    Time,
}

fn field(key: &str) -> Option<Field> {
    const LEVELS: [&str; 10] = [
        "level",
        "lvl",
        "severity",
        "loglevel",
        "log_level",
        "log.level",
        "levelname",
        "severitytext",
        "severity_text",
        "@l",
    ];
    const TIMES: [&str; 6] = ["time", "timestamp", "ts", "@timestamp", "@t", "datetime"];
    let is_one_of = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(key));
    if is_one_of(&LEVELS) { Some(Field::Level) } else { is_one_of(&TIMES).then_some(Field::Time) }
}

impl Fields {
    /// The first of several says it.
    fn set(&mut self, field: Field, value: Option<Scalar>) {
        let slot = match field {
            Field::Level => &mut self.level,
            Field::Time => &mut self.time,
        };
        *slot = slot.take().or(value);
    }
}

/// The fields of a line that is JSON or logfmt; none of any other.
pub fn fields(line: &str) -> Option<Fields> {
    let line = line.trim_start();
    if line.starts_with('{') { json(line) } else { logfmt(line) }
}

/// Also of an object that was cut; what does not even begin like one is text.
fn json(line: &str) -> Option<Fields> {
    let mut fields = Fields::default();
    let mut reader = serde_json::Deserializer::from_str(line);
    let read = Object(&mut fields).deserialize(&mut reader);
    (read.is_ok() || fields != Fields::default()).then_some(fields)
}

struct Object<'a>(&'a mut Fields);

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match field(&key) {
                Some(field) => {
                    let value = map.next_value_seed(Value)?;
                    self.0.set(field, value);
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct Value;

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Option<Scalar>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = Option<Scalar>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Scalar::Text(text.to_owned())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(Scalar::Number(number)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).ok().map(Scalar::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// `ts=... level=info msg="retry after error"`. A line is logfmt if it begins with a pair, and consists of them.
fn logfmt(line: &str) -> Option<Fields> {
    let mut fields = Fields::default();
    let mut rest = line;
    let mut pairs = 0;
    while !rest.is_empty() {
        let Some((key, value, behind)) = pair(rest) else { break };
        if let Some(field) = field(key) {
            fields.set(field, Some(Scalar::Text(value.to_owned())));
        }
        pairs += 1;
        rest = behind.trim_start();
    }
    // One pair and then text is a setting or a name, not a format.
    (pairs >= 2 || (pairs == 1 && rest.is_empty())).then_some(fields)
}

/// Key, value and what follows. Inside quotes a backslash takes the next character's meaning away.
fn pair(text: &str) -> Option<(&str, &str, &str)> {
    let end = text.find(|c: char| c == '=' || c == '"' || c.is_whitespace())?;
    let (key, value) = (&text[..end], text[end..].strip_prefix('=')?);
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-@/".contains(c);
    if key.is_empty() || !key.chars().all(plain) {
        return None;
    }
    let Some(quoted) = value.strip_prefix('"') else {
        let end = value.find(char::is_whitespace).unwrap_or(value.len());
        return Some((key, &value[..end], &value[end..]));
    };
    let mut escaped = false;
    let end = quoted.find(|c: char| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    // A line that was cut has no end.
    let end = end.unwrap_or(quoted.len());
    Some((key, &quoted[..end], quoted.get(end + 1..).unwrap_or_default()))
}
