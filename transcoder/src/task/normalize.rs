//! Normalization of decoded frames, once for all renditions: deinterlacing, mirroring, rotation, and conversion of high dynamic
//! range and wide gamut to BT.709.

use std::collections::VecDeque;
use std::sync::Arc;

use ffmpeg_next as ff;
use lyceum_packaging::framing::Framing;
use lyceum_packaging::info::ColorInfo;

use super::error::TaskError;
use super::timestamp::timestamp;

/// A normalized frame.
pub(super) enum NormalizedFrame {
    /// With a timestamp in a time base.
    Timed(i64, ff::Rational, ff::frame::Video),
    /// With its index on the frame grid.
    OnGrid(i64, Arc<ff::frame::Video>),
}

/// Transfer characteristics of ISO/IEC 23091-2: SMPTE ST 2084 and ARIB STD-B67.
const PQ: u16 = 16;
const HLG: u16 = 18;
/// Primaries and matrices of BT.2020.
const BT2020: u16 = 9;
const BT2020_CONSTANT: u16 = 10;

/// Luminance of diffuse white and of the brightest highlights in HDR, in cd/m² (ITU-R BT.2408). Levels up to white are
/// kept; highlights above it are compressed.
const HDR_WHITE: f64 = 203.0;
const HDR_PEAK: f64 = 1000.0;

/// The colour description of frames after [`Normalizer`].
pub(super) fn normalized_color(source: &ColorInfo) -> ColorInfo {
    match to_bt709(source) {
        Some(_) => ColorInfo { primaries: 1, transfer: 1, matrix: 1, full_range: false },
        None => *source,
    }
}

/// The filters that convert `color` to BT.709; `None` for SDR sources with another gamut than BT.2020. Missing tags are
/// completed by what the transfer function is commonly used with. Tone mapping works on linear light in floating point.
fn to_bt709(color: &ColorInfo) -> Option<String> {
    let transfer = match color.transfer {
        PQ => "smpte2084",
        HLG => "arib-std-b67",
        _ if color.primaries == BT2020 || color.matrix == BT2020 => "709",
        _ => return None,
    };
    let primaries = if color.primaries == 1 { "709" } else { "2020" };
    let matrix = match color.matrix {
        0 => "gbr",
        1 => "709",
        BT2020_CONSTANT => "2020_cl",
        _ => "2020_ncl",
    };
    let range = if color.full_range { "full" } else { "limited" };
    let from = format!("pin={primaries}:tin={transfer}:min={matrix}:rin={range}");
    Some(if transfer == "709" {
        format!("zscale={from}:p=709:t=709:m=709:r=limited,format=yuv420p")
    } else {
        format!(
            "zscale={from}:p=709:t=linear:m=gbr:npl={HDR_WHITE},format=gbrpf32le,tonemap=tonemap=mobius:desat=0:peak={},\
             zscale=pin=709:tin=linear:min=gbr:p=709:t=709:m=709:r=limited,format=yuv420p",
            HDR_PEAK / HDR_WHITE
        )
    })
}

/// The filter graph, built for the first frame and rebuilt when size or pixel format change.
pub(super) struct Normalizer {
    chain: String,
    all_fields: bool,
    /// Whether a frame of two fields came: the filter looks at its neighbours too, and stays.
    deinterlaces: bool,
    base: ff::Rational,
    graph: Option<Graph>,
    last_pts: Option<i64>,
}

struct Graph {
    graph: ff::filter::Graph,
    shape: Shape,
}

type Shape = (u32, u32, ff::format::Pixel);

impl Normalizer {
    /// Filters for a stream of `color` with time base `base`. `rotation` is in clockwise degrees.
    pub(super) fn new(framing: &Framing, rotation: u32, color: &ColorInfo, base: ff::Rational) -> Self {
        let mut filters = Vec::new();
        if framing.mirrored {
            filters.push("hflip");
        }
        match rotation {
            90 => filters.push("transpose=clock"),
            180 => filters.push("hflip,vflip"),
            270 => filters.push("transpose=cclock"),
            _ => {}
        }
        let color = to_bt709(color);
        filters.extend(color.as_deref());
        let (all_fields, chain) = (framing.all_fields, filters.join(","));
        Self { chain, all_fields, deinterlaces: all_fields, base, graph: None, last_pts: None }
    }

    /// Filters a decoded frame; finished frames are appended to `out`.
    pub(super) fn push(
        &mut self,
        frame: ff::frame::Video,
        out: &mut VecDeque<NormalizedFrame>,
    ) -> Result<(), TaskError> {
        // A frame without a timestamp follows the previous one by a tick.
        let pts = timestamp(&frame).or_else(|| self.last_pts.map(|last| last + 1)).unwrap_or(0);
        self.last_pts = Some(pts);
        let marked = frame.is_interlaced() && !self.deinterlaces;
        if marked {
            self.finish(out)?;
            self.deinterlaces = true;
        }
        if self.chain.is_empty() && !self.deinterlaces {
            out.push_back(NormalizedFrame::Timed(pts, self.base, frame));
            return Ok(());
        }
        let shape = (frame.width(), frame.height(), frame.format());
        if self.graph.as_ref().is_some_and(|g| g.shape != shape) {
            self.finish(out)?;
        }
        if self.graph.is_none() {
            self.graph = Some(self.build(shape)?);
        }
        let mut frame = frame;
        frame.set_pts(Some(pts));
        if let Some(graph) = &mut self.graph {
            if let Some(mut source) = graph.graph.get("in") {
                source.source().add(&frame).map_err(TaskError::ffmpeg("filtering"))?;
            }
            graph.drain(out);
        }
        Ok(())
    }

    /// Flushes the filters: no more frames of this size and format follow.
    pub(super) fn finish(&mut self, out: &mut VecDeque<NormalizedFrame>) -> Result<(), TaskError> {
        if let Some(mut graph) = self.graph.take() {
            if let Some(mut source) = graph.graph.get("in") {
                source.source().flush().map_err(TaskError::ffmpeg("filtering"))?;
            }
            graph.drain(out);
        }
        Ok(())
    }

    /// The filters in the order in which they apply.
    fn filters(&self) -> String {
        let fields = match (self.deinterlaces, self.all_fields) {
            (false, _) => return self.chain.clone(),
            (true, true) => "bwdif=mode=send_frame:parity=auto:deint=all",
            (true, false) => "bwdif=mode=send_frame:parity=auto:deint=interlaced",
        };
        if self.chain.is_empty() { fields.to_owned() } else { format!("{fields},{}", self.chain) }
    }

    fn build(&self, shape: Shape) -> Result<Graph, TaskError> {
        let failed = TaskError::ffmpeg("setting filters up");
        let missing = || TaskError::Machinery("FFmpeg lacks a filter".to_owned());
        let (width, height, format) = shape;
        let format_name = format.descriptor().map(|d| d.name()).ok_or_else(missing)?;
        let (num, den) = (self.base.numerator(), self.base.denominator());
        let args = format!("video_size={width}x{height}:pix_fmt={format_name}:time_base={num}/{den}:pixel_aspect=1/1");
        let mut graph = ff::filter::Graph::new();
        graph.add(&ff::filter::find("buffer").ok_or_else(missing)?, "in", &args).map_err(&failed)?;
        graph.add(&ff::filter::find("buffersink").ok_or_else(missing)?, "out", "").map_err(&failed)?;
        graph
            .output("in", 0)
            .and_then(|p| p.input("out", 0))
            .and_then(|p| p.parse(&self.filters()))
            .map_err(&failed)?;
        graph.validate().map_err(&failed)?;
        Ok(Graph { graph, shape })
    }
}

impl Graph {
    fn drain(&mut self, out: &mut VecDeque<NormalizedFrame>) {
        let Some(mut sink) = self.graph.get("out") else { return };
        let base = sink.sink().time_base();
        loop {
            let mut frame = ff::frame::Video::empty();
            if sink.sink().frame(&mut frame).is_err() {
                return;
            }
            let pts = frame.pts().unwrap_or(0);
            out.push_back(NormalizedFrame::Timed(pts, base, frame));
        }
    }
}
