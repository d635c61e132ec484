//! What stories make over the origin's API: recordings, lessons, links.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::demo::Demo;
use super::{program, until};

/// Long enough for a short recording on two busy cores.
const MADE: Duration = Duration::from_secs(300);

/// What curl got: status, content type, body.
pub struct Answer {
    pub status: u16,
    pub kind: String,
    pub body: Vec<u8>,
}

/// Asks with curl, as any program would.
pub fn curl(arguments: &[&str]) -> Answer {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "30", "--path-as-is", "-w", "\n%{http_code} %{content_type}"])
        .args(arguments)
        .output()
        .expect("curl runs");
    assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let end = output.stdout.iter().rposition(|byte| *byte == b'\n').expect("curl's own line");
    let (body, line) = output.stdout.split_at(end);
    let line = String::from_utf8_lossy(line).trim().to_owned();
    let (status, kind) = line.split_once(' ').unwrap_or((&line, ""));
    Answer { status: status.parse().expect("a status"), kind: kind.to_owned(), body: body.to_vec() }
}

/// One call of the origin's API as the demo's administrator.
pub fn api(demo: &Demo, method: &str, path: &str, body: Option<&Value>) -> Value {
    let url = format!("{}{path}", demo.text("/origins/0"));
    let key = format!("Authorization: Bearer {}", demo.text("/api_key"));
    let mut arguments = vec!["-X", method, "-H", &key];
    let text = body.map(Value::to_string).unwrap_or_default();
    if body.is_some() {
        arguments.extend(["-H", "Content-Type: application/json", "--data-binary", &text]);
    }
    arguments.push(&url);
    let answer = curl(&arguments);
    let said = String::from_utf8_lossy(&answer.body);
    assert!((200..300).contains(&answer.status), "{method} {path}: {} {said}", answer.status);
    if said.trim().is_empty() { Value::Null } else { serde_json::from_str(&said).expect("the API speaks JSON") }
}

/// A recording with sound, motion and a running clock.
pub fn recording(folder: &Path, name: &str, seconds: u32) -> PathBuf {
    let path = folder.join(name);
    let made = Command::new(program("lyceum-transcoder"))
        .args(["sample", "--duration", &format!("{seconds}s")])
        .arg(&path)
        .output()
        .expect("the transcoder runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    path
}

/// A lesson of the demo's course made of a file, once it is ready.
pub fn lesson(demo: &Demo, title: &str, file: &Path) -> String {
    lesson_like(demo, &json!({ "title": title }), file)
}

/// A lesson made with that body.
pub fn lesson_like(demo: &Demo, new: &Value, file: &Path) -> String {
    let course = demo.text("/course");
    let made = api(demo, "POST", &format!("/v1/courses/{course}/lessons"), Some(new));
    let id = made["id"].as_str().expect("a lesson has an id").to_owned();
    let sent = Command::new(program("lyceum"))
        .args(["upload", "--origin", &demo.text("/origins/0"), "--lesson", &id, "--api-key", &demo.text("/api_key")])
        .arg(file)
        .output()
        .expect("lyceum runs");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    until("the lesson to be ready", MADE, || {
        let lesson = api(demo, "GET", &format!("/v1/lessons/{id}"), None);
        assert_ne!(lesson["state"], "failed", "{lesson}");
        std::thread::sleep(Duration::from_millis(300));
        (lesson["state"] == "ready").then_some(())
    });
    id
}

/// What a shop gets for a learner who presses play.
pub fn playback(demo: &Demo, lesson: &str, user: &str) -> Value {
    let entitlement = json!({ "user": user, "course": demo.text("/course") });
    api(demo, "PUT", "/v1/entitlements", Some(&entitlement));
    api(demo, "POST", "/v1/playback", Some(&json!({ "user": user, "lesson": lesson })))
}
