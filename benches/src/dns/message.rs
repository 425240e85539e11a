//! DNS queries as bytes, and the little that a load needs to read of answers.

use std::net::Ipv4Addr;

/// Record types by number (RFC 1035 §3.2.2, RFC 3596).
pub mod rtype {
    /// A.
    pub const A: u16 = 1;
    /// SOA.
    pub const SOA: u16 = 6;
    /// AAAA.
    pub const AAAA: u16 = 28;
}

/// The UDP size that queries with EDNS announce.
const UDP_SIZE: u16 = 1232;

/// A query with recursion not desired, built by and by.
#[derive(Clone, Debug)]
pub struct Query {
    name: Vec<u8>,
    qtype: u16,
    flags: u16,
    edns: Option<Opt>,
}

#[derive(Clone, Debug, Default)]
struct Opt {
    dnssec_ok: bool,
    options: Vec<u8>,
}

/// A name in presentation form without escapes, in wire form.
pub fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        wire.push(label.len().min(63) as u8);
        wire.extend(label.as_bytes().iter().take(63));
    }
    wire.push(0);
    wire
}

impl Query {
    /// A query of class IN.
    pub fn new(name: &str, qtype: u16) -> Self {
        Self::of_wire(wire_name(name), qtype)
    }

    /// The same for a name in wire form.
    pub const fn of_wire(name: Vec<u8>, qtype: u16) -> Self {
        Self { name, qtype, flags: 0, edns: None }
    }

    /// Sets header flags, such as 0x0100 for RD.
    #[must_use]
    pub const fn flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    /// Adds an OPT record.
    #[must_use]
    pub fn edns(mut self) -> Self {
        self.edns.get_or_insert_default();
        self
    }

    /// Sets DO, and adds an OPT record for it.
    #[must_use]
    pub fn dnssec_ok(mut self) -> Self {
        self.edns.get_or_insert_default().dnssec_ok = true;
        self
    }

    /// Adds an EDNS option.
    #[must_use]
    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        let options = &mut self.edns.get_or_insert_default().options;
        options.extend(code.to_be_bytes());
        options.extend((data.len() as u16).to_be_bytes());
        options.extend(data);
        self
    }

    /// Adds a client subnet of 24 bits (RFC 7871 §6).
    #[must_use]
    pub fn subnet_v4(self, address: Ipv4Addr) -> Self {
        let [a, b, c, _] = address.octets();
        self.option(8, &[0, 1, 24, 0, a, b, c])
    }

    /// The message, with this id.
    pub fn message(&self, id: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend(id.to_be_bytes());
        out.extend(self.flags.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 0, 0, u8::from(self.edns.is_some())]);
        out.extend(&self.name);
        out.extend(self.qtype.to_be_bytes());
        out.extend([0, 1]);
        if let Some(opt) = &self.edns {
            out.extend([0, 0, 41]);
            out.extend(UDP_SIZE.to_be_bytes());
            out.extend([0, 0, if opt.dnssec_ok { 0x80 } else { 0 }, 0]);
            out.extend((opt.options.len() as u16).to_be_bytes());
            out.extend(&opt.options);
        }
        out
    }
}

/// What a load holds an answer against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The response code.
    pub rcode: u8,
    /// Records in the answer section.
    pub answers: u16,
    /// Whether the additional section holds an OPT record.
    pub edns: bool,
}

impl Expected {
    /// Whether `answer` has the QR bit, no TC bit, and what is expected.
    pub fn holds(self, answer: &[u8]) -> bool {
        let Some((head, _)) = answer.split_first_chunk::<12>() else { return false };
        let [_, _, flags, rcode, _, _, answers_high, answers_low, _, _, _, additional] = *head;
        flags & 0x82 == 0x80
            && rcode & 0x0f == self.rcode
            && u16::from_be_bytes([answers_high, answers_low]) == self.answers
            && (additional > 0 || !self.edns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_what_rfc_1035_and_6891_say() {
        let message = Query::new("a.bc", rtype::A).flags(0x0100).dnssec_ok().message(0x1234);
        let expected = [
            0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1, 0, 0,
            41, 4, 0xd0, 0, 0, 0x80, 0, 0, 0,
        ];
        assert_eq!(message, expected);
    }

    #[test]
    fn a_subnet_has_the_octets_that_it_needs_rfc_7871_section_6() {
        let message = Query::new("", rtype::A).subnet_v4(Ipv4Addr::new(192, 0, 2, 9)).message(0);
        assert_eq!(&message[message.len() - 13..], [0, 11, 0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2]);
    }

    #[test]
    fn answers_are_held_against_what_is_expected() {
        let expected = Expected { rcode: 3, answers: 1, edns: true };
        let good = [0, 0, 0x84, 3, 0, 1, 0, 1, 0, 0, 0, 1];
        assert!(expected.holds(&good));
        for (at, octet) in [(2, 4), (2, 0x86), (3, 0), (7, 0), (11, 0)] {
            let mut bad = good;
            bad[at] = octet;
            assert!(!expected.holds(&bad), "octet {at} = {octet}");
        }
        assert!(!expected.holds(&good[..11]));
    }
}
