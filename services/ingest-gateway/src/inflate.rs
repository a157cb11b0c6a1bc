//! Unpacking what clients compressed, never beyond a limit: a bomb is cut off while it unfolds.

use std::io::{ErrorKind, Read};

use bytes::Bytes;
use fault::Fault;

use crate::admission::Hold;
use crate::refusal;

/// How a message is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    None,
    Gzip,
    /// What HTTP calls `deflate`: the zlib format.
    Deflate,
    Zstd,
}

impl Packing {
    /// Reads `content-encoding` or `grpc-encoding`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Self::None),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Unpacks `message` to at most `limit` bytes, with room in `hold` taken before memory is.
///
/// # Errors
/// It is too large, broken, or there is no room.
pub async fn unpack(message: Bytes, packing: Packing, limit: usize, hold: &mut Hold) -> Result<Bytes, Fault> {
    if packing == Packing::None {
        return Ok(message);
    }
    let bound = bound(&message, packing).min(limit);
    hold.grow(bound)?;
    let mut taken = bound;
    let mut unpacked = run(message.clone(), packing, bound).await?;
    if unpacked.is_none() && bound < limit {
        // It holds more than it declares, as several gzip members in a row do.
        hold.grow(limit - bound)?;
        taken = limit;
        unpacked = run(message.clone(), packing, limit).await?;
    }
    let unpacked = unpacked.ok_or_else(|| refusal::too_large("unpacked message", limit))?;
    hold.shrink(taken - unpacked.len() + message.len());
    Ok(unpacked)
}

/// What it says that it unpacks to, held against what its algorithm can do at all.
fn bound(message: &[u8], packing: Packing) -> usize {
    /// Deflate cannot do better than 1032 to one.
    const DEFLATE: usize = 1032;
    match packing {
        Packing::None => message.len(),
        Packing::Deflate => message.len().saturating_mul(DEFLATE),
        Packing::Gzip => {
            let most = message.len().saturating_mul(DEFLATE);
            let size = message.last_chunk().map(|size| u32::from_le_bytes(*size));
            size.and_then(|size| usize::try_from(size).ok()).map_or(most, |size| size.min(most))
        }
        Packing::Zstd => match zstd::zstd_safe::get_frame_content_size(message) {
            Ok(Some(size)) => usize::try_from(size).unwrap_or(usize::MAX),
            _ => usize::MAX,
        },
    }
}

/// Above this, unpacking takes long enough to disturb the other connections of the thread.
const INLINE: usize = 512 << 10;

async fn run(message: Bytes, packing: Packing, limit: usize) -> Result<Option<Bytes>, Fault> {
    if limit <= INLINE {
        return read(&message, packing, limit);
    }
    tokio::task::spawn_blocking(move || read(&message, packing, limit)).await.map_err(Fault::internal)?
}

/// Nothing when there is more than `limit`.
fn read(message: &[u8], packing: Packing, limit: usize) -> Result<Option<Bytes>, Fault> {
    match packing {
        Packing::None => Ok(Some(Bytes::copy_from_slice(message))),
        Packing::Gzip => collect(flate2::bufread::MultiGzDecoder::new(message), limit),
        Packing::Deflate => collect(flate2::bufread::ZlibDecoder::new(message), limit),
        Packing::Zstd => {
            let decoder = zstd::stream::Decoder::with_buffer(message).map_err(|error| broken(&error))?;
            collect(decoder, limit)
        }
    }
}

fn collect(from: impl Read, limit: usize) -> Result<Option<Bytes>, Fault> {
    let mut unpacked = Vec::with_capacity(limit.min(INLINE));
    from.take(limit as u64 + 1).read_to_end(&mut unpacked).map_err(|error| broken(&error))?;
    Ok((unpacked.len() <= limit).then(|| unpacked.into()))
}

fn broken(error: &std::io::Error) -> Fault {
    let detail = match error.kind() {
        ErrorKind::UnexpectedEof => "the compressed message ends too early",
        _ => "the message cannot be unpacked: it is not valid in the compression that it declares",
    };
    Fault::invalid("message_not_unpackable", detail)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use fault::Kind;
    use telemetry::metrics::Gauge;

    use super::*;
    use crate::admission::Admission;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    async fn unpacked(message: Vec<u8>, packing: Packing, limit: usize) -> Result<(Bytes, i64), Fault> {
        let gauge = Gauge::default();
        let admission = Admission::new(10 << 20, 10 << 20, gauge.clone());
        let mut hold = admission.begin();
        hold.grow(message.len())?;
        let bytes = unpack(message.into(), packing, limit, &mut hold).await?;
        Ok((bytes, gauge.get()))
    }

    #[tokio::test]
    async fn what_was_packed_comes_out_and_only_that_is_held() {
        let text = b"hello ".repeat(1000);
        for (message, packing) in [
            (gzip(&text), Packing::Gzip),
            (zlib(&text), Packing::Deflate),
            (zstd::bulk::compress(&text, 1).unwrap(), Packing::Zstd),
            ([gzip(&text[..600]), gzip(&text[600..])].concat(), Packing::Gzip),
            ([gzip(&text[..5400]), gzip(&text[5400..])].concat(), Packing::Gzip),
        ] {
            let (bytes, held) = unpacked(message, packing, 1 << 20).await.unwrap();
            assert_eq!(bytes, text);
            assert_eq!(held, 6000);
        }
    }

    #[test]
    fn names_are_told_apart_whatever_their_case() {
        for (name, packing) in [
            ("GZIP", Some(Packing::Gzip)),
            ("Deflate", Some(Packing::Deflate)),
            (" zstd", Some(Packing::Zstd)),
            ("Identity", Some(Packing::None)),
            ("gzip, gzip", None),
            ("br", None),
        ] {
            assert_eq!(Packing::named(name), packing, "{name}");
        }
    }

    #[tokio::test]
    async fn a_bomb_is_cut_off_even_when_it_lies_about_its_size() {
        let mut bomb = gzip(&vec![0; 8 << 20]);
        assert_eq!(unpacked(bomb.clone(), Packing::Gzip, 1 << 20).await.unwrap_err().kind(), Kind::TooLarge);
        let end = bomb.len();
        bomb[end - 4..].copy_from_slice(&10u32.to_le_bytes());
        assert_eq!(unpacked(bomb, Packing::Gzip, 1 << 20).await.unwrap_err().kind(), Kind::TooLarge);
        let bomb = zstd::bulk::compress(&vec![0; 8 << 20], 1).unwrap();
        assert_eq!(unpacked(bomb, Packing::Zstd, 1 << 20).await.unwrap_err().kind(), Kind::TooLarge);
    }

    #[tokio::test]
    async fn broken_messages_are_the_clients_fault() {
        let mut short = gzip(b"hello");
        short.truncate(12);
        for (message, packing) in
            [(b"no gzip".to_vec(), Packing::Gzip), (b"no zstd".to_vec(), Packing::Zstd), (short, Packing::Gzip)]
        {
            assert_eq!(unpacked(message, packing, 1 << 20).await.unwrap_err().kind(), Kind::Invalid);
        }
    }
}
