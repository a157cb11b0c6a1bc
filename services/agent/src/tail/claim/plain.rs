//! Levels in lines of plain text.

use model::severity_number;

/// A level stands near the begin of a line.
const SEARCHED_BYTES: usize = 256;
const SEARCHED_WORDS: usize = 12;
/// Words of prose that may come before a level: the name of a host, a logger or a thread.
const MOST_NAMES: usize = 1;
/// Shorter words are letters that mean other things in text.
const SHORTEST_LEVEL: usize = 3;

/// The first word that is set off as a level, before the text begins.
pub fn level(text: &str) -> Option<&str> {
    let begin = &text[..text.floor_char_boundary(SEARCHED_BYTES)];
    let mut names = 0;
    let mut rest = begin;
    for _ in 0..SEARCHED_WORDS {
        rest = rest.trim_start();
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (token, behind) = rest.split_at(end);
        // What is quoted is somebody else's text.
        if token.is_empty() || token.contains('"') {
            return None;
        }
        if let Some(word) = bracketed(token).or_else(|| bare(token, behind, names)) {
            return Some(word);
        }
        if is_name(token) {
            names += 1;
        }
        if names > MOST_NAMES {
            return None;
        }
        rest = behind;
    }
    None
}

/// `[error]`, `[core:error]`, `(warn)`, `[main/INFO]:`.
fn bracketed(token: &str) -> Option<&str> {
    let brackets = ['[', ']', '(', ')', '<', '>'];
    if !token.contains(brackets) {
        return None;
    }
    let mut pieces = token.split(|c| brackets.contains(&c) || c == ':' || c == '/').filter(|piece| !piece.is_empty());
    let first = pieces.next()?;
    [Some(first), pieces.next_back()].into_iter().flatten().find(|piece| is_level(piece))
}

/// `ERROR`, `ERROR:`, `error:` at the very begin, `error - text`, `ERR!`.
fn bare<'a>(token: &'a str, behind: &str, names: usize) -> Option<&'a str> {
    let token = token.trim_start_matches('|');
    let end = token.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(token.len());
    let (word, mark) = token.split_at(end);
    if !is_level(word) {
        return None;
    }
    let capital = word.bytes().all(|byte| byte.is_ascii_uppercase());
    let set_off =
        behind.trim().is_empty() || ["  ", "\t", " - ", " | ", " : "].iter().any(|gap| behind.starts_with(gap));
    let claims = match mark.chars().next() {
        None => (capital && word != "LOG") || (names == 0 && set_off),
        Some(':') => capital || names == 0,
        Some('!' | '|') => capital,
        _ => false,
    };
    claims.then_some(word)
}

fn is_level(word: &str) -> bool {
    word.len() >= SHORTEST_LEVEL && severity_number(word).is_some()
}

/// A word that is neither a time nor set in marks.
fn is_name(token: &str) -> bool {
    const CALENDAR: [&str; 21] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Mon", "Tue", "Wed", "Thu",
        "Fri", "Sat", "Sun", "UTC", "GMT",
    ];
    token.chars().all(char::is_alphabetic) && !CALENDAR.contains(&token)
}
