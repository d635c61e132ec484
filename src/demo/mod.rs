//! `lyceum demo`: the supervisor of a whole system on one machine.
//!
//! Each part is a process of its own: two origins over one store and one catalogue, two edges, a worker. A part
//! that dies is started again at the same address; all end when the supervisor does, however that ends, since
//! each watches the pipe that is its standard input. The supervisor speaks to the parts over HTTP alone.

mod child;
mod course;
mod error;
mod layout;
mod report;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use child::{Family, Part};
use course::Course;
use error::step;
use layout::Layout;
use report::Report;

pub use error::Error;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept.
    pub data: PathBuf,
    /// The first origin.
    pub listen: SocketAddr,
    /// Recordings of the user's own.
    pub media: Vec<PathBuf>,
    /// End when standard input does.
    pub exit_with_stdin: bool,
}

/// How long the parts may take to end when asked.
const END: Duration = Duration::from_secs(10);

/// The executable `name` beside this one.
pub fn sibling(name: &str) -> Result<PathBuf, Error> {
    let own = std::env::current_exe().unwrap_or_default();
    let path = own.with_file_name(name);
    if path.is_file() { Ok(path) } else { Err(Error::Missing(path)) }
}

/// Runs until a signal ends it, or until what it was asked for can't be done.
pub async fn run(options: Options) -> Result<(), Error> {
    let ended = Ended::listen(options.exit_with_stdin);
    let layout = Layout::open(&options.data, options.listen).await?;
    let family = Family::default();
    let outcome = tokio::select! {
        outcome = bring_up_and_watch(&options, &layout, &family) => outcome,
        () = ended.wait() => {
            println!("\nending …");
            Ok(())
        }
    };
    Report::remove(&layout);
    tokio::select! {
        () = family.end(END) => {}
        () = Ended::listen(false).wait() => {}
    }
    outcome
}

async fn bring_up_and_watch(options: &Options, layout: &Layout, family: &Family) -> Result<(), Error> {
    println!("lyceum demo in {}", layout.directory().display());
    let lyceum = sibling("lyceum")?;
    let transcoder = sibling("lyceum-transcoder")?;
    let report = Arc::new(Report::new(layout, family.changed()));

    step("starting two origins over one store and one catalogue");
    for (index, name) in ["origin-1", "origin-2"].into_iter().enumerate() {
        let config = layout.write_origin(index)?;
        family.start(Part::role(name, &lyceum, "origin", &config, layout)).await?;
    }
    step("starting a worker and two edges");
    let course = Course::open(layout).await?;
    let config = layout.write_worker(&course.worker_key)?;
    family.start(Part::worker("worker-1", &transcoder, &config, layout)).await?;
    for (index, name) in ["edge-1", "edge-2"].into_iter().enumerate() {
        let config = layout.write_edge(index)?;
        family.start(Part::role(name, &lyceum, "edge", &config, layout)).await?;
    }
    layout.write_prometheus()?;

    let lesson = course.sample(layout, &transcoder).await?;
    let mut own = Vec::new();
    for file in &options.media {
        own.push(course.media(layout, file).await?);
    }
    let playback = course.playback(&lesson).await?;
    report.ready(&course, &lesson, &playback);
    report.print(&course, &own).await?;
    report.follow(family).await;
    Ok(())
}

/// SIGINT, SIGTERM, or the end of standard input.
struct Ended(tokio::sync::oneshot::Receiver<()>);

impl Ended {
    fn listen(with_stdin: bool) -> Self {
        let (told, ended) = tokio::sync::oneshot::channel();
        let (closed, mut input) = tokio::sync::mpsc::channel::<()>(1);
        if with_stdin {
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
                let _ = closed.blocking_send(());
            });
        }
        let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
        tokio::spawn(async move {
            if let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    Some(()) = input.recv() => {}
                }
                let _ = told.send(());
            }
        });
        Self(ended)
    }

    async fn wait(self) {
        if self.0.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
