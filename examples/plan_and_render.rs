//! Plans what is made of a recording and renders its playlists, with `lyceum-packaging` alone: no file is read, nothing is
//! encoded.
//!
//! `cargo run --example plan_and_render`

use std::error::Error;

use lyceum_packaging::info::{AudioInfo, VideoInfo};
use lyceum_packaging::render;
use lyceum_packaging::{
    DeliveredObject, FrameRate, Ladder, MediaInfo, ObjectIndex, ObjectKind, Plan, TrackFacts, plan,
};

fn main() -> Result<(), Box<dyn Error>> {
    // What a probe finds: half a minute of 720p at 25 frames a second, with English sound.
    let info = MediaInfo {
        duration_us: 30_000_000,
        video: Some(VideoInfo {
            width: 1280,
            height: 720,
            sample_aspect: [1, 1],
            rate: FrameRate::new(25, 1),
            ..VideoInfo::default()
        }),
        audio: vec![AudioInfo { language: "eng".to_owned(), ..AudioInfo::default() }],
        ..MediaInfo::default()
    };
    let plan = plan(&info, &Ladder::default()).map_err(|refusal| format!("{refusal:?}"))?;
    for track in &plan.tracks {
        println!("track {}: {} segments", track.name, track.segments);
    }
    println!("{} tasks, the most urgent first\n", plan.tasks.len());

    // What workers hand over as they go; here all of it at once.
    let handovers: Vec<DeliveredObject> =
        plan.tracks.iter().flat_map(|track| handed_over(&plan, &track.name)).collect();
    let index = ObjectIndex::new(&plan, &handovers);
    println!("{}", render::master(&index, "1").ok_or("the lesson can't be played yet")?);
    let first = plan.tracks.first().ok_or("the plan has no track")?;
    println!("{}", render::media_playlist(&index, &first.name).ok_or("the track is not complete")?);
    Ok(())
}

/// The init segment and the segments of a track.
fn handed_over(plan: &Plan, name: &str) -> Vec<DeliveredObject> {
    let Some(track) = plan.tracks.iter().find(|track| track.name == name) else { return Vec::new() };
    let (codec, channels) = if track.is_video() { ("avc1.64001e", 0) } else { ("mp4a.40.2", 2) };
    let init = DeliveredObject {
        path: track.init_path(),
        kind: ObjectKind::Init,
        track: track.name.clone(),
        n: 0,
        start: 0,
        duration: 0,
        timescale: track.timescale,
        bytes: 700,
        key_bytes: None,
        ssim: None,
        facts: Some(TrackFacts { codec: codec.to_owned(), channels, ..TrackFacts::default() }),
    };
    let segment = |n| {
        let (start, duration) = track.segment(&plan.grid, n);
        DeliveredObject {
            path: track.segment_path(&plan.grid, n),
            kind: ObjectKind::Segment,
            n,
            start,
            duration,
            bytes: 50_000,
            key_bytes: track.is_video().then_some(10_000),
            facts: None,
            ..init.clone()
        }
    };
    let segments: Vec<DeliveredObject> = (0..track.segments).map(segment).collect();
    std::iter::once(init).chain(segments).collect()
}
