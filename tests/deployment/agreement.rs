//! What has to agree between the files of `deploy/`: each check gives what does not, in words.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::tree::{Tree, entries, list, seconds, text};

pub const COMPOSE: &str = "deploy/compose.yaml";
const KUSTOMIZATION: &str = "deploy/kubernetes/kustomization.yaml";
const SECRETS: &str = "deploy/kubernetes/secrets.example.yaml";
pub const ROLES: [&str; 3] = ["origin", "edge", "worker"];

/// The services of the compose file that run a role, with the role's configuration.
fn compose_roles(tree: &Tree) -> Vec<(&String, &Value, String)> {
    let services = entries(&tree.document(COMPOSE)["services"]);
    let with_file = services.filter_map(|(name, service)| {
        let mounts = list(&service["volumes"]).iter().filter_map(Value::as_str);
        let file =
            mounts.filter(|mount| mount.contains(".toml:/etc/lyceum/")).find_map(|mount| mount.split(':').next())?;
        Some((name, service, format!("deploy/{}", file.trim_start_matches("./"))))
    });
    with_file.collect()
}

/// Kubernetes' deployments with their role and configuration.
fn kubernetes_roles(tree: &Tree) -> Vec<(&'static str, &Value, String)> {
    let deployments = tree.objects("Deployment");
    let of = |role: &&'static str| {
        let name = format!("lyceum-{role}");
        let found = deployments.iter().find(|(_, one)| one["metadata"]["name"] == name.as_str());
        let (_, deployment) = found.unwrap_or_else(|| panic!("there is no deployment {name}"));
        (*role, *deployment, format!("deploy/kubernetes/config/{role}.toml"))
    };
    ROLES.iter().map(of).collect()
}

/// What is copied, built, mounted or loaded is there.
pub fn missing_files(tree: &Tree) -> Vec<String> {
    let mut missing = Vec::new();
    let mut need = |file: &str, path: String| {
        if !tree.exists(&path) {
            missing.push(format!("{file}: {path} is not there"));
        }
    };
    for file in tree.files("service") {
        let unit = tree.unit(&file);
        let commands = ["ExecStart", "ExecStartPre", "ExecReload"].iter().flat_map(|key| unit.all(key));
        for name in commands.flat_map(str::split_whitespace).filter_map(|word| word.strip_prefix("/etc/lyceum/")) {
            need(&file, format!("deploy/systemd/{name}"));
        }
        for name in unit.all("EnvironmentFile").into_iter().filter_map(|path| path.strip_prefix("/etc/lyceum/")) {
            need(&file, format!("deploy/systemd/{name}.example"));
        }
    }
    for file in containerfiles(tree) {
        for line in tree.text(&file).lines() {
            let Some(words) = line.strip_prefix("COPY ") else { continue };
            let words: Vec<&str> = words.split_whitespace().collect();
            if words.iter().any(|word| word.starts_with("--from=")) {
                continue;
            }
            for source in words.split_last().map_or(&[][..], |(_, sources)| sources) {
                need(&file, (*source).to_owned());
            }
        }
    }
    let compose = tree.document(COMPOSE);
    let volumes: BTreeSet<&String> = entries(&compose["volumes"]).map(|(name, _)| name).collect();
    let mut undeclared = Vec::new();
    for (name, service) in entries(&compose["services"]) {
        if let Some(file) = service["build"]["dockerfile"].as_str() {
            need(COMPOSE, file.to_owned());
        }
        for mount in list(&service["volumes"]).iter().map(text) {
            let source = mount.split(':').next().unwrap_or_default().to_owned();
            match source.strip_prefix("../").map(ToOwned::to_owned) {
                Some(path) => need(COMPOSE, path),
                None if source.starts_with("./") => need(COMPOSE, format!("deploy/{}", &source[2..])),
                None if volumes.contains(&source) => {}
                None => undeclared.push(format!("{COMPOSE}: {name}: the volume {source} is not declared")),
            }
        }
    }
    let kustomization = tree.document(KUSTOMIZATION);
    let generated = list(&kustomization["configMapGenerator"]).iter().flat_map(|map| list(&map["files"]));
    for path in list(&kustomization["resources"]).iter().chain(generated).map(text) {
        need(KUSTOMIZATION, format!("deploy/kubernetes/{path}"));
    }
    missing.extend(undeclared);
    missing
}

fn containerfiles(tree: &Tree) -> Vec<String> {
    let services =
        entries(&tree.document(COMPOSE)["services"]).filter_map(|(_, one)| one["build"]["dockerfile"].as_str());
    let names: BTreeSet<String> = services.map(ToOwned::to_owned).collect();
    names.into_iter().filter(|name| tree.exists(name)).collect()
}

/// The users of units are made by the file of users.
pub fn missing_users(tree: &Tree) -> Vec<String> {
    let made = tree.text("deploy/systemd/lyceum.sysusers");
    let made: BTreeSet<&str> =
        made.lines().filter_map(|line| line.strip_prefix("u ")?.split_whitespace().next()).collect();
    let units = tree.files("service").into_iter().map(|file| (tree.unit(&file), file));
    let named = units.flat_map(|(unit, file)| {
        unit.all("User").iter().map(|name| (file.clone(), name.to_string())).collect::<Vec<_>>()
    });
    named
        .filter(|(_, name)| !made.contains(name.as_str()))
        .map(|(file, name)| format!("{file}: nobody makes {name}"))
        .collect()
}

/// Manifests name ConfigMaps and Secrets that exist, with keys that they have, and all of them are applied.
pub fn missing_objects(tree: &Tree) -> Vec<String> {
    let mut missing = Vec::new();
    let kustomization = tree.document(KUSTOMIZATION);
    let resources: BTreeSet<String> =
        list(&kustomization["resources"]).iter().map(|name| format!("deploy/kubernetes/{}", text(name))).collect();
    for file in tree.files("yaml").into_iter().filter(|file| file.starts_with("deploy/kubernetes/")) {
        if !resources.contains(&file) && file != KUSTOMIZATION && file != SECRETS {
            missing.push(format!("{KUSTOMIZATION}: {file} is not among the resources"));
        }
    }
    let maps: BTreeMap<String, &Value> =
        list(&kustomization["configMapGenerator"]).iter().map(|map| (text(&map["name"]), map)).collect();
    let secrets: BTreeMap<String, &Value> =
        tree.objects("Secret").into_iter().map(|(_, one)| (text(&one["metadata"]["name"]), one)).collect();
    for (role, deployment, config) in kubernetes_roles(tree) {
        let pod = &deployment["spec"]["template"]["spec"];
        let mut need = |known: bool, what: String| {
            if !known {
                missing.push(format!("{role}: there is no {what}"));
            }
        };
        for volume in list(&pod["volumes"]) {
            if let Some(name) = volume["configMap"]["name"].as_str() {
                let holds = maps.get(name).is_some_and(|map| {
                    list(&map["files"]).iter().any(|file| format!("deploy/kubernetes/{}", text(file)) == config)
                });
                need(holds, format!("ConfigMap {name} with {config}"));
            }
            if let Some(name) = volume["secret"]["secretName"].as_str() {
                let secret = secrets.get(name);
                need(secret.is_some(), format!("Secret {name} in {SECRETS}"));
                for item in list(&volume["secret"]["items"]) {
                    let key = text(&item["key"]);
                    let has = secret.is_some_and(|secret| secret["stringData"].get(&key).is_some());
                    need(has, format!("{key} in the Secret {name}"));
                }
            }
        }
        let names: BTreeSet<String> = list(&pod["volumes"]).iter().map(|volume| text(&volume["name"])).collect();
        for container in list(&pod["containers"]).iter().chain(list(&pod["initContainers"])) {
            for mount in list(&container["volumeMounts"]) {
                need(names.contains(&text(&mount["name"])), format!("volume {}", mount["name"]));
            }
        }
    }
    missing
}

/// Each variable that a configuration names is set where it is read.
pub fn unset_variables(tree: &Tree) -> Vec<String> {
    let mut unset = Vec::new();
    let mut compare = |file: &str, given: &BTreeSet<String>| {
        for name in tree.configuration(file).variables() {
            if !given.contains(&name) {
                unset.push(format!("{file}: nothing sets {name}"));
            }
        }
    };
    for file in tree.files("toml").iter().filter(|file| file.starts_with("deploy/systemd/")) {
        let role = ROLES.iter().find(|role| file.contains(&format!("/{role}"))).expect("a role's file");
        let text = tree.text(&format!("deploy/systemd/{role}.env.example"));
        // What only some need stands there as a comment.
        let names = text.lines().filter_map(|line| line.trim_start_matches("# ").split_once('='));
        compare(file, &names.map(|(name, _)| name.to_owned()).collect());
    }
    for (_, service, config) in compose_roles(tree) {
        let mut given: BTreeSet<String> = entries(&service["environment"]).map(|(name, _)| name.clone()).collect();
        // The worker's key comes out of a file.
        let entrypoint = list(&service["entrypoint"]).iter().map(text).collect::<Vec<_>>().join(" ");
        given.extend(entrypoint.split_whitespace().filter_map(|word| Some(word.split_once("=$$(")?.0.to_owned())));
        compare(&config, &given);
    }
    let secrets = tree.objects("Secret");
    for (_, deployment, config) in kubernetes_roles(tree) {
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let mut given: BTreeSet<String> = list(&container["env"]).iter().map(|one| text(&one["name"])).collect();
        for from in list(&container["envFrom"]) {
            let of = secrets.iter().filter(|(_, one)| one["metadata"]["name"] == from["secretRef"]["name"]);
            given.extend(of.flat_map(|(_, one)| entries(&one["stringData"])).map(|(name, _)| name.clone()));
        }
        compare(&config, &given);
    }
    let environment = tree.text("deploy/.env.example");
    let known: BTreeSet<&str> =
        environment.lines().filter_map(|line| Some(line.trim_start_matches("# ").split_once('=')?.0)).collect();
    let compose = tree.text(COMPOSE);
    let named = compose.split("${").skip(1).filter_map(|rest| rest.split([':', '}']).next());
    unset.extend(named.filter(|name| !known.contains(name)).map(|name| format!("deploy/.env.example lacks {name}")));
    unset
}

/// Each path that a configuration names lies where the process may read or write.
pub fn paths_outside(tree: &Tree) -> Vec<String> {
    let mut outside = Vec::new();
    let mut compare = |file: &str, given: &[String]| {
        for path in tree.configuration(file).paths() {
            if !given.iter().any(|folder| path.starts_with(&format!("{folder}/")) || path == *folder) {
                outside.push(format!("{file}: {path} is not mounted, or not the unit's"));
            }
        }
    };
    for file in tree.files("toml").iter().filter(|file| file.starts_with("deploy/systemd/")) {
        let role = ROLES.iter().find(|role| file.contains(&format!("/{role}"))).expect("a role's file");
        let unit = tree.unit(&format!("deploy/systemd/lyceum-{role}.service"));
        let kinds =
            [("ConfigurationDirectory", "/etc"), ("StateDirectory", "/var/lib"), ("CacheDirectory", "/var/cache")];
        let given: Vec<String> = kinds
            .iter()
            .flat_map(|(key, base)| unit.all(key).into_iter().map(move |name| format!("{base}/{name}")))
            .collect();
        compare(file, &given);
    }
    for (_, service, config) in compose_roles(tree) {
        let mounts = list(&service["volumes"]).iter().map(text);
        let given: Vec<String> = mounts.filter_map(|mount| Some(mount.split(':').nth(1)?.to_owned())).collect();
        compare(&config, &given);
    }
    for (_, deployment, config) in kubernetes_roles(tree) {
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let given: Vec<String> =
            list(&container["volumeMounts"]).iter().map(|mount| text(&mount["mountPath"])).collect();
        compare(&config, &given);
    }
    outside
}

/// Whoever stops a role waits longer than it drains.
pub fn short_stops(tree: &Tree) -> Vec<String> {
    let mut short = Vec::new();
    let mut compare = |what: String, config: &str, given: u64, before: u64| {
        let drain = tree.configuration(config).drain_timeout() + before;
        if given <= drain {
            short.push(format!("{what} is stopped after {given} s, and {config} drains for {drain} s"));
        }
    };
    for role in ROLES {
        let unit = tree.unit(&format!("deploy/systemd/lyceum-{role}.service"));
        let given = seconds(unit.one("TimeoutStopSec"));
        compare(format!("lyceum-{role}.service"), &format!("deploy/systemd/{role}.toml"), given, 0);
    }
    for (name, service, config) in compose_roles(tree) {
        compare(name.clone(), &config, seconds(&text(&service["stop_grace_period"])), 0);
    }
    for (role, deployment, config) in kubernetes_roles(tree) {
        let pod = &deployment["spec"]["template"]["spec"];
        let given = pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        let stop = list(&pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]);
        let before = stop.get(1).map_or(0, |time| seconds(&text(time)));
        compare(format!("the deployment of {role}"), &config, given, before);
    }
    short
}

/// Ports agree between configurations, compose, Kubernetes, images, and what Prometheus scrapes.
pub fn ports_apart(tree: &Tree) -> Vec<String> {
    let mut apart = Vec::new();
    systemd_ports(tree, &mut apart);
    compose_ports(tree, &mut apart);
    kubernetes_ports(tree, &mut apart);
    apart
}

/// Host and port of what a Prometheus scrapes, by job.
fn scraped(tree: &Tree, file: &str) -> BTreeMap<String, BTreeSet<(String, u16)>> {
    let jobs = list(&tree.document(file)["scrape_configs"]).iter();
    let targets = |job: &Value| {
        let groups = list(&job["static_configs"]).iter().flat_map(|group| list(&group["targets"]));
        groups
            .filter_map(|target| {
                let (host, port) = target.as_str()?.split_once(':')?;
                Some((host.to_owned(), port.parse().ok()?))
            })
            .collect()
    };
    jobs.map(|job| (text(&job["job_name"]), targets(job))).collect()
}

fn systemd_ports(tree: &Tree, apart: &mut Vec<String>) {
    let jobs = scraped(tree, "dashboards/prometheus/prometheus.yml");
    for role in ROLES {
        let example = tree.configuration(&format!("edge-config/{role}.toml")).admin_port();
        let job = jobs.get(&format!("lyceum-{role}")).into_iter().flatten().map(|(_, port)| *port).collect::<Vec<_>>();
        if example.is_none_or(|port| job != [port]) {
            apart.push(format!("edge-config/{role}.toml has its admin on {example:?}, Prometheus scrapes {job:?}"));
        }
        let all = tree.files("toml").into_iter().filter(|file| file.contains(&format!("/{role}")));
        for file in all.filter(|file| tree.configuration(file).admin_port() != example) {
            apart.push(format!("{file} has its admin on another port than edge-config/{role}.toml"));
        }
    }
}

fn compose_ports(tree: &Tree, apart: &mut Vec<String>) {
    let roles = compose_roles(tree);
    let mut admins: BTreeMap<String, BTreeSet<(String, u16)>> = BTreeMap::new();
    let mut listening: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    for (name, service, config) in &roles {
        let read = tree.configuration(config);
        let media = read.media_ports();
        let admin = read.admin_port().unwrap_or_default();
        let role = ROLES.iter().find(|role| config.contains(&format!("/{role}"))).expect("a role's file");
        admins.entry(format!("lyceum-{role}")).or_default().insert(((*name).clone(), admin));
        for mapping in list(&service["ports"]).iter().map(text) {
            let inner = mapping.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_default();
            if !media.contains(&inner) {
                apart.push(format!("{COMPOSE}: {name} publishes {inner}, {config} listens on {media:?}"));
            }
        }
        let probe = service["healthcheck"]["test"].to_string();
        if !probe.contains(&format!("/dev/tcp/127.0.0.1/{admin} ")) {
            apart.push(format!("{COMPOSE}: {name} is not probed on {admin}: {probe}"));
        }
        listening.insert((*name).clone(), media);
    }
    for (_, _, config) in &roles {
        for (host, port) in tree.configuration(config).authorities() {
            // The S3 server's port is its own command's.
            let s3 = tree.document(COMPOSE)["services"]["s3"]["command"].to_string();
            let ours = listening.get(&host).is_some_and(|ports| ports.contains(&port));
            let theirs = host == "s3" && s3.contains(&format!("-s3.port={port}\""));
            if !ours && !theirs {
                apart.push(format!("{config}: no service {host} listens on {port}"));
            }
        }
    }
    let jobs = scraped(tree, "deploy/compose/prometheus.yml");
    if jobs != admins {
        apart.push(format!("deploy/compose/prometheus.yml scrapes {jobs:?}, the services are {admins:?}"));
    }
}

fn kubernetes_ports(tree: &Tree, apart: &mut Vec<String>) {
    let number = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    for (role, deployment, config) in kubernetes_roles(tree) {
        let read = tree.configuration(&config);
        let admin = read.admin_port();
        let all: BTreeSet<u16> = read.media_ports().into_iter().chain(admin).collect();
        let template = &deployment["spec"]["template"];
        let container = &template["spec"]["containers"][0];
        let named: BTreeMap<String, u16> = list(&container["ports"])
            .iter()
            .filter_map(|port| Some((text(&port["name"]), number(&port["containerPort"])?)))
            .collect();
        if named.values().copied().collect::<BTreeSet<_>>() != all {
            apart.push(format!("the deployment of {role} has the ports {named:?}, {config} {all:?}"));
        }
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            if named.get(&text(&container[probe]["httpGet"]["port"])).copied() != admin {
                apart.push(format!("{role}: the {probe} does not ask the admin port"));
            }
        }
        let scrape = &template["metadata"]["annotations"]["prometheus.io/port"];
        if scrape.as_str().and_then(|port| port.parse().ok()) != admin {
            apart.push(format!("{role}: Prometheus is led to {scrape}, the admin port is {admin:?}"));
        }
        for (_, policy) in tree.objects("NetworkPolicy") {
            if policy["spec"]["podSelector"]["matchLabels"] == deployment["spec"]["selector"]["matchLabels"] {
                let rules = list(&policy["spec"]["ingress"]).iter().flat_map(|rule| list(&rule["ports"]));
                let open: BTreeSet<u16> = rules.filter_map(|rule| number(&rule["port"])).collect();
                if open != all {
                    apart.push(format!("{role}: the network policy opens {open:?}, the role has {all:?}"));
                }
            }
        }
        for (_, service) in tree.objects("Service") {
            if service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] {
                let targets = list(&service["spec"]["ports"]).iter().map(|port| text(&port["targetPort"]));
                for target in targets.filter(|target| !named.contains_key(target)) {
                    apart.push(format!("{role}: the Service leads to a port {target} that no container has"));
                }
            }
        }
        let inside = read.authorities().into_iter().filter(|(host, _)| !host.contains('.'));
        for (host, port) in inside {
            let services = tree.objects("Service");
            let found = services.iter().find(|(_, one)| one["metadata"]["name"] == host.as_str());
            let ports = found.map_or(&[][..], |(_, one)| list(&one["spec"]["ports"]));
            if !ports.iter().any(|one| number(&one["port"]) == Some(port)) {
                apart.push(format!("{config}: no Service {host} has the port {port}"));
            }
        }
    }
}

/// Images have versions, ours that of this workspace.
pub fn loose_images(tree: &Tree) -> Vec<String> {
    let services = entries(&tree.document(COMPOSE)["services"]).map(|(_, one)| &one["image"]);
    let deployments = kubernetes_roles(tree);
    let pods = deployments.iter().map(|(_, one, _)| &one["spec"]["template"]["spec"]);
    let containers = pods.flat_map(|pod| list(&pod["containers"]).iter().chain(list(&pod["initContainers"])));
    let named = services.chain(containers.map(|one| &one["image"])).map(text);
    let bases = containerfiles(tree).into_iter().flat_map(|file| {
        let text = tree.text(&file);
        text.lines()
            .filter_map(|line| line.strip_prefix("FROM ")?.split(' ').next().map(ToOwned::to_owned))
            .collect::<Vec<_>>()
    });
    let loose = |image: &String| match image.split_once(':') {
        Some((name, version)) if name.starts_with("lyceum") => version != env!("CARGO_PKG_VERSION"),
        Some((_, version)) => !version.contains(|c: char| c.is_ascii_digit()),
        None => true,
    };
    named.chain(bases).filter(loose).collect()
}
