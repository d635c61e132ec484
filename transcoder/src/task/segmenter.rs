//! Collects an encoder's packets into the segments of the grid, encrypts them if the task requires it, and sends each
//! when it is complete.

use aws_lc_rs::cipher::{AES_128, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use lyceum_packaging::cmaf::{self, Sample, SampleEntry};
use lyceum_packaging::grid::{AAC_FRAME, AUDIO_RATE};
use lyceum_packaging::track::{segment_name, ticks_ms};
use lyceum_packaging::{DeliveredObject, Grid, ObjectKind, Protection, TrackFacts};

use super::error::TaskError;
use super::output::Output;

/// Segments one track.
pub(super) struct Segmenter<'a> {
    track: &'a str,
    grid: &'a Grid,
    is_video: bool,
    /// The largest reordering delay, in ticks.
    delay: u32,
    key: Option<PaddedBlockEncryptingKey>,
    output: &'a Output,
    segment: u32,
    end_segment: u32,
    samples: Vec<Sample>,
    /// SSIM of the current segment against the scaled source.
    ssim: Option<f64>,
}

impl<'a> Segmenter<'a> {
    /// A segmenter for the segments `first .. first + count` of `track`.
    pub(super) fn new(
        track: &'a str,
        grid: &'a Grid,
        is_video: bool,
        (first, count): (u32, u32),
        output: &'a Output,
    ) -> Self {
        let end_segment = first.saturating_add(count).min(grid.segments());
        let samples = Vec::new();
        Self { track, grid, is_video, delay: 0, key: None, output, segment: first, end_segment, samples, ssim: None }
    }

    /// Sets the most `frames` by which the encoder reorders.
    pub(super) fn with_reordering(self, frames: u32) -> Self {
        let delay = frames.saturating_mul(self.grid.timescale().1);
        Self { delay, ..self }
    }

    /// Sets the encryption of segments. A missing key is an error: protected segments never leave in the clear.
    pub(super) fn with_protection(self, protection: &Protection) -> Result<Self, TaskError> {
        let key = match protection {
            Protection::Clear => None,
            Protection::Aes128 { key: None } => {
                return Err(TaskError::Machinery("the task must encrypt but has no key".to_owned()));
            }
            Protection::Aes128 { key: Some(key) } => {
                let key = UnboundCipherKey::new(&AES_128, key.bytes()).and_then(PaddedBlockEncryptingKey::cbc_pkcs7);
                Some(key.map_err(|_| encryption_failed())?)
            }
        };
        Ok(Self { key, ..self })
    }

    /// Encrypts segment `n` completely. Its IV is its number (RFC 8216bis, section 5.2).
    fn encrypt(&self, n: u32, bytes: &mut Vec<u8>) -> Result<(), TaskError> {
        let Some(key) = &self.key else { return Ok(()) };
        let iv = EncryptionContext::Iv128(FixedLength::from(u128::from(n).to_be_bytes()));
        key.less_safe_encrypt(bytes, iv).map(drop).map_err(|_| encryption_failed())
    }

    fn timescale(&self) -> u32 {
        if self.is_video { self.grid.timescale().0 } else { AUDIO_RATE }
    }

    /// The first unit (video frame or AAC frame) of segment `n`.
    fn first_unit(&self, n: u32) -> u64 {
        if self.is_video { self.grid.first_frame(n) } else { self.grid.first_audio_frame(n) }
    }

    fn ticks(&self, unit: u64) -> u64 {
        let each = if self.is_video { u64::from(self.grid.timescale().1) } else { AAC_FRAME };
        unit.saturating_mul(each)
    }

    /// Sends the init segment.
    pub(super) fn write_init(&self, entry: &SampleEntry, facts: TrackFacts, language: &str) -> Result<(), TaskError> {
        let bytes = cmaf::init(self.timescale(), language, self.delay, entry);
        let handover = DeliveredObject {
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
        self.output.hand_over(handover, &bytes)
    }

    /// Sets the SSIM of the current segment.
    pub(super) fn set_ssim(&mut self, ssim: Option<f64>) {
        self.ssim = ssim;
    }

    /// Adds the next packet in decode order: its unit, whether it is a key frame, its bytes.
    pub(super) fn push(&mut self, unit: u64, key: bool, data: Vec<u8>) -> Result<(), TaskError> {
        if key && unit == self.first_unit(self.segment.saturating_add(1)) && !self.samples.is_empty() {
            self.write_segment()?;
        }
        self.samples.push(Sample { pts: self.ticks(unit), key, data });
        Ok(())
    }

    /// Sends the last segment and checks that none is missing.
    pub(super) fn finish(mut self) -> Result<(), TaskError> {
        if !self.samples.is_empty() {
            self.write_segment()?;
        }
        if self.segment == self.end_segment {
            return Ok(());
        }
        Err(TaskError::Machinery(format!(
            "{}: encoded up to segment {} of {}",
            self.track, self.segment, self.end_segment
        )))
    }

    fn write_segment(&mut self) -> Result<(), TaskError> {
        let n = self.segment;
        let start = self.ticks(self.first_unit(n));
        let duration = self.ticks(self.first_unit(n.saturating_add(1))).saturating_sub(start);
        let mut fragment = cmaf::fragment(n.saturating_add(1), start, duration, self.delay, &self.samples)
            .map_err(|cause| TaskError::Machinery(format!("{} segment {n}: {cause}", self.track)))?;
        self.encrypt(n, &mut fragment.bytes)?;
        let handover = DeliveredObject {
            path: format!("{}/{}", self.track, segment_name(n, ticks_ms(start, self.timescale()))),
            kind: ObjectKind::Segment,
            track: self.track.to_owned(),
            n,
            start,
            duration,
            timescale: self.timescale(),
            bytes: fragment.bytes.len() as u64,
            key_bytes: (self.is_video && self.key.is_none()).then_some(fragment.key_bytes),
            ssim: self.ssim.take(),
            facts: None,
        };
        self.output.hand_over(handover, &fragment.bytes)?;
        self.samples.clear();
        self.segment += 1;
        Ok(())
    }
}

fn encryption_failed() -> TaskError {
    TaskError::Machinery("a segment can't be encrypted".to_owned())
}
