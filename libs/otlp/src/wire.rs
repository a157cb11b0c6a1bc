//! The protobuf wire format: fields out of bytes, bytes out of fields.

/// Why bytes are not the message that they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {message}: {problem}")]
pub struct Invalid {
    /// The message type in which it was found.
    pub message: &'static str,
    /// What is wrong there.
    pub problem: &'static str,
}

impl Invalid {
    /// Whether it is well-formed as far as it was read, but holds more items than its limit.
    #[must_use]
    pub fn is_too_many(&self) -> bool {
        self.problem == TOO_MANY
    }
}

/// One field's content.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// What went wrong, without where.
pub(crate) type Problem = &'static str;

pub(crate) const CUT_SHORT: Problem = "it ends in the middle of a field";
pub(crate) const BAD_VARINT: Problem = "a varint is longer than 64 bits";
pub(crate) const BAD_TAG: Problem = "a field has number 0 or an unusable wire type";
pub(crate) const WRONG_TYPE: Problem = "a known field has another wire type";
pub(crate) const NOT_UTF8: Problem = "a string is not UTF-8";
pub(crate) const TOO_DEEP: Problem = "values are nested too deeply";
pub(crate) const TOO_MANY: Problem = "it has more items than the limit";
pub(crate) const ODD_PACKED: Problem = "a packed field has a broken length";

/// Reads fields one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    buffer: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(buffer: &'a [u8]) -> Self {
        Self { buffer, position: 0 }
    }

    /// Where the next field begins.
    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// The next field: its number and its content.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, Problem> {
        if self.position >= self.buffer.len() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| BAD_TAG)?;
        let number = key >> 3;
        if number == 0 {
            return Err(BAD_TAG);
        }
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| CUT_SHORT)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(BAD_TAG),
        };
        Ok(Some((number, wire)))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Problem> {
        match self.buffer.get(self.position) {
            Some(&byte) if byte < 0x80 => {
                self.position += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Problem> {
        let mut value = 0;
        for shift in 0..10 {
            let byte = *self.buffer.get(self.position).ok_or(CUT_SHORT)?;
            self.position += 1;
            value |= u64::from(byte & 0x7f) << (7 * shift);
            if byte < 0x80 {
                // The tenth byte has room for one bit only.
                return if shift == 9 && byte > 1 { Err(BAD_VARINT) } else { Ok(value) };
            }
        }
        Err(BAD_VARINT)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Problem> {
        let end = self.position.checked_add(length).ok_or(CUT_SHORT)?;
        let bytes = self.buffer.get(self.position..end).ok_or(CUT_SHORT)?;
        self.position = end;
        Ok(bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        self.take(N)?.try_into().map_err(|_| CUT_SHORT)
    }
}

/// Fields of bytes that were checked before: ends where they are broken after all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(Reader<'a>);

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Reader::new(bytes))
    }

    /// The next length-delimited field.
    #[inline]
    pub(crate) fn next_bytes(&mut self) -> Option<(u32, &'a [u8])> {
        loop {
            if let (number, Wire::Bytes(bytes)) = self.next()? {
                return Some((number, bytes));
            }
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Wire<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().ok().flatten()
    }
}

/// Text that was checked before.
#[inline]
pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

pub(crate) fn put_key(out: &mut Vec<u8>, number: u32, wire_type: u32) {
    put_varint(out, u64::from(number << 3 | wire_type));
}

/// Key and length of a length-delimited field, whose content follows.
pub(crate) fn put_header(out: &mut Vec<u8>, number: u32, length: usize) {
    put_key(out, number, 2);
    put_varint(out, length as u64);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    put_header(out, number, content.len());
    out.extend_from_slice(content);
}
