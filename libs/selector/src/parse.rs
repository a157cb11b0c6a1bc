//! The text of a selector into matchers, saying at which character it goes wrong.

use crate::limits::{Budget, MAX_LENGTH, MAX_MATCHERS};
use crate::{Error, Matcher, Op};

/// Reads `{label op "value", ...}`.
pub(crate) fn selector(text: &str) -> Result<Vec<Matcher>, Error> {
    if text.len() > MAX_LENGTH {
        return Err(Error { position: 0, message: format!("a selector has at most {MAX_LENGTH} bytes") });
    }
    let mut reader = Reader { chars: text.chars().collect(), at: 0 };
    reader.skip_spaces();
    let braces = reader.take('{');
    let (mut matchers, mut budget) = (Vec::new(), Budget::whole());
    loop {
        reader.skip_spaces();
        if reader.peek().is_none() || reader.peek() == Some('}') {
            break;
        }
        if matchers.len() == MAX_MATCHERS {
            return Err(Error {
                position: reader.at,
                message: format!("a selector has at most {MAX_MATCHERS} matchers"),
            });
        }
        matchers.push(reader.matcher(&mut budget)?);
        reader.skip_spaces();
        if !reader.take(',') {
            break;
        }
    }
    if braces && !reader.take('}') {
        return Err(reader.expected("`,` or `}`"));
    }
    reader.skip_spaces();
    if reader.peek().is_some() {
        return Err(reader.expected(if braces { "nothing after `}`" } else { "`,` or the end" }));
    }
    Ok(matchers)
}

struct Reader {
    chars: Vec<char>,
    at: usize,
}

impl Reader {
    fn matcher(&mut self, budget: &mut Budget) -> Result<Matcher, Error> {
        let label = self.label()?;
        self.skip_spaces();
        let op = self.operator()?;
        self.skip_spaces();
        let start = self.at;
        let value = self.quoted("a value in quotes")?;
        Matcher::new(label, op, value, budget).map_err(|message| Error { position: start, message })
    }

    /// A label's name, or the attribute that it comes from: bare where that has only letters, digits, `_` and dots.
    fn label(&mut self) -> Result<String, Error> {
        const EXPECTED: &str = "a label name (letters, digits, `_` and `.`, no digit first, or anything in quotes)";
        let start = self.at;
        let written = if matches!(self.peek(), Some('"' | '\'' | '`')) {
            self.quoted(EXPECTED)?
        } else {
            while self.peek().is_some_and(|c| c == '_' || c == '.' || c.is_ascii_alphanumeric()) {
                self.at += 1;
            }
            let bare: String = self.chars[start..self.at].iter().collect();
            if bare.starts_with(|c: char| c == '.' || c.is_ascii_digit()) { String::new() } else { bare }
        };
        if written.is_empty() {
            self.at = start;
            return Err(self.expected(EXPECTED));
        }
        // No attribute becomes a name like `__name__`; it is one of the metrics store's own.
        let is_reserved = written.starts_with("__") && written.ends_with("__");
        Ok(if is_reserved { written } else { model::label_name(&written) })
    }

    fn operator(&mut self) -> Result<Op, Error> {
        let op = match (self.peek(), self.chars.get(self.at + 1)) {
            (Some('='), Some('~')) => Op::Matches,
            (Some('!'), Some('~')) => Op::NotMatches,
            (Some('!'), Some('=')) => Op::NotEqual,
            (Some('='), _) => Op::Equal,
            _ => return Err(self.expected("one of `=`, `!=`, `=~`, `!~`")),
        };
        self.at += op.as_str().len();
        Ok(op)
    }

    fn quoted(&mut self, expected: &str) -> Result<String, Error> {
        let start = self.at;
        let quote = match self.peek() {
            Some(quote @ ('"' | '\'' | '`')) => quote,
            _ => return Err(self.expected(expected)),
        };
        self.at += 1;
        let mut value = String::new();
        loop {
            match self.next() {
                None => return Err(Error { position: start, message: "the quote is not closed".to_owned() }),
                Some(c) if c == quote => return Ok(value),
                Some('\\') if quote != '`' => value.push(self.escape()?),
                Some(c) => value.push(c),
            }
        }
    }

    /// The escapes of a Go string that are of use in a label's value.
    fn escape(&mut self) -> Result<char, Error> {
        let start = self.at - 1;
        match self.next() {
            Some(c @ ('\\' | '"' | '\'' | '`')) => Ok(c),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('x') => self.code_point(start, 2),
            Some('u') => self.code_point(start, 4),
            Some('U') => self.code_point(start, 8),
            Some(c) => Err(Error {
                position: start,
                message: format!("`\\{c}` is not an escape; write `\\\\{c}` or put the value between backquotes"),
            }),
            None => Err(Error { position: start, message: "the quote is not closed".to_owned() }),
        }
    }

    fn code_point(&mut self, start: usize, digits: usize) -> Result<char, Error> {
        let end = (self.at + digits).min(self.chars.len());
        let text: String = self.chars[self.at..end].iter().collect();
        self.at = end;
        let code = (text.len() == digits).then(|| u32::from_str_radix(&text, 16).ok()).flatten();
        code.and_then(char::from_u32).ok_or_else(|| Error {
            position: start,
            message: format!("a character is written with {digits} hexadecimal digits here"),
        })
    }

    fn expected(&self, what: &str) -> Error {
        let found = self.peek().map_or("the end".to_owned(), |c| format!("`{c}`"));
        Error { position: self.at, message: format!("expected {what}, found {found}") }
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn take(&mut self, c: char) -> bool {
        let is_there = self.peek() == Some(c);
        self.at += usize::from(is_there);
        is_there
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }
}
