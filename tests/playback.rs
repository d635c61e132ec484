//! A lesson really plays: in Chromium through the player page, in ffmpeg and mpv; goes on when an origin or an edge
//! is gone; and gives nothing to those who have no right to it.

mod browser;

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use self::browser::{Script, number};

use crate::support::demo::{self, Demo};
use crate::support::lessons::{Answer, api, curl, lesson, playback, recording};
use crate::support::process::signal;
use crate::support::{heavy, repository, until};

/// For a script that plays some seconds on two busy cores.
const PLAYED: Duration = Duration::from_secs(180);

fn player(demo: &Demo) -> String {
    demo.text("/player")
}

/// Edges keep segments in memory; a story about origins begins with empty ones.
fn forget_everything(demo: &Demo) {
    for admin in demo.json()["edge_admins"].as_array().expect("edge_admins") {
        let url = format!("{}/purge", admin.as_str().expect("a URL"));
        let answer =
            curl(&["-X", "POST", "-H", "Content-Type: application/json", "--data", r#"{"prefix":"/v/"}"#, &url]);
        assert!((200..300).contains(&answer.status), "{url}: {}", String::from_utf8_lossy(&answer.body));
    }
}

/// Nothing went wrong in the page's own eyes, and its CMCD satisfied the validators.
fn clean(told: &Value) {
    assert_eq!(told["fatal"], Value::Null, "{told}");
    assert_eq!(told["refusal"], Value::Null, "{told}");
    assert_eq!(told["cmcd"]["invalid"], Value::Array(Vec::new()), "{told}");
    assert!(number(&told["cmcd"], "requests") > 0.0 && number(&told["cmcd"], "reports") > 0.0, "{told}");
    let states = told["cmcd"]["states"].as_array().expect("states");
    assert!(states.len() >= 2 && states[0] == "s" && states[1] == "p", "start, then playing: {told}");
}

#[test]
fn the_lesson_plays_on_in_chromium_when_an_origin_is_killed_midway() {
    let demo = demo::shared();
    let _alone = heavy();
    forget_everything(demo);
    let shot = repository("target/playback.png").display().to_string();
    // A line that is not much faster than the film: segments are fetched all the way, not all at the start.
    let arguments = [
        "--player",
        &player(demo),
        "--url",
        &demo.text("/playback/url"),
        "--seconds",
        "30",
        "--midway",
        "8",
        "--line",
        "2500000",
        "--screenshot",
        &shot,
    ];
    let mut script = Script::start("play", &arguments);
    let midway = script.line(PLAYED);
    let victim = demo.pids("origins")[0];
    signal(victim, "KILL");
    script.go_on();
    let told = script.line(PLAYED);

    assert!(number(&told, "played") >= 30.0, "{told}");
    assert!(number(&told, "decodedFrames") >= 30.0 * 10.0, "{told}");
    let after = number(&told["media"], "requests") - number(&midway["midway"]["media"], "requests");
    assert!(after >= 3.0, "segments had to be fetched after the origin died: {midway} {told}");
    assert_eq!(number(&told, "stalls"), 0.0, "{told}");
    clean(&told);
}

#[test]
fn a_frozen_edge_is_left_for_the_next_without_a_break() {
    let demo = demo::shared();
    let _alone = heavy();
    let edges: Vec<u32> = demo.pids("edges");
    let (key, lesson) = (demo.text("/api_key"), demo.text("/lesson"));
    let arguments = [
        "--player",
        &player(demo),
        "--lesson",
        &lesson,
        "--key",
        &key,
        "--user",
        "learner",
        "--seconds",
        "35",
        "--midway",
        "6",
        "--line",
        "2500000",
    ];
    let mut script = Script::start("play", &arguments);
    let midway = script.line(PLAYED);
    let at = midway["midway"]["edge"].as_str().expect("an edge").to_owned();
    let urls = demo.json()["edges"].clone();
    let index =
        urls.as_array().expect("edges").iter().position(|url| url.as_str().is_some_and(|url| url.ends_with(&at)));
    let victim = edges[index.unwrap_or_else(|| panic!("{at} is none of {urls}"))];
    signal(victim, "STOP");
    script.go_on();
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| script.line(PLAYED)));
    signal(victim, "CONT");
    let told = told.expect("the page went on");

    assert!(number(&told, "played") >= 35.0, "{told}");
    assert_ne!(told["edge"], at, "{told}");
    assert_eq!(number(&told, "stalls"), 0.0, "{told}");
    clean(&told);
}

#[test]
fn a_creator_uploads_in_the_studio_and_watches_while_the_rest_is_prepared() {
    let demo = demo::shared();
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = recording(folder.path(), "counterpoint.mp4", 40);
    // Slow enough that the upload takes some five seconds, so that a reload falls into it.
    let speed = (std::fs::metadata(&file).expect("the recording").len() / 5).max(20_000).to_string();
    let (studio, key, path) = (demo.text("/studio"), demo.text("/api_key"), file.display().to_string());
    let arguments = [
        "--studio",
        &studio,
        "--key",
        &key,
        "--file",
        &path,
        "--course",
        "Counterpoint",
        "--slow",
        &speed,
        "--offline",
        "--reload",
        "--expect",
        "playable",
        "--until-end",
        "--within",
        "300",
    ];
    let told = Script::result("studio", &arguments, Duration::from_secs(400));
    assert!(!told["refused"].as_str().unwrap_or_default().is_empty(), "a wrong key is refused in words: {told}");
    assert!(!told["address"].as_str().unwrap_or_default().contains("key="), "the key has left the address: {told}");
    assert!(told["uploadFigures"].as_array().is_some_and(|figures| figures.len() >= 4), "{told}");
    assert!(told["offline"].as_str().is_some_and(|said| said.contains("goes on by itself")), "{told}");
    assert!(number(&told, "resumedAt") > 0.1, "the second page went on where the first one stopped: {told}");
    assert!(number(&told, "played") >= 38.0, "{told}");
    assert_eq!((&told["ended"], number(&told, "stalls")), (&json!(true), 0.0), "{told}");
}

#[test]
fn a_file_that_is_no_video_is_explained_in_the_studio() {
    let demo = demo::shared();
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("notes.mp4");
    std::fs::write(&file, "These are only the notes of the talk.\n".repeat(200)).expect("a file");
    let (studio, key, path) = (demo.text("/studio"), demo.text("/api_key"), file.display().to_string());
    let arguments = ["--studio", &studio, "--key", &key, "--file", &path, "--expect", "failed"];
    let told = Script::result("studio", &arguments, Duration::from_secs(200));
    let id = told["lesson"].as_str().expect("a lesson");
    let lesson = api(demo, "GET", &format!("/v1/lessons/{id}"), None);
    assert_eq!(lesson["error"]["code"], "media_not_video", "{lesson}");
    assert_eq!(told["message"], lesson["error"]["detail"], "the origin's own words: {told}");
}

#[test]
fn a_recording_that_breaks_off_plays_and_its_creator_is_told() {
    let demo = demo::shared();
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (whole, cut) = (folder.path().join("whole.mp4"), folder.path().join("cut.mp4"));
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=16", "-g", "25"])
        .args(["-movflags", "+faststart"])
        .arg(&whole)
        .status();
    assert!(made.expect("ffmpeg runs").success());
    let bytes = std::fs::read(&whole).expect("a file");
    std::fs::write(&cut, &bytes[..bytes.len() * 3 / 5]).expect("a file");
    let (studio, key, path) = (demo.text("/studio"), demo.text("/api_key"), cut.display().to_string());
    let arguments = ["--studio", &studio, "--key", &key, "--file", &path, "--seconds", "3"];
    let told = Script::result("studio", &arguments, Duration::from_secs(200));
    let lesson = api(demo, "GET", &format!("/v1/lessons/{}", told["lesson"].as_str().expect("a lesson")), None);
    assert_eq!((&lesson["state"], &lesson["warnings"][0]["code"]), (&json!("ready"), &json!("media_truncated")));
    assert_eq!(told["warnings"], json!([lesson["warnings"][0]["detail"]]), "the origin's own words: {told}");
    let seconds = number(&lesson, "duration");
    assert!((6.0..14.0).contains(&seconds), "{lesson}");
}

#[test]
fn a_creator_sees_how_much_of_a_quota_is_used() {
    let demo = demo::shared();
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let [file, large] = [("small.mp4", 100_000_usize), ("large.mp4", 300_000)].map(|(name, bytes)| {
        let path = folder.path().join(name);
        std::fs::write(&path, "notes of the talk, no film. ".repeat(bytes / 28 + 1)).expect("a file");
        path.display().to_string()
    });
    let new = json!({ "role": "creator", "name": "Under a quota", "quota": 1 << 18 });
    let made = api(demo, "POST", "/v1/keys", Some(&new));
    let (studio, key) = (demo.text("/studio"), made["key"].as_str().expect("a key"));
    let arguments = ["--studio", &studio, "--key", key, "--file", &file, "--large", &large];
    let told = Script::result("quota", &arguments, Duration::from_secs(200));
    let lines: Vec<&str> = (0..4).filter_map(|n| told["meters"][n]["line"].as_str()).collect();
    assert_eq!(
        lines,
        ["0 bytes of 262 KB used", "100 KB of 262 KB used", "100 KB of 262 KB used", "0 bytes of 262 KB used"]
    );
    let share = told["meters"][1]["value"].as_f64().expect("a share");
    assert!((0.37..0.40).contains(&share), "{told}");
    assert!(told["refused"].as_str().is_some_and(|said| said.contains("delete lessons, or ask for more")), "{told}");
}

#[test]
fn keys_menus_and_a_second_visit_work_as_viewers_expect() {
    let demo = demo::shared();
    let _alone = heavy();
    let arguments = ["--player", &player(demo), "--url", &demo.text("/playback/url")];
    let told = Script::result("habits", &arguments, PLAYED);
    assert!(told["done"].as_array().is_some_and(|done| done.len() >= 14), "{told}");
    assert_eq!(told["complaints"], Value::Array(Vec::new()), "{told}");
}

#[test]
fn a_creator_sets_what_a_lesson_has_and_viewers_see_its_pictures() {
    let demo = demo::shared();
    let _alone = heavy();
    let course = demo.text("/course");
    let made = api(demo, "POST", &format!("/v1/courses/{course}/lessons"), Some(&json!({ "title": "Notes" })));
    let failed = made["id"].as_str().expect("a lesson").to_owned();
    let origin = demo.text("/origins/0");
    let key = demo.text("/api_key");
    let sent = curl(&[
        "-X",
        "POST",
        "-H",
        &format!("Authorization: Bearer {key}"),
        "-H",
        "Content-Type: video/mp4",
        "--data-binary",
        "These are only notes.",
        &format!("{origin}/v1/lessons/{failed}/media"),
    ]);
    assert_eq!(sent.status, 202, "{}", String::from_utf8_lossy(&sent.body));
    until("the notes to fail", Duration::from_secs(60), || {
        (api(demo, "GET", &format!("/v1/lessons/{failed}"), None)["state"] == "failed").then_some(())
    });
    let (studio, lesson, url) = (demo.text("/studio"), demo.text("/lesson"), demo.text("/playback/url"));
    let shots = repository("target/controls").display().to_string();
    std::fs::create_dir_all(&shots).expect("a folder");
    let player = player(demo);
    let arguments = [
        "--studio", &studio, "--key", &key, "--lesson", &lesson, "--failed", &failed, "--player", &player, "--url",
        &url, "--shots", &shots,
    ];
    let told = Script::result("controls", &arguments, Duration::from_secs(200));
    api(demo, "DELETE", &format!("/v1/lessons/{failed}"), None);
    assert!(told["encrypted"].as_str().is_some_and(|facts| facts.ends_with("encrypted")), "{told}");
    assert!(told["refused"].as_str().is_some_and(|said| !said.is_empty()), "{told}");
    assert_eq!((&told["subtitles"], &told["removed"]), (&json!(["pt-br"]), &json!("None yet.")), "{told}");
    assert_eq!((&told["reason"], &told["retried"]), (&json!("media_not_video"), &json!(202)), "{told}");
    assert!(number(&told, "poster") > 0.0 && number(&told["tile"], "sheet") > 0.0, "{told}");
    assert!(told["named"].as_str().is_some_and(|said| said.contains(" of ")), "{told}");
}

#[test]
fn the_pages_are_accessible_in_light_and_dark_wide_and_narrow() {
    let demo = demo::shared();
    let _alone = heavy();
    let (studio, player, key, url) =
        (demo.text("/studio"), player(demo), demo.text("/api_key"), demo.text("/playback/url"));
    let common = ["--studio", &studio, "--player", &player, "--key", &key, "--url", &url];
    for looks in [&[] as &[&str], &["--dark", "--viewport", "390x844"]] {
        let told = Script::result("access", &[&common, looks].concat(), PLAYED);
        let pages = told["pages"].as_array().expect("pages");
        assert!(pages.len() >= 6, "{told}");
        for page in pages {
            assert_eq!(page["violations"], Value::Array(Vec::new()), "{page}");
            assert!(number(page, "checked") > 5.0, "{page}");
        }
    }
}

/// The first address of a playlist that is no comment.
fn first_uri(playlist: &str) -> &str {
    playlist.lines().find(|line| !line.is_empty() && !line.starts_with('#')).expect("a URI")
}

/// Master playlist, media playlist, init and first segment of a lesson, as paths.
fn paths(url: &str) -> Vec<String> {
    let get = |url: &str| {
        let answer = curl(&[url]);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        String::from_utf8(answer.body).expect("playlists are text")
    };
    let base = url.rsplit_once('/').expect("a path").0.to_owned();
    let media = format!("{base}/{}", first_uri(&get(url)));
    let list = get(&media);
    let folder = media.rsplit_once('/').expect("a path").0;
    let init = list.split("URI=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an init segment");
    let all = [url.to_owned(), media.clone(), format!("{folder}/{init}"), format!("{folder}/{}", first_uri(&list))];
    all.iter().map(|url| url[url.find("/v/").expect("a media path")..].to_owned()).collect()
}

/// A refusal is a problem with a code, and not one byte of media.
fn refused(what: &str, answer: &Answer, status: u16, code: &str) {
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, status, "{what}: {text}");
    assert_eq!(answer.kind, "application/problem+json", "{what}: {text}");
    let problem: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{what} is not JSON: {text}"));
    assert_eq!(problem["code"], code, "{what}: {text}");
    assert!(answer.body.len() < 1024 && !text.contains("#EXT") && !text.contains("ftyp"), "{what}: {text}");
}

#[test]
fn without_the_right_token_an_edge_gives_not_one_byte_of_media() {
    let demo = demo::shared();
    let _alone = heavy();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let other = lesson(demo, "Another lesson", &recording(folder.path(), "other.mp4", 5));
    let others = playback(demo, &other, "learner")["token"].as_str().expect("a token").to_owned();
    let (edge, url, token) = (demo.text("/edges/0"), demo.text("/playback/url"), demo.text("/playback/token"));

    // One letter of the signature, and one of the claims.
    let swap = |at: usize| {
        let mut letters = token.clone().into_bytes();
        letters[at] = if letters[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(letters).expect("tokens are ASCII")
    };
    let (forged, rewritten) = (swap(token.len() - 8), swap(token.find('.').expect("a JWT") + 12));
    for path in paths(&url) {
        assert_eq!(curl(&[&format!("{edge}/t/{token}{path}")]).status, 200, "{path}");
        refused("no token", &curl(&[&format!("{edge}{path}")]), 401, "token_missing");
        for changed in [&forged, &rewritten] {
            let answer = curl(&[&format!("{edge}/t/{changed}{path}")]);
            // A changed letter of the claims may also make them unreadable; either way it is refused.
            let code = serde_json::from_slice::<Value>(&answer.body)
                .map(|problem| problem["code"].clone())
                .unwrap_or_default();
            let code = code.as_str().unwrap_or_default().to_owned();
            assert!(code == "token_bad_signature" || code == "token_malformed", "{code}");
            refused("a changed token", &answer, 403, &code);
        }
        refused("another lesson's token", &curl(&[&format!("{edge}/t/{others}{path}")]), 403, "token_out_of_scope");
        refused(
            "the same in a header",
            &curl(&["-H", &format!("Authorization: Bearer {others}"), &format!("{edge}{path}")]),
            403,
            "token_out_of_scope",
        );
        refused("the same in the query", &curl(&[&format!("{edge}{path}?token={others}")]), 403, "token_out_of_scope");
    }

    // And the page says so in words.
    let link = format!("{edge}/t/{others}{}", &url[url.find("/v/").expect("a path")..]);
    let told =
        Script::result("play", &["--player", &player(demo), "--url", &link, "--expect", "token_out_of_scope"], PLAYED);
    assert_eq!(told["refusal"]["code"], "token_out_of_scope", "{told}");
    assert_eq!((number(&told, "played"), number(&told["media"], "bytes")), (0.0, 0.0), "{told}");
}

#[test]
fn the_same_url_plays_in_ffmpeg() {
    let demo = demo::shared();
    let _alone = heavy();
    let output = Command::new("ffmpeg")
        .args([
            "-nostdin",
            "-v",
            "error",
            "-i",
            &demo.text("/playback/url"),
            "-map",
            "0:v:0",
            "-map",
            "0:a:0",
            "-t",
            "12",
        ])
        .args(["-f", "framecrc", "-"])
        .output()
        .expect("ffmpeg runs");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.trim().is_empty(), "{complaints}");
    let frames = String::from_utf8_lossy(&output.stdout);
    let of = |stream: &str| frames.lines().filter(|line| line.starts_with(stream)).count();
    assert!(of("0,") >= 12 * 20, "{} video frames in 12 s", of("0,"));
    assert!(of("1,") >= 12 * 40, "{} audio frames in 12 s", of("1,"));
}

#[test]
fn the_same_url_plays_in_mpv() {
    let demo = demo::shared();
    let _alone = heavy();
    let output = Command::new("mpv")
        .args(["--no-config", "--vo=null", "--ao=null", "--length=8", "--msg-level=all=info"])
        .arg(format!("--script={}", repository("tests/playback/mpv.lua").display()))
        .arg(demo.text("/playback/url"))
        .stdin(Stdio::null())
        .output()
        .expect("mpv runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("Failed"), "{said}");
    let told =
        said.split_once("reached ").and_then(|(_, rest)| rest.split_once(" s, frame ")).expect("the script's line");
    let reached: f64 = told.0.parse().expect("seconds");
    let frame: f64 = told.1.lines().next().and_then(|count| count.trim().parse().ok()).expect("a frame number");
    assert!(reached > 7.5 && frame > reached * 10.0, "{said}");
}

#[test]
fn the_pages_types_and_pure_parts_hold() {
    let _alone = heavy();
    for task in ["check", "test"] {
        let output = Command::new("npm")
            .args(["run", "--silent", task])
            .current_dir(repository("web"))
            .output()
            .expect("npm runs");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "npm run {task}:\n{said}");
    }
}
