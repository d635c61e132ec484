//! What operators copy from `deploy/` holds: configurations load, units are hardened, manifests follow their schemas, and
//! paths, variables, times and ports agree. No story starts containers: their images come from registries that the tests
//! don't use. Each check is shown mistakes that it has to see.

mod agreement;
mod tree;

use std::path::Path;
use std::process::Command;

use self::tree::Tree;
use crate::support::{program, repository};

/// What a unit may be exposed at most, in tenths, as `systemd-analyze security` counts (10 is everything).
const EXPOSURE: &str = "16";

fn ours() -> Tree {
    Tree::read(&repository("."))
}

fn told(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|cause| panic!("{command:?} can't be started: {cause}"));
    let words = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), words)
}

/// What `lyceum config check` says against configurations, every variable set that they name.
fn refused_configurations(tree: &Tree) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let checked = tree.files("toml").into_iter().map(|file| {
        // Authorities are read with the configuration: the machine's own stand for the cluster's.
        let text = tree.text(&file).replace("/run/secrets/lyceum/ca/ca.crt", "/etc/ssl/certs/ca-certificates.crt");
        let copy = folder.path().join(file.replace('/', "-"));
        std::fs::write(&copy, text).expect("a temporary file");
        let mut command = Command::new(program("lyceum"));
        command.args(["config", "check"]).arg(copy);
        for name in tree.configuration(&file).variables() {
            let value = match name.as_str() {
                "LYCEUM_DATABASE" => "postgres://lyceum:secret@db.example.com/lyceum",
                url if url.ends_with("_URL") => "https://courses.example.com",
                _ => "an-example-secret-of-some-length",
            };
            command.env(name, value);
        }
        told(&mut command)
    });
    checked.filter(|(good, _)| !good).map(|(_, words)| words).collect()
}

#[test]
fn every_configuration_is_accepted() {
    let tree = ours();
    assert_eq!(refused_configurations(&tree), [""; 0]);
    assert!(tree.files("toml").len() >= 10, "{:?}", tree.files("toml"));
}

/// What `systemd-analyze` says against the units, with the programs where they were built.
fn refused_units(tree: &Tree, folder: &Path) -> Vec<String> {
    let mut refused = Vec::new();
    for file in tree.files("service") {
        let mut unit = tree.text(&file);
        for name in ["lyceum-transcoder", "lyceum"] {
            let built = program(name).display().to_string();
            unit = unit.replace(&format!("/usr/local/bin/{name} "), &format!("{built} "));
        }
        let path = folder.join(file.rsplit('/').next().expect("a name"));
        std::fs::write(&path, unit).expect("a temporary file");
        let (good, words) = told(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
        // A key that it does not know is a word on standard error alone.
        if !good || !words.trim().is_empty() {
            refused.push(format!("{file}: {words}"));
        }
        let (good, words) = told(
            Command::new("systemd-analyze")
                .args(["security", "--offline=true", "--no-pager", &format!("--threshold={EXPOSURE}")])
                .arg(&path),
        );
        if !good {
            refused.push(format!("{file}: {words}"));
        }
    }
    refused
}

#[test]
fn units_are_understood_and_hardened() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let tree = ours();
    assert_eq!(refused_units(&tree, folder.path()), [""; 0]);
    assert_eq!(tree.files("service").len(), agreement::ROLES.len());
}

fn against_schemas(tree: &Tree) -> Vec<String> {
    let files = tree.parsed.iter();
    files.flat_map(|(file, parsed)| parsed.errors.iter().map(move |error| format!("{file}: {error}"))).collect()
}

#[test]
fn compose_and_kubernetes_files_follow_their_schemas() {
    assert_eq!(against_schemas(&ours()), [""; 0]);
}

#[test]
fn files_variables_times_and_ports_agree() {
    let tree = ours();
    for check in [
        agreement::missing_files,
        agreement::missing_users,
        agreement::missing_objects,
        agreement::unset_variables,
        agreement::paths_outside,
        agreement::short_stops,
        agreement::ports_apart,
        agreement::loose_images,
    ] {
        assert_eq!(check(&tree), [""; 0]);
    }
}

/// The folder as compose mounts it: the configuration beside the repository's rules.
#[test]
fn prometheus_takes_the_configuration_and_the_rules() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let tree = ours();
    let mounts = tree.document(agreement::COMPOSE)["services"]["prometheus"]["volumes"].as_array().expect("volumes");
    let mounts = mounts.iter().filter_map(|mount| mount.as_str()?.split_once(":/etc/prometheus/"));
    for (source, name) in mounts {
        let name = name.trim_end_matches(":ro");
        std::fs::copy(repository("deploy").join(source), folder.path().join(name)).expect("a copy");
    }
    let (good, words) =
        told(Command::new("promtool").args(["check", "config", "prometheus.yml"]).current_dir(folder.path()));
    assert!(good && words.contains("rules.yml") && words.contains("alerts.yml"), "{words}");
}

type Check = fn(&Tree) -> Vec<String>;

/// A file, what stands in it, a mistake in its place, and a word that the check has to say.
type Mistake = (&'static str, &'static str, &'static str, &'static str);

fn assert_seen(check: impl Fn(&Tree) -> Vec<String>, mistakes: &[Mistake]) {
    let ours = ours();
    for (file, right, wrong, word) in mistakes {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let tree = ours.with_mistake(folder.path(), file, right, wrong);
        let words = check(&tree);
        assert!(words.iter().any(|said| said.contains(word)), "{file} with {wrong:?} should name {word}: {words:?}");
    }
}

#[test]
fn a_mistake_in_a_configuration_or_a_unit_is_seen() {
    let edge = "deploy/systemd/lyceum-edge.service";
    assert_seen(refused_configurations, &[("deploy/kubernetes/config/edge.toml", "[cors]", "[corse]", "corse")]);
    let units = |tree: &Tree| refused_units(tree, tempfile::tempdir().expect("a temporary directory").path());
    assert_seen(
        units,
        &[
            (edge, "ProtectSystem=strict", "ProtectSystems=strict", "ProtectSystems"),
            (edge, "ExecStart=/usr/local/bin/lyceum ", "ExecStart=/usr/local/bin/lyceumd ", "lyceumd"),
            (edge, "SystemCallFilter=@system-service\n", "", "lyceum-edge.service"),
        ],
    );
}

#[test]
fn a_mistake_in_a_manifest_is_seen() {
    let compose = agreement::COMPOSE;
    assert_seen(
        against_schemas,
        &[
            (compose, "stop_grace_period", "stop_graceperiod", "stop_graceperiod"),
            ("deploy/kubernetes/edge.yaml", "containerPort: 8443", "containerprt: 8443", "containerPort"),
            ("deploy/kubernetes/origin.yaml", "apps/v1\n", "apps/v1beta9\n", "apps/v1beta9"),
            ("deploy/kubernetes/worker.yaml", "  minReplicas: 1", "  minReplicas: 1\n  minReplicas: 2", "stands twice"),
        ],
    );
}

#[test]
fn what_does_not_agree_is_seen() {
    let compose = agreement::COMPOSE;
    let container = "deploy/containers/lyceum/Containerfile";
    let (origin, edge) = ("deploy/kubernetes/origin.yaml", "deploy/kubernetes/edge.yaml");
    let cases: &[(Check, &[Mistake])] = &[
        (
            agreement::missing_files,
            &[
                (container, "COPY web/package.json", "COPY web/pakage.json", "web/pakage.json"),
                (compose, "- ./compose/edge.toml", "- ./compose/edges.toml", "edges.toml"),
                (compose, "- keys:/var", "- keyz:/var", "keyz"),
                ("deploy/kubernetes/kustomization.yaml", "- edge.yaml", "- edges.yaml", "edges.yaml"),
                ("deploy/systemd/lyceum-edge.service", "check /etc/lyceum/edge", "check /etc/lyceum/e", "e.toml"),
            ],
        ),
        (
            agreement::missing_users,
            &[("deploy/systemd/lyceum-edge.service", "User=lyceum-edge", "User=lyceum", "nobody makes lyceum")],
        ),
        (
            agreement::missing_objects,
            &[
                ("deploy/kubernetes/kustomization.yaml", "  - edge.yaml\n", "", "edge.yaml is not among"),
                (origin, "secretName: lyceum-sealing-keys", "secretName: lyceum-seals", "lyceum-seals"),
                (edge, "- { name: cache, mount", "- { name: cash, mount", "cash"),
            ],
        ),
        (
            agreement::unset_variables,
            &[
                ("deploy/compose/edge.toml", "${LYCEUM_EDGE_SECRET}", "${LYCEUM_SECRET}", "LYCEUM_SECRET"),
                ("deploy/systemd/edge.toml", "${LYCEUM_EDGE_SECRET}", "${LYCEUM_SECRET}", "LYCEUM_SECRET"),
                (edge, "secretRef: { name: lyceum-edge }", "secretRef: { name: lyceum-worker }", "LYCEUM_EDGE_SECRET"),
                ("deploy/.env.example", "GRAFANA_ADMIN_PASSWORD=", "", "GRAFANA_ADMIN_PASSWORD"),
            ],
        ),
        (
            agreement::paths_outside,
            &[
                ("deploy/systemd/edge.toml", "/var/cache/lyceum/edge", "/var/tmp/edge", "/var/tmp/edge"),
                ("deploy/compose/origin.toml", "/var/lib/lyceum/keys", "/var/lib/keys", "/var/lib/keys"),
                (edge, "mountPath: /run/secrets/lyceum/tls", "mountPath: /run/tls", "tls.crt"),
            ],
        ),
        (
            agreement::short_stops,
            &[
                ("deploy/systemd/worker.toml", "\"2m\"", "\"5m\"", "lyceum-worker.service"),
                (origin, "terminationGracePeriodSeconds: 60", "terminationGracePeriodSeconds: 40", "origin"),
                (compose, "stop_grace_period: 45s", "stop_grace_period: 30s", "edge-1"),
            ],
        ),
        (
            agreement::ports_apart,
            &[
                ("deploy/compose/edge.toml", "0.0.0.0:8090", "0.0.0.0:8091", "edge-1 publishes 8090"),
                ("deploy/compose/prometheus.yml", "worker-2:9902", "worker-2:9901", "scrapes"),
                ("deploy/compose/worker.toml", "origin-2:8080", "origin-2:8081", "origin-2 listens on 8081"),
                ("deploy/compose/origin.toml", "s3:8333", "s3:8334", "s3 listens on 8334"),
                (compose, "/dev/tcp/127.0.0.1/9902", "/dev/tcp/127.0.0.1/9900", "worker-1 is not probed"),
                ("deploy/systemd/worker.toml", "127.0.0.1:9902", "127.0.0.1:9903", "worker.toml has its admin"),
                ("deploy/kubernetes/config/edge.toml", "0.0.0.0:8443", "0.0.0.0:443", "deployment of edge"),
                (
                    "deploy/kubernetes/config/worker.toml",
                    "lyceum-origin:8443",
                    "lyceum-origin:443",
                    "lyceum-origin has",
                ),
                ("deploy/kubernetes/network-policies.yaml", "port: 9901", "port: 9900", "network policy"),
                (edge, "port: 443, targetPort: https", "port: 443, targetPort: http", "a port http"),
            ],
        ),
        (
            agreement::loose_images,
            &[
                (compose, "image: lyceum:0.1.0", "image: lyceum:0.0.9", "lyceum:0.0.9"),
                (compose, "curlimages/curl:8.16.0", "curlimages/curl:latest", "latest"),
                (container, "FROM debian:12-slim", "FROM debian", "debian"),
            ],
        ),
    ];
    for (check, mistakes) in cases {
        assert_seen(check, mistakes);
    }
}
