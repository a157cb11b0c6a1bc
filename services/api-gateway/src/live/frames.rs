//! Where WebSocket frames of a server end (RFC 6455, 5.2), so that one more can be put behind them.

/// Follows a stream of frames.
#[derive(Default)]
pub(super) struct Frames {
    /// The beginning of a frame whose length is not known yet.
    head: Vec<u8>,
    /// Bytes of the present frame that are still to come.
    left: u64,
}

impl Frames {
    /// Whether the stream is at the end of a frame.
    pub(super) fn are_whole(&self) -> bool {
        self.left == 0 && self.head.is_empty()
    }

    /// Follows what went by.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= u64::try_from(skipped).unwrap_or(self.left);
            bytes = &bytes[skipped..];
            let Some((first, rest)) = bytes.split_first() else { return };
            self.head.push(*first);
            bytes = rest;
            if let Some(length) = length(&self.head) {
                self.head.clear();
                self.left = length;
            }
        }
    }
}

/// The length of the payload that follows a complete head. A server's frames have no mask.
fn length(head: &[u8]) -> Option<u64> {
    match (head.get(1)? & 0x7f, head.len()) {
        (126, 4) => Some(u64::from(u16::from_be_bytes([head[2], head[3]]))),
        (127, 10) => head[2..10].try_into().ok().map(u64::from_be_bytes),
        (126 | 127, _) => None,
        (length, _) => Some(u64::from(length)),
    }
}

/// A close frame that says that this server goes away.
pub(super) fn going_away() -> Vec<u8> {
    const REASON: &[u8] = b"the server is going away; open the stream again";
    const CODE: [u8; 2] = 1001_u16.to_be_bytes();
    const LENGTH: u8 = 49;
    [[0x88, LENGTH].as_slice(), &CODE, REASON].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize) -> Vec<u8> {
        let mut frame = match length {
            0..=125 => vec![0x81, u8::try_from(length).unwrap()],
            126..=65_535 => [&[0x81, 126][..], &u16::try_from(length).unwrap().to_be_bytes()].concat(),
            _ => [&[0x81, 127][..], &u64::try_from(length).unwrap().to_be_bytes()].concat(),
        };
        frame.resize(frame.len() + length, b'x');
        frame
    }

    #[test]
    fn the_end_of_a_frame_is_found_however_the_bytes_come() {
        let stream: Vec<u8> = [0, 5, 125, 126, 70_000, 1].into_iter().flat_map(frame).collect();
        for piece in [1, 2, 3, 7, 1_000, stream.len()] {
            let mut frames = Frames::default();
            let mut ends = 0;
            for bytes in stream.chunks(piece) {
                frames.pass(bytes);
                ends += usize::from(frames.are_whole());
            }
            assert!(frames.are_whole(), "pieces of {piece}");
            assert!(piece > 1 || ends == 6, "{ends}");
        }
    }

    #[test]
    fn the_farewell_is_one_whole_frame() {
        let mut frames = Frames::default();
        frames.pass(&going_away());
        assert!(frames.are_whole());
    }
}
