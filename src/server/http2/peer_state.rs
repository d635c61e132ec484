//! The state of an HTTP/2 connection that both peers agree on, learnt from the frames that pass (RFC 9113).
//!
//! hyper's connection does not give its state out. But while no stream is open, it can be dropped and replaced by a new
//! one that is told what the old one knew: the client's settings, and the flow-control window that it granted. The third
//! part, the client's header compression table, is emptied before: SETTINGS reduce its size to 0 and restore it, and the
//! client's next header block begins with a table size update that says so (RFC 7541, section 4.2). The other direction
//! needs nothing: entries of the client's decoding table that are not used any more are evicted by newer ones.
//!
//! This module reads frame headers, settings and window updates. It decodes no header block and touches no socket.

use bytes::{BufMut as _, BytesMut};

/// The client connection preface (section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame's header (section 4.1).
const FRAME_HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
/// Flag of SETTINGS and PING.
const ACK: u8 = 1;

const HEADER_TABLE_SIZE: u16 = 1;
/// A header table's size unless a setting changes it, which this server's do not (section 6.5.2), in bytes.
const DEFAULT_HEADER_TABLE_SIZE: u32 = 4096;
/// Settings with identifiers from 1 to this are replayed.
const KNOWN_SETTINGS: usize = 6;
/// A connection's initial flow-control window (section 6.9.2), in bytes.
const DEFAULT_WINDOW: i64 = 65_535;
/// More open streams, which is more than any limit allows, are not tracked: such a connection does not hibernate.
const MAX_TRACKED_STREAMS: usize = 16_384;

#[derive(Clone, Copy, Debug, Default)]
struct FrameHeader {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl FrameHeader {
    fn parse(bytes: [u8; FRAME_HEADER_BYTES]) -> Self {
        let [a, b, c, kind, flags, e, f, g, h] = bytes;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        Self { length, kind, flags, stream: u32::from_be_bytes([e & 0x7f, f, g, h]) }
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

fn put_frame(to: &mut BytesMut, kind: u8, flags: u8, payload: &[u8]) {
    to.put_uint(payload.len() as u64, 3);
    to.put_slice(&[kind, flags, 0, 0, 0, 0]);
    to.put_slice(payload);
}

fn encode_setting(identifier: u16, value: u32) -> [u8; 6] {
    let ([a, b], [c, d, e, f]) = (identifier.to_be_bytes(), value.to_be_bytes());
    [a, b, c, d, e, f]
}

/// What is read from frames.
enum FrameEvent {
    Header(FrameHeader),
    /// Identifier and value.
    Setting(u16, u32),
    /// An increment of the window of a stream, or of the connection (0).
    Window(u32, u32),
}

/// Reads the frames of one direction, which come in pieces of any size.
#[derive(Debug, Default)]
struct FrameReader {
    /// A frame header, setting or window update of which a part has come.
    partial: [u8; FRAME_HEADER_BYTES],
    partial_len: usize,
    head: FrameHeader,
    /// Bytes of the frame's payload that have not come.
    payload_left: usize,
    /// Whether the frame is copied to the output.
    is_passed_on: bool,
    /// Whether `partial` holds bytes of a frame header that have not been copied to the output.
    is_withholding: bool,
}

impl FrameReader {
    /// Whether the next byte begins a frame.
    fn is_at_boundary(&self) -> bool {
        self.payload_left == 0 && self.partial_len == 0
    }

    /// Moves bytes to `partial` until it has `whole`.
    fn fill_partial(&mut self, bytes: &mut &[u8], whole: usize) -> Option<[u8; FRAME_HEADER_BYTES]> {
        while self.partial_len < whole {
            let (first, rest) = bytes.split_first()?;
            if let Some(byte) = self.partial.get_mut(self.partial_len) {
                *byte = *first;
            }
            self.partial_len += 1;
            *bytes = rest;
        }
        self.partial_len = 0;
        Some(self.partial)
    }

    /// Calls `on_event` for what `bytes` contain. With `to`, frames for whose header it returns true are copied there.
    fn read(&mut self, mut bytes: &[u8], mut to: Option<&mut BytesMut>, mut on_event: impl FnMut(FrameEvent) -> bool) {
        while !bytes.is_empty() {
            if self.payload_left == 0 {
                let head = match bytes.split_first_chunk() {
                    Some((head, rest)) if self.partial_len == 0 => {
                        bytes = rest;
                        *head
                    }
                    _ => match self.fill_partial(&mut bytes, FRAME_HEADER_BYTES) {
                        Some(head) => head,
                        None => break,
                    },
                };
                self.head = FrameHeader::parse(head);
                self.payload_left = self.head.length;
                self.is_passed_on = on_event(FrameEvent::Header(self.head));
                if let (true, Some(to)) = (self.is_passed_on, &mut to) {
                    to.put_slice(&head);
                }
                continue;
            }
            let (mut piece, rest) = bytes.split_at(self.payload_left.min(bytes.len()));
            bytes = rest;
            self.payload_left -= piece.len();
            if let (true, Some(to)) = (self.is_passed_on, &mut to) {
                to.put_slice(piece);
            }
            match self.head.kind {
                SETTINGS => {
                    while let Some([a, b, c, d, e, f, ..]) = self.fill_partial(&mut piece, 6) {
                        on_event(FrameEvent::Setting(u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f])));
                    }
                }
                WINDOW_UPDATE => {
                    while let Some([a, b, c, d, ..]) = self.fill_partial(&mut piece, 4) {
                        on_event(FrameEvent::Window(self.head.stream, u32::from_be_bytes([a & 0x7f, b, c, d])));
                    }
                }
                _ => {}
            }
            if self.payload_left == 0 {
                self.partial_len = 0;
            }
        }
        self.is_withholding = to.is_some() && self.payload_left == 0 && self.partial_len > 0;
    }
}

/// The client's header compression table (its encoder's dynamic table, RFC 7541).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeaderTable {
    /// It may have entries.
    InUse,
    /// The client was asked to empty it, and owes so many acknowledgements.
    Clearing(u8),
    /// Empty; the client's next header block begins with a size update.
    Empty,
}

#[derive(Debug)]
struct OpenStream {
    id: u32,
    request_ended: bool,
    response_ended: bool,
}

/// What both peers know.
#[derive(Debug)]
struct ConnectionState {
    /// The client's settings, by identifier.
    settings: [Option<u32>; KNOWN_SETTINGS],
    /// Bytes that may be sent on the connection.
    send_window: i64,
    /// Bytes that the client may send on it.
    receive_window: i64,
    /// What hyper's present connection takes `receive_window` to have been when it began.
    fresh_receive_window: i64,
    open_streams: Vec<OpenStream>,
    /// The highest stream that the client has opened.
    last_stream: u32,
    /// Streams up to this one are unknown to hyper's present connection.
    forgotten_up_to: u32,
    /// Requests so far.
    requests: u64,
    /// SETTINGS and PING frames of the client that have not been acknowledged.
    unanswered: i64,
    /// Whether the client has acknowledged hyper's settings.
    settings_acknowledged: bool,
    /// Whether it must not hibernate any more.
    is_closing: bool,
    header_table: HeaderTable,
}

impl ConnectionState {
    /// Notes a frame of the client; false if hyper's connection must not see it.
    fn received(&mut self, event: FrameEvent) -> bool {
        let head = match event {
            FrameEvent::Header(head) => head,
            FrameEvent::Setting(identifier, value) => {
                let slot = self.settings.get_mut(usize::from(identifier).wrapping_sub(1));
                slot.into_iter().for_each(|slot| *slot = Some(value));
                return true;
            }
            FrameEvent::Window(0, more) => {
                self.send_window += i64::from(more);
                return true;
            }
            FrameEvent::Window(..) => return true,
        };
        let is_old = head.stream != 0 && head.stream <= self.forgotten_up_to;
        match (head.kind, head.has(ACK)) {
            (HEADERS, _) => self.begin_or_end_request(head),
            (DATA, ends) => {
                self.receive_window -= head.length as i64;
                if ends {
                    self.end_side(head.stream, |open| open.request_ended = true);
                }
                return !is_old;
            }
            (RST_STREAM, _) => {
                self.open_streams.retain(|open| open.id != head.stream);
                return !is_old;
            }
            (WINDOW_UPDATE, _) => return !is_old,
            (SETTINGS, true) => match self.header_table {
                HeaderTable::Clearing(acks_due) => {
                    self.header_table =
                        if acks_due > 1 { HeaderTable::Clearing(acks_due - 1) } else { HeaderTable::Empty };
                    return false;
                }
                HeaderTable::InUse | HeaderTable::Empty => self.settings_acknowledged = true,
            },
            (SETTINGS | PING, false) => self.unanswered += 1,
            (GOAWAY, _) => self.is_closing = true,
            _ => {}
        }
        true
    }

    fn begin_or_end_request(&mut self, head: FrameHeader) {
        if self.header_table == HeaderTable::Empty {
            self.header_table = HeaderTable::InUse;
        }
        if head.stream > self.last_stream {
            (self.last_stream, self.forgotten_up_to) = (head.stream, 0);
            self.requests += 1;
            if self.open_streams.len() < MAX_TRACKED_STREAMS {
                self.open_streams.push(OpenStream { id: head.stream, request_ended: false, response_ended: false });
            } else {
                self.is_closing = true;
            }
        }
        if head.has(END_STREAM) {
            self.end_side(head.stream, |open| open.request_ended = true);
        }
    }

    /// Notes a frame of this server.
    fn sent(&mut self, event: FrameEvent) -> bool {
        let head = match event {
            FrameEvent::Header(head) => head,
            FrameEvent::Window(0, more) => {
                self.receive_window += i64::from(more);
                return true;
            }
            FrameEvent::Setting(..) | FrameEvent::Window(..) => return true,
        };
        match head.kind {
            DATA | HEADERS => {
                if head.kind == DATA {
                    self.send_window -= head.length as i64;
                }
                if head.has(END_STREAM) {
                    self.end_side(head.stream, |open| open.response_ended = true);
                }
            }
            RST_STREAM => self.open_streams.retain(|open| open.id != head.stream),
            SETTINGS | PING if head.has(ACK) => self.unanswered -= 1,
            GOAWAY => self.is_closing = true,
            _ => {}
        }
        true
    }

    /// One side of a stream has ended; both have when the stream is closed.
    fn end_side(&mut self, stream: u32, side: impl FnOnce(&mut OpenStream)) {
        let Some(at) = self.open_streams.iter().position(|open| open.id == stream) else { return };
        let Some(open) = self.open_streams.get_mut(at) else { return };
        side(open);
        if open.request_ended && open.response_ended {
            self.open_streams.swap_remove(at);
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct PeerState {
    /// The client's frames, after its preface.
    received: FrameReader,
    sent: FrameReader,
    state: ConnectionState,
}

impl PeerState {
    pub(crate) fn new() -> Self {
        let state = ConnectionState {
            settings: [None; KNOWN_SETTINGS],
            send_window: DEFAULT_WINDOW,
            receive_window: DEFAULT_WINDOW,
            fresh_receive_window: DEFAULT_WINDOW,
            open_streams: Vec::new(),
            last_stream: 0,
            forgotten_up_to: 0,
            requests: 0,
            unanswered: 0,
            settings_acknowledged: false,
            is_closing: false,
            header_table: HeaderTable::InUse,
        };
        // The preface is skipped like a payload.
        let received = FrameReader { payload_left: PREFACE.len(), is_passed_on: true, ..FrameReader::default() };
        Self { received, sent: FrameReader::default(), state }
    }

    /// Bytes of the client that hyper's connection gets as they are.
    pub(crate) fn record_received(&mut self, bytes: &[u8]) {
        let state = &mut self.state;
        self.received.read(bytes, None, |event| state.received(event));
    }

    /// Bytes of the client; copies to `to` the frames that hyper's connection may see.
    pub(crate) fn filter_received(&mut self, bytes: &[u8], to: &mut BytesMut) {
        let state = &mut self.state;
        self.received.read(bytes, Some(to), |event| state.received(event));
    }

    /// Whether the client's next bytes must be filtered.
    pub(crate) fn needs_filter(&self) -> bool {
        self.received.is_withholding
            || self.state.forgotten_up_to > 0
            || matches!(self.state.header_table, HeaderTable::Clearing(_))
    }

    /// Bytes that were sent to the client.
    pub(crate) fn record_sent(&mut self, bytes: &[u8]) {
        let state = &mut self.state;
        self.sent.read(bytes, None, |event| state.sent(event));
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.state.requests
    }

    /// Whether nothing is under way that could not be replayed to a new connection.
    pub(crate) fn is_idle(&self) -> bool {
        let state = &self.state;
        let settled = state.settings_acknowledged && state.unanswered == 0 && !state.is_closing;
        let whole = self.received.is_at_boundary() && self.sent.is_at_boundary();
        // A replay can enlarge a new connection's window, and not reduce it.
        settled && whole && state.open_streams.is_empty() && state.send_window >= DEFAULT_WINDOW
    }

    /// Whether the client's header table is known to be empty.
    pub(crate) fn is_table_empty(&self) -> bool {
        self.state.header_table == HeaderTable::Empty
    }

    /// Frames that ask the client to empty its header table; `None` if it was asked, or the table is empty.
    pub(crate) fn table_clear_request(&self) -> Option<BytesMut> {
        if self.state.header_table != HeaderTable::InUse {
            return None;
        }
        let mut frames = BytesMut::new();
        // Two frames: of two values in one frame, some implementations see only the last.
        for size in [0, DEFAULT_HEADER_TABLE_SIZE] {
            put_frame(&mut frames, SETTINGS, 0, &encode_setting(HEADER_TABLE_SIZE, size));
        }
        Some(frames)
    }

    /// [`Self::table_clear_request`] was sent.
    pub(crate) fn record_clear_requested(&mut self) {
        self.state.header_table = HeaderTable::Clearing(2);
    }

    /// What a new connection of hyper's reads first, as if the client had sent it.
    pub(crate) fn replay(&self) -> BytesMut {
        let mut replay = BytesMut::new();
        replay.put_slice(PREFACE);
        let settings = (1_u16..).zip(self.state.settings);
        let settings = settings.filter_map(|(identifier, value)| Some(encode_setting(identifier, value?)));
        put_frame(&mut replay, SETTINGS, 0, &settings.collect::<Vec<_>>().concat());
        put_frame(&mut replay, SETTINGS, ACK, &[]);
        if let Ok(more @ 1..) = u32::try_from(self.state.send_window - DEFAULT_WINDOW) {
            put_frame(&mut replay, WINDOW_UPDATE, 0, &more.to_be_bytes());
        }
        replay
    }

    /// The new connection has answered `sent`, which the client does not get. False if that is not what a connection
    /// begins with.
    pub(crate) fn finish_replay(&mut self, sent: &[u8]) -> bool {
        let (mut fresh_receive_window, mut settings, mut acknowledged, mut others) = (DEFAULT_WINDOW, 0, 0, 0);
        let mut frames = FrameReader::default();
        frames.read(sent, None, |event| {
            match event {
                FrameEvent::Window(0, more) => fresh_receive_window += i64::from(more),
                FrameEvent::Header(head) if head.kind == SETTINGS && head.has(ACK) => acknowledged += 1,
                FrameEvent::Header(head) if head.kind == SETTINGS => settings += 1,
                FrameEvent::Header(head) if head.kind == WINDOW_UPDATE => {}
                FrameEvent::Setting(..) => {}
                FrameEvent::Header(_) | FrameEvent::Window(..) => others += 1,
            }
            true
        });
        self.state.fresh_receive_window = fresh_receive_window;
        self.state.forgotten_up_to = self.state.last_stream;
        frames.is_at_boundary() && (settings, acknowledged, others) == (1, 1, 0)
    }

    /// Bytes of the client's window that earlier connections had not returned, and the frame that returns them.
    pub(crate) fn unreturned_window(&self) -> Option<(BytesMut, u32)> {
        let missing = u32::try_from(self.state.fresh_receive_window - self.state.receive_window)
            .ok()
            .filter(|missing| *missing > 0)?;
        let mut frame = BytesMut::new();
        put_frame(&mut frame, WINDOW_UPDATE, 0, &missing.to_be_bytes());
        Some((frame, missing))
    }

    /// [`Self::unreturned_window`] was sent.
    pub(crate) fn record_window_returned(&mut self, more: u32) {
        self.state.receive_window += i64::from(more);
    }

    /// The frame that ends a connection on which nothing is under way.
    pub(crate) fn goaway(&self) -> BytesMut {
        let mut frame = BytesMut::new();
        // NO_ERROR is 0.
        put_frame(&mut frame, GOAWAY, 0, &[self.state.last_stream.to_be_bytes(), [0; 4]].concat());
        frame
    }
}

#[cfg(test)]
mod tests;
