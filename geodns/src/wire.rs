//! Messages: query bytes in, answer bytes out, both in place.
//!
//! [`parse`] reads the common query (one question, at most one OPT record) without copying; whatever is unusual takes
//! the cold path, which walks every record with the same bounds. What cannot be answered as asked comes back as a
//! [`Refusal`] with the RFC's code, or as silence. [`Response`] writes into the caller's buffer and never past its
//! limit: what does not fit is truncated to empty sections and the TC bit. What to answer is decided elsewhere.

mod response;

use shared::prefix::Prefix;
use xxhash_rust::xxh3::xxh3_64;

pub use response::{MIN_BUFFER, Response, Section};

use crate::edns::{self, Edns};
use crate::name::{MAX_NAME_BYTES, Name, wire_length};
use crate::rtype;

/// Octets of the message header.
pub const HEADER_BYTES: usize = 12;

/// A compression pointer to the name of the question, which always lies right behind the header.
pub const QUESTION_NAME: u16 = 0xc00c;

/// Response codes, the extended ones of EDNS included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
#[expect(missing_docs, reason = "the names of RFC 1035, 2136, 6891, 7873")]
pub enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    YxDomain = 6,
    NotAuth = 9,
    BadVers = 16,
    BadCookie = 23,
}

impl Rcode {
    /// Every code that we answer with.
    pub const ALL: [Self; 10] = [
        Self::NoError,
        Self::FormErr,
        Self::ServFail,
        Self::NxDomain,
        Self::NotImp,
        Self::Refused,
        Self::YxDomain,
        Self::NotAuth,
        Self::BadVers,
        Self::BadCookie,
    ];

    /// The mnemonic, as `dig` prints it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoError => "NOERROR",
            Self::FormErr => "FORMERR",
            Self::ServFail => "SERVFAIL",
            Self::NxDomain => "NXDOMAIN",
            Self::NotImp => "NOTIMP",
            Self::Refused => "REFUSED",
            Self::YxDomain => "YXDOMAIN",
            Self::NotAuth => "NOTAUTH",
            Self::BadVers => "BADVERS",
            Self::BadCookie => "BADCOOKIE",
        }
    }
}

/// Classes.
pub mod class {
    #![expect(missing_docs, reason = "the names of IANA's registry")]
    pub const IN: u16 = 1;
    pub const CH: u16 = 3;
    pub const ANY: u16 = 255;
}

/// A query that can be looked up.
#[derive(Clone, Debug)]
pub struct Query<'p> {
    /// What answers copy from the header and the question.
    pub echo: Echo<'p>,
    /// QTYPE.
    pub qtype: u16,
    /// QCLASS.
    pub qclass: u16,
    /// The OPT record, when there is one.
    pub edns: Option<Edns<'p>>,
}

/// What every answer copies from its query.
#[derive(Clone, Copy, Debug)]
pub struct Echo<'p> {
    id: [u8; 2],
    /// The first octet of the query's flags: opcode and RD are copied from it.
    flags: u8,
    /// The question as it came, letters in their case (0x20); empty when there is none to echo.
    question: &'p [u8],
}

/// QNAME folded to lower case, in the caller's memory: it is long, and copies of it would cost more than the rest of a
/// query.
#[derive(Clone)]
pub struct LowerName {
    octets: [u8; MAX_NAME_BYTES],
    length: u8,
    hash: u64,
}

/// A message that is not looked up.
#[derive(Clone, Debug)]
pub enum Refusal<'p> {
    /// No answer: an answer would loop, or reach someone who did not ask.
    Silence,
    /// The RFC's error.
    Error {
        /// What is echoed.
        echo: Echo<'p>,
        /// Which error.
        rcode: Rcode,
        /// Whether the error carries an OPT record: the query had a readable one.
        edns: Option<Edns<'p>>,
        /// The TSIG record whose key we do not know, to be answered in kind (RFC 8945 §5.2.1).
        tsig: Option<Tsig<'p>>,
    },
}

/// The parts of a TSIG record that an answer repeats.
#[derive(Clone, Copy, Debug)]
pub struct Tsig<'p> {
    key: &'p [u8],
    /// Algorithm, time signed, fudge.
    algorithm_and_time: &'p [u8],
}

impl Default for LowerName {
    fn default() -> Self {
        Self { octets: [0; MAX_NAME_BYTES], length: 1, hash: xxh3_64(&[0]) }
    }
}

impl LowerName {
    /// Becomes the name of the question.
    pub fn set(&mut self, query: &Query<'_>) {
        // No longer than that, or it would not have been read.
        let name = query.echo.question_name();
        let Some(octets) = self.octets.get_mut(..name.len()) else { return };
        octets.copy_from_slice(name);
        octets.make_ascii_lowercase();
        self.hash = xxh3_64(octets);
        self.length = name.len() as u8;
    }

    /// XXH3 of the octets, by which zones find names.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The octets.
    pub fn as_wire(&self) -> &[u8] {
        self.octets.get(..usize::from(self.length)).unwrap_or(&[0])
    }
}

impl std::fmt::Debug for LowerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", crate::name::Shown(self.as_wire()))
    }
}

impl<'p> Echo<'p> {
    /// Whether this is a query without a question. Other opcodes are no queries.
    pub fn asks_nothing(&self) -> bool {
        self.question.is_empty() && self.flags & 0x78 == 0
    }

    /// The question's type, when there is a question.
    pub fn question_type(&self) -> Option<u16> {
        let &[t0, t1, _, _] = self.question.last_chunk()?;
        Some(u16::from_be_bytes([t0, t1]))
    }

    /// The question's name with its letters as they came; empty when there is no question.
    pub fn question_name(&self) -> &'p [u8] {
        self.question.len().checked_sub(4).and_then(|end| self.question.get(..end)).unwrap_or(&[])
    }
}

/// Reads a message that should be a query.
pub fn parse(packet: &[u8]) -> Result<Query<'_>, Refusal<'_>> {
    let Some((header, body)) = packet.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Refusal::Silence);
    };
    let [id_high, id_low, flags, _, counts @ ..] = *header;
    let echo = Echo { id: [id_high, id_low], flags, question: &[] };
    // QR 0, opcode 0, one question, nothing else or one additional record.
    let usual = flags & 0xf8 == 0 && matches!(counts, [0, 1, 0, 0, 0, 0, 0, 0 | 1]);
    if !usual {
        return unusual(echo, counts, body);
    }
    let Some((question, rest)) = split_question(body) else {
        return Err(echo.error(Rcode::FormErr));
    };
    let echo = Echo { question, ..echo };
    let edns = match (counts[7], rest) {
        (0, []) => None,
        (
            1,
            [0, 0, 41, size_high, size_low, t0, t1, t2, t3, length_high, length_low, data @ ..],
        ) if data.len() == usize::from(u16::from_be_bytes([*length_high, *length_low])) => {
            let size = u16::from_be_bytes([*size_high, *size_low]);
            let ttl = u32::from_be_bytes([*t0, *t1, *t2, *t3]);
            match Edns::parse(size, ttl, data) {
                Ok(edns) => Some(edns),
                Err(edns::Malformed) => return Err(echo.malformed_edns(ttl)),
            }
        }
        _ => return unusual(echo, counts, body),
    };
    echo.query(edns)
}

/// Everything but the common query: other opcodes, other counts, other records.
#[cold]
fn unusual<'p>(echo: Echo<'p>, counts: [u8; 8], body: &'p [u8]) -> Result<Query<'p>, Refusal<'p>> {
    if echo.flags & 0x80 != 0 {
        // QR 1: answering an answer is how two servers loop forever.
        return Err(Refusal::Silence);
    }
    let [q0, q1, an0, an1, ns0, ns1, ar0, ar1] = counts;
    let count = |high, low| u32::from(u16::from_be_bytes([high, low]));
    let split = match count(q0, q1) {
        0 => Some((&[] as &[u8], body)),
        1 => split_question(body),
        _ => None,
    };
    let (question, records) = split.map_or((&[] as &[u8], None), |(q, rest)| (q, Some(rest)));
    let echo = Echo { question, ..echo };
    let before_additional = count(an0, an1) + count(ns0, ns1);
    let walked = match records {
        Some(records) => walk(echo, records, before_additional, count(ar0, ar1)),
        None => Err(echo.error(Rcode::FormErr)),
    };
    if echo.flags & 0x78 != 0 || question.is_empty() {
        // Who sent a readable OPT record gets one, whatever else is wrong (RFC 6891 §6.1.1).
        let rcode = if echo.flags & 0x78 != 0 { Rcode::NotImp } else { Rcode::FormErr };
        let edns = walked.ok().and_then(|(edns, _)| edns);
        return Err(Refusal::Error { echo, rcode, edns, tsig: None });
    }
    let (edns, tsig) = walked?;
    if tsig.is_some() {
        // No keys are configured here, so none can be the right one.
        return Err(Refusal::Error { echo, rcode: Rcode::NotAuth, edns, tsig });
    }
    echo.query(edns)
}

/// Reads the OPT and TSIG records among all that follow the question, up to the end of the message.
fn walk<'p>(
    echo: Echo<'p>,
    mut rest: &'p [u8],
    before_additional: u32,
    additional: u32,
) -> Result<(Option<Edns<'p>>, Option<Tsig<'p>>), Refusal<'p>> {
    let mut edns = None;
    let mut tsig = None;
    for index in 0..before_additional + additional {
        let Some((record, after)) = split_record(rest) else {
            return Err(echo.error(Rcode::FormErr));
        };
        rest = after;
        match record.rtype {
            _ if tsig.is_some() => return Err(echo.error(Rcode::FormErr)), // not the last one
            rtype::OPT => {
                let misplaced = index < before_additional || record.owner != [0];
                if misplaced || edns.is_some() {
                    return Err(echo.malformed_edns(0));
                }
                match Edns::parse(record.class, record.ttl, record.data) {
                    Ok(parsed) => edns = Some(parsed),
                    Err(edns::Malformed) => return Err(echo.malformed_edns(record.ttl)),
                }
            }
            rtype::TSIG => {
                let Some(parsed) =
                    (index >= before_additional).then(|| Tsig::parse(&record)).flatten()
                else {
                    return Err(echo.error(Rcode::FormErr));
                };
                tsig = Some(parsed);
            }
            _ => {}
        }
    }
    if !rest.is_empty() {
        return Err(Refusal::Error { echo, rcode: Rcode::FormErr, edns, tsig: None });
    }
    Ok((edns, tsig))
}

impl<'p> Echo<'p> {
    fn query(self, edns: Option<Edns<'p>>) -> Result<Query<'p>, Refusal<'p>> {
        if edns.is_some_and(|edns| edns.version > 0) {
            return Err(Refusal::Error { echo: self, rcode: Rcode::BadVers, edns, tsig: None });
        }
        let Some(&[t0, t1, c0, c1]) = self.question.last_chunk::<4>() else {
            return Err(self.error(Rcode::FormErr));
        };
        let (qtype, qclass) = (u16::from_be_bytes([t0, t1]), u16::from_be_bytes([c0, c1]));
        Ok(Query { echo: self, qtype, qclass, edns })
    }

    fn error(self, rcode: Rcode) -> Refusal<'p> {
        Refusal::Error { echo: self, rcode, edns: None, tsig: None }
    }

    /// FORMERR with an OPT record, so that nobody takes it for a server without EDNS (RFC 6891 §7).
    fn malformed_edns(self, ttl: u32) -> Refusal<'p> {
        let edns = Edns::bare(edns::MIN_UDP_SIZE, 0, ttl & 0x8000 != 0);
        Refusal::Error { echo: self, rcode: Rcode::FormErr, edns: Some(edns), tsig: None }
    }
}

impl<'p> Tsig<'p> {
    fn parse(record: &Record<'p>) -> Option<Self> {
        let algorithm_and_time = record.data.get(..wire_length(record.data)? + 8)?;
        // Only keys without compression can be repeated as they are; writers must not compress them.
        wire_length(record.owner)?;
        Some(Self { key: record.owner, algorithm_and_time })
    }
}

struct Record<'p> {
    owner: &'p [u8],
    rtype: u16,
    class: u16,
    ttl: u32,
    data: &'p [u8],
}

/// Name, type and class. A compressed name is malformed here: all that lies before it is the header.
fn split_question(body: &[u8]) -> Option<(&[u8], &[u8])> {
    body.split_at_checked(wire_length(body)? + 4)
}

fn split_record(body: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (owner, rest) = body.split_at_checked(owner_length(body)?)?;
    let (&[t0, t1, c0, c1, l0, l1, l2, l3, n0, n1], rest) = rest.split_first_chunk::<10>()?;
    let (data, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([n0, n1])))?;
    let record = Record {
        owner,
        rtype: u16::from_be_bytes([t0, t1]),
        class: u16::from_be_bytes([c0, c1]),
        ttl: u32::from_be_bytes([l0, l1, l2, l3]),
        data,
    };
    Some((record, rest))
}

/// Octets of an owner name that may end in a compression pointer, which is stepped over and not followed.
fn owner_length(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *body.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
        if at >= MAX_NAME_BYTES {
            return None;
        }
    }
}

/// A query as a resolver would send it: class IN, RD clear, EDNS with our own size, and `subnet` when given.
pub fn write_query(id: u16, name: &Name, qtype: u16, subnet: Option<Prefix>) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    packet.extend_from_slice(name.as_wire());
    packet.extend(qtype.to_be_bytes());
    packet.extend(class::IN.to_be_bytes());
    packet.extend([0, 0, 41]);
    packet.extend(edns::UDP_SIZE.to_be_bytes());
    packet.extend([0; 4]);
    let option = subnet.map(edns::subnet_option).unwrap_or_default();
    packet.extend(u16::try_from(option.len()).unwrap_or(0).to_be_bytes());
    packet.extend(option);
    packet
}

#[cfg(test)]
mod tests;
