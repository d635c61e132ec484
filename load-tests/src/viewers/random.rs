//! Random numbers and session ids.

use lyceum_core::ids::random_bytes;

/// A random (version 4) UUID, as RFC 9562 writes it.
pub fn uuid() -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = random_bytes::<16>();
    let number = u64::from_be_bytes([a, b, c, d, e, f, g & 0x0f | 0x40, h]);
    let tail = u64::from_be_bytes(rest) & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000;
    let (first, second, third) = (number >> 32, number >> 16 & 0xffff, number & 0xffff);
    format!("{first:08x}-{second:04x}-{third:04x}-{:04x}-{:012x}", tail >> 48, tail & 0xffff_ffff_ffff)
}

/// A random number below `bound`; 0 when that is 0.
pub fn random_below(bound: u64) -> u64 {
    u64::from_be_bytes(random_bytes()).checked_rem(bound).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_ids_are_uuids_of_version_4() {
        let (one, other) = (uuid(), uuid());
        assert_ne!(one, other);
        assert_eq!(one.len(), 36);
        assert_eq!(one.as_bytes()[14], b'4');
        assert!(matches!(one.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{one}");
        let hyphens: Vec<_> = one.match_indices('-').map(|(at, _)| at).collect();
        assert_eq!(hyphens, [8, 13, 18, 23]);
    }
}
