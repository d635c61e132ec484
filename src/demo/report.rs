//! What the demo tells: `demo.json` for programs, a few lines for people.

use std::sync::Mutex;

use serde::Serialize;
use tokio::sync::watch;

use super::child::Family;
use super::course::{Course, Lesson, Playback};
use super::error::Error;
use super::layout::{Layout, State};

const FILE: &str = "demo.json";

#[derive(Clone, Debug, Default, Serialize)]
struct Document {
    origins: Vec<String>,
    origin_admins: Vec<String>,
    edges: Vec<String>,
    edge_admins: Vec<String>,
    worker_admins: Vec<String>,
    studio: String,
    player: String,
    api_key: String,
    course: String,
    lesson: String,
    playback: Link,
    pids: Pids,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Link {
    url: String,
    token: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Pids {
    origins: Vec<u32>,
    edges: Vec<u32>,
    workers: Vec<u32>,
}

pub(super) struct Report<'a> {
    layout: &'a Layout,
    changed: watch::Receiver<u64>,
    document: Mutex<Document>,
}

impl<'a> Report<'a> {
    pub(super) fn new(layout: &'a Layout, changed: watch::Receiver<u64>) -> Self {
        Self { layout, changed, document: Mutex::default() }
    }

    /// Takes down what can be played.
    pub(super) fn ready(&self, course: &Course, lesson: &Lesson, playback: &Playback) {
        let State { origins, origin_admins, edges, edge_admins, worker_admin, .. } = self.layout.state();
        let url = |address: std::net::SocketAddr| format!("http://{address}");
        let first_edge = url(edges[0]);
        // The session's edges are spread by its id; the report's link is the first edge's.
        let link = playback.urls.iter().find(|link| link.starts_with(&first_edge)).unwrap_or(&playback.url);
        let studio = format!("{}/studio", url(origins[0]));
        let player = format!("{}/watch/#{link}", url(origins[0]));
        let document = Document {
            origins: origins.map(url).to_vec(),
            origin_admins: origin_admins.map(url).to_vec(),
            edges: edges.map(url).to_vec(),
            edge_admins: edge_admins.map(url).to_vec(),
            worker_admins: vec![url(worker_admin)],
            studio,
            player,
            api_key: course.key().to_owned(),
            course: course.id.clone(),
            lesson: lesson.id.clone(),
            playback: Link { url: link.clone(), token: playback.token.clone() },
            pids: Pids::default(),
        };
        *self.document.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = document;
    }

    fn document(&self) -> Document {
        self.document.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The lines for people.
    pub(super) async fn print(&self, course: &Course, own: &[Lesson]) -> Result<(), Error> {
        let document = self.document();
        let origin = document.origins.first().cloned().unwrap_or_default();
        println!("\nReady. Ctrl-C ends it; the same command goes on from here.\n");
        println!("  watch    {}", document.player);
        for lesson in own {
            println!("           {origin}/watch/#{}   ({})", course.playback(lesson).await?.url, lesson.title);
        }
        println!("  studio   {}#key={}", document.studio, document.api_key);
        println!("  stream   {}   (mpv, VLC, ffplay)", document.playback.url);
        println!("  details  {}\n", self.layout.directory().join(FILE).display());
        Ok(())
    }

    /// Keeps the file true while the parts live, die and are started again.
    pub(super) async fn follow(&self, family: &Family) {
        let mut changed = self.changed.clone();
        loop {
            let mut document = self.document();
            document.pids =
                Pids { origins: family.pids("origin-"), edges: family.pids("edge-"), workers: family.pids("worker-") };
            let text = serde_json::to_vec_pretty(&document).unwrap_or_default();
            if let Err(error) = self.layout.write(FILE, &text) {
                tracing::error!(%error, "demo.json could not be written");
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    pub(super) fn remove(layout: &Layout) {
        let _ = std::fs::remove_file(layout.directory().join(FILE));
    }
}
