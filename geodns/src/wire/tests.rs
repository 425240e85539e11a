//! Messages by example, with hickory-proto as the other side.

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::{Name as HickoryName, RecordType};
use proptest::prelude::*;

use super::*;

/// Header fields, then whatever follows.
fn packet(flags: u16, counts: [u16; 4], body: &[&[u8]]) -> Vec<u8> {
    let mut packet = vec![0xab, 0xcd];
    packet.extend_from_slice(&flags.to_be_bytes());
    for count in counts {
        packet.extend_from_slice(&count.to_be_bytes());
    }
    packet.extend(body.concat());
    packet
}

const QUESTION: &[u8] = b"\x03wWw\x03CDN\x04test\0\0\x01\0\x01";
const OPT: &[u8] = b"\0\0\x29\x10\0\0\0\0\0\0\0";

fn refuse(
    out: &mut [u8],
    echo: &Echo<'_>,
    rcode: Rcode,
    edns: Option<&Edns<'_>>,
    tsig: Option<&Tsig<'_>>,
) -> usize {
    let opt = edns.map(|edns| edns::Reply {
        dnssec_ok: edns.dnssec_ok,
        subnet: edns.subnet,
        ..edns::Reply::default()
    });
    let response = Response::begin(out, MIN_BUFFER, echo, opt.as_ref()).unwrap();
    match tsig {
        Some(tsig) => response.finish_with_bad_key(rcode, opt.as_ref(), tsig),
        None => response.finish(rcode, false, opt.as_ref()),
    }
}

fn refusal(packet: &[u8]) -> (Option<Rcode>, Vec<u8>) {
    let mut out = [0; 1232];
    match parse(packet).unwrap_err() {
        Refusal::Silence => (None, Vec::new()),
        Refusal::Error { echo, rcode, edns, tsig } => {
            let length = refuse(&mut out, &echo, rcode, edns.as_ref(), tsig.as_ref());
            (Some(rcode), out[..length].to_vec())
        }
    }
}

fn lower(query: &Query<'_>) -> LowerName {
    let mut name = LowerName::default();
    name.set(query);
    name
}

#[test]
fn the_common_query_is_read_in_place() {
    let bytes = packet(0x0100, [1, 0, 0, 1], &[QUESTION, OPT]);
    let query = parse(&bytes).unwrap();
    assert_eq!(lower(&query).as_wire(), b"\x03www\x03cdn\x04test\0");
    assert_eq!(query.echo.question_name(), b"\x03wWw\x03CDN\x04test\0");
    assert_eq!((query.qtype, query.qclass), (1, 1));
    assert_eq!(query.edns.unwrap().udp_size, 4096);
}

#[test]
fn what_must_not_be_answered_is_met_with_silence() {
    for bytes in [&b""[..], &[0; 11], &packet(0x8000, [1, 0, 0, 0], &[QUESTION])] {
        assert_eq!(refusal(bytes).0, None, "{bytes:?}");
    }
}

#[test]
fn broken_messages_get_formerr() {
    let record: &[u8] = b"\0\0\x01\0\x01\0\0\0\0\0\0";
    for (why, bytes) in [
        ("no question", packet(0, [0, 0, 0, 0], &[])),
        ("two questions", packet(0, [2, 0, 0, 0], &[QUESTION, QUESTION])),
        ("a question cut short", packet(0, [1, 0, 0, 0], &[&QUESTION[..10]])),
        ("a pointer loop", packet(0, [1, 0, 0, 0], &[b"\xc0\x0c\0\x01\0\x01"])),
        ("a pointer into the header", packet(0, [1, 0, 0, 0], &[b"\x01a\xc0\x02\0\x01\0\x01"])),
        ("a label of type 01", packet(0, [1, 0, 0, 0], &[b"\x40\0\0\x01\0\x01"])),
        ("a label of type 10", packet(0, [1, 0, 0, 0], &[b"\x80\0\0\x01\0\x01"])),
        ("a name too long", packet(0, [1, 0, 0, 0], &[&[1; 300]])),
        ("trailing bytes", packet(0, [1, 0, 0, 0], &[QUESTION, b"x"])),
        ("bytes after the OPT", packet(0, [1, 0, 0, 1], &[QUESTION, OPT, b"x"])),
        ("a missing record", packet(0, [1, 0, 0, 1], &[QUESTION])),
        ("an OPT cut short", packet(0, [1, 0, 0, 1], &[QUESTION, &OPT[..9]])),
        ("two OPT", packet(0, [1, 0, 0, 2], &[QUESTION, OPT, OPT])),
        ("an OPT that is not root's", packet(0, [1, 0, 0, 1], &[QUESTION, b"\x01a", OPT])),
        ("an OPT in the answer", packet(0, [1, 1, 0, 0], &[QUESTION, OPT])),
        ("records that are not there", packet(0, [1, 65535, 65535, 65535], &[QUESTION, record])),
    ] {
        let (rcode, response) = refusal(&bytes);
        assert_eq!(rcode, Some(Rcode::FormErr), "{why}");
        let message = Message::from_vec(&response).unwrap();
        assert_eq!(message.metadata.response_code, ResponseCode::FormErr, "{why}");
        assert_eq!(message.metadata.id, 0xabcd, "{why}");
        assert!(!message.metadata.authoritative, "{why}");
    }
}

#[test]
fn unknown_opcodes_get_notimp_with_their_question() {
    for opcode in [1_u16, 2, 4, 5, 6, 15] {
        let (rcode, response) = refusal(&packet(opcode << 11, [1, 0, 0, 0], &[QUESTION]));
        assert_eq!(rcode, Some(Rcode::NotImp));
        let message = Message::from_vec(&response).unwrap();
        assert_eq!(u8::from(message.metadata.op_code), u8::from(OpCode::from_u8(opcode as u8)));
        assert_eq!(message.queries.len(), 1);
    }
    assert_eq!(refusal(&packet(5 << 11, [0, 9, 9, 9], &[])).0, Some(Rcode::NotImp));
}

#[test]
fn errors_carry_opt_when_the_query_did_rfc_6891_section_6_1_1() {
    let record: &[u8] = b"\0\0\x01\0\x01\0\0\0\0\0\0";
    for (why, bytes, has_opt) in [
        ("another opcode", packet(4 << 11, [1, 0, 0, 1], &[QUESTION, OPT]), true),
        (
            "another opcode, and a record",
            packet(5 << 11, [1, 0, 1, 1], &[QUESTION, record, OPT]),
            true,
        ),
        ("no question", packet(0, [0, 0, 0, 1], &[OPT]), true),
        ("trailing bytes", packet(0, [1, 0, 0, 1], &[QUESTION, OPT, b"x"]), true),
        ("two OPT", packet(0, [1, 0, 0, 2], &[QUESTION, OPT, OPT]), true),
        ("another opcode without", packet(4 << 11, [1, 0, 1, 0], &[QUESTION, record]), false),
        ("an OPT that is not there", packet(4 << 11, [1, 0, 0, 1], &[QUESTION]), false),
    ] {
        let (_, response) = refusal(&bytes);
        let message = Message::from_vec(&response).unwrap();
        assert_eq!(message.edns.is_some(), has_opt, "{why}");
    }
}

#[test]
fn other_versions_of_edns_get_badvers_with_ours_rfc_6891_section_6_1_3() {
    let opt = b"\0\0\x29\x10\0\0\x01\x80\0\0\0";
    let (rcode, response) = refusal(&packet(0, [1, 0, 0, 1], &[QUESTION, opt]));
    assert_eq!(rcode, Some(Rcode::BadVers));
    let message = Message::from_vec(&response).unwrap();
    assert_eq!(u16::from(message.metadata.response_code), 16);
    let edns = message.edns.unwrap();
    assert_eq!((edns.version(), edns.flags().dnssec_ok), (0, true));
    assert!(!message.metadata.authoritative);
}

#[test]
fn extra_records_do_not_hinder_rfc_3425() {
    let record: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x01\0\x04\x0a\0\0\x01";
    let bytes = packet(0, [1, 1, 1, 2], &[QUESTION, record, record, record, OPT]);
    assert!(parse(&bytes).unwrap().edns.is_some());
}

#[test]
fn unknown_keys_get_badkey_rfc_8945_section_5_2_1() {
    let tsig: &[u8] = b"\x03key\0\0\xfa\0\xff\0\0\0\0\0\x29\
        \x0bhmac-sha256\0\0\0\x65\0\0\0\x01\x2c\0\x0c0123456789ab\xab\xcd\0\0\0\0";
    let (rcode, response) = refusal(&packet(0, [1, 0, 0, 2], &[QUESTION, OPT, tsig]));
    assert_eq!(rcode, Some(Rcode::NotAuth));
    let message = Message::from_vec(&response).unwrap();
    assert_eq!(message.metadata.response_code, ResponseCode::NotAuth);
    assert!(message.edns.is_some());
    let last = message.additionals.last().unwrap();
    assert_eq!((last.record_type(), last.name.to_ascii()), (RecordType::TSIG, "key.".to_owned()));
    // TSIG anywhere but at the end breaks the format.
    let (rcode, _) = refusal(&packet(0, [1, 0, 0, 2], &[QUESTION, tsig, OPT]));
    assert_eq!(rcode, Some(Rcode::FormErr));
}

fn rendered(address: u8) -> [u8; 16] {
    [0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, address]
}

#[test]
fn answers_keep_id_flags_and_the_case_of_the_question() {
    let bytes = packet(0x0110, [1, 0, 0, 0], &[QUESTION]);
    let query = parse(&bytes).unwrap();
    let mut out = [0xff; 512];
    let mut response = Response::begin(&mut out, 512, &query.echo, None).unwrap();
    response.put(Section::Answer, 1, &rendered(1)).unwrap();
    response.put_owned(Section::Answer, 2, &[rendered(2), rendered(3)].concat(), 0xc010, Some(7));
    let length = response.finish(Rcode::NoError, true, None);
    assert_eq!(&out[..4], [0xab, 0xcd, 0x85, 0x00], "QR, AA, RD; not CD, not RA");
    let message = Message::from_vec(&out[..length]).unwrap();
    let owners: Vec<_> = message.answers.iter().map(|r| (r.name.to_ascii(), r.ttl)).collect();
    let expected = [("wWw.CDN.test.", 60), ("CDN.test.", 7), ("CDN.test.", 7)];
    assert_eq!(owners, expected.map(|(name, ttl)| (name.to_owned(), ttl)));
}

#[test]
fn what_does_not_fit_is_truncated_to_empty_sections_rfc_2181_section_9() {
    let bytes = packet(0, [1, 0, 0, 1], &[QUESTION, b"\0\0\x29\x02\0\0\0\0\0\0\0"]);
    let query = parse(&bytes).unwrap();
    let opt = edns::Reply::default();
    let mut out = [0; 4096];
    let mut response = Response::begin(&mut out, 512, &query.echo, Some(&opt)).unwrap();
    for address in 0..60 {
        response.put(Section::Answer, 1, &rendered(address));
    }
    assert!(response.is_truncated());
    let length = response.finish(Rcode::NoError, true, Some(&opt));
    let message = Message::from_vec(&out[..length]).unwrap();
    assert!(message.metadata.truncation && message.edns.is_some());
    assert_eq!((message.answers.len(), message.queries.len()), (0, 1));
}

#[test]
fn a_buffer_too_short_for_any_message_is_refused() {
    let bytes = packet(0, [1, 0, 0, 0], &[QUESTION]);
    let query = parse(&bytes).unwrap();
    assert!(Response::begin(&mut [0; 100], 512, &query.echo, None).is_none());
}

proptest! {
    #[test]
    fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn mutated_queries_are_safe_and_errors_parse(at in 0..60_usize, value: u8, cut in 0..60_usize) {
        let mut bytes = packet(0x0100, [1, 0, 0, 1], &[QUESTION, b"\0\0\x29\x10\0\0\0\0\0\0\x0b\0\x08\0\x07\0\x01\x18\0\xc0\0\x02"]);
        if let Some(octet) = bytes.get_mut(at) {
            *octet = value;
        }
        bytes.truncate(60 - cut);
        let mut out = [0; 512];
        if let Err(Refusal::Error { echo, rcode, edns, tsig }) = parse(&bytes) {
            let length = refuse(&mut out, &echo, rcode, edns.as_ref(), tsig.as_ref());
            let message = Message::from_vec(&out[..length]).unwrap();
            prop_assert_eq!(message.metadata.id.to_be_bytes(), [bytes[0], bytes[1]]);
        }
    }

    /// The other side of our parser: whatever hickory-proto encodes as a query, we read as it was meant.
    #[test]
    fn queries_of_hickory_proto_are_read(labels in prop::collection::vec("[a-zA-Z0-9][a-zA-Z0-9-]{0,20}", 0..6), qtype in 1..200_u16) {
        let name = HickoryName::from_labels(labels.iter().map(|l| l.as_bytes())).unwrap();
        let mut message = Message::query();
        message.add_query(hickory_proto::op::Query::query(name.clone(), RecordType::from(qtype)));
        let bytes = message.to_vec().unwrap();
        let query = parse(&bytes).unwrap();
        prop_assert_eq!(crate::name::Shown(lower(&query).as_wire()).to_string(), name.to_lowercase().to_ascii());
        prop_assert_eq!(query.qtype, qtype);
    }
}
