//! OTLP as JSON, written as protobuf: the ProtoJSON mapping with OTLP's own rules (hexadecimal ids, enums by number).
//!
//! One pass from text to wire, led by the tables of [`crate::schema`]; no tree is built, so memory is bounded by the size of
//! the result. What OTLP does not know is passed over and noted. A value that does not fit its field is an error that names the
//! field, never a field that is missing afterwards.
//!
//! Both spellings of a name are taken (`dataPoints`, as OTLP asks, and `data_points`, which other readers of ProtoJSON
//! take as well), integers and floating-point numbers both as numbers and as text, and null everywhere for "not set".

mod tokens;

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::judge::MAX_NESTING;
use crate::schema::{Kind, Schema};
use crate::signal::Signal;
use crate::wire::{put_bytes, put_key, put_varint};

use tokens::{Problem, Tokens, is_number};

/// A document as protobuf.
#[derive(Debug, Clone)]
pub struct FromJson {
    /// An `Export*ServiceRequest`, as any client could have sent it.
    pub request: Vec<u8>,
    /// What stood beside it.
    pub unknown: Unknown,
}

/// Fields that OTLP does not know, which were passed over: those of a later OTLP, or misspelled ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unknown {
    /// How many there were.
    pub count: u64,
    /// Where the first few stand, each of another kind, as `resourceMetrics[0].scopeMetrics[0].metrics[2].guage`.
    pub first: Vec<String>,
}

impl Unknown {
    /// So many are named.
    const NAMED: usize = 3;
    /// Looking for others of another kind ends there: a document may have millions.
    const LOOKED_AT: u64 = 100;

    fn note(&mut self, place: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() == Self::NAMED || self.count > Self::LOOKED_AT {
            return;
        }
        let place = place();
        if !self.first.iter().any(|known| without_numbers(known).eq(without_numbers(&place))) {
            self.first.push(place);
        }
    }
}

/// Where elements of a list differ in nothing but their number, they are of one kind.
fn without_numbers(place: &str) -> impl Iterator<Item = &str> {
    place.split(['[', ']']).step_by(2)
}

/// Why a document is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadJson {
    /// A field has a value that it cannot have, or the text is no JSON.
    #[error("{path}: {problem}")]
    Wrong {
        /// As `resourceLogs[0].scopeLogs[0].logRecords[2].body`.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The protobuf is larger than the limit.
    #[error("the request is too large")]
    TooLarge,
}

/// Writes a document as protobuf of at most `most` bytes.
///
/// # Errors
/// It is too large, no JSON, or a field has a value that it cannot have.
pub fn from_json(document: &[u8], signal: Signal, most: usize) -> Result<FromJson, BadJson> {
    let wrong = |path: &str, problem: Problem| BadJson::Wrong { path: path.to_owned(), problem };
    let text = std::str::from_utf8(document).map_err(|_| wrong("the document", "it is not UTF-8".to_owned()))?;
    let mut writer = Writer {
        tokens: Tokens::new(text),
        out: Vec::with_capacity(document.len().min(most) / 2),
        most,
        path: Vec::new(),
        unknown: Unknown::default(),
    };
    let outcome = writer.message(signal.levels().request, MAX_NESTING + 8).and_then(|()| Ok(writer.tokens.end()?));
    match outcome {
        Ok(()) => Ok(FromJson { request: writer.out, unknown: writer.unknown }),
        Err(Stop::TooLarge) => Err(BadJson::TooLarge),
        Err(Stop::Wrong(problem)) if writer.path.is_empty() => Err(wrong("the document", problem)),
        Err(Stop::Wrong(problem)) => Err(wrong(&place(&writer.path, None), problem)),
    }
}

/// Why writing ends early; the writer's path says where.
enum Stop {
    Wrong(Problem),
    TooLarge,
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Wrong(problem)
    }
}

enum Step {
    Field(&'static str),
    Element(usize),
}

struct Writer<'a> {
    tokens: Tokens<'a>,
    out: Vec<u8>,
    most: usize,
    path: Vec<Step>,
    unknown: Unknown,
}

impl Writer<'_> {
    fn message(&mut self, schema: &'static Schema, depth: u8) -> Result<(), Stop> {
        let depth = depth.checked_sub(1).ok_or_else(|| crate::wire::TOO_DEEP.to_owned())?;
        self.tokens.expect(b'{', "an object")?;
        if self.tokens.take(b'}') {
            return Ok(());
        }
        let mut chosen = None;
        loop {
            let key = self.tokens.key()?;
            match schema.find(|name| is_spelling(&key, name)) {
                None => {
                    self.unknown.note(|| place(&self.path, Some(&key)));
                    self.tokens.skip()?;
                }
                Some(number) => {
                    let (name, kind) = schema.field(number);
                    self.path.push(Step::Field(name));
                    if !self.tokens.null() {
                        if schema.oneof & 1 << number != 0 && chosen.replace(number).is_some() {
                            return Err(Stop::Wrong(format!("{} can have one of its values only", schema.name)));
                        }
                        self.field(number, kind, depth)?;
                    }
                    self.path.pop();
                }
            }
            if self.out.len() > self.most {
                return Err(Stop::TooLarge);
            }
            if self.tokens.ends(b'}')? {
                return Ok(());
            }
        }
    }

    fn field(&mut self, number: u32, kind: Kind, depth: u8) -> Result<(), Stop> {
        match kind {
            Kind::One(schema) => self.nested(number, |writer| writer.message(schema, depth)),
            Kind::Many(schema) => self.list(|writer| writer.nested(number, |writer| writer.message(schema, depth))),
            Kind::Texts => self.list(|writer| writer.text(number)),
            Kind::Doubles => self.packed(number, Kind::Double),
            Kind::Fixed64s => self.packed(number, Kind::Fixed64),
            Kind::Uint64s => self.packed(number, Kind::Uint64s),
            Kind::Text => self.text(number),
            Kind::Base64 => {
                let text = self.tokens.string()?;
                let bytes = base64(&text).ok_or_else(|| "it must be base64".to_owned())?;
                put_bytes(&mut self.out, number, &bytes);
                Ok(())
            }
            Kind::Hex => {
                let text = self.tokens.string()?;
                let bytes = hex::decode(text.as_bytes())
                    .map_err(|_| "it must be hexadecimal digits, an even number".to_owned())?;
                put_bytes(&mut self.out, number, &bytes);
                Ok(())
            }
            Kind::Bool => {
                let value = self.tokens.bool()?;
                put_key(&mut self.out, number, 0);
                self.out.push(u8::from(value));
                Ok(())
            }
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => self.scalar(number, 1, kind),
            Kind::Fixed32 => self.scalar(number, 5, kind),
            Kind::Enum | Kind::Uint32 | Kind::Int64 | Kind::Sint32 => self.scalar(number, 0, kind),
            Kind::Unknown => Ok(self.tokens.skip()?),
        }
    }

    fn text(&mut self, number: u32) -> Result<(), Stop> {
        let text = self.tokens.string()?;
        put_bytes(&mut self.out, number, text.as_bytes());
        Ok(())
    }

    fn list(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), Stop>) -> Result<(), Stop> {
        self.tokens.expect(b'[', "a list")?;
        if self.tokens.take(b']') {
            return Ok(());
        }
        for index in 0.. {
            self.path.push(Step::Element(index));
            element(self)?;
            self.path.pop();
            if self.out.len() > self.most {
                return Err(Stop::TooLarge);
            }
            if self.tokens.ends(b']')? {
                break;
            }
        }
        Ok(())
    }

    fn packed(&mut self, number: u32, kind: Kind) -> Result<(), Stop> {
        self.nested(number, |writer| writer.list(|writer| writer.value(kind)))
    }

    fn scalar(&mut self, number: u32, wire_type: u32, kind: Kind) -> Result<(), Stop> {
        put_key(&mut self.out, number, wire_type);
        self.value(kind)
    }

    /// Writes a number, without a key.
    fn value(&mut self, kind: Kind) -> Result<(), Stop> {
        let text = match self.tokens.peek() {
            Some(b'"') => self.tokens.string()?,
            _ => Cow::Borrowed(self.tokens.number()?),
        };
        let out = &mut self.out;
        match kind {
            Kind::Double => out.extend(double(&text)?.to_le_bytes()),
            Kind::Fixed64 => out.extend(whole::<u64>(&text)?.to_le_bytes()),
            Kind::Sfixed64 => out.extend(whole::<i64>(&text)?.to_le_bytes()),
            Kind::Fixed32 => out.extend(whole::<u32>(&text)?.to_le_bytes()),
            Kind::Uint32 => put_varint(out, whole::<u32>(&text)?.into()),
            Kind::Sint32 => {
                let value = whole::<i32>(&text)?;
                put_varint(out, u64::from(((value << 1) ^ (value >> 31)).cast_unsigned()));
            }
            Kind::Int64 => put_varint(out, whole::<i64>(&text)?.cast_unsigned()),
            Kind::Enum if !is_number(&text) => {
                return Err(Stop::Wrong("enums are numbers in OTLP's JSON, not names".to_owned()));
            }
            Kind::Enum => put_varint(out, i64::from(whole::<i32>(&text)?).cast_unsigned()),
            _ => put_varint(out, whole::<u64>(&text)?),
        }
        Ok(())
    }

    /// A length-delimited field around what `content` writes. Its length, which comes first, is known last.
    fn nested(&mut self, number: u32, content: impl FnOnce(&mut Self) -> Result<(), Stop>) -> Result<(), Stop> {
        put_key(&mut self.out, number, 2);
        let begin = self.out.len();
        self.out.push(0);
        content(self)?;
        let mut length = Vec::with_capacity(10);
        put_varint(&mut length, (self.out.len() - begin - 1) as u64);
        let end = self.out.len();
        self.out.resize(end + length.len() - 1, 0);
        if length.len() > 1 {
            self.out.copy_within(begin + 1..end, begin + length.len());
        }
        self.out[begin..begin + length.len()].copy_from_slice(&length);
        Ok(())
    }
}

fn place(path: &[Step], key: Option<&str>) -> String {
    const LONGEST_KEY: usize = 64;
    let mut place = String::new();
    for step in path {
        match step {
            Step::Element(index) => place.push_str(&format!("[{index}]")),
            Step::Field(name) => {
                place.push_str(if place.is_empty() { "" } else { "." });
                place.push_str(&camel(name));
            }
        }
    }
    if let Some(key) = key {
        place.push_str(if place.is_empty() { "" } else { "." });
        place.push_str(&key[..key.floor_char_boundary(LONGEST_KEY)]);
    }
    place
}

/// Whether `key` is `name` (`data_points`) or what JSON calls it (`dataPoints`).
fn is_spelling(key: &str, name: &str) -> bool {
    if key == name {
        return true;
    }
    let mut rest = key.bytes();
    let mut upper = false;
    for byte in name.bytes() {
        if byte == b'_' {
            upper = true;
            continue;
        }
        let wanted = if std::mem::take(&mut upper) { byte.to_ascii_uppercase() } else { byte };
        if rest.next() != Some(wanted) {
            return false;
        }
    }
    rest.next().is_none()
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(word.len().min(1));
        camel.push_str(&first.to_ascii_uppercase());
        camel.push_str(rest);
    }
    camel
}

fn double(text: &str) -> Result<f64, Problem> {
    match text {
        "NaN" => return Ok(f64::NAN),
        "Infinity" => return Ok(f64::INFINITY),
        "-Infinity" => return Ok(f64::NEG_INFINITY),
        _ => {}
    }
    let value = is_number(text).then(|| text.parse::<f64>().ok()).flatten();
    value.filter(|value| value.is_finite()).ok_or_else(|| {
        "it must be a number within what 64 bits can say, or \"NaN\", \"Infinity\", \"-Infinity\"".to_owned()
    })
}

/// A whole number: also one that is written with an exponent or a fraction of 0.
fn whole<T: TryFrom<i128>>(text: &str) -> Result<T, Problem> {
    let digits = is_number(text).then(|| text.parse::<i128>().ok().or_else(|| from_float(text))).flatten();
    digits.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
        let (bits, sign) = (8 * size_of::<T>(), if T::try_from(-1).is_ok() { "" } else { ", not negative" });
        format!("it must be a whole number of {bits} bits{sign}")
    })
}

fn from_float(text: &str) -> Option<i128> {
    let value = text.parse::<f64>().ok().filter(|value| value.fract() == 0.0 && value.abs() < 2e19)?;
    format!("{value:.0}").parse().ok()
}

/// Both alphabets, padded or not, as ProtoJSON wants it.
fn base64(text: &str) -> Option<Vec<u8>> {
    const EITHER: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    GeneralPurpose::new(alphabet, EITHER).decode(text).ok()
}

#[cfg(test)]
mod tests;
