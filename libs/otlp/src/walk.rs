//! Iterating over messages nested in messages, without decoding what lies between.

use crate::value::Attribute;
use crate::wire::{Fields, Wire, text};

/// The content of every field `inner` within every field of `outer`: two levels, as protobuf merges repeats of the outer one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nested<'a> {
    outer: Fields<'a>,
    within: u32,
    current: Fields<'a>,
    inner: u32,
}

impl<'a> Nested<'a> {
    /// `within` has bit *n* set for each field number *n* to enter.
    pub(crate) fn new(bytes: &'a [u8], within: u32, inner: u32) -> Self {
        Self { outer: Fields::new(bytes), within, current: Fields::new(&[]), inner }
    }
}

impl<'a> Iterator for Nested<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            while let Some((number, bytes)) = self.current.next_bytes() {
                if number == self.inner {
                    return Some(bytes);
                }
            }
            let (number, bytes) = self.outer.next_bytes()?;
            if number < 32 && self.within & 1 << number != 0 {
                self.current = Fields::new(bytes);
            }
        }
    }
}

/// The content of every length-delimited field `number`.
#[inline]
pub(crate) fn each(bytes: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    let mut fields = Fields::new(bytes);
    std::iter::from_fn(move || fields.next_bytes()).filter(move |(n, _)| *n == number).map(|(_, content)| content)
}

/// Text of the last field `number`, or none.
#[inline]
pub(crate) fn last_text(bytes: &[u8], number: u32) -> &str {
    each(bytes, number).last().map_or("", text)
}

/// Attributes of a resource: field 1 within each field 1, so that a stamp that was appended is read as well.
pub(crate) fn resource_attributes(bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    Nested::new(bytes, 1 << 1, 1).map(Attribute::read)
}

/// Name, version and attributes of a scope, in ScopeMetrics and ScopeLogs alike.
pub(crate) fn scope_text(bytes: &[u8], number: u32) -> &str {
    Nested::new(bytes, 1 << 1, number).last().map_or("", text)
}

pub(crate) fn scope_attributes(bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    Nested::new(bytes, 1 << 1, 3).map(Attribute::read)
}

/// Numbers of a repeated fixed64 field, packed or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fixed64s<'a> {
    fields: Fields<'a>,
    number: u32,
    packed: &'a [u8],
}

impl<'a> Fixed64s<'a> {
    pub(crate) fn new(message: &'a [u8], number: u32) -> Self {
        Self { fields: Fields::new(message), number, packed: &[] }
    }
}

impl Iterator for Fixed64s<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        loop {
            if let Some((first, rest)) = self.packed.split_first_chunk() {
                self.packed = rest;
                return Some(u64::from_le_bytes(*first));
            }
            match self.fields.next()? {
                (number, Wire::Bytes(bytes)) if number == self.number => self.packed = bytes,
                (number, Wire::Fixed64(bits)) if number == self.number => return Some(bits),
                _ => {}
            }
        }
    }
}
