//! SIGHUP: another configuration is in force for what comes, what is under way ends, key files are read again.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http_body_util::BodyExt as _;
use lyceum_token::{Claims, Signer};
use tokio::sync::Notify;

use super::harness::{Origin, Reply, Step, begin, claims, send};
use crate::support::process::Role;
use crate::support::{free_port, until_async};

const PATIENCE: Duration = Duration::from_secs(20);

fn configuration(origins: &[&Origin], auth: &str, issuers: &[(&str, &Path)]) -> String {
    let mut text = "[[listen]]\naddress = \"127.0.0.1:0\"\n".to_owned();
    for (number, origin) in origins.iter().enumerate() {
        let url = origin.url();
        let _ = write!(
            text,
            "[[pool]]\nname = \"p{number}\"\norigins = [{{ url = \"{url}\" }}]\n\
             [[route]]\nprefix = \"/p{number}/\"\npool = \"p{number}\"\nauth = \"{auth}\"\n"
        );
    }
    if !issuers.is_empty() {
        let issuers: Vec<_> = issuers
            .iter()
            .map(|(name, keys)| format!("{{ name = \"{name}\", jwks = [\"{}\"] }}", keys.display()))
            .collect();
        let _ = write!(text, "[tokens]\naudience = \"lyceum-edge\"\nissuers = [{}]\n", issuers.join(", "));
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn another_configuration_is_in_force_and_nothing_under_way_is_lost() {
    let rest = Arc::new(Notify::new());
    let held = Arc::clone(&rest);
    let former = Origin::start(move |_| {
        Reply::head(8, &[("cache-control", "no-store")])
            .bytes("form")
            .then(Step::Until(Arc::clone(&held)))
            .bytes("er\r\n")
    })
    .await;
    let next = Origin::start(|_| Reply::new(200, &[("cache-control", "no-store")], "next")).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, configuration(&[&former], "none", &[])).unwrap();
    let edge = Role::start("edge", &file, &[]);
    let ask = async || begin(edge.url(), Method::GET, "/p0/x", &[], "").await;
    let slow = ask().await;

    std::fs::write(&file, configuration(&[&next, &former], "none", &[])).unwrap();
    edge.process.signal("HUP");

    until_async("the other origin to answer", PATIENCE, async || {
        let body = ask().await.into_body();
        // The former origin's answer stands still after four bytes.
        let body = tokio::time::timeout(Duration::from_secs(2), body.collect()).await.ok()?.ok()?.to_bytes();
        (body == "next").then_some(())
    })
    .await;
    rest.notify_waiters();
    rest.notify_one();
    assert_eq!(slow.into_body().collect().await.unwrap().to_bytes(), "former\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_read_again_and_issuers_come_and_go() {
    let origin = Origin::start(|_| Reply::new(200, &[("cache-control", "max-age=60")], "paid for")).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    let issuer = |name: &str| {
        let keys = folder.path().join(name);
        let signer = Signer::open(&keys, name, "lyceum-edge").unwrap();
        let set = keys.join("set.json");
        std::fs::write(&set, signer.jwks().to_string()).unwrap();
        let token = signer.sign(&Claims { paths: vec!["/p0/".to_owned()], ..claims() }).unwrap();
        (set, token)
    };
    let ((first, first_token), (second, second_token)) = (issuer("first"), issuer("second"));
    std::fs::write(&file, configuration(&[&origin], "token", &[("first", &first)])).unwrap();
    let edge = Role::start("edge", &file, &[]);
    let status =
        async |token: &str| send(edge.url(), Method::GET, &format!("/t/{token}/p0/x"), &[], "").await.status.as_u16();
    assert_eq!((status(&first_token).await, status(&second_token).await), (200, 403));

    std::fs::write(&file, configuration(&[&origin], "token", &[("second", &second)])).unwrap();
    edge.process.signal("HUP");
    let both = async || (status(&first_token).await, status(&second_token).await);
    until_async("the other issuer to be in force", PATIENCE, async || (both().await == (403, 200)).then_some(())).await;

    // The file of the issuer alone: its key is exchanged for another's.
    std::fs::copy(&first, &second).unwrap();
    edge.process.signal("HUP");
    until_async("the key to be withdrawn", PATIENCE, async || (status(&second_token).await == 403).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cached_is_shown_to_the_pages_that_are_named_now() {
    let origin = Origin::start(|_| Reply::new(200, &[("cache-control", "max-age=60")], "cached")).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    let configured = |pages: &str| {
        let open = configuration(&[&origin], "bearer", &[]);
        let text = open.replace("auth = \"bearer\"", "auth = \"bearer\"\nbearer = \"shared\"");
        std::fs::write(&file, format!("{text}[cors]\norigins = [{pages}]\n")).unwrap();
    };
    configured("");
    let edge = Role::start("edge", &file, &[]);
    let ask = async || {
        let fields = [("authorization", "Bearer shared"), ("origin", "https://a.example")];
        begin(edge.url(), Method::GET, "/p0/x", &fields, "").await
    };
    for _ in 0..2 {
        assert!(!ask().await.headers().contains_key("access-control-allow-origin"));
    }
    for (pages, expected) in [("\"*\"", "*"), ("\"https://a.example\"", "https://a.example"), ("", "")] {
        configured(pages);
        edge.process.signal("HUP");
        until_async("the page to be named", PATIENCE, async || {
            let answer = ask().await;
            let named = answer.headers().get("access-control-allow-origin").map_or("", |value| value.to_str().unwrap());
            assert_eq!(answer.headers()["cache-status"], "lyceum; hit");
            (named == expected).then_some(())
        })
        .await;
    }
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reload_took_out_leaves_the_metrics_and_one_that_fails_is_in_them() {
    let stays = Origin::start(|_| Reply::new(200, &[("cache-control", "max-age=60")], "stays")).await;
    let dead = format!("127.0.0.1:{}", free_port());
    let folder = tempfile::tempdir().unwrap();
    let (file, admin) = (folder.path().join("edge.toml"), free_port());
    let configured = |origins: &str, route: &str| {
        format!(
            "[admin]\nlisten = \"127.0.0.1:{admin}\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
             [[pool]]\nname = \"p\"\norigins = [{{ url = \"{}\" }}{origins}]\n\
             health = {{ path = \"/x\", interval = \"50ms\", fall = 1 }}\n\
             [[route]]\nprefix = \"/a/\"\npool = \"p\"\nauth = \"none\"\n{route}",
            stays.url()
        )
    };
    let more = "[[route]]\nprefix = \"/gone/\"\npool = \"p\"\nauth = \"none\"\n";
    std::fs::write(&file, configured(&format!(", {{ url = \"http://{dead}\" }}"), more)).unwrap();
    let edge = Role::start("edge", &file, &[]);
    let metrics = async || send(&format!("http://127.0.0.1:{admin}"), Method::GET, "/metrics", &[], "").await.text();
    let shows = async |what: &str, line: &str| {
        until_async(what, PATIENCE, async || metrics().await.contains(line).then_some(())).await;
    };
    send(edge.url(), Method::GET, "/gone/x", &[], "").await;
    shows("the dead origin to be out", &format!("lyceum_upstream_origin_up{{origin=\"{dead}\",pool=\"p\"}} 0\n")).await;

    std::fs::write(&file, configured("", "")).unwrap();
    edge.process.signal("HUP");
    shows("the reload", "lyceum_front_reloads_total{result=\"ok\",what=\"configuration\"} 1\n").await;
    let text = metrics().await;
    assert!(!text.contains(&dead) && !text.contains("route=\"/gone/\""), "{text}");
    assert!(text.contains(&format!("origin=\"{}\"", stays.address)) && text.contains("route=\"/a/\""), "{text}");

    std::fs::write(&file, "nonsense").unwrap();
    edge.process.signal("HUP");
    shows("the reload to fail", "lyceum_front_reload_failed{what=\"configuration\"} 1\n").await;
    std::fs::write(&file, configured("", "")).unwrap();
    edge.process.signal("HUP");
    shows("the reload to work again", "lyceum_front_reload_failed{what=\"configuration\"} 0\n").await;
}
