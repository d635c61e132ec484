//! What an HTTP/2 connection has agreed with its client, kept from the frames that pass (RFC 9113).
//!
//! hyper's connection gives none of its state back. But while no stream is open it may be dropped and made anew, if the
//! new one is told what the old one knew: the client's settings and the window it gave. The third thing, the fields that
//! its header compression has by heart, is made nothing: settings take the table's size away and give it back, and the
//! client's next header begins by saying that it has forgotten everything (RFC 7541, section 4.2). The other direction
//! needs nothing: fields that a client has by heart and no longer hears of grow old in its table and fall out.
//!
//! This module reads the heads of frames, settings and windows. It decodes no header and touches no socket.

use bytes::{BufMut as _, BytesMut};

/// What a client's connection begins with (section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head (section 4.1).
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
/// Of SETTINGS and PING.
const ACK: u8 = 1;

const HEADER_TABLE_SIZE: u16 = 1;
/// What a table's size is while nobody has said otherwise, and nobody here has (section 6.5.2).
const FIRST_TABLE_SIZE: u32 = 4096;
/// Settings with identifiers from 1 on that are told again.
const SETTINGS_KNOWN: usize = 6;
/// A connection's window at first (section 6.9.2).
const FIRST_WINDOW: i64 = 65_535;
/// More open streams than any limit allows are not kept account of: such a connection does not rest.
const MOST_OPEN: usize = 16_384;

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    fn of(bytes: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, e, f, g, h] = bytes;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        Self { length, kind, flags, stream: u32::from_be_bytes([e & 0x7f, f, g, h]) }
    }

    fn is(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

fn put(to: &mut BytesMut, kind: u8, flags: u8, payload: &[u8]) {
    to.put_uint(payload.len() as u64, 3);
    to.put_slice(&[kind, flags, 0, 0, 0, 0]);
    to.put_slice(payload);
}

fn setting(identifier: u16, value: u32) -> [u8; 6] {
    let ([a, b], [c, d, e, f]) = (identifier.to_be_bytes(), value.to_be_bytes());
    [a, b, c, d, e, f]
}

/// What a stretch of frames holds for us.
enum Seen {
    Head(Head),
    Setting(u16, u32),
    /// Of a stream, or of the connection (0).
    Window(u32, u32),
}

/// One direction, in pieces of any size.
#[derive(Debug, Default)]
struct Frames {
    /// A head, a setting or a window that has not come wholly.
    held: [u8; HEAD],
    has: usize,
    head: Head,
    /// Bytes of its payload that have not come.
    left: usize,
    passes: bool,
    /// Whether what is held has not been passed on.
    withheld: bool,
}

impl Frames {
    /// Whether the next byte begins a frame.
    fn are_whole(&self) -> bool {
        self.left == 0 && self.has == 0
    }

    fn hold(&mut self, bytes: &mut &[u8], whole: usize) -> Option<[u8; HEAD]> {
        while self.has < whole {
            let (first, rest) = bytes.split_first()?;
            if let Some(place) = self.held.get_mut(self.has) {
                *place = *first;
            }
            self.has += 1;
            *bytes = rest;
        }
        self.has = 0;
        Some(self.held)
    }

    /// Tells what `bytes` hold. With `to`, whole frames of which `seen` said yes are put there.
    fn read(&mut self, mut bytes: &[u8], mut to: Option<&mut BytesMut>, mut seen: impl FnMut(Seen) -> bool) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let head = match bytes.split_first_chunk() {
                    Some((head, rest)) if self.has == 0 => {
                        bytes = rest;
                        *head
                    }
                    _ => match self.hold(&mut bytes, HEAD) {
                        Some(head) => head,
                        None => break,
                    },
                };
                self.head = Head::of(head);
                self.left = self.head.length;
                self.passes = seen(Seen::Head(self.head));
                if let (true, Some(to)) = (self.passes, &mut to) {
                    to.put_slice(&head);
                }
                continue;
            }
            let (mut piece, rest) = bytes.split_at(self.left.min(bytes.len()));
            bytes = rest;
            self.left -= piece.len();
            if let (true, Some(to)) = (self.passes, &mut to) {
                to.put_slice(piece);
            }
            match self.head.kind {
                SETTINGS => {
                    while let Some([a, b, c, d, e, f, ..]) = self.hold(&mut piece, 6) {
                        seen(Seen::Setting(u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f])));
                    }
                }
                WINDOW_UPDATE => {
                    while let Some([a, b, c, d, ..]) = self.hold(&mut piece, 4) {
                        seen(Seen::Window(self.head.stream, u32::from_be_bytes([a & 0x7f, b, c, d])));
                    }
                }
                _ => {}
            }
            if self.left == 0 {
                self.has = 0;
            }
        }
        self.withheld = to.is_some() && self.left == 0 && self.has > 0;
    }
}

/// The fields that the client's compression has by heart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    /// There may be some.
    Used,
    /// It was asked to forget them, and owes so many acknowledgements.
    Clearing(u8),
    /// Its next header will say that there are none.
    Clear,
}

#[derive(Debug)]
struct Open {
    stream: u32,
    asked: bool,
    answered: bool,
}

/// What is known of a connection.
#[derive(Debug)]
struct Known {
    /// The client's settings, by identifier.
    settings: [Option<u32>; SETTINGS_KNOWN],
    /// What may be sent on the connection.
    window: i64,
    /// What the client may send on it.
    granted: i64,
    /// What a new connection takes that to be.
    grants: i64,
    open: Vec<Open>,
    /// The highest stream that the client has opened.
    last: u32,
    /// Streams up to here are ones of which hyper's connection does not know.
    forgotten: u32,
    /// Requests so far.
    requests: u64,
    /// SETTINGS and PINGs of the client without an answer.
    owed: i64,
    /// Whether the client has acknowledged hyper's settings.
    agreed: bool,
    /// Whether it goes on to its end as it is.
    stays: bool,
    table: Table,
}

impl Known {
    /// A frame of the client; false if it is not for hyper's connection.
    fn heard(&mut self, seen: Seen) -> bool {
        let head = match seen {
            Seen::Head(head) => head,
            Seen::Setting(identifier, value) => {
                let place = self.settings.get_mut(usize::from(identifier).wrapping_sub(1));
                place.into_iter().for_each(|place| *place = Some(value));
                return true;
            }
            Seen::Window(0, more) => {
                self.window += i64::from(more);
                return true;
            }
            Seen::Window(..) => return true,
        };
        let is_old = head.stream != 0 && head.stream <= self.forgotten;
        match (head.kind, head.is(ACK)) {
            (HEADERS, _) => self.header(head),
            (DATA, ends) => {
                self.granted -= head.length as i64;
                if ends {
                    self.ended(head.stream, |open| open.asked = true);
                }
                return !is_old;
            }
            (RST_STREAM, _) => {
                self.open.retain(|open| open.stream != head.stream);
                return !is_old;
            }
            (WINDOW_UPDATE, _) => return !is_old,
            (SETTINGS, true) => match self.table {
                Table::Clearing(owed) => {
                    self.table = if owed > 1 { Table::Clearing(owed - 1) } else { Table::Clear };
                    return false;
                }
                Table::Used | Table::Clear => self.agreed = true,
            },
            (SETTINGS | PING, false) => self.owed += 1,
            (GOAWAY, _) => self.stays = true,
            _ => {}
        }
        true
    }

    fn header(&mut self, head: Head) {
        if self.table == Table::Clear {
            self.table = Table::Used;
        }
        if head.stream > self.last {
            (self.last, self.forgotten) = (head.stream, 0);
            self.requests += 1;
            if self.open.len() < MOST_OPEN {
                self.open.push(Open { stream: head.stream, asked: false, answered: false });
            } else {
                self.stays = true;
            }
        }
        if head.is(END_STREAM) {
            self.ended(head.stream, |open| open.asked = true);
        }
    }

    /// A frame of ours.
    fn said(&mut self, seen: Seen) -> bool {
        let head = match seen {
            Seen::Head(head) => head,
            Seen::Window(0, more) => {
                self.granted += i64::from(more);
                return true;
            }
            Seen::Setting(..) | Seen::Window(..) => return true,
        };
        match head.kind {
            DATA | HEADERS => {
                if head.kind == DATA {
                    self.window -= head.length as i64;
                }
                if head.is(END_STREAM) {
                    self.ended(head.stream, |open| open.answered = true);
                }
            }
            RST_STREAM => self.open.retain(|open| open.stream != head.stream),
            SETTINGS | PING if head.is(ACK) => self.owed -= 1,
            GOAWAY => self.stays = true,
            _ => {}
        }
        true
    }

    fn ended(&mut self, stream: u32, side: impl FnOnce(&mut Open)) {
        let Some(at) = self.open.iter().position(|open| open.stream == stream) else { return };
        let Some(open) = self.open.get_mut(at) else { return };
        side(open);
        if open.asked && open.answered {
            self.open.swap_remove(at);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    /// The client's frames, which begin behind its preface.
    heard: Frames,
    said: Frames,
    known: Known,
}

impl Ledger {
    pub(super) fn new() -> Self {
        let known = Known {
            settings: [None; SETTINGS_KNOWN],
            window: FIRST_WINDOW,
            granted: FIRST_WINDOW,
            grants: FIRST_WINDOW,
            open: Vec::new(),
            last: 0,
            forgotten: 0,
            requests: 0,
            owed: 0,
            agreed: false,
            stays: false,
            table: Table::Used,
        };
        // The preface is passed over like a payload.
        let heard = Frames { left: PREFACE.len(), passes: true, ..Frames::default() };
        Self { heard, said: Frames::default(), known }
    }

    /// Bytes came that go on as they are.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        let known = &mut self.known;
        self.heard.read(bytes, None, |seen| known.heard(seen));
    }

    /// Bytes came of which `to` gets what hyper's connection may know of.
    pub(super) fn sift(&mut self, bytes: &[u8], to: &mut BytesMut) {
        let known = &mut self.known;
        self.heard.read(bytes, Some(to), |seen| known.heard(seen));
    }

    /// Whether the bytes that come next are to be sifted.
    pub(super) fn sifts(&self) -> bool {
        self.heard.withheld || self.known.forgotten > 0 || matches!(self.known.table, Table::Clearing(_))
    }

    /// Bytes went.
    pub(super) fn say(&mut self, bytes: &[u8]) {
        let known = &mut self.known;
        self.said.read(bytes, None, |seen| known.said(seen));
    }

    /// Requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.known.requests
    }

    /// Whether nothing is under way that a new connection could not be told.
    pub(super) fn is_quiet(&self) -> bool {
        let known = &self.known;
        let settled = known.agreed && known.owed == 0 && !known.stays;
        let whole = self.heard.are_whole() && self.said.are_whole();
        // A window can be made wider than a new connection's, and not narrower.
        settled && whole && known.open.is_empty() && known.window >= FIRST_WINDOW
    }

    /// Whether the client's header table is known to be empty.
    pub(super) fn is_clear(&self) -> bool {
        self.known.table == Table::Clear
    }

    /// What asks the client to forget its header table, unless it was asked or has nothing to forget.
    pub(super) fn clearing(&self) -> Option<BytesMut> {
        if self.known.table != Table::Used {
            return None;
        }
        let mut frames = BytesMut::new();
        // Of two values in one frame, some implementations see the last alone.
        for size in [0, FIRST_TABLE_SIZE] {
            put(&mut frames, SETTINGS, 0, &setting(HEADER_TABLE_SIZE, size));
        }
        Some(frames)
    }

    /// That was sent.
    pub(super) fn asked_to_clear(&mut self) {
        self.known.table = Table::Clearing(2);
    }

    /// What a new connection of hyper's is told in the client's name.
    pub(super) fn retold(&self) -> BytesMut {
        let mut told = BytesMut::new();
        told.put_slice(PREFACE);
        let settings = (1_u16..).zip(self.known.settings);
        let settings = settings.filter_map(|(identifier, value)| Some(setting(identifier, value?)));
        put(&mut told, SETTINGS, 0, &settings.collect::<Vec<_>>().concat());
        put(&mut told, SETTINGS, ACK, &[]);
        if let Ok(more @ 1..) = u32::try_from(self.known.window - FIRST_WINDOW) {
            put(&mut told, WINDOW_UPDATE, 0, &more.to_be_bytes());
        }
        told
    }

    /// A new connection has answered `said`, which the client is not to hear again. False if that is not what a
    /// connection begins with.
    pub(super) fn taken_up(&mut self, said: &[u8]) -> bool {
        let (mut grants, mut settings, mut acknowledged, mut others) = (FIRST_WINDOW, 0, 0, 0);
        let mut frames = Frames::default();
        frames.read(said, None, |seen| {
            match seen {
                Seen::Window(0, more) => grants += i64::from(more),
                Seen::Head(head) if head.kind == SETTINGS && head.is(ACK) => acknowledged += 1,
                Seen::Head(head) if head.kind == SETTINGS => settings += 1,
                Seen::Head(head) if head.kind == WINDOW_UPDATE => {}
                Seen::Setting(..) => {}
                Seen::Head(_) | Seen::Window(..) => others += 1,
            }
            true
        });
        self.known.grants = grants;
        self.known.forgotten = self.known.last;
        frames.are_whole() && (settings, acknowledged, others) == (1, 1, 0)
    }

    /// The window that a connection before this one had not given back, and the frame that does.
    pub(super) fn missing(&self) -> Option<(BytesMut, u32)> {
        let missing = u32::try_from(self.known.grants - self.known.granted).ok().filter(|missing| *missing > 0)?;
        let mut frame = BytesMut::new();
        put(&mut frame, WINDOW_UPDATE, 0, &missing.to_be_bytes());
        Some((frame, missing))
    }

    /// That was sent.
    pub(super) fn granted(&mut self, more: u32) {
        self.known.granted += i64::from(more);
    }

    /// The frame that ends a connection on which nothing is under way.
    pub(super) fn goaway(&self) -> BytesMut {
        let mut frame = BytesMut::new();
        // No error: 0.
        put(&mut frame, GOAWAY, 0, &[self.known.last.to_be_bytes(), [0; 4]].concat());
        frame
    }
}

#[cfg(test)]
mod tests;
