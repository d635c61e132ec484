//! Writes CMAF headers and fragments (ISO/IEC 23000-19 over ISO/IEC 14496-12).
//!
//! Fragments of independent tasks must join as if encoded in one go. So decode times are not the encoder's: within a
//! fragment they are its presentation times in order. A fragment then begins exactly at its start and no time is
//! negative. Reordered frames are presented a constant delay later, which the header's edit list removes. (Negative composition offsets would need
//! no edit list, but FFmpeg's demuxer, and the players built on it, then show the video late by the delay.)

/// How the samples of a track are described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SampleEntry {
    /// Video.
    Visual {
        /// `avc1`, `hvc1` or `av01`.
        format: [u8; 4],
        /// The configuration box's type and content, such as `avcC`.
        config: ([u8; 4], Vec<u8>),
        /// Width in pixels.
        width: u16,
        /// Height in pixels.
        height: u16,
        /// Colour, where the source declares it.
        color: Option<Color>,
    },
    /// AAC audio.
    Aac {
        /// The `AudioSpecificConfig` (ISO/IEC 14496-3).
        config: Vec<u8>,
        /// How many channels.
        channels: u16,
        /// In hertz.
        sample_rate: u32,
        /// Mean bits per second.
        bitrate: u32,
    },
}

/// Colour by the code points of ISO/IEC 23091-2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Color {
    /// Colour primaries.
    pub primaries: u16,
    /// Transfer characteristics.
    pub transfer: u16,
    /// Matrix coefficients.
    pub matrix: u16,
    /// Full range in place of limited.
    pub full_range: bool,
}

/// One sample, in decode order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its presentation time, in ticks.
    pub pts: u64,
    /// Whether it is a sync sample: decodable without others.
    pub key: bool,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// A fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// `styp`, `moof` and `mdat`.
    pub bytes: Vec<u8>,
    /// How many of them hold the boxes before the samples and the first sample.
    pub key_bytes: u64,
}

/// Samples that make no fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// There are no samples.
    #[error("a fragment without samples")]
    Empty,
    /// A sample is presented outside the fragment, or two at the same time.
    #[error("the presentation times of a fragment are not in order within it")]
    Times,
    /// More bytes than a box can hold.
    #[error("a fragment is too large")]
    Size,
}

/// `sample_flags` of a sync sample (ISO/IEC 14496-12, section 8.8.3.1).
const SYNC: u32 = 0x0200_0000;
const NOT_SYNC: u32 = 0x0101_0000;

/// Appends a box with the content that `write` appends.
fn write_box(out: &mut Vec<u8>, kind: &[u8; 4], write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0; 4]);
    out.extend(kind);
    write(out);
    let size = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(at..at + 4) {
        field.copy_from_slice(&size.to_be_bytes());
    }
}

/// The same with version and flags: a full box.
fn write_full_box(out: &mut Vec<u8>, kind: &[u8; 4], version: u8, flags: u32, write: impl FnOnce(&mut Vec<u8>)) {
    write_box(out, kind, |out| {
        out.extend((u32::from(version) << 24 | flags).to_be_bytes());
        write(out);
    });
}

fn u16s(out: &mut Vec<u8>, values: &[u16]) {
    values.iter().for_each(|v| out.extend(v.to_be_bytes()));
}

fn u32s(out: &mut Vec<u8>, values: &[u32]) {
    values.iter().for_each(|v| out.extend(v.to_be_bytes()));
}

/// The identity matrix.
const MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// The CMAF header (`init.mp4`) of a track with `timescale` ticks a second. `language` is ISO 639-2 or `und`; `delay`
/// is the one of its [`fragment`]s.
pub fn init(timescale: u32, language: &str, delay: u32, entry: &SampleEntry) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    write_box(&mut out, b"ftyp", |out| {
        out.extend(b"iso6");
        u32s(out, &[0]);
        out.extend(b"iso6cmfcmp41dash");
    });
    write_box(&mut out, b"moov", |out| {
        write_full_box(out, b"mvhd", 0, 0, |out| {
            u32s(out, &[0, 0, timescale, 0, 0x1_0000]);
            u16s(out, &[0x100, 0]);
            u32s(out, &[0, 0]);
            u32s(out, &MATRIX);
            u32s(out, &[0; 6]);
            u32s(out, &[2]);
        });
        write_box(out, b"trak", |out| track(out, timescale, language, delay, entry));
        write_box(out, b"mvex", |out| {
            write_full_box(out, b"trex", 0, 0, |out| u32s(out, &[1, 1, 0, 0, 0]));
        });
    });
    out
}

fn track(out: &mut Vec<u8>, timescale: u32, language: &str, delay: u32, entry: &SampleEntry) {
    let (width, height, volume) = match entry {
        SampleEntry::Visual { width, height, .. } => (*width, *height, 0),
        SampleEntry::Aac { .. } => (0, 0, 0x100),
    };
    write_full_box(out, b"tkhd", 0, 7, |out| {
        u32s(out, &[0, 0, 1, 0, 0, 0, 0]);
        u16s(out, &[0, 0, volume, 0]);
        u32s(out, &MATRIX);
        u32s(out, &[u32::from(width) << 16, u32::from(height) << 16]);
    });
    if delay > 0 {
        write_box(out, b"edts", |out| {
            // One edit over all that follows (duration 0), from `delay` on, at normal speed.
            write_full_box(out, b"elst", 0, 0, |out| u32s(out, &[1, 0, delay, 0x1_0000]));
        });
    }
    write_box(out, b"mdia", |out| {
        write_full_box(out, b"mdhd", 0, 0, |out| {
            u32s(out, &[0, 0, timescale, 0]);
            u16s(out, &[packed_language(language), 0]);
        });
        let (handler, name): (&[u8; 4], &[u8]) = match entry {
            SampleEntry::Visual { .. } => (b"vide", b"video\0"),
            SampleEntry::Aac { .. } => (b"soun", b"sound\0"),
        };
        write_full_box(out, b"hdlr", 0, 0, |out| {
            u32s(out, &[0]);
            out.extend(handler);
            u32s(out, &[0, 0, 0]);
            out.extend(name);
        });
        write_box(out, b"minf", |out| {
            match entry {
                SampleEntry::Visual { .. } => write_full_box(out, b"vmhd", 0, 1, |out| u16s(out, &[0; 4])),
                SampleEntry::Aac { .. } => write_full_box(out, b"smhd", 0, 0, |out| u16s(out, &[0; 2])),
            }
            write_box(out, b"dinf", |out| {
                write_full_box(out, b"dref", 0, 0, |out| {
                    u32s(out, &[1]);
                    write_full_box(out, b"url ", 0, 1, |_| {});
                });
            });
            write_box(out, b"stbl", |out| {
                write_full_box(out, b"stsd", 0, 0, |out| {
                    u32s(out, &[1]);
                    sample_entry(out, entry);
                });
                write_full_box(out, b"stts", 0, 0, |out| u32s(out, &[0]));
                write_full_box(out, b"stsc", 0, 0, |out| u32s(out, &[0]));
                write_full_box(out, b"stsz", 0, 0, |out| u32s(out, &[0, 0]));
                write_full_box(out, b"stco", 0, 0, |out| u32s(out, &[0]));
            });
        });
    });
}

fn packed_language(language: &str) -> u16 {
    let code = match language.as_bytes() {
        code @ [_, _, _] if code.iter().all(u8::is_ascii_lowercase) => code,
        _ => b"und",
    };
    code.iter().fold(0, |packed, c| packed << 5 | u16::from(c - 0x60))
}

fn sample_entry(out: &mut Vec<u8>, entry: &SampleEntry) {
    match entry {
        SampleEntry::Visual { format, config, width, height, color } => write_box(out, format, |out| {
            u32s(out, &[0]);
            u16s(out, &[0, 1, 0, 0]);
            u32s(out, &[0, 0, 0]);
            u16s(out, &[*width, *height]);
            u32s(out, &[0x48_0000, 0x48_0000, 0]);
            u16s(out, &[1]);
            out.extend([0; 32]);
            u16s(out, &[0x18, 0xffff]);
            write_box(out, &config.0, |out| out.extend(&config.1));
            if let Some(color) = color {
                write_box(out, b"colr", |out| {
                    out.extend(b"nclx");
                    u16s(out, &[color.primaries, color.transfer, color.matrix]);
                    out.push(u8::from(color.full_range) << 7);
                });
            }
            write_box(out, b"pasp", |out| u32s(out, &[1, 1]));
        }),
        SampleEntry::Aac { config, channels, sample_rate, bitrate } => write_box(out, b"mp4a", |out| {
            u32s(out, &[0]);
            u16s(out, &[0, 1]);
            u32s(out, &[0, 0]);
            u16s(out, &[*channels, 16, 0, 0]);
            u32s(out, &[sample_rate << 16]);
            write_full_box(out, b"esds", 0, 0, |out| elementary_stream(out, config, *bitrate));
        }),
    }
}

/// The ES descriptor (ISO/IEC 14496-1, section 7.2.6.5).
fn elementary_stream(out: &mut Vec<u8>, config: &[u8], bitrate: u32) {
    let descriptor = |tag: u8, content: Vec<u8>| {
        let mut out = vec![tag, u8::try_from(content.len()).unwrap_or(0x7f) & 0x7f];
        out.extend(content);
        out
    };
    let specific = descriptor(5, config.to_vec());
    // MPEG-4 audio, audio stream, buffer size not given.
    let mut decoder = vec![0x40, 0x15, 0, 0, 0];
    decoder.extend(bitrate.to_be_bytes());
    decoder.extend(bitrate.to_be_bytes());
    decoder.extend(specific);
    let mut stream = vec![0, 1, 0];
    stream.extend(descriptor(4, decoder));
    stream.extend(descriptor(6, vec![2]));
    out.extend(descriptor(3, stream));
}

/// A fragment of one track that spans `start .. start + duration` ticks. `samples` are in decode order; each is
/// presented until the next in presentation order, the last until the end. `delay` is the maximum by which frames are
/// reordered, in ticks, the same for the whole track.
pub fn fragment(
    sequence: u32,
    start: u64,
    duration: u64,
    delay: u32,
    samples: &[Sample],
) -> Result<Fragment, FragmentError> {
    if samples.is_empty() {
        return Err(FragmentError::Empty);
    }
    let mut times: Vec<u64> = samples.iter().map(|s| s.pts).collect();
    times.sort_unstable();
    let end = start.checked_add(duration).ok_or(FragmentError::Times)?;
    let ordered = times.windows(2).all(|w| matches!(w, [a, b] if a < b));
    if !ordered || times.first() != Some(&start) || times.last().is_some_and(|last| *last >= end) {
        return Err(FragmentError::Times);
    }
    let times = decode_times(samples, &times, delay);
    let ends = times.iter().skip(1).copied().chain([end]);
    let durations: Vec<u32> = times
        .iter()
        .zip(ends)
        .map(|(a, b)| u32::try_from(b - a))
        .collect::<Result<_, _>>()
        .map_err(|_| FragmentError::Times)?;
    let offsets: Vec<i32> = samples
        .iter()
        .zip(&times)
        .map(|(sample, dts)| i32::try_from(i128::from(sample.pts) + i128::from(delay) - i128::from(*dts)))
        .collect::<Result<_, _>>()
        .map_err(|_| FragmentError::Times)?;
    let payload: usize = samples.iter().map(|s| s.data.len()).sum();
    let mdat = u32::try_from(payload + 8).map_err(|_| FragmentError::Size)?;

    let header = |data_offset: i32| {
        let mut out = Vec::with_capacity(payload + 256 + samples.len() * 16);
        write_box(&mut out, b"styp", |out| {
            out.extend(b"msdh");
            u32s(out, &[0]);
            out.extend(b"msdhmsixcmfs");
        });
        let moof = out.len();
        write_box(&mut out, b"moof", |out| {
            write_full_box(out, b"mfhd", 0, 0, |out| u32s(out, &[sequence]));
            write_box(out, b"traf", |out| {
                let uniform = durations.windows(2).all(|w| matches!(w, [a, b] if a == b));
                track_run(out, start, samples, (&durations, uniform), &offsets, data_offset);
            });
        });
        (out, moof)
    };
    // The data's offset depends on the size of the box that holds it, not on the offset's value.
    let (sized, moof) = header(0);
    let data_offset = i32::try_from(sized.len() - moof + 8).map_err(|_| FragmentError::Size)?;
    let (mut bytes, _) = header(data_offset);
    u32s(&mut bytes, &[mdat]);
    bytes.extend(b"mdat");
    let key_bytes = (bytes.len() + samples.first().map_or(0, |s| s.data.len())) as u64;
    samples.iter().for_each(|s| bytes.extend(&s.data));
    Ok(Fragment { bytes, key_bytes })
}

/// The decode times of samples: the presentation times in order. Where frames last long, a frame that is presented soon
/// may follow one that is presented much later; it is then decoded earlier, so that no decode time is later than `delay`
/// after the presentation time.
fn decode_times(samples: &[Sample], shown: &[u64], delay: u32) -> Vec<u64> {
    let mut times = shown.to_vec();
    let (mut soonest, mut next) = (u64::MAX, u64::MAX);
    for (sample, time) in samples.iter().zip(&mut times).rev() {
        soonest = soonest.min(sample.pts);
        *time = (*time).min(soonest.saturating_add(u64::from(delay))).min(next.saturating_sub(1));
        next = *time;
    }
    // A decode order that would begin before the fragment keeps the presentation times, with negative offsets.
    if times.first() == shown.first() { times } else { shown.to_vec() }
}

fn track_run(
    out: &mut Vec<u8>,
    start: u64,
    samples: &[Sample],
    (durations, uniform): (&[u32], bool),
    offsets: &[i32],
    data_offset: i32,
) {
    const DEFAULT_BASE_IS_MOOF: u32 = 0x2_0000;
    const DEFAULT_DURATION: u32 = 0x8;
    const DEFAULT_FLAGS: u32 = 0x20;
    let all_key = samples.iter().all(|s| s.key);
    let only_first_key = samples.iter().skip(1).all(|s| !s.key) && samples.first().is_some_and(|s| s.key);
    let default_flags = if all_key { SYNC } else { NOT_SYNC };
    let mut track_flags = DEFAULT_BASE_IS_MOOF | DEFAULT_FLAGS;
    if uniform {
        track_flags |= DEFAULT_DURATION;
    }
    write_full_box(out, b"tfhd", 0, track_flags, |out| {
        u32s(out, &[1]);
        if uniform {
            u32s(out, &[durations.first().copied().unwrap_or(0)]);
        }
        u32s(out, &[default_flags]);
    });
    write_full_box(out, b"tfdt", 1, 0, |out| out.extend(start.to_be_bytes()));
    let reordered = offsets.iter().any(|o| *o != 0);
    let each_flags = !all_key && !only_first_key;
    let flag = |on: bool, bit: u32| if on { bit } else { 0 };
    let flags = 0x201
        | flag(!all_key && only_first_key, 0x4)
        | flag(!uniform, 0x100)
        | flag(each_flags, 0x400)
        | flag(reordered, 0x800);
    write_full_box(out, b"trun", 1, flags, |out| {
        u32s(out, &[u32::try_from(samples.len()).unwrap_or(u32::MAX)]);
        out.extend(data_offset.to_be_bytes());
        if !all_key && only_first_key {
            u32s(out, &[SYNC]);
        }
        for ((sample, duration), offset) in samples.iter().zip(durations).zip(offsets) {
            if !uniform {
                u32s(out, &[*duration]);
            }
            u32s(out, &[u32::try_from(sample.data.len()).unwrap_or(u32::MAX)]);
            if each_flags {
                u32s(out, &[if sample.key { SYNC } else { NOT_SYNC }]);
            }
            if reordered {
                out.extend(offset.to_be_bytes());
            }
        }
    });
}

#[cfg(test)]
mod tests;
