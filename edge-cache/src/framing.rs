//! Where HTTP/1 requests begin and end in a client's bytes (RFC 9112 §6 and §7.1), before a parser repairs them.
//!
//! [`Framing`] is fed what has been read and says how much of it may go on, and what it thinks of each head. After a
//! head that is refused everything goes on unseen: the connection is closed after the answer, nothing that follows is
//! taken for a request. What is not a request at all also goes on, for the parser to answer.

use crate::admit::{Reject, raw_head};
use crate::semantics::Reason;
use http::StatusCode;

/// A chunk's first line at most, extensions included: they are of no use, and a way to hide bytes.
const MAX_CHUNK_LINE: usize = 1024;

/// What to do with the bytes that were given.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// So many may go on.
    Release(usize),
    /// A whole head, of this length, and what is thought of it.
    Head {
        /// Its length, with the empty line.
        length: usize,
        /// Whether it is to be refused.
        verdict: Result<(), Reject>,
    },
    /// A head that is not whole: more bytes are needed.
    More,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Head,
    Sized(u64),
    ChunkLine(Vec<u8>),
    ChunkData(u64),
    /// Trailers; whether the line so far is empty.
    Trailers(bool),
    /// No longer looked at.
    Blind,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Framing {
    state: State,
    max_head: usize,
    /// Bytes of a head that have been searched for its end.
    searched: usize,
}

impl Framing {
    /// A connection on which a request is expected.
    pub const fn new(max_head: usize) -> Self {
        Self { state: State::Head, max_head, searched: 0 }
    }

    /// Whether the client has nothing under way that was begun.
    pub const fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Head)
    }

    /// What to do with `bytes`, which begin where the last event left off and are not empty.
    pub fn next(&mut self, bytes: &[u8]) -> Event {
        match &mut self.state {
            State::Blind => Event::Release(bytes.len()),
            State::Head => self.head(bytes),
            State::Sized(left) | State::ChunkData(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= take as u64;
                if *left == 0 {
                    self.state = match self.state {
                        State::Sized(_) => State::Head,
                        _ => State::ChunkLine(Vec::new()),
                    };
                }
                Event::Release(take)
            }
            State::ChunkLine(line) => {
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let take = end.map_or(bytes.len(), |end| end + 1);
                line.extend_from_slice(&bytes[..take]);
                if end.is_some() {
                    self.state = match chunk_size(line) {
                        Some(0) => State::Trailers(true),
                        // The line end after the data belongs to it.
                        Some(size) => State::ChunkData(size.saturating_add(2)),
                        None => State::Blind,
                    };
                } else if line.len() > MAX_CHUNK_LINE {
                    self.state = State::Blind;
                }
                Event::Release(take)
            }
            State::Trailers(empty) => {
                for (at, byte) in bytes.iter().enumerate() {
                    match byte {
                        b'\n' if *empty => {
                            self.state = State::Head;
                            return Event::Release(at + 1);
                        }
                        b'\n' => *empty = true,
                        b'\r' => {}
                        _ => *empty = false,
                    }
                }
                Event::Release(bytes.len())
            }
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Event {
        // Empty lines before a request line are ignored (RFC 9112 §2.2).
        let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let from = self.searched.saturating_sub(3).max(blank);
        let Some(end) = head_end(bytes, from) else {
            if bytes.len() > self.max_head {
                // Too long: the parser answers 431 and closes.
                self.state = State::Blind;
                return Event::Release(bytes.len());
            }
            self.searched = bytes.len();
            return Event::More;
        };
        self.searched = 0;
        let head = &bytes[blank..end];
        let verdict = raw_head(head);
        self.state = match (&verdict, content(head)) {
            (Ok(()), Some(state)) => state,
            // What follows cannot be trusted.
            _ => State::Blind,
        };
        let verdict = match self.state {
            State::Blind if verdict.is_ok() => Err(Reject {
                status: StatusCode::BAD_REQUEST,
                reason: Reason::FramingConflict,
                close: true,
            }),
            _ => verdict,
        };
        Event::Head { length: end, verdict }
    }
}

/// The offset after the empty line that ends a head.
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(next) = bytes.get(at..)?.iter().position(|byte| *byte == b'\n') {
        let line_end = at + next + 1;
        match bytes.get(line_end..) {
            Some([b'\n', ..]) => return Some(line_end + 1),
            Some([b'\r', b'\n', ..]) => return Some(line_end + 2),
            _ => at = line_end,
        }
    }
    None
}

/// What follows a head that is not to be refused; `None` when its framing is not understood.
fn content(head: &[u8]) -> Option<State> {
    let mut length: Option<u64> = None;
    let mut chunked = false;
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let text = std::str::from_utf8(value).ok()?;
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let value = text.parse().ok()?;
            if length.is_some_and(|length| length != value) {
                return None;
            }
            length = Some(value);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return None;
            }
            chunked = true;
        }
    }
    match (chunked, length) {
        (true, Some(_)) => None,
        (true, None) => Some(State::ChunkLine(Vec::new())),
        (false, None | Some(0)) => Some(State::Head),
        (false, Some(length)) => Some(State::Sized(length)),
    }
}

/// The size that a chunk's first line says (RFC 9112 §7.1): hexadecimal digits, then nothing or an extension, in which no
/// control character stands (a CR alone ends a line for some).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r\n")?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, rest) = line.split_at(digits);
    let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    let extension = matches!(rest.trim_ascii_start(), [] | [b';', ..]) && !rest.iter().any(control);
    if !(1..=15).contains(&digits) || !extension {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The verdicts on a connection's bytes, given in pieces of `step`, and whether all of it was released.
    fn heads(bytes: &[u8], step: usize) -> (Vec<Result<(), Reason>>, bool) {
        let mut framing = Framing::new(1000);
        let (mut held, mut verdicts) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(step) {
            held.extend_from_slice(piece);
            while !held.is_empty() {
                match framing.next(&held) {
                    Event::Release(length) => {
                        assert!(length > 0 && length <= held.len());
                        held.drain(..length);
                    }
                    Event::Head { length, verdict } => {
                        held.drain(..length);
                        verdicts.push(verdict.map_err(|reject| reject.reason));
                    }
                    Event::More => break,
                }
            }
        }
        (verdicts, held.is_empty())
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

    #[test]
    fn heads_are_found_between_contents() {
        let bytes = format!(
            "{GET}\r\nPOST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nGET /POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nGET /\r\nA\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\nA: b\r\n\r\n{GET}"
        );
        for step in 1..bytes.len() {
            assert_eq!(heads(bytes.as_bytes(), step), (vec![Ok(()); 4], true), "step {step}");
        }
    }

    #[test]
    fn after_a_refused_head_nothing_is_a_request() {
        let bytes = format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{GET}"
        );
        for step in 1..bytes.len() {
            let (verdicts, released) = heads(bytes.as_bytes(), step);
            assert_eq!((verdicts.len(), released), (1, true));
            assert_eq!(verdicts[0], Err(Reason::FramingConflict));
        }
    }

    #[test]
    fn sizes_of_chunks_are_strict() {
        for (line, size) in [
            ("0\r\n", Some(0)),
            ("1aB\r\n", Some(0x1ab)),
            ("5 ;a=b\r\n", Some(5)),
            ("5\n", None),
            ("\r\n", None),
            ("-1\r\n", None),
            ("0x5\r\n", None),
            ("5 5\r\n", None),
            ("ffffffffffffffff\r\n", None),
        ] {
            assert_eq!(chunk_size(line.as_bytes()), size, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_in_bounded_work(bytes in proptest::collection::vec(any::<u8>(), 0..3000), step in 1..50usize) {
            let (_, _) = heads(&bytes, step);
        }
    }
}
