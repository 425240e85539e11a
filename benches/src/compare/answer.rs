//! An answer as it is compared: header, question, sections as sets, client subnet; and what differs between two.

use std::collections::BTreeSet;

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{Record, RecordType};

/// A client subnet option without family. hickory-proto does not read it: it is read as 0.0.0.0/0.
const NO_FAMILY: [u8; 8] = [0, 8, 0, 4, 0, 0, 0, 0];

/// A part of an answer that can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Whether there is an answer at all.
    Silence,
    /// Whether hickory-proto can read it.
    Readable,
    /// The response code, extended.
    Rcode,
    /// AA.
    Authoritative,
    /// TC.
    Truncated,
    /// RD, RA, AD, CD and the opcode.
    Flags,
    /// The question, byte for byte.
    Question,
    /// The answer section.
    Answers,
    /// The authority section.
    Authorities,
    /// The additional section but for OPT.
    Additionals,
    /// Whether there is an OPT record, its version and DO.
    Edns,
    /// The client subnet with its scope.
    Subnet,
}

/// An answer, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Octets.
    pub length: usize,
    /// The response code.
    pub rcode: u16,
    /// AA.
    pub authoritative: bool,
    /// TC.
    pub truncated: bool,
    flags: u16,
    question: Vec<u8>,
    /// Owner, TTL, type and data of each record.
    pub answers: BTreeSet<String>,
    /// The same of the authority section.
    pub authorities: BTreeSet<String>,
    /// The same of the additional section.
    pub additionals: BTreeSet<String>,
    edns: Option<(u8, bool)>,
    /// Address, source and scope.
    pub subnet: Option<(std::net::IpAddr, u8, u8)>,
}

/// Silence, something unreadable, or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// Nothing.
    Nothing,
    /// What hickory-proto cannot read, and why.
    Unreadable(String),
    /// An answer.
    Answer(Box<Answer>),
}

impl Came {
    /// Reads what came.
    pub fn read(bytes: Option<&[u8]>, query: &[u8]) -> Self {
        let Some(bytes) = bytes else { return Self::Nothing };
        let mut readable = bytes.to_vec();
        let find = |bytes: &[u8]| bytes.windows(8).rposition(|window| window == NO_FAMILY);
        if let (Some(_), Some(at)) = (find(query), find(bytes)) {
            readable[at + 5] = 1;
        }
        match Message::from_vec(&readable) {
            Ok(message) => Self::Answer(Box::new(Answer::of(bytes, &message, query))),
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }

    /// The answer, when it is one.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Answer(answer) => Some(answer),
            _ => None,
        }
    }
}

impl Answer {
    fn of(bytes: &[u8], message: &Message, query: &[u8]) -> Self {
        let flags =
            bytes.get(2..4).and_then(|flags| flags.try_into().ok()).map_or(0, u16::from_be_bytes);
        // The question as the query has it, when the answer has one at all.
        let length = query_question(query);
        let question = match message.queries.len() {
            0 => Vec::new(),
            _ => bytes.get(12..12 + length).unwrap_or_default().to_vec(),
        };
        let subnet = message.edns.as_ref().and_then(|edns| {
            edns.options().as_ref().iter().find_map(|(code, option)| match (code, option) {
                (EdnsCode::Subnet, EdnsOption::Subnet(subnet)) => {
                    Some((subnet.addr(), subnet.source_prefix(), subnet.scope_prefix()))
                }
                _ => None,
            })
        });
        Self {
            length: bytes.len(),
            rcode: message.metadata.response_code.into(),
            authoritative: message.metadata.authoritative,
            truncated: message.metadata.truncation,
            // All but QR, AA, TC, Z and the response code.
            flags: flags & 0b0111_1001_1011_0000,
            question,
            answers: records(&message.answers),
            authorities: records(&message.authorities),
            additionals: records(&message.additionals),
            edns: message.edns.as_ref().map(|edns| (edns.version(), edns.flags().dnssec_ok)),
            subnet,
        }
    }

    /// The types in the answer section.
    pub fn answer_types(&self) -> BTreeSet<&str> {
        self.answers.iter().filter_map(|record| record.split(' ').nth(2)).collect()
    }
}

/// Octets of the question of a query of ours.
fn query_question(query: &[u8]) -> usize {
    let mut rest = query.get(12..).unwrap_or_default();
    let mut length = 0;
    while let Some((&label @ 1.., after)) = rest.split_first() {
        length += 1 + usize::from(label);
        rest = after.get(usize::from(label)..).unwrap_or_default();
    }
    length + 5
}

fn records(records: &[Record]) -> BTreeSet<String> {
    let text = |record: &Record| {
        let owner = record.name.to_string().to_ascii_lowercase();
        let rtype = u16::from(record.record_type());
        // Names in RDATA may be compressed to a question in mixed case.
        let data = match record.record_type() {
            RecordType::TXT | RecordType::NAPTR | RecordType::HINFO => record.data.to_string(),
            _ => record.data.to_string().to_ascii_lowercase(),
        };
        format!("{owner} {} {rtype} {data}", record.ttl)
    };
    records.iter().filter(|record| record.record_type() != RecordType::OPT).map(text).collect()
}

/// What differs.
pub fn differing(ours: &Came, theirs: &Came) -> Vec<Part> {
    let (ours, theirs) = match (ours, theirs) {
        (Came::Nothing, Came::Nothing) => return Vec::new(),
        (Came::Nothing, _) | (_, Came::Nothing) => return vec![Part::Silence],
        // What we send can be read, whatever the other does.
        (Came::Unreadable(_), _) | (_, Came::Unreadable(_)) => return vec![Part::Readable],
        (Came::Answer(ours), Came::Answer(theirs)) => (ours, theirs),
    };
    let parts = [
        (Part::Rcode, ours.rcode == theirs.rcode),
        (Part::Authoritative, ours.authoritative == theirs.authoritative),
        (Part::Truncated, ours.truncated == theirs.truncated),
        (Part::Flags, ours.flags == theirs.flags),
        (Part::Question, ours.question == theirs.question),
        (Part::Answers, ours.answers == theirs.answers),
        (Part::Authorities, ours.authorities == theirs.authorities),
        (Part::Additionals, ours.additionals == theirs.additionals),
        (Part::Edns, ours.edns == theirs.edns),
        (Part::Subnet, ours.subnet == theirs.subnet),
    ];
    parts.into_iter().filter(|(_, same)| !same).map(|(part, _)| part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::message::{Query, rtype};

    #[test]
    fn sections_are_sets_and_bytes_of_the_question_count() {
        let query = Query::new("a.test", rtype::A).message(1);
        let answer = |question: &[u8], addresses: &[u8]| {
            let mut bytes = query.clone();
            bytes[2] |= 0x84;
            bytes[13..14].copy_from_slice(question);
            bytes[7] = addresses.len() as u8;
            for last in addresses {
                bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, *last]);
            }
            Came::read(Some(&bytes), &query)
        };
        let one = answer(b"a", &[1, 2]);
        assert_eq!(differing(&one, &answer(b"a", &[2, 1])), []);
        assert_eq!(differing(&one, &answer(b"A", &[1, 2])), [Part::Question]);
        assert_eq!(differing(&one, &answer(b"a", &[1])), [Part::Answers]);
        assert_eq!(differing(&one, &Came::Nothing), [Part::Silence]);
        assert_eq!(one.answer().unwrap().answer_types().into_iter().collect::<Vec<_>>(), ["1"]);
    }
}
