//! Where HTTP/1 requests begin and end in a client's bytes (RFC 9112 §6 and §7.1), before a parser repairs them.
//!
//! [`Framing`] is fed what has been read and says how much of it may go on, and what it thinks of each head. After a
//! head that is refused everything goes on unseen: the connection is closed after the answer, nothing that follows is
//! taken for a request. What is not a request at all also goes on, for the parser to answer. Chunks are taken by the letter:
//! a size in hexadecimal digits, a short extension that is ignored, CRLF and nothing else at line ends, trailers that are
//! fields and not many. What is not so ends the content and the connection; a parser that is more lenient than this one
//! never sees it.
//!
//! [`requests`] is the same over a whole connection's bytes, for fuzzing.

use crate::admit::{Reject, raw_field, raw_head};
use crate::semantics::Reason;
use http::StatusCode;

/// A chunk's first line at most, extensions included: they are of no use, and a way to hide bytes.
const MAX_CHUNK_LINE: usize = 1024;
/// Trailers at most, in bytes and in fields.
const MAX_TRAILERS: usize = 8 << 10;
const MAX_TRAILER_FIELDS: usize = 32;

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
    /// The content's framing is not valid: nothing more may go on.
    Broken,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Head,
    Sized(u64),
    ChunkLine(Vec<u8>),
    ChunkData(u64),
    /// The line end after a chunk's data; whether its CR has come.
    ChunkEnd(bool),
    /// Trailers: the line so far, and the bytes and fields of those before.
    Trailers {
        line: Vec<u8>,
        bytes: usize,
        fields: usize,
    },
    /// No longer looked at.
    Blind,
    /// Nothing more goes on.
    Broken,
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
            State::Broken => Event::Broken,
            State::Head => self.head(bytes),
            State::Sized(left) | State::ChunkData(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= take as u64;
                if *left == 0 {
                    self.state = match self.state {
                        State::Sized(_) => State::Head,
                        _ => State::ChunkEnd(false),
                    };
                }
                Event::Release(take)
            }
            State::ChunkEnd(seen_cr) => match (bytes.first(), *seen_cr) {
                (Some(b'\r'), false) => {
                    *seen_cr = true;
                    Event::Release(1)
                }
                (Some(b'\n'), true) => {
                    self.state = State::ChunkLine(Vec::new());
                    Event::Release(1)
                }
                _ => self.broken(),
            },
            State::ChunkLine(line) => {
                let (take, ended) = take_line(line, bytes);
                if line.len() > MAX_CHUNK_LINE {
                    return self.broken();
                }
                if ended {
                    self.state = match chunk_size(line) {
                        Some(0) => State::Trailers { line: Vec::new(), bytes: 0, fields: 0 },
                        Some(size) => State::ChunkData(size),
                        None => return self.broken(),
                    };
                }
                Event::Release(take)
            }
            State::Trailers { line, bytes: before, fields } => {
                let (take, ended) = take_line(line, bytes);
                if *before + line.len() > MAX_TRAILERS {
                    return self.broken();
                }
                if ended {
                    let Some(text) = line.strip_suffix(b"\r\n") else { return self.broken() };
                    if text.is_empty() {
                        self.state = State::Head;
                        return Event::Release(take);
                    }
                    if raw_field(text).is_err() || *fields >= MAX_TRAILER_FIELDS {
                        return self.broken();
                    }
                    *before += line.len();
                    *fields += 1;
                    line.clear();
                }
                Event::Release(take)
            }
        }
    }

    fn broken(&mut self) -> Event {
        self.state = State::Broken;
        Event::Broken
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

/// Moves bytes to the end of a line; how many, and whether it has ended.
fn take_line(line: &mut Vec<u8>, bytes: &[u8]) -> (usize, bool) {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let take = end.map_or(bytes.len(), |end| end + 1);
    line.extend_from_slice(bytes.get(..take).unwrap_or_default());
    (take, end.is_some())
}

/// The verdicts on the requests in a connection's bytes, read in pieces of `step` bytes, and how many bytes went on to the
/// parser: which requests are found, and whether all of it goes on, does not depend on `step`.
pub fn requests(bytes: &[u8], step: usize, max_head: usize) -> (Vec<Result<(), Reject>>, usize) {
    let mut framing = Framing::new(max_head);
    let (mut held, mut verdicts, mut released) = (Vec::new(), Vec::new(), 0);
    for piece in bytes.chunks(step.max(1)) {
        held.extend_from_slice(piece);
        while !held.is_empty() {
            let length = match framing.next(&held) {
                Event::Release(length) => length,
                Event::Head { length, verdict } => {
                    verdicts.push(verdict);
                    length
                }
                Event::More => break,
                Event::Broken => return (verdicts, released),
            };
            held.drain(..length.min(held.len()));
            released += length;
        }
    }
    (verdicts, released)
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
        let (verdicts, released) = requests(bytes, step, 1000);
        let reasons = verdicts.into_iter().map(|verdict| verdict.map_err(|reject| reject.reason));
        (reasons.collect(), released == bytes.len())
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

    /// Pitfall 38: what another parser might take otherwise goes to none.
    #[test]
    fn rfc9112_7_1_chunks_are_taken_by_the_letter() {
        let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let long = "x".repeat(MAX_CHUNK_LINE);
        let many = "a: b\r\n".repeat(MAX_TRAILER_FIELDS + 1);
        let big = format!("a: {}\r\n", "b".repeat(MAX_TRAILERS));
        for (content, taken) in [
            ("0\r\n\r\n", true),
            ("5\r\nhello\r\n0\r\n\r\n", true),
            ("5;a=\"b\"\r\nhello\r\n0;x\r\nA: b\r\nC:\r\n\r\n", true),
            ("5 \t;a\r\nhello\r\n0\r\n\r\n", true),
            ("5\nhello\r\n0\r\n\r\n", false),
            ("5\r\nhello\n0\r\n\r\n", false),
            ("5\r\nhello\r0\r\n\r\n", false),
            ("5\r\nhelloX\r\n0\r\n\r\n", false),
            ("5\r\nhell\r\n0\r\n\r\n", false),
            ("5\r;a\r\nhello\r\n0\r\n\r\n", false),
            ("5;a\rb\r\nhello\r\n0\r\n\r\n", false),
            ("5;a\0b\r\nhello\r\n0\r\n\r\n", false),
            (" 5\r\nhello\r\n0\r\n\r\n", false),
            ("+5\r\nhello\r\n0\r\n\r\n", false),
            ("0x5\r\nhello\r\n0\r\n\r\n", false),
            ("\r\n0\r\n\r\n", false),
            ("0\r\n\n", false),
            ("0\r\nA: b\n\r\n", false),
            ("0\r\nA : b\r\n\r\n", false),
            ("0\r\n b\r\n\r\n", false),
            ("0\r\nA: b\r\n\r\r\n", false),
            ("0\r\nno field\r\n\r\n", false),
            (&format!("5;{long}\r\nhello\r\n0\r\n\r\n"), false),
            (&format!("0\r\n{many}\r\n"), false),
            (&format!("0\r\n{big}\r\n"), false),
        ] {
            // A request behind it is found only where the content was taken.
            let bytes = format!("{head}{content}{GET}");
            for step in [1, 2, 7, bytes.len()] {
                let (verdicts, released) = heads(bytes.as_bytes(), step);
                assert_eq!(
                    (verdicts.len(), released),
                    (1 + usize::from(taken), taken),
                    "{content:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_in_bounded_work(bytes in proptest::collection::vec(any::<u8>(), 0..3000), step in 1..50usize) {
            let (_, _) = heads(&bytes, step);
        }

        /// How the bytes come in packets changes nothing.
        #[test]
        fn pieces_do_not_matter(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"),
                    Just("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 6\r\n\r\n"),
                    Just(GET),
                    Just("5\r\nhello\r\n"),
                    Just("3;x\r\nGET\r\n"),
                    Just("0\r\n\r\n"),
                    Just("0\r\nA: b\r\n\r\n"),
                    Just("\r\n"),
                    Just("\n"),
                    Just("x"),
                ],
                0..8,
            ),
            step in 1..40usize,
        ) {
            let bytes = parts.concat();
            prop_assert_eq!(heads(bytes.as_bytes(), step), heads(bytes.as_bytes(), bytes.len()));
        }

        /// Contents of any chunks are left behind exactly where they end.
        #[test]
        fn what_is_well_framed_ends_where_it_says(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
            trailer in any::<bool>(),
            step in 1..60usize,
        ) {
            let mut bytes = b"PUT /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: CHUNKED\r\n\r\n".to_vec();
            for chunk in &chunks {
                bytes.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(if trailer { b"0\r\nx-sum: 1\r\n\r\n" } else { b"0\r\n\r\n" });
            bytes.extend_from_slice(GET.as_bytes());
            let (verdicts, released) = heads(&bytes, step);
            prop_assert_eq!((verdicts, released), (vec![Ok(()), Ok(())], true));
        }
    }
}
