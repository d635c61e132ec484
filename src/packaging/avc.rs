//! H.264 bitstreams in the form of MP4 files: lengths for Annex B's start codes, and the decoder configuration record (ISO/IEC 14496-15, section 5.3.3).

const NAL_SEI: u8 = 6;
const NAL_SPS: u8 = 7;
const NAL_PPS: u8 = 8;
const NAL_DELIMITER: u8 = 9;
const SEI_UNREGISTERED: u8 = 5;

/// The NAL units of an Annex B stream, without start codes and trailing zeros.
pub fn nal_units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_start_code(stream);
    std::iter::from_fn(move || {
        let data = rest?;
        let end = data.windows(3).position(|w| matches!(w, [0, 0, 0 | 1]));
        let (unit, tail) = data.split_at(end.unwrap_or(data.len()));
        rest = after_start_code(tail);
        Some(unit)
    })
    .filter(|unit| !unit.is_empty())
}

fn after_start_code(stream: &[u8]) -> Option<&[u8]> {
    let at = stream.windows(3).position(|w| w == [0, 0, 1])?;
    stream.get(at + 3..)
}

fn kind(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |b| b & 0x1f)
}

/// A sample: each NAL unit behind its length in four bytes. Left out are parameter sets, which the
/// configuration record holds, and the encoder's signature, which would differ between tasks.
pub fn sample(stream: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(stream.len() + 8);
    for unit in nal_units(stream) {
        let signature = kind(unit) == NAL_SEI && unit.get(1) == Some(&SEI_UNREGISTERED);
        if signature || matches!(kind(unit), NAL_SPS | NAL_PPS | NAL_DELIMITER) {
            continue;
        }
        out.extend(u32::try_from(unit.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend(unit);
    }
    out
}

/// The `AVCDecoderConfigurationRecord` for the parameter sets in `headers`, and the RFC 6381 name. `None` where
/// they are missing.
pub fn configuration(headers: &[u8]) -> Option<(Vec<u8>, String)> {
    let of = |wanted| nal_units(headers).filter(move |u| kind(u) == wanted).collect::<Vec<_>>();
    let (sps, pps) = (of(NAL_SPS), of(NAL_PPS));
    let [_, profile, compatible, level, ..] = *sps.first()? else { return None };
    pps.first()?;
    let mut out = vec![1, *profile, *compatible, *level, 0xff, 0xe0 | u8::try_from(sps.len()).ok()?];
    let push = |out: &mut Vec<u8>, unit: &[u8]| {
        out.extend(u16::try_from(unit.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(unit);
    };
    sps.iter().for_each(|unit| push(&mut out, unit));
    out.push(u8::try_from(pps.len()).ok()?);
    pps.iter().for_each(|unit| push(&mut out, unit));
    if *profile >= 100 {
        // 4:2:0, 8 bits, no SPS extension: the only form made here.
        out.extend([0xfd, 0xf8, 0xf8, 0]);
    }
    Some((out, format!("avc1.{profile:02x}{compatible:02x}{level:02x}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADERS: &[u8] = &[0, 0, 0, 1, 0x67, 0x64, 0, 0x1f, 0xac, 0, 0, 1, 0x68, 0xee, 0, 0, 1, 6, 5, 1];

    #[test]
    fn headers_become_a_configuration_record() {
        let (record, name) = configuration(HEADERS).unwrap();
        assert_eq!(name, "avc1.64001f");
        assert_eq!(
            record,
            [1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 5, 0x67, 0x64, 0, 0x1f, 0xac, 1, 0, 2, 0x68, 0xee, 0xfd, 0xf8, 0xf8, 0]
        );
        assert!(configuration(&[0, 0, 1, 0x67, 0x64]).is_none() && configuration(&[]).is_none());
    }

    #[test]
    fn a_sample_holds_only_slices() {
        let stream = [&[0, 0, 0, 1, 9, 0xf0], HEADERS, &[0, 0, 1, 0x65, 1, 2, 0, 0, 0, 1, 0x41, 3]].concat();
        assert_eq!(sample(&stream), [0, 0, 0, 3, 0x65, 1, 2, 0, 0, 0, 2, 0x41, 3]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(0u8..4, 0..200)) {
            let total: usize = nal_units(&bytes).map(<[u8]>::len).sum();
            prop_assert!(total <= bytes.len());
            let _ = (sample(&bytes), configuration(&bytes));
        }
    }
}
