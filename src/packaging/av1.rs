//! AV1 bitstreams in the form of MP4 files ("AV1 Codec ISO Media File Format Binding", sections 2.3 and 2.4).

const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;

/// The OBUs of a stream in which each has a size field: type and whole OBU.
fn obus(mut stream: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let head = *stream.first()?;
        let extended = usize::from(head >> 2 & 1);
        // An OBU without a size field extends to the end.
        let (size, length) =
            if head & 2 == 0 { (stream.len() - 1 - extended, 0) } else { leb128(stream.get(1 + extended..)?)? };
        let whole = stream.get(..1 + extended + length + size)?;
        stream = stream.get(whole.len()..)?;
        Some((head >> 3 & 0xf, whole))
    })
}

/// A LEB128 number and its length in bytes.
fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0usize;
    for (n, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((value, n + 1));
        }
    }
    None
}

/// A sample: the temporal unit without its temporal delimiter.
pub fn sample(stream: &[u8]) -> Vec<u8> {
    obus(stream).filter(|(kind, _)| *kind != TEMPORAL_DELIMITER).flat_map(|(_, unit)| unit.iter().copied()).collect()
}

struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BitReader<'_> {
    fn take(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }
}

/// The `AV1CodecConfigurationRecord` for the sequence header in `headers` (4:2:0, eight bits, no timing information),
/// and the RFC 6381 name. `None` without a sequence header.
pub fn configuration(headers: &[u8]) -> Option<(Vec<u8>, String)> {
    // An encoder may deliver the record itself.
    let headers = if headers.first() == Some(&0x81) { headers.get(4..)? } else { headers };
    let (_, unit) = obus(headers).find(|(kind, _)| *kind == SEQUENCE_HEADER)?;
    let (_, length) = leb128(unit.get(1..)?)?;
    let mut bits = BitReader { bytes: unit.get(1 + length..)?, at: 0 };
    let profile = bits.take(3)?;
    let (_still, reduced) = (bits.take(1)?, bits.take(1)?);
    let (level, tier) = if reduced == 1 {
        (bits.take(5)?, 0)
    } else {
        if bits.take(1)? == 1 {
            return None;
        }
        let (_delays, _points, _idc) = (bits.take(1)?, bits.take(5)?, bits.take(12)?);
        let level = bits.take(5)?;
        (level, if level > 7 { bits.take(1)? } else { 0 })
    };
    let byte = |value: u32| u8::try_from(value & 0xff).unwrap_or(0);
    let mut out = vec![0x81, byte(profile << 5 | level), byte(tier << 7 | 0b1100), 0];
    out.extend(unit);
    let tier = if tier == 1 { 'H' } else { 'M' };
    Some((out, format!("av01.{profile}.{level:02}{tier}.08")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_header_becomes_a_configuration_record() {
        // Main profile, level index 5 (3.1), main tier.
        let header = [0x0a, 4, 0, 0, 0, 0x28];
        let (record, name) = configuration(&header).unwrap();
        assert_eq!(name, "av01.0.05M.08");
        assert_eq!(record[..4], [0x81, 5, 0x0c, 0]);
        assert_eq!(record[4..], header);
        assert!(configuration(&[0x12, 0]).is_none() && configuration(&[]).is_none());
    }

    #[test]
    fn a_sample_has_no_delimiter() {
        assert_eq!(sample(&[0x12, 0, 0x32, 2, 7, 8]), [0x32, 2, 7, 8]);
        assert_eq!(sample(&[0x32, 9, 7]), [] as [u8; 0]);
    }
}
