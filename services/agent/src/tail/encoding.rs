//! How a log file writes its characters. A byte-order mark says so, and nothing else is believed.

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    #[default]
    Utf8,
    Utf16Le,
    Utf16Be,
}

/// The mark that may stand at the begin of a file, once it is decoded.
pub const MARK: char = '\u{feff}';
pub const LONGEST_MARK: usize = 3;

impl Encoding {
    /// By a file's first bytes; none while there are so few that a mark may yet become of them.
    pub fn of(begin: &[u8]) -> Option<Self> {
        match begin {
            [0xff, 0xfe, ..] => Some(Self::Utf16Le),
            [0xfe, 0xff, ..] => Some(Self::Utf16Be),
            [] | [0xff | 0xfe | 0xef] | [0xef, 0xbb] => None,
            _ => Some(Self::Utf8),
        }
    }

    pub fn unit_bytes(self) -> usize {
        match self {
            Self::Utf8 => 1,
            Self::Utf16Le | Self::Utf16Be => 2,
        }
    }

    /// Where the line in `bytes` ends, and how long its end is. They must begin with a whole unit.
    pub fn line_end(self, bytes: &[u8]) -> Option<(usize, usize)> {
        let units = |end: [u8; 2]| bytes.chunks_exact(2).position(|unit| *unit == end).map(|unit| (unit * 2, 2));
        match self {
            Self::Utf8 => bytes.iter().position(|byte| *byte == b'\n').map(|end| (end, 1)),
            Self::Utf16Le => units([b'\n', 0]),
            Self::Utf16Be => units([0, b'\n']),
        }
    }

    /// The text, and whether something in it had to be replaced by U+FFFD or is most likely another encoding.
    pub fn decode(self, raw: Vec<u8>) -> (String, bool) {
        match self {
            // Text in UTF-16 without a mark is full of NULs, which no log line has.
            Self::Utf8 => match String::from_utf8(raw) {
                Ok(text) => {
                    let strange = text.contains('\0');
                    (text, strange)
                }
                Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), true),
            },
            Self::Utf16Le => utf16(&raw, u16::from_le_bytes),
            Self::Utf16Be => utf16(&raw, u16::from_be_bytes),
        }
    }

    /// Length without a last character that a cut has split.
    pub fn whole_characters(self, raw: &[u8]) -> usize {
        match self {
            Self::Utf8 => match std::str::from_utf8(raw) {
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                _ => raw.len(),
            },
            Self::Utf16Le | Self::Utf16Be => {
                let whole = raw.len() & !1;
                let high_byte = if self == Self::Utf16Le { whole.wrapping_sub(1) } else { whole.wrapping_sub(2) };
                let splits_a_pair = raw.get(high_byte).is_some_and(|byte| (0xd8..0xdc).contains(byte));
                if splits_a_pair { whole - 2 } else { whole }
            }
        }
    }
}

fn utf16(raw: &[u8], unit: fn([u8; 2]) -> u16) -> (String, bool) {
    let units = raw.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    let mut invalid = !raw.len().is_multiple_of(2);
    let text = char::decode_utf16(units)
        .map(|character| {
            character.unwrap_or_else(|_| {
                invalid = true;
                char::REPLACEMENT_CHARACTER
            })
        })
        .collect();
    (text, invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mark_is_believed_and_waited_for() {
        assert_eq!(Encoding::of(b"\xff\xfee\0"), Some(Encoding::Utf16Le));
        assert_eq!(Encoding::of(b"\xfe\xff\0e"), Some(Encoding::Utf16Be));
        assert_eq!(Encoding::of(b"e\0r\0"), Some(Encoding::Utf8));
        for begun in [&b""[..], b"\xff", b"\xfe", b"\xef", b"\xef\xbb"] {
            assert_eq!(Encoding::of(begun), None);
        }
        assert_eq!(Encoding::of(b"\xef\xbb\xbfx"), Some(Encoding::Utf8));
    }

    #[test]
    fn a_line_end_is_a_whole_unit() {
        // U+0A00 and U+000A differ in the place of the byte only.
        assert_eq!(Encoding::Utf16Le.line_end(b"\x00\x0a\x0a\x00"), Some((2, 2)));
        assert_eq!(Encoding::Utf16Be.line_end(b"\x0a\x00\x00\x0a"), Some((2, 2)));
        assert_eq!(Encoding::Utf8.line_end(b"ab\n"), Some((2, 1)));
    }

    #[test]
    fn a_cut_keeps_whole_characters() {
        let pair: Vec<u8> = "a😀".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(Encoding::Utf16Le.whole_characters(&pair[..4]), 2);
        let pair: Vec<u8> = "a😀".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(Encoding::Utf16Be.whole_characters(&pair[..5]), 2);
        assert_eq!(Encoding::Utf16Be.whole_characters(&pair), 6);
        assert_eq!(Encoding::Utf16Le.whole_characters(b""), 0);
    }

    #[test]
    fn what_is_no_utf8_is_marked() {
        assert_eq!(Encoding::Utf8.decode(b"Gr\xfc\xdfe".to_vec()), ("Gr\u{fffd}\u{fffd}e".to_owned(), true));
        assert!(Encoding::Utf8.decode(b"e\0r\0".to_vec()).1);
        assert_eq!(Encoding::Utf16Be.decode(b"\0G\0\xfc".to_vec()), ("Gü".to_owned(), false));
        assert!(Encoding::Utf16Le.decode(b"\x00\xd8e\0".to_vec()).1);
    }
}
