//! Sets of bytes, for checking the bytes of a request with one load each.

/// A set of bytes.
#[derive(Debug)]
pub struct ByteSet([bool; 256]);

impl ByteSet {
    /// The letters and digits of ASCII, and `others`.
    pub const fn alphanumeric_and(others: &[u8]) -> Self {
        let mut set = [false; 256];
        let mut byte = 0_u8;
        while byte < 0x80 {
            if let Some(place) = set.split_at_mut(byte as usize).1.first_mut() {
                *place = byte.is_ascii_alphanumeric();
            }
            byte += 1;
        }
        let mut rest = others;
        while let Some((byte, tail)) = rest.split_first() {
            if let Some(place) = set.split_at_mut(*byte as usize).1.first_mut() {
                *place = true;
            }
            rest = tail;
        }
        Self(set)
    }

    /// Whether `byte` is in the set.
    #[inline]
    pub fn contains(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte)).is_some_and(|is_member| *is_member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_digits_and_others_are_contained() {
        let set = ByteSet::alphanumeric_and(b"-_");
        for byte in 0..=u8::MAX {
            assert_eq!(set.contains(byte), byte.is_ascii_alphanumeric() || b"-_".contains(&byte), "{byte}");
        }
    }
}
