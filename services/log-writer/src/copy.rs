//! Rows in PostgreSQL's binary COPY format (PostgreSQL documentation, "COPY", section "Binary Format").

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// A COPY body under construction. Fields must be pushed in the order of the columns named in the COPY statement.
#[derive(Debug)]
pub(crate) struct Rows {
    bytes: Vec<u8>,
}

/// Bytes that are worth a statement of their own.
const PIECE: usize = 2 << 20;

impl Rows {
    pub(crate) fn new() -> Self {
        let mut bytes = Vec::with_capacity(64 << 10);
        bytes.extend_from_slice(SIGNATURE);
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes }
    }

    pub(crate) fn begin(&mut self, fields: i16) -> &mut Self {
        self.bytes.extend_from_slice(&fields.to_be_bytes());
        self
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        // A message is a megabyte at most, so the length always fits.
        let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value);
        self
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    pub(crate) fn i16(&mut self, value: i16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn i32(&mut self, value: i32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn i64(&mut self, value: i64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn f64(&mut self, value: f64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// `value` is JSON text; jsonb's binary form is a version byte before it.
    pub(crate) fn jsonb(&mut self, value: &str) -> &mut Self {
        let length = i32::try_from(value.len() + 1).unwrap_or(i32::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.push(1);
        self.bytes.extend_from_slice(value.as_bytes());
        self
    }

    pub(crate) fn is_enough(&self) -> bool {
        self.bytes.len() >= PIECE
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&(-1i16).to_be_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::{Rows, SIGNATURE};

    #[test]
    fn a_row_is_laid_out_as_documented() {
        let mut rows = Rows::new();
        rows.begin(2).i16(7).text("ab");
        let bytes = rows.finish();
        assert_eq!(&bytes[..19], [SIGNATURE, &[0; 8]].concat());
        assert_eq!(&bytes[19..], [0, 2, 0, 0, 0, 2, 0, 7, 0, 0, 0, 2, b'a', b'b', 0xff, 0xff]);
    }
}
