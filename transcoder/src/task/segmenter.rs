//! From an encoder's packets to the segments of the grid, each encrypted where the task says so, and handed over the
//! moment it is whole.

use aws_lc_rs::cipher::{AES_128, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use lyceum_packaging::cmaf::{self, Sample, SampleEntry};
use lyceum_packaging::grid::{AAC_FRAME, AUDIO_RATE};
use lyceum_packaging::track::{segment_name, ticks_ms};
use lyceum_packaging::{Grid, Handover, ObjectKind, Protection, TrackFacts};

use super::error::TaskError;
use super::output::Output;

/// Cuts one track.
pub(super) struct Cutter<'a> {
    track: &'a str,
    grid: &'a Grid,
    picture: bool,
    /// Ticks by which frames are reordered at most.
    delay: u32,
    key: Option<PaddedBlockEncryptingKey>,
    output: &'a Output,
    segment: u32,
    end_segment: u32,
    samples: Vec<Sample>,
    /// How close the segment under way is to its source.
    ssim: Option<f64>,
}

impl<'a> Cutter<'a> {
    /// A cutter for the segments `first .. first + count` of `track`.
    pub(super) fn new(
        track: &'a str,
        grid: &'a Grid,
        picture: bool,
        (first, count): (u32, u32),
        output: &'a Output,
    ) -> Self {
        let end_segment = first.saturating_add(count).min(grid.segments());
        let samples = Vec::new();
        Self { track, grid, picture, delay: 0, key: None, output, segment: first, end_segment, samples, ssim: None }
    }

    /// Frames of the picture are reordered by `frames` at most.
    pub(super) fn reordered(self, frames: u32) -> Self {
        let delay = frames.saturating_mul(self.grid.timescale().1);
        Self { delay, ..self }
    }

    /// Segments are encrypted as `protection` says. A key that is missing ends the task: nothing goes out in the clear.
    pub(super) fn protected(self, protection: &Protection) -> Result<Self, TaskError> {
        let key = match protection {
            Protection::Clear => None,
            Protection::Aes128 { key: None } => {
                return Err(TaskError::Machinery("the task is to encrypt, but has no key".to_owned()));
            }
            Protection::Aes128 { key: Some(key) } => {
                let key = UnboundCipherKey::new(&AES_128, key.bytes()).and_then(PaddedBlockEncryptingKey::cbc_pkcs7);
                Some(key.map_err(|_| not_encrypted())?)
            }
        };
        Ok(Self { key, ..self })
    }

    /// Encrypts segment `n` as a whole. Its IV is its number (RFC 8216bis, section 5.2).
    fn encrypt(&self, n: u32, bytes: &mut Vec<u8>) -> Result<(), TaskError> {
        let Some(key) = &self.key else { return Ok(()) };
        let iv = EncryptionContext::Iv128(FixedLength::from(u128::from(n).to_be_bytes()));
        key.less_safe_encrypt(bytes, iv).map(drop).map_err(|_| not_encrypted())
    }

    fn timescale(&self) -> u32 {
        if self.picture { self.grid.timescale().0 } else { AUDIO_RATE }
    }

    /// The first unit (frame of picture or AAC frame) of segment `n`.
    fn first_unit(&self, n: u32) -> u64 {
        if self.picture { self.grid.first_frame(n) } else { self.grid.first_audio_frame(n) }
    }

    fn ticks(&self, unit: u64) -> u64 {
        let each = if self.picture { u64::from(self.grid.timescale().1) } else { AAC_FRAME };
        unit.saturating_mul(each)
    }

    /// Hands the init over.
    pub(super) fn init(&self, entry: &SampleEntry, facts: TrackFacts, language: &str) -> Result<(), TaskError> {
        let bytes = cmaf::init(self.timescale(), language, self.delay, entry);
        let handover = Handover {
            path: format!("{}/init.mp4", self.track),
            kind: ObjectKind::Init,
            track: self.track.to_owned(),
            n: 0,
            start: 0,
            duration: 0,
            timescale: self.timescale(),
            bytes: bytes.len() as u64,
            key_bytes: None,
            ssim: None,
            facts: Some(facts),
        };
        self.output.hand(handover, &bytes)
    }

    /// The segment under way was measured.
    pub(super) fn measured(&mut self, ssim: Option<f64>) {
        self.ssim = ssim;
    }

    /// Takes the next packet in decode order: the unit that it shows, whether decoding can start there, its bytes.
    pub(super) fn push(&mut self, unit: u64, key: bool, data: Vec<u8>) -> Result<(), TaskError> {
        if key && unit == self.first_unit(self.segment.saturating_add(1)) && !self.samples.is_empty() {
            self.hand()?;
        }
        self.samples.push(Sample { pts: self.ticks(unit), key, data });
        Ok(())
    }

    /// Hands the last segment over and checks that all are.
    pub(super) fn finish(mut self) -> Result<(), TaskError> {
        if !self.samples.is_empty() {
            self.hand()?;
        }
        if self.segment == self.end_segment {
            return Ok(());
        }
        Err(TaskError::Machinery(format!(
            "{}: encoded up to segment {} of {}",
            self.track, self.segment, self.end_segment
        )))
    }

    fn hand(&mut self) -> Result<(), TaskError> {
        let n = self.segment;
        let start = self.ticks(self.first_unit(n));
        let duration = self.ticks(self.first_unit(n.saturating_add(1))).saturating_sub(start);
        let mut fragment = cmaf::fragment(n.saturating_add(1), start, duration, self.delay, &self.samples)
            .map_err(|cause| TaskError::Machinery(format!("{} segment {n}: {cause}", self.track)))?;
        self.encrypt(n, &mut fragment.bytes)?;
        let handover = Handover {
            path: format!("{}/{}", self.track, segment_name(n, ticks_ms(start, self.timescale()))),
            kind: ObjectKind::Segment,
            track: self.track.to_owned(),
            n,
            start,
            duration,
            timescale: self.timescale(),
            bytes: fragment.bytes.len() as u64,
            key_bytes: (self.picture && self.key.is_none()).then_some(fragment.key_bytes),
            ssim: self.ssim.take(),
            facts: None,
        };
        self.output.hand(handover, &fragment.bytes)?;
        self.samples.clear();
        self.segment += 1;
        Ok(())
    }
}

fn not_encrypted() -> TaskError {
    TaskError::Machinery("a segment can't be encrypted".to_owned())
}
