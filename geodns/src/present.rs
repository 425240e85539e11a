//! Answers for people: the message decoded by hickory-proto, which knows nothing of how we encoded it.

use std::net::IpAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{RData, Record};
use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::rtype;

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
    let lines = |records: &[Record]| records.iter().map(line).collect();
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

/// A record as master files write it; RFC 3597's form for types that hickory-proto has no text for.
fn line(record: &Record) -> String {
    let (code, rdata) = match &record.data {
        RData::Unknown { code, rdata } => (code, rdata),
        RData::TXT(txt) => {
            let texts = txt.txt_data.iter().map(|text| format!(" {}", quoted(text)));
            let texts: String = texts.collect();
            return format!("{} {} {} TXT{texts}", record.name, record.ttl, record.dns_class);
        }
        _ => return record.to_string(),
    };
    let rtype = u16::from(*code);
    let octets = rdata.anything.as_slice();
    let data = match Name::from_wire(octets).filter(|name| name.as_wire().len() == octets.len()) {
        Some(target) if rtype == rtype::DNAME => target.to_string(),
        _ => {
            let digits: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
            format!("\\# {} {digits}", octets.len()).trim_end().to_owned()
        }
    };
    format!("{} {} {} {} {data}", record.name, record.ttl, record.dns_class, rtype::Shown(rtype))
}

/// A character-string in quotes (RFC 1035 §5.1).
fn quoted(text: &[u8]) -> String {
    let octets = text.iter().map(|octet| match octet {
        b'"' | b'\\' => format!("\\{}", char::from(*octet)),
        0x20..=0x7e => char::from(*octet).to_string(),
        other => format!("\\{other:03}"),
    });
    format!("\"{}\"", octets.collect::<String>())
}

fn rcode_text(code: u16) -> String {
    use crate::wire::Rcode;
    let found = Rcode::ALL.iter().find(|rcode| **rcode as u16 == code);
    found.map_or_else(|| format!("RCODE{code}"), |rcode| rcode.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use crate::answer::{Client, Context, Outcome, Server, Transport, answer};
    use crate::name::Name;
    use crate::testing;

    #[test]
    fn records_are_shown_as_master_files_write_them_rfc_3597_section_5() {
        let snapshot = testing::snapshot(testing::world(&[], |_| {}), &[]);
        let server = Server::default();
        let context = Context { server: &server, now: shared::time::UnixMillis(0) };
        let address = "127.0.0.1:53".parse().unwrap();
        let client = Client { address, transport: Transport::Tcp, draw: 0 };
        let shown = |name: &str, rtype: u16| {
            let packet =
                crate::wire::write_query(1, &Name::parse_absolute(name).unwrap(), rtype, None);
            let mut out = vec![0; 4096];
            match answer(&packet, &client, &context, &snapshot, &mut out) {
                Outcome::Respond { length, .. } => super::present(&out[..length]).unwrap().answer,
                Outcome::Drop(reason) => panic!("{reason:?}"),
            }
        };
        assert_eq!(shown("old.cdn.test", 39), ["old.cdn.test. 300 IN DNAME new.cdn.test."]);
        assert_eq!(
            shown("quoted.cdn.test", 16),
            [r#"quoted.cdn.test. 300 IN TXT "a \"b\\" "\255""#]
        );
        assert_eq!(shown("odd.cdn.test", 62_347), ["odd.cdn.test. 300 IN TYPE62347 \\# 2 abcd"]);
    }
}
