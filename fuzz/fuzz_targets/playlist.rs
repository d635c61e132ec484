//! Playlists and manifests cut down to what a token opens.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (Option<u32>, Option<u64>, &str)| {
    let (height, preview, text) = data;
    lyceum_fuzz::cut_playlist(text, height, preview);
});
