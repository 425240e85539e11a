//! DNS over QUIC (RFC 9250), without the QUIC: what a stream of a client must hold. The listener is `io::quic`.

use crate::edns::Keepalive;
use crate::wire;

/// The codes that connections and streams are ended with (RFC 9250 §4.3).
pub mod code {
    #![expect(missing_docs, reason = "the names of RFC 9250 §8.4")]
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 2;
    pub const EXCESSIVE_LOAD: u32 = 4;
}

/// A stream that breaks the protocol, for which the connection ends with [`code::PROTOCOL_ERROR`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation(pub &'static str);

/// The one query in the content of a stream, which the client has ended (RFC 9250 §4.2, §4.2.1, §4.3.3): its length,
/// all of it and nothing else; a message id of 0; not a response; not TCP's keepalive option.
///
/// # Errors
/// What is wrong.
pub fn query(stream: &[u8]) -> Result<&[u8], Violation> {
    let (length, message) = stream.split_first_chunk().ok_or(Violation("no length"))?;
    let length = usize::from(u16::from_be_bytes(*length));
    if message.len() < length {
        return Err(Violation("an end before the end of the query"));
    }
    if message.len() > length {
        return Err(Violation("more than one query on a stream"));
    }
    match message {
        [0, 0, flags, ..] if message.len() >= 12 && flags & 0x80 == 0 => {}
        [0, 0, ..] => return Err(Violation("not a query")),
        _ => return Err(Violation("a message id other than 0")),
    }
    let edns = wire::parse(message).ok().and_then(|query| query.edns);
    if edns.is_some_and(|edns| edns.keepalive != Keepalive::Absent) {
        return Err(Violation("a keepalive option"));
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_holds_one_whole_query_rfc_9250_section_4_3_3() {
        let message = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        let framed = [&[0, 17], &message[..]].concat();
        assert_eq!(query(&framed), Ok(&message[..]));
        let change = |at: usize, to: u8| {
            let mut changed = framed.clone();
            changed[at] = to;
            changed
        };
        for (why, stream) in [
            ("no length", vec![]),
            ("no length", vec![0]),
            ("an end before the end of the query", framed[..18].to_vec()),
            ("more than one query on a stream", [&framed[..], &framed].concat()),
            ("more than one query on a stream", [&framed[..], &[0]].concat()),
            ("a message id other than 0", change(2, 1)),
            ("a message id other than 0", change(3, 1)),
            ("a message id other than 0", vec![0, 0]),
            ("not a query", change(4, 0x81)),
            ("not a query", vec![0, 3, 0, 0, 1]),
        ] {
            assert_eq!(query(&stream), Err(Violation(why)), "{stream:02x?}");
        }
        let mut keepalive = framed.clone();
        keepalive.extend([0, 0, 41, 4, 0, 0, 0, 0, 0, 0, 4, 0, 11, 0, 0]);
        (keepalive[1], keepalive[13]) = (32, 1);
        assert_eq!(query(&keepalive), Err(Violation("a keepalive option")));
        keepalive[30] = 12;
        assert!(query(&keepalive).is_ok(), "padding");
    }
}
