//! Attributes and their values, borrowed from checked bytes.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::wire::{Fields, Wire, text};

/// An `AnyValue`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// No value was given.
    Empty,
    /// Text.
    Str(&'a str),
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Double(f64),
    /// Raw bytes.
    Bytes(&'a [u8]),
    /// An `ArrayValue`, not yet decoded.
    Array(&'a [u8]),
    /// A `KeyValueList`, not yet decoded.
    Map(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Reads a checked `AnyValue`; of several values the last counts, as in any protobuf `oneof`.
    #[inline]
    #[must_use]
    pub(crate) fn read(bytes: &'a [u8]) -> Self {
        let mut value = Self::Empty;
        for field in Fields::new(bytes) {
            value = match field {
                (1, Wire::Bytes(bytes)) => Self::Str(text(bytes)),
                (2, Wire::Varint(number)) => Self::Bool(number != 0),
                (3, Wire::Varint(number)) => Self::Int(number.cast_signed()),
                (4, Wire::Fixed64(bits)) => Self::Double(f64::from_bits(bits)),
                (5, Wire::Bytes(bytes)) => Self::Array(bytes),
                (6, Wire::Bytes(bytes)) => Self::Map(bytes),
                (7, Wire::Bytes(bytes)) => Self::Bytes(bytes),
                _ => value,
            };
        }
        value
    }

    /// The text, where it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&'a str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    /// The value as one line of text: strings as they are, numbers and everything that has parts as JSON writes them, bytes in
    /// base64. The one function for bodies and labels: what is searched, shown and matched is the same text.
    #[must_use]
    pub fn text(&self) -> Cow<'a, str> {
        match *self {
            Self::Empty => Cow::Borrowed(""),
            Self::Str(text) => Cow::Borrowed(text),
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
            Self::Int(number) => Cow::Owned(number.to_string()),
            Self::Double(number) => Cow::Owned(match serde_json::Number::from_f64(number) {
                Some(number) => number.to_string(),
                None => not_finite(number).to_owned(),
            }),
            Self::Bytes(bytes) => Cow::Owned(STANDARD.encode(bytes)),
            Self::Array(_) | Self::Map(_) => Cow::Owned(self.json().to_string()),
        }
    }

    /// The value as JSON: bytes in base64; infinities and NaN as text, since JSON has none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        match *self {
            Self::Empty => serde_json::Value::Null,
            Self::Str(text) => text.into(),
            Self::Bool(value) => value.into(),
            Self::Int(number) => number.into(),
            Self::Double(number) if number.is_finite() => number.into(),
            Self::Double(number) => not_finite(number).into(),
            Self::Bytes(bytes) => STANDARD.encode(bytes).into(),
            Self::Array(bytes) => {
                let mut fields = Fields::new(bytes);
                let items = std::iter::from_fn(|| fields.next_bytes()).filter(|(number, _)| *number == 1);
                items.map(|(_, item)| Value::read(item).json()).collect::<Vec<_>>().into()
            }
            Self::Map(bytes) => Attributes::new(bytes, 1).json().into(),
        }
    }
}

/// As ProtoJSON names what JSON has no number for.
fn not_finite(number: f64) -> &'static str {
    match number {
        _ if number.is_nan() => "NaN",
        _ if number > 0.0 => "Infinity",
        _ => "-Infinity",
    }
}

/// One key with its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attribute<'a> {
    /// The key.
    pub key: &'a str,
    /// The value.
    pub value: Value<'a>,
}

impl<'a> Attribute<'a> {
    #[inline]
    pub(crate) fn read(bytes: &'a [u8]) -> Self {
        let mut attribute = Self { key: "", value: Value::Empty };
        let mut fields = Fields::new(bytes);
        while let Some((number, bytes)) = fields.next_bytes() {
            match number {
                1 => attribute.key = text(bytes),
                2 => attribute.value = Value::read(bytes),
                _ => {}
            }
        }
        attribute
    }
}

/// The attributes of a point, a record, a scope or a value, in their order on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    field: u32,
}

impl<'a> Attributes<'a> {
    pub(crate) fn new(bytes: &'a [u8], field: u32) -> Self {
        Self { bytes, field }
    }

    /// None.
    #[must_use]
    pub fn empty() -> Self {
        Self { bytes: &[], field: 1 }
    }

    /// The bytes that they are encoded in: equal bytes (of the same kind of point) are equal attributes, so that a cache can
    /// find a series without decoding them. Other encoders may write equal attributes in other bytes.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.bytes
    }

    /// Key by key; a key may repeat when a client breaks the rule.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let (mut fields, wanted) = (Fields::new(self.bytes), self.field);
        std::iter::from_fn(move || fields.next_bytes())
            .filter(move |(number, _)| *number == wanted)
            .map(|(_, bytes)| Attribute::read(bytes))
    }

    /// All of them as a JSON object; of a key that repeats, the last stays.
    #[must_use]
    pub fn json(&self) -> serde_json::Map<String, serde_json::Value> {
        self.iter().map(|attribute| (attribute.key.to_owned(), attribute.value.json())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_the_same_text_everywhere() {
        for (value, text) in [
            (Value::Empty, ""),
            (Value::Str("a\"b"), "a\"b"),
            (Value::Bool(true), "true"),
            (Value::Int(-5), "-5"),
            (Value::Double(0.0), "0.0"),
            (Value::Double(1.5), "1.5"),
            (Value::Double(1e300), "1e+300"),
            (Value::Double(f64::NAN), "NaN"),
            (Value::Double(f64::INFINITY), "Infinity"),
            (Value::Double(f64::NEG_INFINITY), "-Infinity"),
            (Value::Bytes(&[0xff, 0, 1]), "/wAB"),
            // A list with NaN: field 1 of the list, field 4 of the value.
            (Value::Array(&[0x0a, 9, 0x21, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f]), "[\"NaN\"]"),
        ] {
            assert_eq!(value.text(), text, "{value:?}");
        }
    }
}
