//! Checks that a body is a CMAF init or media segment, by its top-level boxes (ISO/IEC 14496-12, section 4.2; CMAF,
//! ISO/IEC 23000-19, section 7.3). It is incremental and keeps sixteen bytes, so that bodies need not be kept.
//!
//! An error page or a truncated segment with status 200 must not pass for media.

/// The expected kind of body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// `ftyp` and `moov`.
    Init,
    /// `moof` and `mdat`.
    Segment,
    /// Anything: no media, or encrypted as a whole.
    Anything,
}

/// The state of a check.
#[derive(Debug)]
pub struct BoxWalk {
    expected: Expected,
    header: [u8; 16],
    have: usize,
    body: u64,
    found: SeenBoxes,
}

#[derive(Clone, Copy, Debug, Default)]
struct SeenBoxes {
    ftyp: bool,
    moov: bool,
    moof: bool,
    mdat: bool,
}

impl BoxWalk {
    /// A check before the first byte.
    pub fn new(expected: Expected) -> Self {
        Self { expected, header: [0; 16], have: 0, body: 0, found: SeenBoxes::default() }
    }

    /// Checks the next bytes. The error says why the body is not the expected media.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        if self.expected == Expected::Anything {
            return Ok(());
        }
        while !bytes.is_empty() {
            if self.body > 0 {
                let skip = usize::try_from(self.body).unwrap_or(usize::MAX).min(bytes.len());
                self.body -= skip as u64;
                bytes = bytes.get(skip..).unwrap_or_default();
                continue;
            }
            let Some((byte, rest)) = bytes.split_first() else {
                break;
            };
            bytes = rest;
            if let Some(slot) = self.header.get_mut(self.have) {
                *slot = *byte;
                self.have += 1;
            }
            self.header_complete()?;
        }
        Ok(())
    }

    /// Enters a box once its header is complete: 8 bytes, or 16 with a 64-bit size.
    fn header_complete(&mut self) -> Result<(), String> {
        let [a, b, c, d, kind @ .., _, _, _, _, _, _, _, _] = self.header;
        let size = u32::from_be_bytes([a, b, c, d]);
        let (length, header) = match (size, self.have) {
            (_, 0..=7) => return Ok(()),
            (1, 8..=15) => return Ok(()),
            (1, _) => {
                let [.., a, b, c, d, e, f, g, h] = self.header;
                (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 16)
            }
            (size, _) => (u64::from(size), 8),
        };
        if length < header {
            return Err(format!("a box of the type {} has the length {length}", kind.escape_ascii()));
        }
        match &kind {
            b"ftyp" => self.found.ftyp = true,
            b"moov" => self.found.moov = true,
            b"moof" => self.found.moof = true,
            b"mdat" if !self.found.moof => return Err("mdat before moof".into()),
            b"mdat" => self.found.mdat = true,
            b"styp" | b"sidx" | b"prft" | b"emsg" | b"free" | b"skip" | b"uuid" | b"meta" => {}
            other => return Err(format!("{} is no box of CMAF", other.escape_ascii())),
        }
        self.body = length - header;
        self.have = 0;
        Ok(())
    }

    /// Checks that the body ended as expected.
    pub fn finish(self) -> Result<(), String> {
        let SeenBoxes { ftyp, moov, moof, mdat } = self.found;
        match self.expected {
            Expected::Anything => Ok(()),
            _ if self.body > 0 || self.have > 0 => Err("it ends in the middle of a box".into()),
            Expected::Init if !(ftyp && moov) => Err("an init segment holds ftyp and moov".into()),
            Expected::Segment if !(moof && mdat) => Err("a media segment holds moof and mdat".into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn a_box(kind: &[u8; 4], body: usize) -> Vec<u8> {
        let size = u32::try_from(8 + body).unwrap().to_be_bytes();
        [&size[..], kind, &vec![7; body]].concat()
    }

    fn walk(expected: Expected, pieces: &[&[u8]]) -> Result<(), String> {
        let mut walk = BoxWalk::new(expected);
        for piece in pieces {
            walk.feed(piece)?;
        }
        walk.finish()
    }

    #[test]
    fn segments_and_inits_pass_and_nothing_else_does() {
        let segment = [a_box(b"styp", 16), a_box(b"moof", 100), a_box(b"mdat", 5000)].concat();
        let init = [a_box(b"ftyp", 16), a_box(b"moov", 700)].concat();
        assert_eq!(walk(Expected::Segment, &[&segment]), Ok(()));
        assert_eq!(walk(Expected::Init, &[&init]), Ok(()));
        assert!(walk(Expected::Init, &[&segment]).is_err());
        assert!(walk(Expected::Segment, &[&init]).is_err());
        assert!(walk(Expected::Segment, &[&segment[..segment.len() - 1]]).is_err_and(|e| e.contains("middle")));
        assert!(walk(Expected::Segment, &[]).is_err());
        for page in
            ["<html><body>sorry</body></html>", "{\"code\":\"token_expired\",\"status\":403}", "#EXTM3U\n#EXTINF"]
        {
            assert!(walk(Expected::Segment, &[page.as_bytes()]).is_err(), "{page}");
        }
        assert!(walk(Expected::Segment, &[&[0; 64]]).is_err(), "zeros");
        assert_eq!(walk(Expected::Anything, &[b"x"]), Ok(()));
    }

    #[test]
    fn a_large_size_takes_sixteen_bytes_of_header() {
        let mut mdat = [0, 0, 0, 1].to_vec();
        mdat.extend_from_slice(b"mdat");
        mdat.extend_from_slice(&(16u64 + 3).to_be_bytes());
        mdat.extend_from_slice(&[1, 2, 3]);
        assert_eq!(walk(Expected::Segment, &[&a_box(b"moof", 1), &mdat]), Ok(()));
        assert!(walk(Expected::Segment, &[&a_box(b"moof", 1), &mdat, &[0]]).is_err());
    }

    proptest! {
        /// The result does not depend on how the body is split into pieces.
        #[test]
        fn pieces_make_no_difference(body in prop::collection::vec(any::<u8>(), 0..80), sizes in prop::collection::vec(0usize..40, 0..6), cut in 1usize..9) {
            let mut bytes = a_box(b"moof", 9);
            for size in sizes {
                bytes.extend(a_box(b"mdat", size));
            }
            bytes.extend(body);
            let whole = walk(Expected::Segment, &[&bytes]);
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            prop_assert_eq!(walk(Expected::Segment, &pieces), whole);
        }
    }
}
