//! Courses, lessons, keys and uploads of a running origin, by the command line.

use std::process::{Command, Output};

use serde_json::Value;

use crate::origin::world::{ADMIN, Engines, World};
use crate::support::{program, repository};

fn lyceum(world: &World, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("lyceum"));
    command.args(arguments).env("LYCEUM_ORIGIN", world.url(0)).env("LYCEUM_API_KEY", ADMIN);
    // What an interrupted upload remembers stays out of the user's own directory.
    command.env("XDG_STATE_HOME", world.dir.path().join("state"));
    command.output().expect("lyceum runs")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_course_its_lesson_and_a_key_come_and_go_by_name() {
    let world = World::one(Engines::Files);
    let course = said(&lyceum(&world, &["course", "add", "Rust in a week"]));
    let lesson = said(&lyceum(&world, &["lesson", "add", "Ownership", "--course", "Rust in a week"]));
    let table = said(&lyceum(&world, &["course", "list"]));
    assert!(table.starts_with("id") && table.contains(&course) && table.contains("Rust in a week"), "{table}");
    let lessons = said(&lyceum(&world, &["lesson", "list", "--course", &course, "--json"]));
    let lessons: Value = serde_json::from_str(&lessons).expect("JSON");
    assert_eq!((&lessons[0]["id"], &lessons[0]["state"]), (&lesson.as_str().into(), &"awaiting_upload".into()));

    let made = said(&lyceum(&world, &["key", "add", "--role", "creator", "--name", "ada", "--json"]));
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let (id, secret) = (made["id"].as_str().expect("an id"), made["key"].as_str().expect("a key"));
    let listed = said(&lyceum(&world, &["key", "list"]));
    assert!(listed.contains(id) && listed.contains("creator") && !listed.contains(secret), "{listed}");
    let as_ada = lyceum(&world, &["course", "list", "--json", "--api-key", secret]);
    assert_eq!(said(&as_ada), "[]");
    said(&lyceum(&world, &["key", "remove", id]));
    let refused = lyceum(&world, &["course", "list", "--api-key", secret]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("401"));

    said(&lyceum(&world, &["lesson", "remove", &lesson]));
    said(&lyceum(&world, &["course", "remove", &course]));
    assert_eq!(said(&lyceum(&world, &["course", "list", "--json"])), "[]");
    let odd = lyceum(&world, &["course", "remove", "a/../b"]);
    assert_eq!(odd.status.code(), Some(2));
}

#[test]
fn recordings_become_lessons_titled_by_their_files() {
    let world = World::one(Engines::Files);
    let files = ["first steps.mp4", "second.mp4"].map(|name| {
        let file = world.dir.path().join(name);
        std::fs::write(&file, b"not a video, which no one looks at here").expect("a file");
        file.display().to_string()
    });
    let upload = || lyceum(&world, &["upload", &files[0], &files[1], "--course", "Rust in a week"]);
    let words = said(&upload());
    assert!(files.iter().all(|file| words.contains(file)), "{words}");
    let lessons = said(&lyceum(&world, &["lesson", "list", "--course", "Rust in a week", "--json"]));
    let lessons: Vec<Value> = serde_json::from_str(&lessons).expect("JSON");
    let titles: Vec<&str> = lessons.iter().filter_map(|lesson| lesson["title"].as_str()).collect();
    assert_eq!(titles, ["first steps", "second"]);
    assert!(lessons.iter().all(|lesson| lesson["state"] != "awaiting_upload"), "{lessons:?}");

    let both = lyceum(&world, &["upload", &files[0], &files[1], "--lesson", "a"]);
    assert_eq!(both.status.code(), Some(2));
    let neither = lyceum(&world, &["upload", &files[0]]);
    assert_eq!(neither.status.code(), Some(2));
}

#[test]
fn the_shop_example_sells_a_course() {
    let world = World::one(Engines::Files);
    let file = world.dir.path().join("talk.mp4");
    std::fs::write(&file, b"not a video, which no one looks at here").expect("a file");
    let mut shop = Command::new(repository("examples/shop.sh"));
    shop.arg(&file).env("ORIGIN", world.url(0)).env("LYCEUM_API_KEY", ADMIN).env("WAIT", "no");
    let words = said(&shop.output().expect("a shell runs"));
    assert!(words.contains("has bought the course"), "{words}");
}
