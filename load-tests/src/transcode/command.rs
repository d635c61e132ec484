//! The `transcode` command: its parts, each against a bound.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::command_line::{program, text};
use super::cost::{Cost, measured};
use super::error::{Result, TranscodeError, failed};
use super::fleet;
use super::report::Report;
use super::rival::{self, Rival};
use crate::report::median;

/// Compare the transcoder with Debian's ffmpeg
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A recording of at least 720p with motion; it is repeated to the length that is wanted
    #[arg(long, default_value = ".cache/recordings/bigbuckbunny.mp4")]
    media: PathBuf,
    /// Rounds, in each of which both run; medians are taken over them
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// Seconds of picture for a round
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(10..=3600))]
    seconds: u16,
    /// One round of half the length, and the hour's recording judged by its first segment alone
    #[arg(long)]
    quick: bool,
    /// What to measure: rival, first, slides, workers, kill
    #[arg(long, value_delimiter = ',', default_values_t = ["rival", "first", "slides", "workers", "kill"].map(str::to_owned))]
    parts: Vec<String>,
    /// Write the figures as JSON here
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the table as Markdown here
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// Runs the benchmark; 1 when a bound is missed.
pub fn run(args: &Args) -> ExitCode {
    let report = match measure(args) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("lyceum-load transcode: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", report.markdown());
    let texts = [(&args.json, report.json()), (&args.markdown, report.markdown())];
    for (path, text) in texts.into_iter().filter_map(|(path, text)| Some((path.as_ref()?, text))) {
        if let Err(error) = std::fs::write(path, text) {
            eprintln!("lyceum-load transcode: {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    if report.all_held() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(args: &Args) -> Result<Report> {
    if !args.media.is_file() {
        let path = args.media.display();
        return Err(TranscodeError(format!("{path} is not there: run scripts/recordings, or name a --media")));
    }
    let folder = tempfile::tempdir().map_err(failed("a temporary directory"))?;
    let bench = Bench { folder: folder.path(), args };
    let mut report = Report::default();
    for part in &args.parts {
        eprintln!("measuring: {part}");
        match part.as_str() {
            "rival" => bench.rival(&mut report)?,
            "first" => bench.first(&mut report)?,
            "slides" => bench.slides(&mut report)?,
            "workers" => bench.workers(&mut report)?,
            "kill" => bench.kill(&mut report)?,
            other => return Err(TranscodeError(format!("--parts {other}: rival, first, slides, workers or kill"))),
        }
    }
    Ok(report)
}

struct Bench<'a> {
    folder: &'a Path,
    args: &'a Args,
}

impl Bench<'_> {
    fn seconds(&self) -> u64 {
        if self.args.quick { u64::from(self.args.seconds) / 2 } else { u64::from(self.args.seconds) }
    }

    fn rounds(&self) -> usize {
        if self.args.quick { 1 } else { usize::from(self.args.rounds) }
    }

    /// The recording, repeated to `seconds`.
    fn source(&self, seconds: u64) -> Result<PathBuf> {
        let path = self.folder.join(format!("source-{seconds}.mp4"));
        if !path.is_file() {
            let (media, to, length) = (text(&self.args.media)?, text(&path)?, seconds.to_string());
            let repeat = ["-stream_loop", "-1", "-i", media, "-t", &length];
            rival::ffmpeg(&[&repeat[..], &["-map", "0:v:0", "-map", "0:a:0?", "-c", "copy", to]].concat())?;
        }
        Ok(path)
    }

    fn ours(&self, source: &Path) -> Result<(Cost, PathBuf)> {
        let out = self.folder.join("ours");
        let _ = std::fs::remove_dir_all(&out);
        let (transcoder, ladder) = (program("lyceum-transcoder"), self.folder.join("ladder.toml"));
        std::fs::write(&ladder, "measure_quality = false\n").map_err(failed(ladder.display()))?;
        let run = [text(&transcoder)?, "run", "--progress", "json", "--ladder", text(&ladder)?];
        let cost = measured(&[&run[..], &[text(source)?, text(&out)?]].concat())?;
        Ok((cost, out))
    }

    /// Both in turn over one source; medians of processor time, wall time and memory.
    fn beside(&self, source: &Path) -> Result<(Cost, Cost, PathBuf, PathBuf)> {
        let rival = Rival::new(source)?;
        let theirs_out = self.folder.join("theirs");
        let (mut ours, mut theirs, mut out) = (Vec::new(), Vec::new(), PathBuf::new());
        for round in 0..self.rounds() {
            let (cost, place) = self.ours(source)?;
            (out, _) = (place, ours.push(cost));
            theirs.push(rival.run(source, &theirs_out)?);
            eprintln!("round {}: ours {:?}, ffmpeg {:?}", round + 1, ours.last(), theirs.last());
        }
        Ok((Cost::median(&ours), Cost::median(&theirs), out, theirs_out))
    }

    fn rival(&self, report: &mut Report) -> Result<()> {
        let (ours, theirs, ..) = self.beside(&self.source(self.seconds())?)?;
        report.ratio("processor time", ours.cpu / theirs.cpu, 1.05, format!("{:.1} s / {:.1} s", ours.cpu, theirs.cpu));
        report.ratio("wall time", ours.wall / theirs.wall, 1.0, format!("{:.1} s / {:.1} s", ours.wall, theirs.wall));
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let memory = format!("{:.0} MiB / {:.0} MiB", mib(ours.memory), mib(theirs.memory));
        report.ratio("peak memory of the process tree", ours.memory / theirs.memory, 1.7, memory);
        Ok(())
    }

    /// From the start of a run over an hour to the first segment of every track, against the whole run, which is
    /// judged by a minute's.
    fn first(&self, report: &mut Report) -> Result<()> {
        let (minute, _) = self.ours(&self.source(60)?)?;
        let hour = self.source(3600)?;
        let mut firsts = Vec::new();
        for _ in 0..self.rounds() {
            firsts.push(rival::first_segments(&hour, self.folder)?);
        }
        let first = median(&mut firsts);
        let whole = minute.wall * 60.0;
        report.ratio("first playable segment of an hour, seconds", first, 8.0, format!("{first:.2} s"));
        report.ratio(
            "the same, of the whole run",
            first / whole,
            0.02,
            format!("{first:.2} s / {whole:.0} s (60 × a minute's)"),
        );
        Ok(())
    }

    /// A new picture each eight seconds, as slides are.
    fn slides(&self, report: &mut Report) -> Result<()> {
        let source = self.folder.join("slides.mp4");
        let (length, to) = (self.seconds(), text(&source)?);
        let picture = format!(
            "mandelbrot=s=1280x720:r=25:maxiter=300,trim=duration={length},select='not(mod(n,200))',fps=25,format=yuv420p"
        );
        let sound = format!("sine=f=300:d={length}");
        let inputs = ["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &sound];
        let codecs =
            ["-t", &length.to_string(), "-c:v", "libx264", "-preset", "medium", "-crf", "16", "-c:a", "aac", to];
        rival::ffmpeg(&[&inputs[..], &codecs].concat())?;
        let (ours, theirs, our_out, their_out) = self.beside(&source)?;
        report.ratio(
            "slides: processor time",
            ours.cpu / theirs.cpu,
            0.5,
            format!("{:.1} s / {:.1} s", ours.cpu, theirs.cpu),
        );
        let (our_bytes, their_bytes) = (rival::bytes(&our_out.join("1/v720")), rival::bytes(&their_out.join("v720")));
        let note = format!("{our_bytes} / {their_bytes} bytes in 720p");
        report.ratio("slides: bytes", our_bytes as f64 / their_bytes.max(1) as f64, 1.0, note);
        let our_ssim = rival::ssim(&our_out.join("1/v720/index.m3u8"), &source)?;
        let their_ssim = rival::ssim(&their_out.join("v720/index.m3u8"), &source)?;
        let lost = (1.0 - our_ssim) / (1.0 - their_ssim).max(1e-6);
        report.ratio("slides: what SSIM lacks to 1", lost, 1.0, format!("SSIM {our_ssim:.4} / {their_ssim:.4}"));
        Ok(())
    }

    /// One worker on one core, then two on a core each.
    fn workers(&self, report: &mut Report) -> Result<()> {
        let source = self.source(self.seconds() * 2)?;
        let (mut one, mut two) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds() {
            one.push(fleet::lesson(self.folder, &source, &["0"], None)?.seconds);
            two.push(fleet::lesson(self.folder, &source, &["0", "1"], None)?.seconds);
        }
        let (one, two) = (median(&mut one), median(&mut two));
        report.ratio("two workers, a core each, against one", two / one, 0.55, format!("{two:.1} s / {one:.1} s"));
        Ok(())
    }

    /// A worker killed in the middle of its work: what is done twice, and whether the lesson is the same.
    fn kill(&self, report: &mut Report) -> Result<()> {
        let source = self.source(self.seconds())?;
        let whole = fleet::lesson(self.folder, &source, &["0", "1"], None)?;
        let broken = fleet::lesson(self.folder, &source, &["0", "1"], Some(whole.seconds * 0.4))?;
        let again = broken.leases.saturating_sub(whole.leases);
        report.ratio("tasks done again after kill -9 of a worker", again as f64, 1.0, format!("{again}"));
        let same = whole.objects == broken.objects;
        let note = format!("{} objects, {}", broken.objects.len(), if same { "the same bytes" } else { "other bytes" });
        report.ratio("objects that differ from an undisturbed run", f64::from(u8::from(!same)), 0.0, note);
        Ok(())
    }
}
