//! Answers for people: the message decoded by hickory-proto, which knows nothing of how we encoded it.

use std::net::IpAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use serde::{Deserialize, Serialize};

/// A message, ready to be printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presented {
    /// Message id.
    pub id: u16,
    /// The response code's mnemonic.
    pub rcode: String,
    /// `qr aa tc rd ra`, those that are set.
    pub flags: Vec<String>,
    /// Records as master files write them.
    pub answer: Vec<String>,
    /// As above.
    pub authority: Vec<String>,
    /// As above, without the OPT record.
    pub additional: Vec<String>,
    /// UDP size of the OPT record, when there is one.
    pub udp_size: Option<u16>,
    /// The client subnet of the OPT record.
    pub subnet: Option<Scope>,
}

/// A client subnet and the scope that the answer has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Its address.
    pub address: IpAddr,
    /// SOURCE PREFIX-LENGTH.
    pub source_bits: u8,
    /// SCOPE PREFIX-LENGTH.
    pub scope_bits: u8,
}

/// Decodes a message.
///
/// # Errors
/// What hickory-proto says is wrong with it.
pub fn present(packet: &[u8]) -> Result<Presented, String> {
    let message = Message::from_vec(packet).map_err(|error| error.to_string())?;
    let meta = &message.metadata;
    let flags = [
        ("qr", packet.get(2).is_some_and(|octet| octet & 0x80 != 0)),
        ("aa", meta.authoritative),
        ("tc", meta.truncation),
        ("rd", meta.recursion_desired),
        ("ra", meta.recursion_available),
    ];
    let lines = |records: &[Record]| records.iter().map(ToString::to_string).collect();
    let subnet = message.edns.as_ref().and_then(|edns| match edns.option(EdnsCode::Subnet) {
        Some(EdnsOption::Subnet(subnet)) => Some(Scope {
            address: subnet.addr(),
            source_bits: subnet.source_prefix(),
            scope_bits: subnet.scope_prefix(),
        }),
        _ => None,
    });
    Ok(Presented {
        id: meta.id,
        rcode: rcode_text(u16::from(meta.response_code)),
        flags: flags.iter().filter(|(_, set)| *set).map(|(name, _)| (*name).to_owned()).collect(),
        answer: lines(&message.answers),
        authority: lines(&message.authorities),
        additional: lines(&message.additionals),
        udp_size: message.edns.as_ref().map(hickory_proto::op::Edns::max_payload),
        subnet,
    })
}

fn rcode_text(code: u16) -> String {
    use crate::wire::Rcode;
    let found = Rcode::ALL.iter().find(|rcode| **rcode as u16 == code);
    found.map_or_else(|| format!("RCODE{code}"), |rcode| rcode.as_str().to_owned())
}
