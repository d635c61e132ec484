//! Common Media Client Data as a player sends it: version 1 in the query of requests (CTA-5004), version 2 as event
//! reports (CTA-5004-B). No I/O; keys are in alphabetical order, as both require.

use std::fmt::Write as _;
use std::time::Duration;

/// The media type of reports; one report a line.
pub const REPORT_TYPE: &str = "application/cmcd";

/// Constants of a session.
#[derive(Clone, Debug)]
pub struct Ids {
    /// A UUID.
    pub sid: String,
    /// The lesson, at most 64 characters.
    pub cid: String,
}

/// The state of the player at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Media ahead of the playhead.
    pub buffered: Duration,
    /// Bits per second.
    pub throughput: Option<f64>,
    /// Bits per second of the rendition in use, declared peak; 0: not known.
    pub bitrate: u64,
    /// The highest there is.
    pub top_bitrate: u64,
    /// All segments are there (VOD), or more will come.
    pub growing: bool,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object<'a> {
    /// A playlist.
    Manifest,
    /// An init segment.
    Init,
    /// A segment.
    Segment {
        /// Sound alone, or pictures.
        audio: bool,
        /// Its length.
        duration: Duration,
        /// The next one, relative to it.
        next: Option<&'a str>,
    },
}

fn hundreds(value: u64) -> u64 {
    value.saturating_add(50) / 100 * 100
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn kilobits(bits: f64) -> u64 {
    (bits / 1000.0).round().max(0.0) as u64
}

/// A string in quotes, with what would end it escaped.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

fn joined(mut pairs: Vec<(&str, String)>) -> String {
    pairs.sort_by_key(|(key, _)| *key);
    let mut text = String::new();
    for (key, value) in pairs {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = if value.is_empty() { write!(text, "{comma}{key}") } else { write!(text, "{comma}{key}={value}") };
    }
    text
}

/// The value of the query parameter `CMCD`, not yet percent-encoded. `urgent`: needed for start-up, a seek or after a
/// stall; `starved`: the buffer ran empty since the last request.
pub fn request(ids: &Ids, object: Object<'_>, now: &Now, urgent: bool, starved: bool) -> String {
    let stream = if now.growing { "l" } else { "v" };
    let mut pairs =
        vec![("sid", quoted(&ids.sid)), ("cid", quoted(&ids.cid)), ("sf", "h".into()), ("st", stream.into())];
    if let Some(bits) = now.throughput {
        pairs.push(("mtp", hundreds(kilobits(bits)).max(100).to_string()));
    }
    if urgent {
        pairs.push(("su", String::new()));
    }
    if starved {
        pairs.push(("bs", String::new()));
    }
    let kind = match object {
        Object::Manifest => "m",
        Object::Init => "i",
        Object::Segment { audio, duration, next } => {
            pairs.push(("bl", hundreds(millis(now.buffered)).to_string()));
            pairs.push(("dl", hundreds(millis(now.buffered)).to_string()));
            pairs.push(("d", millis(duration).to_string()));
            if !audio && now.bitrate > 0 {
                pairs.push(("br", kilobits(now.bitrate as f64).to_string()));
                pairs.push(("tb", kilobits(now.top_bitrate as f64).to_string()));
            }
            if let Some(next) = next {
                pairs.push(("nor", quoted(next)));
            }
            if audio { "a" } else { "v" }
        }
    };
    pairs.push(("ot", kind.into()));
    joined(pairs)
}

/// What a report is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A state was entered. `stalled`: how long the rebuffering was that it ends. `delay`: the start-up that it ends.
    State {
        /// `s` starting, `p` playing, `k` seeking, `r` rebuffering, `e` ended, `f` fatal error, `q` quit.
        stalled: Option<Duration>,
        /// Media start delay.
        delay: Option<Duration>,
    },
    /// Another rendition.
    Bitrate,
    /// Time passed.
    Interval,
    /// An error.
    Error(String),
}

/// One line of a report. `state` as in [`Event::State`]; `unix_millis` is when it happened, `position` the playhead.
pub fn report(
    ids: &Ids,
    event: &Event,
    state: char,
    now: &Now,
    number: u64,
    unix_millis: i64,
    position: Duration,
) -> String {
    let stream = if now.growing { "l" } else { "v" };
    let mut pairs = vec![
        ("v", "2".into()),
        ("sid", quoted(&ids.sid)),
        ("cid", quoted(&ids.cid)),
        ("sf", "h".into()),
        ("st", stream.into()),
        ("sta", state.to_string()),
        ("sn", number.to_string()),
        ("ts", unix_millis.to_string()),
        ("pt", millis(position).to_string()),
        ("bl", format!("({})", hundreds(millis(now.buffered)))),
    ];
    if now.bitrate > 0 {
        pairs.push(("br", format!("({})", kilobits(now.bitrate as f64))));
        pairs.push(("tb", format!("({})", kilobits(now.top_bitrate as f64))));
    }
    if let Some(bits) = now.throughput {
        pairs.push(("mtp", format!("({})", hundreds(kilobits(bits)).max(100))));
    }
    let name = match event {
        Event::State { stalled, delay } => {
            if let Some(stalled) = stalled {
                pairs.push(("bsd", format!("({})", millis(*stalled))));
            }
            if let Some(delay) = delay {
                pairs.push(("msd", millis(*delay).to_string()));
            }
            "ps"
        }
        Event::Bitrate => "bc",
        Event::Interval => "t",
        Event::Error(code) => {
            pairs.push(("ec", format!("({})", quoted(code))));
            "e"
        }
    };
    pairs.push(("e", name.into()));
    joined(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> Ids {
        Ids { sid: "6e2fb550-c457-11e9-bb97-0800200c9a66".into(), cid: "lesson1".into() }
    }

    const NOW: Now = Now {
        buffered: Duration::from_millis(12_345),
        throughput: Some(25_432_100.0),
        bitrate: 2_000_000,
        top_bitrate: 6_000_000,
        growing: false,
    };

    #[test]
    fn a_segment_request_says_what_the_standard_asks_for() {
        let object =
            Object::Segment { audio: false, duration: Duration::from_millis(4004), next: Some("00003-12012.m4s") };
        assert_eq!(
            request(&ids(), object, &NOW, false, true),
            "bl=12300,br=2000,bs,cid=\"lesson1\",d=4004,dl=12300,mtp=25400,nor=\"00003-12012.m4s\",ot=v,sf=h,\
             sid=\"6e2fb550-c457-11e9-bb97-0800200c9a66\",st=v,tb=6000"
        );
    }

    #[test]
    fn a_playlist_request_has_no_bitrate_and_no_duration() {
        let now = Now { throughput: None, growing: true, ..NOW };
        assert_eq!(
            request(&ids(), Object::Manifest, &now, true, false),
            "cid=\"lesson1\",ot=m,sf=h,sid=\"6e2fb550-c457-11e9-bb97-0800200c9a66\",st=l,su"
        );
    }

    #[test]
    fn a_report_has_lists_where_version_2_wants_them() {
        let event = Event::State { stalled: Some(Duration::from_millis(712)), delay: None };
        assert_eq!(
            report(&ids(), &event, 'p', &NOW, 4, 1_700_000_000_123, Duration::from_millis(61_007)),
            "bl=(12300),br=(2000),bsd=(712),cid=\"lesson1\",e=ps,mtp=(25400),pt=61007,sf=h,\
             sid=\"6e2fb550-c457-11e9-bb97-0800200c9a66\",sn=4,st=v,sta=p,tb=(6000),ts=1700000000123,v=2"
        );
        let line = report(&ids(), &Event::Error("token_revoked".into()), 'f', &Now::default(), 5, 1, Duration::ZERO);
        assert!(line.contains("e=e,ec=(\"token_revoked\")"), "{line}");
    }

    #[test]
    fn a_string_can_not_end_early() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\"");
    }
}
