//! Attributes that the gateway adds to a resource.

use crate::wire::{put_bytes, put_header, put_key, put_varint};

/// Attribute keys that begin so are ours: a client's are dropped.
pub const RESERVED_PREFIX: &str = "sightline.";

/// Attributes to add, already encoded as a `resource` field that protobuf merges with the one that is there.
#[derive(Debug, Clone, Default)]
pub struct Stamp {
    attributes: Vec<u8>,
}

impl Stamp {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, key: &str, value: &str) -> Self {
        let mut any = Vec::with_capacity(value.len() + 4);
        put_bytes(&mut any, 1, value.as_bytes());
        self.attribute(key, &any)
    }

    /// Adds a whole number.
    #[must_use]
    pub fn int(self, key: &str, value: u32) -> Self {
        let mut any = Vec::with_capacity(6);
        put_key(&mut any, 3, 0);
        put_varint(&mut any, u64::from(value));
        self.attribute(key, &any)
    }

    fn attribute(mut self, key: &str, any: &[u8]) -> Self {
        let mut pair = Vec::with_capacity(key.len() + any.len() + 8);
        put_bytes(&mut pair, 1, key.as_bytes());
        put_bytes(&mut pair, 2, any);
        put_bytes(&mut self.attributes, 1, &pair);
        self
    }
}

/// Appends `content` (of a `ResourceMetrics` or `ResourceLogs`) to a request, with `stamp` behind it.
pub fn append_stamped(request: &mut Vec<u8>, content: &[u8], stamp: &Stamp) {
    let mut header = Vec::with_capacity(8);
    put_header(&mut header, 1, stamp.attributes.len());
    put_header(request, 1, content.len() + header.len() + stamp.attributes.len());
    request.extend_from_slice(content);
    request.extend_from_slice(&header);
    request.extend_from_slice(&stamp.attributes);
}
