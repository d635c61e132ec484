//! Short byte strings without an allocation: one cache miss and not two. Among many objects a look-up waits for memory
//! more than for anything else.

/// Up to `N` bytes inline, more on the heap.
#[derive(Clone, Debug)]
pub(super) enum InlineBytes<const N: usize> {
    Inline(u8, [u8; N]),
    Heap(Box<[u8]>),
}

impl<const N: usize> InlineBytes<N> {
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Heap(bytes) => bytes,
        }
    }
}

impl<const N: usize> From<&[u8]> for InlineBytes<N> {
    fn from(bytes: &[u8]) -> Self {
        let mut inline = [0; N];
        match (inline.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(target), Ok(length)) => {
                target.copy_from_slice(bytes);
                Self::Inline(length, inline)
            }
            _ => Self::Heap(bytes.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_back_the_same_inline_and_on_the_heap() {
        for length in [0, 1, 5, 6, 7, 300] {
            let bytes: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let inline = InlineBytes::<6>::from(bytes.as_slice());
            assert_eq!((inline.bytes(), matches!(inline, InlineBytes::Inline(..))), (bytes.as_slice(), length <= 6));
        }
    }
}
