//! HEVC bitstreams in the form of MP4 files (ISO/IEC 14496-15, section 8.3.3).

use crate::avc::nal_units;

const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;
const DELIMITER: u8 = 35;

fn kind(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |b| b >> 1 & 0x3f)
}

/// A sample: each NAL unit behind its length in four bytes, parameter sets left out.
pub fn sample(stream: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(stream.len() + 8);
    for unit in nal_units(stream).filter(|unit| !matches!(kind(unit), VPS | SPS | PPS | DELIMITER)) {
        out.extend(u32::try_from(unit.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend(unit);
    }
    out
}

/// A NAL unit without its emulation prevention bytes (ISO/IEC 23008-2, section 7.4.2).
fn unescaped(unit: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(unit.len());
    let mut zeros = 0;
    for byte in unit {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        out.push(*byte);
    }
    out
}

/// The `HEVCDecoderConfigurationRecord` for the parameter sets in `headers` (4:2:0, eight bits), and the RFC 6381
/// name. `None` where they are missing.
pub fn configuration(headers: &[u8]) -> Option<(Vec<u8>, String)> {
    let of = |wanted| nal_units(headers).filter(move |u| kind(u) == wanted).collect::<Vec<_>>();
    let (vps, sps, pps) = (of(VPS), of(SPS), of(PPS));
    let unescaped = unescaped(sps.first()?);
    // Two bytes of header, one of layers, then profile, tier and level.
    let (layers, levels) = (*unescaped.get(2)?, unescaped.get(3..15)?);
    if vps.is_empty() || pps.is_empty() {
        return None;
    }
    let mut out = vec![1];
    out.extend(levels);
    out.extend([0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0]);
    let (sub_layers, nested) = ((layers >> 1 & 7) + 1, layers & 1);
    out.push(sub_layers << 3 | nested << 2 | 3);
    out.push(3);
    for (kind, units) in [(VPS, vps), (SPS, sps), (PPS, pps)] {
        out.push(0x80 | kind);
        out.extend(u16::try_from(units.len()).ok()?.to_be_bytes());
        for unit in units {
            out.extend(u16::try_from(unit.len()).ok()?.to_be_bytes());
            out.extend(unit);
        }
    }
    Some((out, name(levels)?))
}

/// `hvc1.1.6.L93.90` (ISO/IEC 14496-15, annex E).
fn name(levels: &[u8]) -> Option<String> {
    let [first, a, b, c, d, constraints @ .., level] = levels else { return None };
    let space = ["", "A", "B", "C"].get(usize::from(first >> 6))?;
    let tier = if first & 0x20 == 0 { 'L' } else { 'H' };
    let compatible = u32::from_be_bytes([*a, *b, *c, *d]).reverse_bits();
    let used = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let constraints: String = constraints.iter().take(used).map(|byte| format!(".{byte:X}")).collect();
    Some(format!("hvc1.{space}{}.{compatible:X}.{tier}{level}{constraints}", first & 0x1f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_main_profile_has_its_name() {
        assert_eq!(name(&[1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93]).as_deref(), Some("hvc1.1.6.L93.90"));
        assert_eq!(unescaped(&[1, 0, 0, 3, 0, 0, 3, 1]), [1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn headers_become_a_configuration_record() {
        let mut headers = vec![0, 0, 0, 1, 0x40, 1, 0xc, 0, 0, 1, 0x42, 1, 1];
        headers.extend([1, 0x60, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 93, 0xa0]);
        headers.extend([0, 0, 1, 0x44, 1, 0xc1]);
        let (record, name) = configuration(&headers).unwrap();
        assert_eq!(name, "hvc1.1.6.L93.90");
        assert_eq!(record[..13], [1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93]);
        assert_eq!(record[21..25], [0xf, 3, 0xa0, 0]);
        assert!(configuration(&headers[..10]).is_none());
    }
}
