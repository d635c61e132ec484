//! The plan of a lesson: its tracks and the tasks that make them. Stored with the lesson; [`mod@crate::planner`] makes it.

use serde::{Deserialize, Serialize};

use crate::grid::Grid;
use crate::protection::{Encryption, Protection};
use crate::task::TaskSpec;
use crate::track::TrackPlan;

/// The longest key URI, in bytes.
const MAX_KEY_URI_BYTES: usize = 2048;

/// A lesson's tracks and tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The length in milliseconds.
    pub duration_ms: u64,
    /// The grid that all tracks are cut on.
    pub grid: Grid,
    /// The tracks: video from small to large, then audio, then subtitles.
    pub tracks: Vec<TrackPlan>,
    /// The tasks, the most urgent first.
    pub tasks: Vec<PlannedTask>,
    /// How segments are encrypted; none: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

/// A task with its place in the lesson and in the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedTask {
    /// What to do.
    pub spec: TaskSpec,
    /// Where its range of segments starts, in milliseconds.
    pub first_ms: u64,
    /// How long its range is, in milliseconds; 0 for tasks over the whole lesson.
    pub duration_ms: u64,
    /// Smaller is more urgent; the order of `tasks`.
    pub priority: u32,
}

/// Why a plan can't be protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtectError {
    /// The key's URI can't be written into a playlist.
    #[error("a key's URI has 1 to {MAX_KEY_URI_BYTES} printable characters without quotes and spaces")]
    Uri,
}

impl Plan {
    /// Turns on encryption of video and audio segments. `key_uri` is written into media playlists: an absolute URI, or
    /// one relative to `{version}/{track}/`.
    pub fn protect(&mut self, key_uri: &str) -> Result<(), ProtectError> {
        let printable = |b: u8| b.is_ascii_graphic() && b != b'"';
        if !(1..=MAX_KEY_URI_BYTES).contains(&key_uri.len()) || !key_uri.bytes().all(printable) {
            return Err(ProtectError::Uri);
        }
        self.encryption = Some(Encryption { key_uri: key_uri.to_owned() });
        for task in &mut self.tasks {
            if let Some(protection) = task.spec.protection_mut() {
                *protection = Protection::Aes128 { key: None };
            }
        }
        Ok(())
    }
}
