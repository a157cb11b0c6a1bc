//! Cuts a stream of bytes into lines of bounded length.

use super::encoding::Encoding;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    pub cut: bool,
    /// It was not in the encoding that the file claims; what was wrong has been replaced by U+FFFD.
    pub invalid: bool,
}

/// A line that goes on for this many times its greatest length is given out without waiting for its end.
const ENDLESS: u64 = 16;

/// Holds the line that has no end yet.
#[derive(Debug)]
pub struct Cutter {
    pub encoding: Encoding,
    /// What is kept of one line; the rest is skipped up to its end.
    line_bytes: usize,
    partial: Vec<u8>,
    skipped: u64,
    /// NULs before the line: a hole that is left where a file was emptied, and its program goes on writing at the old
    /// place.
    hole: u64,
    /// The line was given out already; nothing more of it is.
    passing: bool,
    /// Bytes that were fed and need not be read again.
    done: u64,
}

impl Cutter {
    /// `within_line`: what comes before the first line end belongs to a line that was given out before.
    pub fn new(line_bytes: usize, within_line: bool) -> Self {
        Self {
            encoding: Encoding::default(),
            // A unit is never split.
            line_bytes: line_bytes & !1,
            partial: Vec::new(),
            skipped: 0,
            hole: 0,
            passing: within_line,
            done: 0,
        }
    }

    /// A chunk begins and ends with whole units of the encoding. Stops when there are `most` lines: short ones become a
    /// hundred times larger on their way into a request. Returns how much of the chunk was used.
    pub fn feed(&mut self, chunk: &[u8], lines: &mut Vec<Line>, most: usize) -> usize {
        let mut rest = chunk;
        while let Some((end, end_bytes)) = self.encoding.line_end(rest) {
            if lines.len() >= most {
                return chunk.len() - rest.len();
            }
            self.hold(&rest[..end], lines);
            self.end(end_bytes as u64, lines);
            rest = &rest[end + end_bytes..];
        }
        self.hold(rest, lines);
        chunk.len()
    }

    /// The last line of a file that nobody will write to any more.
    pub fn finish(&mut self) -> Option<Line> {
        (self.held() > 0).then(|| self.take(0))
    }

    /// Bytes that were fed and have not come out as a line.
    pub fn held(&self) -> u64 {
        self.hole + self.partial.len() as u64 + self.skipped
    }

    pub fn is_within_line(&self) -> bool {
        self.passing
    }

    /// How far the place from which a next start must read has moved since this was asked last.
    pub fn take_done(&mut self) -> u64 {
        std::mem::take(&mut self.done)
    }

    fn hold(&mut self, part: &[u8], lines: &mut Vec<Line>) {
        if self.passing {
            self.done += part.len() as u64;
            return;
        }
        let mut part = part;
        if self.partial.is_empty() && self.encoding == Encoding::Utf8 {
            let text = part.iter().position(|byte| *byte != 0).unwrap_or(part.len());
            self.hole += text as u64;
            part = &part[text..];
        }
        let room = self.line_bytes - self.partial.len();
        let (kept, skipped) = part.split_at(part.len().min(room));
        self.partial.extend_from_slice(kept);
        self.skipped += skipped.len() as u64;
        if self.skipped > self.line_bytes as u64 * ENDLESS {
            lines.push(self.take(0));
            self.passing = true;
        }
    }

    fn end(&mut self, end_bytes: u64, lines: &mut Vec<Line>) {
        if std::mem::take(&mut self.passing) {
            self.done += end_bytes;
        } else {
            lines.push(self.take(end_bytes));
        }
    }

    fn take(&mut self, end_bytes: u64) -> Line {
        self.done += self.held() + end_bytes;
        self.hole = 0;
        let skipped = std::mem::take(&mut self.skipped);
        let mut raw = std::mem::take(&mut self.partial);
        if skipped > 0 {
            raw.truncate(self.encoding.whole_characters(&raw));
        }
        let (mut text, invalid) = self.encoding.decode(raw);
        if skipped > 0 {
            text.push_str(&format!(" [cut: {skipped} bytes more]"));
        } else if text.ends_with('\r') {
            text.pop();
        }
        Line { text, cut: skipped > 0, invalid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE_BYTES: usize = 64 * 1024;

    fn cut(chunks: &[&[u8]]) -> (Vec<Line>, Cutter) {
        let mut cutter = Cutter::new(LINE_BYTES, false);
        let mut lines = Vec::new();
        for chunk in chunks {
            assert_eq!(cutter.feed(chunk, &mut lines, usize::MAX), chunk.len());
        }
        (lines, cutter)
    }

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        let (lines, mut cutter) = cut(&[b"one\ntw", b"o\r\n\nthr"]);
        let seen: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(seen, ["one", "two", ""]);
        assert_eq!((cutter.take_done(), cutter.held()), (10, 3));
    }

    #[test]
    fn a_long_line_is_cut_and_counts_all_its_bytes() {
        let (lines, mut cutter) = cut(&[&vec![b'a'; LINE_BYTES], b"bbbbb\nnext\n"]);
        assert!(lines[0].cut && lines[0].text.ends_with("a [cut: 5 bytes more]"));
        assert_eq!((lines[1].text.as_str(), lines[1].cut), ("next", false));
        assert_eq!((cutter.take_done(), cutter.held()), (LINE_BYTES as u64 + 11, 0));
    }

    #[test]
    fn a_cut_does_not_split_a_character() {
        let mut line = vec![b'a'; LINE_BYTES - 1];
        line.extend_from_slice("é and more\n".as_bytes());
        let (lines, _) = cut(&[&line]);
        assert!(!lines[0].invalid && lines[0].text.contains("a [cut"));
    }

    #[test]
    fn an_endless_line_takes_bounded_memory_and_is_given_out_once() {
        let (lines, mut cutter) = cut(&vec![&[b'x'; 1024][..]; 4 * 1024]);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].cut && lines[0].text.len() < LINE_BYTES + 64);
        assert!(cutter.is_within_line() && cutter.held() == 0 && cutter.partial.capacity() <= LINE_BYTES);
        assert_eq!(cutter.take_done(), 4 * 1024 * 1024);
        let mut lines = Vec::new();
        cutter.feed(b"its end\nnext\n", &mut lines, 9);
        assert_eq!(lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["next"]);
        assert_eq!(cutter.take_done(), 13);
    }

    #[test]
    fn a_hole_before_a_line_is_no_part_of_it() {
        let (lines, mut cutter) = cut(&[b"one\n", &vec![0; 3 * LINE_BYTES], b"\0\0two\n\0"]);
        let seen: Vec<_> = lines.iter().map(|line| (line.text.as_str(), line.cut, line.invalid)).collect();
        assert_eq!(seen, [("one", false, false), ("two", false, false)]);
        assert_eq!((cutter.take_done(), cutter.held()), (3 * LINE_BYTES as u64 + 10, 1));
    }

    #[test]
    fn no_more_lines_come_out_than_were_asked_for() {
        let mut cutter = Cutter::new(LINE_BYTES, false);
        let mut lines = Vec::new();
        assert_eq!(cutter.feed(b"a\nb\nc\nd", &mut lines, 2), 4);
        assert_eq!((lines.len(), cutter.take_done(), cutter.held()), (2, 4, 0));
        assert_eq!(cutter.feed(b"c\nd", &mut lines, 3), 3);
        assert_eq!((lines.len(), cutter.held()), (3, 1));
    }

    proptest::proptest! {
        #[test]
        fn lines_do_not_depend_on_how_they_were_read(
            text in "[a\u{0}\n\r\u{20ac}]{0,200}",
            cuts in proptest::collection::vec(1_usize..9, 0..60),
            wide in proptest::bool::ANY,
        ) {
            let encoding = if wide { Encoding::Utf16Le } else { Encoding::Utf8 };
            let bytes: Vec<u8> =
                if wide { text.encode_utf16().flat_map(u16::to_le_bytes).collect() } else { text.into_bytes() };
            let new = || {
                let mut cutter = Cutter::new(16, false);
                cutter.encoding = encoding;
                (cutter, Vec::new())
            };
            let (mut whole, mut expected) = new();
            whole.feed(&bytes, &mut expected, usize::MAX);
            let (mut cutter, mut lines) = new();
            let (mut rest, mut cuts, mut done) = (bytes.as_slice(), cuts.into_iter().cycle(), 0);
            while !rest.is_empty() {
                let size = (cuts.next().unwrap_or(7) * encoding.unit_bytes()).min(rest.len());
                let most = lines.len() + 1;
                let used = cutter.feed(&rest[..size], &mut lines, most);
                done += cutter.take_done();
                rest = &rest[used..];
            }
            proptest::prop_assert_eq!(lines, expected);
            proptest::prop_assert_eq!(done + cutter.held(), bytes.len() as u64);
        }
    }

    #[test]
    fn what_has_no_end_comes_out_when_the_file_is_finished() {
        let (_, mut cutter) = cut(&[b"last words"]);
        assert_eq!(cutter.finish().unwrap().text, "last words");
        assert_eq!(cutter.finish(), None);
    }
}
