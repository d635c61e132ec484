use super::*;
use proptest::prelude::*;

/// The boxes directly inside `data`.
fn boxes(data: &[u8]) -> Vec<(String, &[u8])> {
    let mut out = Vec::new();
    let mut rest = data;
    while rest.len() >= 8 {
        let size = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        assert!(size >= 8 && size <= rest.len(), "a box of {size} in {}", rest.len());
        out.push((String::from_utf8_lossy(&rest[4..8]).into_owned(), &rest[8..size]));
        rest = &rest[size..];
    }
    assert!(rest.is_empty());
    out
}

fn inside<'a>(data: &'a [u8], path: &[&str]) -> &'a [u8] {
    path.iter().fold(data, |data, name| boxes(data).into_iter().find(|(kind, _)| kind == name).unwrap().1)
}

fn word(data: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(data[at..at + 4].try_into().unwrap())
}

#[test]
fn a_header_has_the_boxes_that_cmaf_wants() {
    let entry = SampleEntry::Visual {
        format: *b"avc1",
        config: (*b"avcC", vec![1, 2, 3]),
        width: 640,
        height: 360,
        color: Some(Color { primaries: 1, transfer: 1, matrix: 1, full_range: false }),
    };
    let bytes = init(30_000, "eng", 2002, &entry);
    assert_eq!(boxes(&bytes).iter().map(|b| b.0.as_str()).collect::<Vec<_>>(), ["ftyp", "moov"]);
    assert_eq!(word(inside(&bytes, &["moov", "trak", "edts", "elst"]), 12), 2002);
    let mdia = inside(&bytes, &["moov", "trak", "mdia"]);
    let mdhd = inside(mdia, &["mdhd"]);
    assert_eq!((word(mdhd, 12), word(mdhd, 20) >> 16), (30_000, 0x15c7));
    let stsd = inside(mdia, &["minf", "stbl", "stsd"]);
    let entry = &boxes(&stsd[8..])[0];
    assert_eq!(entry.0, "avc1");
    let children: Vec<_> = boxes(&entry.1[78..]).into_iter().map(|b| b.0).collect();
    assert_eq!(children, ["avcC", "colr", "pasp"]);
}

#[test]
fn reordered_frames_get_offsets_and_the_fragment_starts_on_time() {
    let sample = |pts, key| Sample { pts, key, data: vec![7; 10] };
    let samples = [sample(1000, true), sample(1300, false), sample(1100, false), sample(1200, false)];
    let fragment = fragment(3, 1000, 400, 200, &samples).unwrap();
    let traf = inside(&fragment.bytes, &["moof", "traf"]);
    assert_eq!(inside(traf, &["tfdt"])[4..], 1000u64.to_be_bytes());
    let trun = inside(traf, &["trun"]);
    assert_eq!(word(trun, 0), 1 << 24 | 0xa05);
    let offsets: Vec<i32> = (0..4).map(|i| word(trun, 16 + i * 8 + 4) as i32).collect();
    assert_eq!(offsets, [200, 400, 100, 100]);
    let moof = fragment.bytes.windows(4).position(|w| w == b"moof").unwrap() - 4;
    let data = moof + word(trun, 8) as usize;
    assert_eq!(fragment.bytes[data..], [7; 40]);
    assert_eq!(fragment.key_bytes as usize, data + 10);
}

#[test]
fn samples_that_do_not_fill_the_fragment_are_refused() {
    let sample = |pts| Sample { pts, key: true, data: vec![1] };
    assert_eq!(fragment(1, 0, 10, 0, &[]), Err(FragmentError::Empty));
    for times in [vec![1, 2], vec![0, 0], vec![0, 10]] {
        let samples: Vec<_> = times.into_iter().map(sample).collect();
        assert_eq!(fragment(1, 0, 10, 0, &samples), Err(FragmentError::Times));
    }
}

#[test]
fn long_frames_are_decoded_in_time() {
    let sample = |pts, key| Sample { pts, key, data: vec![7; 10] };
    // Shown at 0, 1, 25 and 50; decoded 0, 50, 25, 1.
    let samples = [sample(0, true), sample(50, false), sample(25, false), sample(1, false)];
    let times = decode_times(&samples, &[0, 1, 25, 50], 2);
    assert_eq!(times, [0, 1, 2, 3]);
    assert!(samples.iter().zip(&times).all(|(s, dts)| s.pts + 2 >= *dts));
}

proptest! {
    #[test]
    fn durations_add_up_and_offsets_restore_presentation_times(gaps in proptest::collection::vec(1u64..5000, 1..60), start in 0u64..1 << 40, seed in any::<u64>()) {
        let mut times = vec![start];
        for gap in &gaps[1..] {
            times.push(times[times.len() - 1] + gap);
        }
        let end = times[times.len() - 1] + gaps[0];
        // Any decode order that begins with the first frame.
        let mut order: Vec<usize> = (1..times.len()).collect();
        order.sort_by_key(|i| (*i as u64).wrapping_mul(seed | 1).rotate_left(17));
        order.insert(0, 0);
        let samples: Vec<Sample> = order.iter().map(|i| Sample { pts: times[*i], key: *i == 0, data: vec![*i as u8; i % 7 + 1] }).collect();
        let fragment = fragment(1, start, end - start, 3, &samples).unwrap();
        let traf = inside(&fragment.bytes, &["moof", "traf"]);
        let (tfhd, trun) = (inside(traf, &["tfhd"]), inside(traf, &["trun"]));
        let flags = word(trun, 0) & 0xff_ffff;
        prop_assert_eq!(word(trun, 4) as usize, samples.len());
        let mut at = 12 + if flags & 4 != 0 { 4 } else { 0 };
        let mut dts = start;
        for sample in &samples {
            let mut next = |on: bool| { let v = on.then(|| word(trun, at)); at += if on { 4 } else { 0 }; v };
            let duration = next(flags & 0x100 != 0).unwrap_or_else(|| word(tfhd, 8));
            prop_assert_eq!(next(true).unwrap() as usize, sample.data.len());
            let _ = next(flags & 0x400 != 0);
            let offset = next(flags & 0x800 != 0).map_or(0, |v| v as i32);
            prop_assert_eq!(dts as i64 + i64::from(offset), sample.pts as i64 + 3);
            dts += u64::from(duration);
        }
        prop_assert_eq!(dts, end);
    }
}
