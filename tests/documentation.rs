//! What the README and the documents say is what the code has.

use std::collections::BTreeSet;

use crate::support::repository;

/// Names in `text` that begin with `lyceum_` and stand between `quote`s.
fn metrics(text: &str, quote: char) -> BTreeSet<String> {
    let is_name = |name: &&str| {
        let rest = name.strip_prefix("lyceum_").unwrap_or_default();
        ["edge", "front", "log", "origin", "playback", "upstream", "worker"]
            .iter()
            .any(|part| rest.starts_with(&format!("{part}_")))
            && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            // A prefix that metrics are looked for by is no metric.
            && !name.ends_with('_')
    };
    text.split(quote).filter(is_name).map(str::to_owned).collect()
}

fn source(folder: &str, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(repository(folder)).expect("a folder of sources") {
        let path = entry.expect("a folder can be listed").path();
        if path.is_dir() {
            source(&path.display().to_string(), found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file is text");
            found.extend(metrics(text.split("#[cfg(test)]").next().unwrap_or_default(), '"'));
        }
    }
}

#[test]
fn every_metric_is_in_the_list_and_the_list_holds_no_other() {
    let mut made = BTreeSet::new();
    source("src", &mut made);
    source("transcoder/src", &mut made);
    let listed = metrics(&std::fs::read_to_string(repository("docs/metrics.md")).expect("the list"), '`');
    assert!(made.len() > 30, "only {made:?}");
    assert_eq!(made, listed);
}

#[test]
fn every_file_that_the_readme_links_is_there() {
    let text = std::fs::read_to_string(repository("README.md")).expect("the README");
    let links: Vec<&str> = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    let missing: Vec<_> = links.iter().filter(|link| !link.contains("://") && !repository(link).exists()).collect();
    assert!(links.len() > 5 && missing.is_empty(), "{missing:?} of {links:?}");
}

/// Links of the pages below the top level go from their own folder.
#[test]
fn every_file_that_a_page_of_deploy_links_is_there() {
    for page in ["deploy/README.md", "deploy/systemd/README.md", "deploy/kubernetes/README.md"] {
        let text = std::fs::read_to_string(repository(page)).expect("the page");
        let folder = repository(page).with_file_name("");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let missing: Vec<_> = links.filter(|link| !link.contains("://") && !folder.join(link).exists()).collect();
        assert!(missing.is_empty(), "{page}: {missing:?}");
    }
}

#[test]
fn every_path_that_the_documents_name_is_there() {
    for page in ["CONTRIBUTING.md", "ARCHITECTURE.md"] {
        let text = std::fs::read_to_string(repository(page)).expect("the page");
        let quoted = text.split('`').skip(1).step_by(2);
        let is_path = |name: &&str| name.contains('/') && !name.contains([' ', '<', '\n']) && !name.starts_with('/');
        let paths: Vec<&str> = quoted.filter(is_path).collect();
        let missing: Vec<_> = paths.iter().filter(|path| !repository(path).exists()).collect();
        assert!(paths.len() > 20 && missing.is_empty(), "{page}: {missing:?} of {paths:?}");
    }
}

#[test]
fn the_architecture_has_a_row_for_each_crate() {
    let text = std::fs::read_to_string(repository("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut crates = 0;
    for entry in std::fs::read_dir(repository("src")).expect("src can be listed") {
        let path = entry.expect("src can be listed").path();
        if path.join("Cargo.toml").is_file() {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            assert!(text.contains(&format!("| `src/{name}` |")), "src/{name} has no row in ARCHITECTURE.md");
            crates += 1;
        }
    }
    assert!(crates > 10);
}
