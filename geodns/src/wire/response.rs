//! An answer, written into the caller's buffer: header, question, records, OPT.

use super::{Echo, HEADER_BYTES, QUESTION_NAME, Rcode, Tsig};
use crate::edns;

/// A section of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of RFC 1035 §4.1")]
pub enum Section {
    Answer,
    Authority,
    Additional,
}

/// An answer being written.
#[derive(Debug)]
pub struct Response<'o> {
    out: &'o mut [u8],
    /// Where records may not pass: the limit without the room that the OPT record needs.
    limit: usize,
    at: usize,
    question_end: usize,
    counts: [u16; 3],
    truncated: bool,
}

/// Every answer needs at least this buffer: header, longest question, OPT with all options but those that are left out
/// where there is no room.
pub const MIN_BUFFER: usize = edns::MIN_UDP_SIZE as usize;

impl<'o> Response<'o> {
    /// Begins an answer of at most `limit` octets. `None` when `out` is shorter than [`MIN_BUFFER`].
    pub fn begin(
        out: &'o mut [u8],
        limit: usize,
        echo: &Echo<'_>,
        opt: Option<&edns::Reply<'_>>,
    ) -> Option<Self> {
        if out.len() < MIN_BUFFER {
            return None;
        }
        let limit = limit.clamp(MIN_BUFFER, out.len()) - opt.map_or(0, edns::Reply::length);
        let question_end = HEADER_BYTES + echo.question.len();
        let has_question = u8::from(!echo.question.is_empty());
        let [id_high, id_low] = echo.id;
        *out.first_chunk_mut::<HEADER_BYTES>()? =
            [id_high, id_low, 0x80 | (echo.flags & 0x79), 0, 0, has_question, 0, 0, 0, 0, 0, 0];
        out.get_mut(HEADER_BYTES..question_end)?.copy_from_slice(echo.question);
        Some(Self { out, limit, at: question_end, question_end, counts: [0; 3], truncated: false })
    }

    /// Appends `count` rendered records and returns where they begin. When they do not fit, the answer is truncated.
    pub fn put(&mut self, section: Section, count: u16, records: &[u8]) -> Option<usize> {
        let start = self.at;
        let end = start + records.len();
        if self.truncated || end > self.limit {
            self.truncated = true;
            return None;
        }
        self.out.get_mut(start..end)?.copy_from_slice(records);
        self.at = end;
        if let Some(total) = self.counts.get_mut(section as usize) {
            *total += count;
        }
        Some(start)
    }

    /// As [`put`](Self::put), for records rendered with the owner [`QUESTION_NAME`] that belong to the name at
    /// `owner`, and with `ttl` in place of their own when it is given.
    pub fn put_owned(
        &mut self,
        section: Section,
        count: u16,
        records: &[u8],
        owner: u16,
        ttl: Option<u32>,
    ) -> Option<usize> {
        let start = self.put(section, count, records)?;
        if owner != QUESTION_NAME || ttl.is_some() {
            let mut rest = self.out.get_mut(start..self.at)?;
            while let Some(head) = rest.first_chunk_mut::<12>() {
                let [pointer_high, pointer_low, _, _, _, _, t0, t1, t2, t3, n0, n1] = head;
                [*pointer_high, *pointer_low] = owner.to_be_bytes();
                if let Some(ttl) = ttl {
                    [*t0, *t1, *t2, *t3] = ttl.to_be_bytes();
                }
                let length = 12 + usize::from(u16::from_be_bytes([*n0, *n1]));
                rest = rest.get_mut(length..).unwrap_or_default();
            }
        }
        Some(start)
    }

    /// Sets the length of the record that was put at `start` to all that follows.
    pub fn close_record(&mut self, start: usize) {
        let length = self.at.saturating_sub(start + 12);
        if let Some(room) = self.out.get_mut(start + 10..start + 12) {
            room.copy_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        }
    }

    /// Whether records did not fit.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// The message so far, its header not yet filled in.
    pub fn written(&self) -> &[u8] {
        self.out.get(..self.at).unwrap_or_default()
    }

    /// How many records the answer section holds.
    pub fn answers(&self) -> u16 {
        if self.truncated { 0 } else { self.counts[0] }
    }

    /// Gives up all records: the answer says only that it is truncated.
    pub fn truncate(&mut self) {
        self.truncated = true;
    }

    /// Takes back all records written so far.
    pub fn clear(&mut self) {
        self.at = self.question_end;
        self.counts = [0; 3];
        self.truncated = false;
    }

    /// Closes the message and returns its length.
    pub fn finish(
        mut self,
        rcode: Rcode,
        authoritative: bool,
        opt: Option<&edns::Reply<'_>>,
    ) -> usize {
        let truncated = self.truncated;
        if truncated {
            self.clear();
        }
        if let Some(opt) = opt {
            self.put_opt(rcode, opt);
        }
        let [answer, authority, additional] = self.counts.map(u16::to_be_bytes);
        if let Some([_, _, flags, flags_low, _, _, counts @ ..]) =
            self.out.first_chunk_mut::<HEADER_BYTES>()
        {
            *flags |= if authoritative { 0x04 } else { 0 } | if truncated { 0x02 } else { 0 };
            *flags_low = (rcode as u16 & 0xf) as u8;
            *counts =
                [answer[0], answer[1], authority[0], authority[1], additional[0], additional[1]];
        }
        self.at
    }

    /// As [`finish`](Self::finish), with the TSIG record that says we do not know the key, which must be the last one.
    pub fn finish_with_bad_key(
        mut self,
        rcode: Rcode,
        opt: Option<&edns::Reply<'_>>,
        tsig: &Tsig<'_>,
    ) -> usize {
        let [id_high, id_low, ..] = *self.out else { return 0 };
        if let Some(opt) = opt {
            self.put_opt(rcode, opt);
        }
        self.put_bad_key(tsig, [id_high, id_low]);
        // What is truncated gives up both, and gets the OPT record back.
        let opt = opt.filter(|_| self.truncated);
        self.finish(rcode, false, opt)
    }

    /// Appends the OPT record, for which [`begin`](Self::begin) reserved room.
    fn put_opt(&mut self, rcode: Rcode, opt: &edns::Reply<'_>) {
        let length = opt.length();
        let fitted = opt.fit(self.at + length, self.limit + length);
        let end = self.at + length + fitted.extra;
        if let Some(room) = self.out.get_mut(self.at..end) {
            opt.write(rcode as u16, &fitted, room);
            self.at = end;
            self.counts[2] += 1;
        }
    }

    /// Appends the TSIG record that says we do not know the key (RFC 8945 §5.2.1): no MAC, error BADKEY.
    fn put_bad_key(&mut self, tsig: &Tsig<'_>, id: [u8; 2]) {
        const BADKEY: u8 = 17;
        let length = tsig.algorithm_and_time.len() + 2 + 2 + 2 + 2;
        let [length_high, length_low] = u16::try_from(length).unwrap_or(0).to_be_bytes();
        let head = [0, 250, 0, 255, 0, 0, 0, 0, length_high, length_low];
        let tail = [0, 0, id[0], id[1], 0, BADKEY, 0, 0];
        for part in [tsig.key, &head, tsig.algorithm_and_time] {
            self.put(Section::Additional, 0, part);
        }
        self.put(Section::Additional, 1, &tail);
    }
}
