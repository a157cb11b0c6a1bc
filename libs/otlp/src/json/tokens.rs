//! JSON's own grammar (RFC 8259), token by token, without building anything.

use std::borrow::Cow;

/// What went wrong, in words.
pub(super) type Problem = String;

/// How deep values that nobody asked for may be nested.
const MAX_SKIPPED: u8 = 128;

pub(super) struct Tokens<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, position: 0 }
    }

    /// The first byte of the next token, which is not taken.
    pub(super) fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.position..];
        self.position += rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.text.as_bytes().get(self.position).copied()
    }

    /// Takes `byte` where it is next.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.position += usize::from(is_next);
        is_next
    }

    pub(super) fn expect(&mut self, byte: u8, what: &str) -> Result<(), Problem> {
        if self.take(byte) { Ok(()) } else { Err(self.expected(what)) }
    }

    /// Takes `null` where it is next.
    pub(super) fn null(&mut self) -> bool {
        self.peek() == Some(b'n') && self.word("null")
    }

    pub(super) fn bool(&mut self) -> Result<bool, Problem> {
        match self.peek() {
            Some(b't') if self.word("true") => Ok(true),
            Some(b'f') if self.word("false") => Ok(false),
            _ => Err(self.expected("true or false")),
        }
    }

    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, Problem> {
        self.expect(b'"', "a string")?;
        let mut unescaped: Option<String> = None;
        loop {
            let rest = &self.text[self.position..];
            let plain = rest.bytes().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)).count();
            let (run, after) = rest.split_at(plain);
            self.position += plain + 1;
            match after.as_bytes().first() {
                Some(b'"') => {
                    return Ok(match unescaped {
                        None => Cow::Borrowed(run),
                        Some(text) => Cow::Owned(text + run),
                    });
                }
                Some(b'\\') => {
                    let text = unescaped.get_or_insert_default();
                    text.push_str(run);
                    let char = self.escape()?;
                    unescaped.get_or_insert_default().push(char);
                }
                Some(_) => return Err("a control character stands in a string without an escape".to_owned()),
                None => return Err("the document ends within a string".to_owned()),
            }
        }
    }

    /// The character that an escape stands for, behind its backslash.
    fn escape(&mut self) -> Result<char, Problem> {
        let byte = self.text.as_bytes().get(self.position).copied();
        self.position += 1;
        Ok(match byte {
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'u') => self.unicode()?,
            _ => return Err("a string has an escape that JSON does not know".to_owned()),
        })
    }

    fn unicode(&mut self) -> Result<char, Problem> {
        let alone = || "a string has half a surrogate pair".to_owned();
        let first = self.four_digits()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or_else(alone);
        }
        if !self.text[self.position..].starts_with("\\u") {
            return Err(alone());
        }
        self.position += 2;
        let second = self.four_digits()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(alone());
        }
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or_else(alone)
    }

    fn four_digits(&mut self) -> Result<u32, Problem> {
        let digits = self.text.get(self.position..self.position + 4);
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        self.position += 4;
        digits
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| "an escape needs four hexadecimal digits".to_owned())
    }

    /// The text of a number.
    pub(super) fn number(&mut self) -> Result<&'a str, Problem> {
        self.peek();
        let rest = &self.text[self.position..];
        let length = number_length(rest).ok_or_else(|| self.expected("a number"))?;
        self.position += length;
        Ok(&rest[..length])
    }

    /// Passes over a value of any kind.
    pub(super) fn skip(&mut self) -> Result<(), Problem> {
        self.skip_within(MAX_SKIPPED)
    }

    fn skip_within(&mut self, depth: u8) -> Result<(), Problem> {
        let depth = depth.checked_sub(1).ok_or("values are nested too deeply")?;
        match self.peek() {
            Some(b'{') => self.members(|tokens, _| tokens.skip_within(depth)),
            Some(b'[') => self.elements(|tokens, _| tokens.skip_within(depth)),
            Some(b'"') => self.string().map(drop),
            Some(b't' | b'f') => self.bool().map(drop),
            Some(b'n') if self.word("null") => Ok(()),
            _ => self.number().map(drop).map_err(|_| self.expected("a value")),
        }
    }

    fn members(&mut self, mut each: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), Problem>) -> Result<(), Problem> {
        self.expect(b'{', "an object")?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.key()?;
            each(self, key)?;
            if self.ends(b'}')? {
                return Ok(());
            }
        }
    }

    fn elements(&mut self, mut each: impl FnMut(&mut Self, usize) -> Result<(), Problem>) -> Result<(), Problem> {
        self.expect(b'[', "a list")?;
        if self.take(b']') {
            return Ok(());
        }
        for index in 0.. {
            each(self, index)?;
            if self.ends(b']')? {
                break;
            }
        }
        Ok(())
    }

    /// A member's name, with the colon behind it.
    pub(super) fn key(&mut self) -> Result<Cow<'a, str>, Problem> {
        let key = self.string()?;
        self.expect(b':', "`:`")?;
        Ok(key)
    }

    /// Behind a member or an element: whether that was the last.
    pub(super) fn ends(&mut self, end: u8) -> Result<bool, Problem> {
        if self.take(b',') {
            return Ok(false);
        }
        if self.take(end) { Ok(true) } else { Err(self.expected(&format!("`,` or `{}`", char::from(end)))) }
    }

    /// Nothing but blanks may follow.
    pub(super) fn end(&mut self) -> Result<(), Problem> {
        if self.peek().is_none() { Ok(()) } else { Err(self.expected("the end of the document")) }
    }

    fn word(&mut self, word: &str) -> bool {
        let is_next = self.text[self.position..].starts_with(word);
        self.position += if is_next { word.len() } else { 0 };
        is_next
    }

    pub(super) fn expected(&mut self, what: &str) -> Problem {
        let found = match self.peek() {
            None => "the end of the document",
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b'"') => "a string",
            Some(b'n') => "null",
            Some(b't' | b'f') => "true or false",
            Some(b'-' | b'0'..=b'9') => "a number",
            Some(_) => "something that JSON does not know",
        };
        format!("expected {what}, found {found} at byte {}", self.position)
    }
}

/// How long the number is with which `text` begins.
fn number_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut end = usize::from(bytes.first() == Some(&b'-'));
    let whole = digits(end);
    if whole == 0 || (whole > 1 && bytes[end] == b'0') {
        return None;
    }
    end += whole;
    if bytes.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        if fraction == 0 {
            return None;
        }
        end += 1 + fraction;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits((end + 1 + sign).min(bytes.len()));
        if exponent == 0 {
            return None;
        }
        end += 1 + sign + exponent;
    }
    Some(end)
}

/// Whether the whole text is one number.
pub(super) fn is_number(text: &str) -> bool {
    number_length(text) == Some(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(text: &str) -> bool {
        let mut tokens = Tokens::new(text);
        tokens.skip().and_then(|()| tokens.end()).is_ok()
    }

    proptest! {
        #[test]
        fn what_serde_json_takes_is_taken_and_nothing_else(text in "[\\[\\]{}\",:a-f0-9nulltrefase.+\\-\\\\u \n]{0,24}") {
            // Numbers beyond a double are an error there and a matter of the field here.
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(accepts(&text), theirs, "{}", text);
        }

        #[test]
        fn strings_are_what_they_were(text in any::<String>()) {
            let quoted = serde_json::to_string(&text).unwrap();
            let unescaped = Tokens::new(&quoted).string().unwrap();
            prop_assert_eq!(unescaped.as_ref(), text.as_str());
        }
    }

    #[test]
    fn surrogates_come_in_pairs() {
        assert_eq!(Tokens::new(r#""\ud83d\ude00""#).string().unwrap(), "\u{1f600}");
        for half in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83d\u0041""#, r#""\ud83dx""#] {
            assert!(Tokens::new(half).string().is_err(), "{half}");
        }
    }

    #[test]
    fn nesting_has_an_end() {
        assert!(accepts(&("[".repeat(100) + &"]".repeat(100))));
        assert!(!accepts(&"[".repeat(100_000)));
    }
}
