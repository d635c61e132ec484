//! Playlists and manifests reduced to what a token allows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lyceum_packaging::filter::{Limits, Playlist, filter};

fuzz_target!(|data: (Option<u32>, Option<u64>, &str)| {
    let (max_height, preview_ms, text) = data;
    let limits = Limits { max_height, preview_ms };
    for kind in [Playlist::Hls, Playlist::Dash] {
        let filtered = filter(kind, text, limits);
        // Only the end of a preview and the figures of a manifest are ever added.
        assert!(filtered.len() <= text.len() + 64 * (1 + text.len() / 8), "{} from {}", filtered.len(), text.len());
        if !limits.any() {
            // Line ends are rewritten; a carriage return before one belongs to it.
            let lines = |text| str::lines(text).map(|line| line.trim_end_matches('\r'));
            assert!(lines(&filtered).eq(lines(text)), "{filtered:?} from {text:?}");
        }
    }
});
