//! Cuts a stream of bytes into lines of bounded length.

/// What is kept of one line; the rest is skipped up to its end.
pub const LINE_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    /// What it took up in the file, with its end.
    pub bytes: u64,
    pub cut: bool,
    /// It was not UTF-8; what was wrong has been replaced by U+FFFD.
    pub invalid: bool,
}

/// Holds the line that has no end yet.
#[derive(Debug, Default)]
pub struct Cutter {
    partial: Vec<u8>,
    skipped: u64,
}

impl Cutter {
    pub fn feed(&mut self, mut chunk: &[u8], lines: &mut Vec<Line>) {
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            self.hold(&chunk[..end]);
            lines.push(self.take(1));
            chunk = &chunk[end + 1..];
        }
        self.hold(chunk);
    }

    /// The last line of a file that nobody will write to any more.
    pub fn finish(&mut self) -> Option<Line> {
        (self.held() > 0).then(|| self.take(0))
    }

    /// Bytes that were fed and have not come out as a line.
    pub fn held(&self) -> u64 {
        self.partial.len() as u64 + self.skipped
    }

    fn hold(&mut self, part: &[u8]) {
        let room = LINE_BYTES - self.partial.len();
        let (kept, skipped) = part.split_at(part.len().min(room));
        self.partial.extend_from_slice(kept);
        self.skipped += skipped.len() as u64;
    }

    fn take(&mut self, end_bytes: u64) -> Line {
        let bytes = self.held() + end_bytes;
        let skipped = std::mem::take(&mut self.skipped);
        let mut raw = std::mem::take(&mut self.partial);
        if skipped > 0 {
            raw.truncate(whole_characters(&raw));
        } else if raw.last() == Some(&b'\r') {
            raw.pop();
        }
        let (mut text, invalid) = match String::from_utf8(raw) {
            Ok(text) => (text, false),
            Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), true),
        };
        if skipped > 0 {
            text.push_str(&format!(" [cut: {skipped} bytes more]"));
        }
        Line { text, bytes, cut: skipped > 0, invalid }
    }
}

/// Length without a last character that the cut has split.
fn whole_characters(raw: &[u8]) -> usize {
    match std::str::from_utf8(raw) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => raw.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> (Vec<Line>, Cutter) {
        let mut cutter = Cutter::default();
        let mut lines = Vec::new();
        chunks.iter().for_each(|chunk| cutter.feed(chunk, &mut lines));
        (lines, cutter)
    }

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        let (lines, cutter) = cut(&[b"one\ntw", b"o\r\n\nthr"]);
        let seen: Vec<_> = lines.iter().map(|line| (line.text.as_str(), line.bytes)).collect();
        assert_eq!(seen, [("one", 4), ("two", 5), ("", 1)]);
        assert_eq!(cutter.held(), 3);
    }

    #[test]
    fn a_long_line_is_cut_and_counts_all_its_bytes() {
        let (lines, cutter) = cut(&[&vec![b'a'; LINE_BYTES], b"bbbbb\nnext\n"]);
        assert!(lines[0].cut && lines[0].text.ends_with("a [cut: 5 bytes more]"));
        assert_eq!(lines[0].bytes, LINE_BYTES as u64 + 6);
        assert_eq!((lines[1].text.as_str(), lines[1].cut), ("next", false));
        assert_eq!(cutter.held(), 0);
    }

    #[test]
    fn a_cut_does_not_split_a_character() {
        let mut line = vec![b'a'; LINE_BYTES - 1];
        line.extend_from_slice("é and more\n".as_bytes());
        let (lines, _) = cut(&[&line]);
        assert!(!lines[0].invalid && lines[0].text.contains("a [cut"));
    }

    #[test]
    fn invalid_utf8_is_replaced_and_marked() {
        let (lines, _) = cut(&[b"caf\xe9 ok\n"]);
        assert_eq!((lines[0].text.as_str(), lines[0].invalid), ("caf\u{fffd} ok", true));
    }

    #[test]
    fn an_endless_line_takes_bounded_memory() {
        let (lines, cutter) = cut(&vec![&[b'x'; 1024][..]; 1024]);
        assert!(lines.is_empty() && cutter.partial.len() == LINE_BYTES);
        assert_eq!(cutter.held(), 1024 * 1024);
    }

    #[test]
    fn what_has_no_end_comes_out_when_the_file_is_finished() {
        let (_, mut cutter) = cut(&[b"last words"]);
        assert_eq!(cutter.finish().unwrap().text, "last words");
        assert_eq!(cutter.finish(), None);
    }
}
