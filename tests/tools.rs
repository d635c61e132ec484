//! The command-line tools: keys, tokens, and refusals that say what would be right.

mod catalogue;
mod examples;
mod operators;

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::support::program;

fn lyceum(arguments: &[&str]) -> Output {
    Command::new(program("lyceum")).args(arguments).output().expect("lyceum runs")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_key_is_made_private_and_a_token_of_it_names_it() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let out = folder.path().display().to_string();
    for alg in ["EdDSA", "ES256"] {
        let kid = said(&lyceum(&["keys", "new", "--alg", alg, "--out", &out]));
        let pem = folder.path().join(format!("{kid}.pem"));
        let mode = std::fs::metadata(&pem).expect("the private key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let jwk = std::fs::read(folder.path().join(format!("{kid}.jwk"))).expect("the public key");
        let jwk: Value = serde_json::from_slice(&jwk).expect("a JWK");
        assert_eq!(jwk["kid"], kid.as_str());
        assert!(jwk.get("d").is_none(), "the public key holds the private one");

        let key = pem.display().to_string();
        let token = said(&lyceum(&[
            "token",
            "--key",
            &key,
            "--sub",
            "ada",
            "--path",
            "/v/a1/",
            "--ttl",
            "1h",
            "--claim",
            "max_height=480",
            "--claim",
            "note=plain words",
        ]));
        let parts: Vec<Value> = token
            .split('.')
            .take(2)
            .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON"))
            .collect();
        assert_eq!(parts[0]["kid"], kid.as_str());
        assert_eq!(parts[0]["alg"], alg);
        let claims = &parts[1];
        assert_eq!((claims["iss"].as_str(), claims["aud"].as_str()), (Some("lyceum"), Some("lyceum-edge")));
        assert_eq!((claims["sub"].as_str(), &claims["paths"]), (Some("ada"), &serde_json::json!(["/v/a1/"])));
        assert_eq!(
            (&claims["max_height"], &claims["note"]),
            (&serde_json::json!(480), &serde_json::json!("plain words"))
        );
        let lives = claims["exp"].as_i64().expect("exp") - claims["iat"].as_i64().expect("iat");
        assert_eq!(lives, 3600);
    }
}

#[test]
fn usage_is_exit_code_2_and_names_what_is_wrong() {
    let cases: &[(&[&str], &str)] = &[
        (&["keys", "new", "--alg", "none", "--out", "/tmp/never"], "none"),
        (&["token", "--key", "/nowhere.pem", "--sub", "a", "--path", "/v/a/"], "/nowhere.pem"),
        (&["token", "--key", "/nowhere.pem", "--sub", "a", "--path", "/v/a"], "/v/a"),
        (&["token", "--key", "/nowhere.pem", "--sub", "a", "--path", "/v/a/", "--ttl", "6"], "6"),
        (
            &["upload", "/nowhere.mp4", "--origin", "http://127.0.0.1:1", "--lesson", "a", "--api-key", "k"],
            "/nowhere.mp4",
        ),
        (&["edge", "--config", "/nowhere.toml"], "/nowhere.toml"),
        (&["fly"], "fly"),
    ];
    for (arguments, names) in cases {
        let output = lyceum(arguments);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {words}");
        assert!(words.contains(names), "{arguments:?} should name {names}: {words}");
    }
}

#[test]
fn an_origin_that_is_not_there_is_exit_code_1() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("talk.mp4");
    std::fs::write(&file, b"bytes").expect("a file");
    let file = file.display().to_string();
    let output = lyceum(&["upload", &file, "--origin", "http://127.0.0.1:1", "--lesson", "a", "--api-key", "k"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("127.0.0.1:1"), "{words}");
}
