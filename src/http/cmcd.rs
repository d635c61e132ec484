//! Common Media Client Data (CTA-5004): what players report of their playback, version 1 in the query or in headers
//! of segment requests, version 2 (CTA-5004-B) also as event reports in bodies of `application/cmcd`.
//!
//! Only the keys that are measured are kept. Players are not trusted: lengths, counts and numbers are bounded, and
//! a malformed key is ignored by itself.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::HeaderName;

/// The query parameter of version 1.
pub const QUERY_PARAMETER: &str = "CMCD";

/// The media type of event reports.
pub const MEDIA_TYPE: &str = "application/cmcd";

/// The headers of header mode; browsers send them after a CORS preflight.
pub static HEADERS: [HeaderName; 4] = [
    HeaderName::from_static("cmcd-request"),
    HeaderName::from_static("cmcd-object"),
    HeaderName::from_static("cmcd-status"),
    HeaderName::from_static("cmcd-session"),
];

/// The longest report, in bytes.
const MAX_REPORT_BYTES: usize = 4096;
/// The most keys of one report.
const MAX_KEYS: usize = 64;
/// The most reports of one body.
pub const MAX_EVENTS: usize = 128;
/// The longest session id, in characters (CTA-5004 says 64).
const MAX_SESSION_CHARS: usize = 64;

/// A query without the report that players put into it; none where nothing else is there.
pub fn query_without_report(query: &str) -> Option<Cow<'_, str>> {
    let is_other = |pair: &&str| pair.split('=').next() != Some(QUERY_PARAMETER);
    if query.split('&').all(|pair| is_other(&pair)) {
        return Some(Cow::Borrowed(query));
    }
    let mut left = String::with_capacity(query.len());
    for pair in query.split('&').filter(is_other) {
        if !left.is_empty() {
            left.push('&');
        }
        left.push_str(pair);
    }
    (!left.is_empty()).then_some(Cow::Owned(left))
}

/// What a player does (version 2, key `sta`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlayerState {
    /// `s`
    Starting,
    /// `p`
    Playing,
    /// `k`
    Seeking,
    /// `r`
    Rebuffering,
    /// `a`
    Paused,
    /// `w`
    Waiting,
    /// `e`
    Ended,
    /// `f`
    FatalError,
    /// `q`
    Quit,
    /// `d`
    Preloading,
}

impl PlayerState {
    fn of(token: &str) -> Option<Self> {
        Some(match token {
            "s" => Self::Starting,
            "p" => Self::Playing,
            "k" => Self::Seeking,
            "r" => Self::Rebuffering,
            "a" => Self::Paused,
            "w" => Self::Waiting,
            "e" => Self::Ended,
            "f" => Self::FatalError,
            "q" => Self::Quit,
            "d" => Self::Preloading,
            _ => return None,
        })
    }
}

/// What an event report is about (version 2, key `e`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// `ps`: the state changed.
    PlayState,
    /// `e`: an error.
    Error,
    /// `t`: a regular interval.
    TimeInterval,
    /// `bc`: another bitrate.
    BitrateChange,
    /// Any other.
    Other,
}

/// What is fetched (key `ot`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectType {
    /// `v`, or `av`: video, or both in one.
    Video,
    /// `a`
    Audio,
    /// Anything else.
    Other,
}

/// One report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// `sid`: the playback session.
    pub session: Option<String>,
    /// `e`
    pub event: Option<Event>,
    /// `sta`
    pub state: Option<PlayerState>,
    /// `ts`: when, in milliseconds since the epoch, by the player's clock.
    pub at_ms: Option<i64>,
    /// `br`: the encoded bitrate of what is fetched, in kbit/s.
    pub bitrate_kbps: Option<u32>,
    /// `bl`: the length of the buffer, in milliseconds.
    pub buffer_ms: Option<u32>,
    /// `mtp`: the throughput that was measured, in kbit/s.
    pub throughput_kbps: Option<u32>,
    /// `ot`
    pub kind: Option<ObjectType>,
    /// `bs`: the buffer ran dry since the last request.
    pub starved: bool,
    /// `su`: at a start or after a seek or a stall.
    pub startup: bool,
}

impl Report {
    /// The report of a request, from its query or its headers; none where the player sends none.
    #[inline]
    pub fn of_request(query: Option<&str>, headers: &HeaderMap) -> Option<Self> {
        if let Some(value) = query.and_then(parameter) {
            return Self::parse(&value);
        }
        if !headers.keys().any(|name| name.as_str().starts_with("cmcd-") && HEADERS.contains(name)) {
            return None;
        }
        let mut report = Self::default();
        let values = HEADERS.iter().filter_map(|name| headers.get(name)?.to_str().ok());
        values.filter(|value| value.len() <= MAX_REPORT_BYTES).for_each(|value| report.add_all(value));
        Some(report)
    }

    /// The reports of a body, one a line; those beyond [`MAX_EVENTS`] are left out.
    pub fn events(body: &str) -> impl Iterator<Item = Self> {
        body.lines().take(MAX_EVENTS).filter_map(Self::parse)
    }

    /// One report of the form `key=value,key,…`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_REPORT_BYTES {
            return None;
        }
        let mut report = Self::default();
        report.add_all(text);
        Some(report)
    }

    fn add_all(&mut self, text: &str) {
        for member in crate::fields::list(text).take(MAX_KEYS) {
            let (key, value) = member.split_once('=').unwrap_or((member, "?1"));
            self.add(key.trim(), value.trim());
        }
    }

    fn add(&mut self, key: &str, value: &str) {
        match key {
            "sid" => {
                let id = crate::fields::unquote(value);
                let plain = id.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
                if !id.is_empty() && id.len() <= MAX_SESSION_CHARS && plain {
                    self.session = Some(id.to_owned());
                }
            }
            "e" => {
                self.event = Some(match value {
                    "ps" => Event::PlayState,
                    "e" => Event::Error,
                    "t" => Event::TimeInterval,
                    "bc" => Event::BitrateChange,
                    _ => Event::Other,
                });
            }
            "sta" => self.state = PlayerState::of(value),
            "ts" => self.at_ms = value.parse().ok().filter(|ms| (0..=1_i64 << 53).contains(ms)),
            "br" => self.bitrate_kbps = number(value),
            "bl" => self.buffer_ms = number(value),
            "mtp" => self.throughput_kbps = number(value),
            "ot" => {
                self.kind = Some(match value {
                    "v" | "av" => ObjectType::Video,
                    "a" => ObjectType::Audio,
                    _ => ObjectType::Other,
                });
            }
            "bs" => self.starved = value == "?1",
            "su" => self.startup = value == "?1",
            _ => {}
        }
    }
}

/// A whole or decimal number, or the first of version 2's inner list with its parameters: `3200`, `(3200;v 128;a)`.
fn number(value: &str) -> Option<u32> {
    let inner = value.strip_prefix('(').map_or(value, |list| list.trim_start());
    let digits = inner.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = inner.split_at_checked(digits)?;
    if !(rest.is_empty() || rest.starts_with([';', ' ', ')', '.'])) {
        return None;
    }
    digits.parse().ok()
}

/// The decoded value of the parameter `CMCD` in a query.
fn parameter(query: &str) -> Option<Cow<'_, str>> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(QUERY_PARAMETER)?.strip_prefix('='))?;
    if value.len() > MAX_REPORT_BYTES * 3 {
        return None;
    }
    percent_encoding::percent_decode_str(value).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_the_same_without_its_report() {
        let left = |query| query_without_report(query).map(Cow::into_owned);
        assert_eq!(left("CMCD=br%3D1"), None);
        assert_eq!(left("a=1&CMCD=br%3D1&b=&CMCD=x"), Some("a=1&b=".to_owned()));
        assert_eq!(left("CMCD"), None);
        for other in ["a=1&&b", "", "cmcd=1", "XCMCD=1&y=CMCD"] {
            assert_eq!(left(other), Some(other.to_owned()));
        }
    }
    use http::HeaderValue;
    use proptest::prelude::*;

    #[test]
    fn query_and_headers_are_equivalent() {
        let query = "x=1&CMCD=bl%3D21300%2Cbr%3D3200%2Cbs%2Cmtp%3D48100%2Cot%3Dv%2Csid%3D%226e2f%22%2Csu&y=2";
        let of_query = Report::of_request(Some(query), &HeaderMap::new()).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("cmcd-object", "br=3200,ot=v"),
            ("cmcd-request", "bl=21300,mtp=48100,su"),
            ("cmcd-status", "bs"),
            ("cmcd-session", "sid=\"6e2f\""),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        assert_eq!(Report::of_request(None, &headers), Some(of_query.clone()));
        assert_eq!(
            of_query,
            Report {
                session: Some("6e2f".into()),
                bitrate_kbps: Some(3200),
                buffer_ms: Some(21_300),
                throughput_kbps: Some(48_100),
                kind: Some(ObjectType::Video),
                starved: true,
                startup: true,
                ..Report::default()
            }
        );
        assert_eq!(Report::of_request(Some("token=x"), &HeaderMap::new()), None);
        assert_eq!(Report::of_request(None, &HeaderMap::new()), None);
    }

    #[test]
    fn events_come_one_a_line() {
        let body = "bl=(1200),br=(3200;v 128;a),e=ps,sid=\"a-1\",sta=s,ts=1700000000000,v=2\n\
                    e=ps,sid=\"a-1\",sta=p,ts=1700000000900,v=2\n\nmtp=(48100.5),e=t,sid=\"a-1\"\n";
        let reports: Vec<_> = Report::events(body).collect();
        assert_eq!(reports.len(), 3);
        assert_eq!((reports[0].state, reports[0].at_ms), (Some(PlayerState::Starting), Some(1_700_000_000_000)));
        assert_eq!((reports[0].bitrate_kbps, reports[0].buffer_ms), (Some(3200), Some(1200)));
        assert_eq!((reports[1].event, reports[1].state), (Some(Event::PlayState), Some(PlayerState::Playing)));
        assert_eq!((reports[2].event, reports[2].throughput_kbps), (Some(Event::TimeInterval), Some(48_100)));
    }

    #[test]
    fn malformed_keys_are_ignored() {
        let report = Report::parse("br=fast,bl=-1,mtp=99999999999,ts=later,sta=zz,sid=\"a b\",ot,bs=?0,br").unwrap();
        assert_eq!(report, Report { kind: Some(ObjectType::Other), ..Report::default() });
        assert_eq!(Report::parse(""), None);
        assert_eq!(Report::parse(&"a".repeat(5000)), None);
        assert_eq!(Report::parse(&format!("sid=\"{}\"", "a".repeat(65))).unwrap().session, None);
        assert_eq!(Report::events(&"e=t\n".repeat(500)).count(), MAX_EVENTS);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,200}") {
            let _ = Report::parse(&text);
            let _ = Report::of_request(Some(&format!("CMCD={text}")), &HeaderMap::new());
            let _ = Report::events(&text).count();
        }
    }
}
