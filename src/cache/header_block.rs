//! Header blocks as they are delivered, as a map and as HTTP/1.1 lines. Fields that many responses have in common are kept
//! once, the others with each response.
//!
//! A hit copies its block. Were every block complete, copying would miss the processor's caches, which among many objects
//! is much of a hit's cost, and reference counts would move between cores. So common parts are never freed, need no
//! reference count, and are bounded in number and size.

use std::hash::{Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::cpu_prefetch::prefetch;
use crate::inline_bytes::InlineBytes;

/// Fields with few different values over all responses.
const COMMON_FIELDS: [HeaderName; 16] = [
    header::ACCEPT_RANGES,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ALT_SVC,
    header::CACHE_CONTROL,
    HeaderName::from_static("cache-status"),
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_TYPE,
    header::REFERRER_POLICY,
    header::SERVER,
    header::STRICT_TRANSPORT_SECURITY,
    HeaderName::from_static("timing-allow-origin"),
    header::VARY,
    header::VIA,
    header::X_CONTENT_TYPE_OPTIONS,
];

/// The most shapes that are shared; a block of a further shape has one of its own.
const MAX_SHAPES: usize = 64;
/// The most text of a shared shape, in bytes.
const MAX_SHAPE_BYTES: usize = 2048;

/// The most bytes of lines that lie in the block itself: `Date`, `ETag` and `Last-Modified` fit.
const INLINE_LINE_BYTES: usize = 126;

/// Bytes that a connection adds to the lines: `Content-Length` and `Connection`.
const CONNECTION_LINE_BYTES: usize = 64;

/// Stands in a shape for a value that each block has of its own.
const PLACEHOLDER: HeaderValue = HeaderValue::from_static("0");

/// A prepared header block, of which each hit takes a copy.
#[derive(Debug)]
pub struct HeaderBlock {
    /// The delivery settings that it was made for, in the caller's numbering.
    pub profile: u8,
    shape: ShapeRef,
    /// The values of the shape's first fields behind `Age`.
    own: Box<[HeaderValue]>,
    /// The HTTP/1.1 lines of these fields.
    lines: InlineBytes<INLINE_LINE_BYTES>,
    /// Whether `Date` is among the fields.
    has_date: bool,
}

/// The names of a block's fields, and the values of its common ones.
#[derive(Debug)]
struct Shape {
    /// All fields, with [`PLACEHOLDER`] where each block has a value of its own. `Age` is the first.
    map: HeaderMap,
    /// The HTTP/1.1 lines of the common fields.
    lines: Box<[u8]>,
}

#[derive(Debug)]
enum ShapeRef {
    /// Shared, and never freed.
    Shared(&'static Shape),
    Own(Box<Shape>),
}

impl std::ops::Deref for ShapeRef {
    type Target = Shape;

    fn deref(&self) -> &Shape {
        match self {
            Self::Shared(shape) => shape,
            Self::Own(shape) => shape,
        }
    }
}

impl HeaderBlock {
    /// A block with these fields; `Age` is added.
    pub fn new(fields: &HeaderMap, profile: u8) -> Self {
        Self::among(&KNOWN, fields, profile)
    }

    fn among(known: &Mutex<Shapes>, fields: &HeaderMap, profile: u8) -> Self {
        let is_own = |name: &&HeaderName| !COMMON_FIELDS.contains(name) && **name != header::AGE;
        let mut names: Vec<&HeaderName> = fields.keys().filter(is_own).collect();
        // Sorted, so that the order in which the origin sent them makes no further shape.
        names.sort_unstable_by_key(|name| name.as_str());
        let mut map = HeaderMap::with_capacity(fields.len() + 1);
        map.insert(header::AGE, PLACEHOLDER);
        let (mut own, mut lines) = (Vec::new(), Vec::new());
        for name in names {
            for value in fields.get_all(name) {
                map.append(name.clone(), PLACEHOLDER);
                own.push(value.clone());
                write_line(&mut lines, name, value);
            }
        }
        for name in COMMON_FIELDS.iter().filter(|name| fields.contains_key(*name)) {
            for value in fields.get_all(name) {
                map.append(name.clone(), value.clone());
            }
        }
        let common = known.lock().unwrap_or_else(PoisonError::into_inner).common(&map);
        let shape = common.map_or_else(|| ShapeRef::Own(Box::new(Shape::new(together(&map)))), ShapeRef::Shared);
        Self {
            profile,
            shape,
            own: in_one_piece(&own).into(),
            lines: lines.as_slice().into(),
            has_date: fields.contains_key(header::DATE),
        }
    }

    /// A copy for a response of this age. Its map has no room for further fields.
    #[inline]
    pub fn to_headers(&self, age: HeaderValue) -> HeaderMap {
        let mut copy = HeaderMap::clone(&self.shape.map);
        for (slot, value) in copy.values_mut().zip(std::iter::once(age).chain(self.own.iter().cloned())) {
            *slot = value;
        }
        copy
    }

    /// `beginning` and the block as HTTP/1.1 lines, but for `Content-Length`, for a response of this age in seconds. None
    /// where the block has no `Date`.
    pub fn to_http1(&self, beginning: &[u8], age: u32) -> Option<Vec<u8>> {
        if !self.has_date {
            return None;
        }
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(age).as_bytes();
        let parts = [beginning, b"age: ", digits, b"\r\n", self.lines.bytes(), &*self.shape.lines];
        let mut lines = Vec::with_capacity(parts.iter().map(|part| part.len()).sum::<usize>() + CONNECTION_LINE_BYTES);
        parts.iter().for_each(|part| lines.extend_from_slice(part));
        Some(lines)
    }

    /// Prefetches the lines, where they lie on the heap.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch(self.lines.bytes());
    }
}

fn write_line(lines: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    if *name != header::CONTENT_LENGTH {
        let parts = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
        parts.iter().for_each(|part| lines.extend_from_slice(part));
    }
}

impl Shape {
    fn new(map: HeaderMap) -> Self {
        let mut lines = Vec::new();
        for (name, value) in map.iter().filter(|(name, _)| COMMON_FIELDS.contains(name)) {
            write_line(&mut lines, name, value);
        }
        Self { map, lines: lines.into() }
    }
}

/// The same values in one allocation.
fn in_one_piece(values: &[HeaderValue]) -> Vec<HeaderValue> {
    let mut text = BytesMut::with_capacity(values.iter().map(HeaderValue::len).sum());
    values.iter().for_each(|value| text.extend_from_slice(value.as_bytes()));
    let mut text = text.freeze();
    values.iter().map(|value| with_text(value, text.split_to(value.len().min(text.len())))).collect()
}

/// The same map with its values in one allocation.
pub(super) fn together(fields: &HeaderMap) -> HeaderMap {
    let values: Vec<HeaderValue> = fields.values().cloned().collect();
    let mut map = HeaderMap::with_capacity(fields.len());
    fields.keys().flat_map(|name| fields.get_all(name).iter().map(move |_| name)).zip(in_one_piece(&values)).for_each(
        |(name, value)| {
            map.append(name.clone(), value);
        },
    );
    map
}

/// `value` with other memory for the same text.
fn with_text(value: &HeaderValue, text: Bytes) -> HeaderValue {
    let mut same = HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| value.clone());
    same.set_sensitive(value.is_sensitive());
    same
}

/// The shared shapes.
#[derive(Default)]
struct Shapes {
    known: Vec<&'static Shape>,
    /// Hashes of shapes that were seen once. When half of [`MAX_SHAPES`] are taken, only a shape that is seen again is
    /// shared.
    seen_once: Vec<u64>,
    next: usize,
}

static KNOWN: Mutex<Shapes> = Mutex::new(Shapes { known: Vec::new(), seen_once: Vec::new(), next: 0 });

impl Shapes {
    /// The shared shape that equals `shape`, where there is one or room for one.
    fn common(&mut self, shape: &HeaderMap) -> Option<&'static Shape> {
        let text: usize = shape.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if text > MAX_SHAPE_BYTES {
            return None;
        }
        if let Some(known) = self.known.iter().find(|known| known.map == *shape) {
            return Some(known);
        }
        let (taken, hash) = (self.known.len(), hash(shape));
        if taken >= MAX_SHAPES || (taken >= MAX_SHAPES / 2 && !self.was_seen(hash)) {
            return None;
        }
        let fixed = |value: &HeaderValue| {
            let text: &'static [u8] = Box::leak(Box::from(value.as_bytes()));
            with_text(value, Bytes::from_static(text))
        };
        let mut known = HeaderMap::with_capacity(shape.len());
        shape.iter().for_each(|(name, value)| _ = known.append(name.clone(), fixed(value)));
        let known: &'static Shape = Box::leak(Box::new(Shape::new(known)));
        self.known.push(known);
        Some(known)
    }

    /// Whether it was seen recently; notes that it was.
    fn was_seen(&mut self, hash: u64) -> bool {
        if self.seen_once.contains(&hash) {
            return true;
        }
        match self.seen_once.get_mut(self.next % MAX_SHAPES) {
            Some(old) => *old = hash,
            None => self.seen_once.push(hash),
        }
        self.next = (self.next + 1) % MAX_SHAPES;
        false
    }
}

fn hash(shape: &HeaderMap) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    for (name, value) in shape {
        (name, value.as_bytes()).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        map
    }

    fn is_shared(block: &HeaderBlock) -> bool {
        matches!(block.shape, ShapeRef::Shared(_))
    }

    #[test]
    fn similar_responses_share_their_common_fields() {
        let known = Mutex::default();
        let segment = |etag: &str, length: &str| {
            let kind = ("content-type", "video/mp4");
            map(&[("etag", etag), kind, ("content-length", length), ("x-id", etag)])
        };
        let blocks = [("\"a\"", "10"), ("\"b\"", "20")].map(|(etag, length)| {
            let block = HeaderBlock::among(&known, &segment(etag, length), 0);
            let mut expected = segment(etag, length);
            expected.insert(header::AGE, HeaderValue::from_static("7"));
            assert_eq!(block.to_headers(HeaderValue::from_static("7")), expected);
            block
        });
        assert!(blocks.iter().all(is_shared) && known.lock().unwrap().known.len() == 1);
        assert_eq!(HeaderBlock::among(&known, &map(&[]), 0).to_headers(PLACEHOLDER), map(&[("age", "0")]));
    }

    #[test]
    fn shapes_are_bounded_and_half_of_them_need_a_second_response() {
        let known = Mutex::default();
        let many = |times: usize, name: &str| {
            for n in 0..MAX_SHAPES * 4 {
                let block = map(&[("server", &format!("{name}-{n}"))]);
                for _ in 0..times {
                    assert_eq!(
                        HeaderBlock::among(&known, &block, 0).to_headers(PLACEHOLDER).get("server"),
                        block.get("server")
                    );
                }
            }
            known.lock().unwrap().known.len()
        };
        assert_eq!(many(1, "once"), MAX_SHAPES / 2);
        assert_eq!(many(2, "twice"), MAX_SHAPES);
    }

    proptest! {
        #[test]
        fn a_copy_has_the_fields_of_its_block(
            fields in prop::collection::vec((prop::sample::select(vec![
                "etag", "x-a", "x-b", "content-type", "vary", "server", "date", "content-length", "age",
            ]), "[a-z0-9]{0,6}"), 0..12),
        ) {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let mut expected = map(&fields);
            let known = Mutex::default();
            let _ = HeaderBlock::among(&known, &expected, 0);
            let block = HeaderBlock::among(&known, &expected, 0);
            expected.insert(header::AGE, HeaderValue::from_static("5"));
            let copy = block.to_headers(HeaderValue::from_static("5"));
            prop_assert_eq!(&copy, &expected);
            for name in expected.keys() {
                prop_assert!(copy.get_all(name).iter().eq(expected.get_all(name).iter()), "order within {}", name);
            }
            // The same fields in lines, but for the length.
            let lines = block.to_http1(b"first\r\n", 5);
            prop_assert_eq!(lines.is_some(), expected.contains_key("date"));
            expected.insert(header::DATE, HeaderValue::from_static("then"));
            let lines = HeaderBlock::among(&known, &expected, 0).to_http1(b"first\r\n", 5).unwrap();
            let text = String::from_utf8(lines).unwrap();
            let mut lines: Vec<&str> = text.strip_prefix("first\r\n").unwrap().split_terminator("\r\n").collect();
            let mut as_lines: Vec<String> =
                expected.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            as_lines.retain(|line| !line.starts_with("content-length:"));
            lines.sort_unstable();
            as_lines.sort_unstable();
            prop_assert_eq!(lines, as_lines);
        }
    }
}
