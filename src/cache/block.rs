//! Header blocks as they are delivered: what many responses have the same lies once for all of them, what is one's own
//! beside it.
//!
//! A hit copies its block. Were each object's block a whole one, copying it would walk through memory that no cache of
//! the processor holds any more, which among many objects is much of what a hit costs; and what several cores count
//! references of would go from one to the other. So the common part is never given back, has no count, and is bounded.

use std::hash::{Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Fields that have few values, whatever the object.
const COMMON: [HeaderName; 16] = [
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

/// How many common parts there are at most; blocks that need another one are whole.
const SHAPES: usize = 64;
/// How much text a common part has at most, in bytes.
const SHAPE_TEXT: usize = 2048;

/// Stands where a block's own value goes.
const PLACE: HeaderValue = HeaderValue::from_static("0");

/// A header block, made to be copied.
#[derive(Debug)]
pub struct Block {
    shape: Shape,
    /// The values of the shape's first fields.
    own: Box<[HeaderValue]>,
}

#[derive(Debug)]
enum Shape {
    Common(&'static HeaderMap),
    Own(Box<HeaderMap>),
}

impl Block {
    /// From the block's fields; `Age` need not be among them.
    pub fn new(fields: &HeaderMap) -> Self {
        Self::among(&KNOWN, fields)
    }

    fn among(known: &Mutex<Shapes>, fields: &HeaderMap) -> Self {
        let is_own = |name: &&HeaderName| !COMMON.contains(name) && **name != header::AGE;
        let mut names: Vec<&HeaderName> = fields.keys().filter(is_own).collect();
        // Two blocks are of one shape whichever order their origin sent.
        names.sort_unstable_by_key(|name| name.as_str());
        let mut shape = HeaderMap::with_capacity(fields.len() + 1);
        shape.insert(header::AGE, PLACE);
        let mut own = vec![PLACE];
        for name in names {
            for value in fields.get_all(name) {
                shape.append(name.clone(), PLACE);
                own.push(value.clone());
            }
        }
        for name in COMMON.iter().filter(|name| fields.contains_key(*name)) {
            for value in fields.get_all(name) {
                shape.append(name.clone(), value.clone());
            }
        }
        let common = known.lock().unwrap_or_else(PoisonError::into_inner).common(&shape);
        let shape = common.map_or_else(|| Shape::Own(Box::new(together(&shape))), Shape::Common);
        Self { shape, own: in_one_piece(&own).into() }
    }

    /// A copy, for a response of this age. It has no room to grow.
    pub fn copy(&self, age: HeaderValue) -> HeaderMap {
        let mut copy = match &self.shape {
            Shape::Common(shape) => HeaderMap::clone(shape),
            Shape::Own(shape) => HeaderMap::clone(shape),
        };
        let own = self.own.iter().skip(1).cloned();
        for (place, value) in copy.values_mut().zip(std::iter::once(age).chain(own)) {
            *place = value;
        }
        copy
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

/// The common parts there are.
#[derive(Default)]
struct Shapes {
    known: Vec<&'static HeaderMap>,
    /// What was seen once: once half of the places are taken, a shape that only one object has gets none.
    once: Vec<u64>,
    next: usize,
}

static KNOWN: Mutex<Shapes> = Mutex::new(Shapes { known: Vec::new(), once: Vec::new(), next: 0 });

impl Shapes {
    /// The common part that equals `shape`, where there is room.
    fn common(&mut self, shape: &HeaderMap) -> Option<&'static HeaderMap> {
        let text: usize = shape.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if text > SHAPE_TEXT {
            return None;
        }
        if let Some(known) = self.known.iter().find(|known| **known == shape) {
            return Some(known);
        }
        let (taken, hash) = (self.known.len(), hash(shape));
        if taken >= SHAPES || (taken >= SHAPES / 2 && !self.was_seen(hash)) {
            return None;
        }
        let fixed = |value: &HeaderValue| {
            let text: &'static [u8] = Box::leak(Box::from(value.as_bytes()));
            with_text(value, Bytes::from_static(text))
        };
        let mut known = HeaderMap::with_capacity(shape.len());
        shape.iter().for_each(|(name, value)| _ = known.append(name.clone(), fixed(value)));
        let known: &'static HeaderMap = Box::leak(Box::new(known));
        self.known.push(known);
        Some(known)
    }

    /// Whether it was seen lately; from now on it was.
    fn was_seen(&mut self, hash: u64) -> bool {
        if self.once.contains(&hash) {
            return true;
        }
        match self.once.get_mut(self.next % SHAPES) {
            Some(old) => *old = hash,
            None => self.once.push(hash),
        }
        self.next = (self.next + 1) % SHAPES;
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

    fn is_common(block: &Block) -> bool {
        matches!(block.shape, Shape::Common(_))
    }

    #[test]
    fn objects_of_one_kind_share_what_they_have_in_common() {
        let known = Mutex::default();
        let segment = |etag: &str, length: &str| {
            let kind = ("content-type", "video/mp4");
            map(&[("etag", etag), kind, ("content-length", length), ("x-id", etag)])
        };
        let blocks = [("\"a\"", "10"), ("\"b\"", "20")].map(|(etag, length)| {
            let block = Block::among(&known, &segment(etag, length));
            let mut expected = segment(etag, length);
            expected.insert(header::AGE, HeaderValue::from_static("7"));
            assert_eq!(block.copy(HeaderValue::from_static("7")), expected);
            block
        });
        assert!(blocks.iter().all(is_common) && known.lock().unwrap().known.len() == 1);
        assert_eq!(Block::among(&known, &map(&[])).copy(PLACE), map(&[("age", "0")]));
    }

    #[test]
    fn kinds_of_one_object_alone_leave_half_of_the_places_and_there_are_only_so_many() {
        let known = Mutex::default();
        let many = |times: usize, name: &str| {
            for n in 0..SHAPES * 4 {
                let block = map(&[("server", &format!("{name}-{n}"))]);
                for _ in 0..times {
                    assert_eq!(Block::among(&known, &block).copy(PLACE).get("server"), block.get("server"));
                }
            }
            known.lock().unwrap().known.len()
        };
        assert_eq!(many(1, "once"), SHAPES / 2);
        assert_eq!(many(2, "twice"), SHAPES);
    }

    proptest! {
        #[test]
        fn a_copy_has_the_fields_that_the_block_was_made_of(
            fields in prop::collection::vec((prop::sample::select(vec![
                "etag", "x-a", "x-b", "content-type", "vary", "server", "date", "content-length", "age",
            ]), "[a-z0-9]{0,6}"), 0..12),
        ) {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let mut expected = map(&fields);
            let known = Mutex::default();
            let _ = Block::among(&known, &expected);
            let block = Block::among(&known, &expected);
            expected.insert(header::AGE, HeaderValue::from_static("5"));
            let copy = block.copy(HeaderValue::from_static("5"));
            prop_assert_eq!(&copy, &expected);
            for name in expected.keys() {
                prop_assert!(copy.get_all(name).iter().eq(expected.get_all(name).iter()), "order within {}", name);
            }
        }
    }
}
