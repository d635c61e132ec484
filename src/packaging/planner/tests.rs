use super::*;
use crate::grid::FrameRate;
use proptest::prelude::*;

fn info(seconds: u64, key_interval_s: u64) -> MediaInfo {
    MediaInfo {
        container: "mov".into(),
        duration_us: seconds * 1_000_000,
        video: Some(VideoInfo {
            width: 1280,
            height: 720,
            sample_aspect: [1, 1],
            rate: FrameRate::new(30_000, 1001),
            key_interval_us: key_interval_s * 1_000_000,
            ..VideoInfo::default()
        }),
        audio: vec![AudioInfo { stream: 1, channels: 2, language: "eng".into(), ..AudioInfo::default() }],
        ..MediaInfo::default()
    }
}

fn video_ranges(plan: &Plan) -> Vec<(u32, u32)> {
    let range = |t: &PlannedTask| match &t.spec {
        TaskSpec::Video(v) => Some((v.first_segment, v.segments)),
        _ => None,
    };
    plan.tasks.iter().filter_map(range).collect()
}

#[test]
fn the_first_task_is_one_segment_and_the_others_about_twelve_seconds() {
    let plan = plan(&info(60, 1), &Ladder::default()).unwrap();
    assert_eq!(video_ranges(&plan), [(0, 1), (1, 3), (4, 3), (7, 3), (10, 3), (13, 2)]);
    assert_eq!(
        plan.tracks.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(),
        ["v240", "v360", "v480", "v720", "a-en"]
    );
    let first = &plan.tasks[0];
    assert!(matches!(first.spec, TaskSpec::Video(_)) && matches!(plan.tasks[1].spec, TaskSpec::Audio(_)));
    assert_eq!((first.first_ms, first.duration_ms), (0, 4004));
}

#[test]
fn tasks_grow_where_key_frames_are_far_apart() {
    let near = video_ranges(&plan(&info(3600, 1), &Ladder::default()).unwrap()).len();
    let far = video_ranges(&plan(&info(3600, 10), &Ladder::default()).unwrap());
    let farther = video_ranges(&plan(&info(3600, 60), &Ladder::default()).unwrap()).len();
    assert!(near > 250 && (80..150).contains(&far.len()) && farther < 30, "{near} {} {farther}", far.len());
    assert_eq!(far[0], (0, 1));
}

#[test]
fn measured_segments_are_spread_over_the_lesson() {
    for (seconds, wanted) in [(3, 1), (60, 1), (600, 7), (36_000, 16)] {
        let measured = |ladder: &Ladder| {
            let plan = plan(&info(seconds, 1), ladder).unwrap();
            let of = |task: &PlannedTask| matches!(&task.spec, TaskSpec::Video(task) if task.measure);
            plan.tasks.iter().filter(|task| of(task)).map(|task| task.first_ms).collect::<Vec<_>>()
        };
        let found = measured(&Ladder::default());
        assert_eq!(found.len(), wanted, "{seconds}: {found:?}");
        assert!(seconds < 60 || found[0] > 0, "{seconds}: {found:?}");
        assert!(measured(&Ladder { measure_quality: false, ..Ladder::default() }).is_empty());
    }
}

#[test]
fn tracks_of_one_language_get_paths_of_their_own() {
    let mut info = info(10, 2);
    for language in ["en", "fre", "", "x y", "eng"] {
        info.audio.push(AudioInfo { language: language.into(), ..AudioInfo::default() });
    }
    let names: Vec<_> =
        plan(&info, &Ladder::default()).unwrap().tracks.iter().skip(4).map(|t| t.name.clone()).collect();
    assert_eq!(names, ["a-en", "a-en2", "a-fr", "a-und", "a-und2", "a-en3"]);
}

#[test]
fn a_recording_without_tracks_or_length_is_refused() {
    let nothing = plan(&MediaInfo { duration_us: 1, ..MediaInfo::default() }, &Ladder::default()).unwrap_err();
    assert_eq!(nothing.code, RefusalCode::NotVideo);
    assert_eq!(plan(&info(0, 1), &Ladder::default()).unwrap_err().code, RefusalCode::Empty);
}

#[test]
fn a_plan_survives_json() {
    let plan = plan(&info(60, 2), &Ladder::default()).unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

#[test]
fn the_gain_brings_a_track_to_the_target_but_not_past_its_peak() {
    let track = |loudness, peak| AudioInfo { loudness_lufs: loudness, true_peak_dbtp: peak, ..AudioInfo::default() };
    for (track, wanted) in [
        (track(Some(-23.0), Some(-12.0)), 7.0),
        (track(Some(-23.0), Some(-3.0)), 4.5),
        (track(Some(-9.0), Some(0.0)), -7.0),
        (track(Some(-75.0), Some(-60.0)), 0.0),
        (track(None, None), 0.0),
    ] {
        assert!((gain_db(&track, -16.0) - wanted).abs() < 1e-9, "{track:?}");
    }
}

proptest! {
    #[test]
    fn tasks_cover_each_segment_of_each_track_once(seconds in 1u64..20_000, key in 0u64..300) {
        let plan = plan(&info(seconds, key), &Ladder::default()).unwrap();
        let segments = plan.grid.segments();
        let mut next = 0;
        for (first, count) in video_ranges(&plan) {
            prop_assert_eq!(first, next);
            prop_assert!(count > 0);
            next += count;
        }
        prop_assert_eq!(next, segments);
        for track in &plan.tracks {
            let mut at = 0;
            for n in 0..segments {
                let (start, duration) = track.segment(&plan.grid, n);
                prop_assert_eq!(start, at);
                prop_assert!(duration > 0);
                at += duration;
            }
        }
        prop_assert!(plan.tasks.windows(2).all(|w| w[0].first_ms <= w[1].first_ms && w[0].priority < w[1].priority));
    }
}
