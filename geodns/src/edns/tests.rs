//! OPT records by example, with hickory-proto as the other side.

use super::*;
use proptest::prelude::*;

fn option(code: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    [&code.to_be_bytes()[..], &length.to_be_bytes(), data].concat()
}

fn subnet_of(data: &[u8]) -> Result<(Option<String>, u8), Malformed> {
    let options = option(OPTION_SUBNET, data);
    let edns = Edns::parse(1232, 0, &options)?;
    let subnet = edns.subnet.unwrap();
    Ok((subnet.address.map(|a| a.to_string()), subnet.source_bits))
}

#[test]
fn subnets_are_read_to_the_bit_rfc_7871_section_6() {
    let v4 = |text: &str, bits| Ok((Some(text.to_owned()), bits));
    assert_eq!(subnet_of(&[0, 1, 24, 0, 192, 0, 2]), v4("192.0.2.0", 24));
    assert_eq!(subnet_of(&[0, 1, 20, 0, 192, 0, 0x20]), v4("192.0.32.0", 20));
    assert_eq!(subnet_of(&[0, 1, 32, 0, 192, 0, 2, 1]), v4("192.0.2.1", 32));
    assert_eq!(subnet_of(&[0, 1, 0, 0]), v4("0.0.0.0", 0));
    assert_eq!(subnet_of(&[0, 2, 32, 0, 0x20, 1, 0xd, 0xb8]), v4("2001:db8::", 32));
    assert_eq!(subnet_of(&[0, 0, 0, 0]), Ok((None, 0)));
}

#[test]
fn malformed_subnets_are_refused_rfc_7871_section_7_1_2() {
    for (why, data) in [
        ("no data", &[] as &[u8]),
        ("half a header", &[0, 1, 24]),
        ("bits after the prefix", &[0, 1, 20, 0, 192, 0, 0x21]),
        ("an octet too many", &[0, 1, 24, 0, 192, 0, 2, 0]),
        ("an octet too few", &[0, 1, 24, 0, 192, 0]),
        ("too long a prefix", &[0, 1, 33, 0, 192, 0, 2, 0, 0]),
        ("a scope in a query", &[0, 1, 24, 24, 192, 0, 2]),
        ("an unknown family", &[0, 3, 24, 0, 192, 0, 2]),
        ("an address without family", &[0, 0, 8, 0, 10]),
    ] {
        assert_eq!(subnet_of(data), Err(Malformed), "{why}");
    }
    let twice = option(OPTION_SUBNET, &[0, 1, 0, 0]).repeat(2);
    assert_eq!(Edns::parse(1232, 0, &twice), Err(Malformed));
}

#[test]
fn unknown_options_are_passed_over_rfc_6891_section_6_1_2() {
    let options = [option(10, &[1; 8]), option(65001, b""), option(3, b"")].concat();
    assert_eq!(Edns::parse(4096, 0, &options).unwrap().subnet, None);
    for cut in [&options[..3], &options[..7], &[0, 1, 0, 9]] {
        assert_eq!(Edns::parse(4096, 0, cut), Err(Malformed));
    }
}

#[test]
fn small_sizes_count_as_512_rfc_6891_section_6_2_3() {
    assert_eq!(Edns::parse(0, 0, &[]).unwrap().udp_size, 512);
    assert_eq!(Edns::parse(4096, 0, &[]).unwrap().udp_size, 4096);
}

#[test]
fn the_do_bit_is_read_and_other_flags_are_not() {
    assert!(Edns::parse(512, 0x0000_8000, &[]).unwrap().dnssec_ok);
    assert!(!Edns::parse(512, 0x0000_7fff, &[]).unwrap().dnssec_ok);
}

#[test]
fn options_of_another_version_are_not_read() {
    let edns = Edns::parse(512, 0x0001_0000, &[1, 2, 3]).unwrap();
    assert_eq!((edns.version, edns.subnet), (1, None));
}

#[test]
fn subnets_are_echoed_byte_for_byte_with_our_scope() {
    let data = [0, 1, 20, 0, 192, 0, 0x20];
    let options = option(OPTION_SUBNET, &data);
    let subnet = Edns::parse(512, 0, &options).unwrap().subnet;
    let reply = Reply { dnssec_ok: true, subnet, scope_bits: 16, ..Reply::default() };
    let mut out = vec![0xaa; reply.length()];
    reply.write(16, &reply.fit(100, 512), &mut out);
    let expected =
        [0, 0, 41, 4, 0xd0, 1, 0, 0x80, 0, 0, 11, 0, 8, 0, 7, 0, 1, 20, 16, 192, 0, 0x20];
    assert_eq!(out, expected);
}

#[test]
fn cookies_have_their_lengths_rfc_7873_section_5_2_2() {
    for length in 0..48 {
        let options = option(OPTION_COOKIE, &vec![7; length]);
        let good = length == 8 || (16..=40).contains(&length);
        assert_eq!(Edns::parse(1232, 0, &options).is_ok(), good, "{length}");
    }
    // §5.2: of several, the first counts.
    let options = [option(OPTION_COOKIE, &[1; 8]), option(OPTION_COOKIE, &[2; 16])].concat();
    assert_eq!(Edns::parse(1232, 0, &options).unwrap().cookie, Some(&[1; 8][..]));
}

#[test]
fn what_is_asked_for_is_read() {
    let options = [
        option(OPTION_NSID, b"ignored"),
        option(OPTION_KEEPALIVE, &[]),
        option(OPTION_PADDING, &[0; 9]),
    ]
    .concat();
    let edns = Edns::parse(1232, 0, &options).unwrap();
    assert_eq!((edns.nsid, edns.keepalive, edns.padding), (true, Keepalive::Asked, true));
    let with_timeout = option(OPTION_KEEPALIVE, &[0, 1]);
    let edns = Edns::parse(1232, 0, &with_timeout).unwrap();
    assert_eq!((edns.nsid, edns.keepalive), (false, Keepalive::WithTimeout));
}

/// A message of `message` octets that ends with the record, within `limit`.
fn whole(reply: &Reply<'_>, message: usize, limit: usize) -> Vec<u8> {
    let length = reply.length();
    let fitted = reply.fit(message + length, limit);
    let mut out = vec![0xaa; length + fitted.extra];
    reply.write(0, &fitted, &mut out);
    assert!(message + out.len() <= limit);
    out
}

/// Codes and data of the options of a record.
fn options_of(record: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut rest = &record[OPT_BYTES..];
    assert_eq!(usize::from(u16::from_be_bytes([record[9], record[10]])), rest.len());
    let mut options = Vec::new();
    while let [c0, c1, l0, l1, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        options.push((u16::from_be_bytes([*c0, *c1]), after[..length].to_vec()));
        rest = &after[length..];
    }
    options
}

#[test]
fn every_option_is_written() {
    let data = [0, 1, 8, 0, 10];
    let options = option(OPTION_SUBNET, &data);
    let subnet = Edns::parse(512, 0, &options).unwrap().subnet;
    let error = Some(ExtendedError { code: 22, text: "why" });
    let reply = Reply {
        subnet,
        scope_bits: 4,
        cookie: Some([5; 24]),
        nsid: Some(b"ns1"),
        keepalive: Some(100),
        error,
        is_padded: true,
        ..Reply::default()
    };
    let record = whole(&reply, 40, 65_535);
    assert_eq!(40 + record.len(), PADDING_BLOCK);
    let options = options_of(&record);
    let expected: [(u16, &[u8]); 5] = [
        (OPTION_SUBNET, &[0, 1, 8, 4, 10]),
        (OPTION_COOKIE, &[5; 24]),
        (OPTION_NSID, b"ns1"),
        (OPTION_KEEPALIVE, &[0, 100]),
        (OPTION_ERROR, b"\0\x16why"),
    ];
    for (got, wanted) in options.iter().zip(expected) {
        assert_eq!((got.0, &got.1[..]), wanted);
    }
    // RFC 8467 §3: padding comes last, and is zeros.
    let (code, padding) = options.last().unwrap();
    assert!(*code == OPTION_PADDING && padding.iter().all(|octet| *octet == 0));
}

#[test]
fn padding_fills_whole_blocks_rfc_8467_section_4_1() {
    let reply = Reply { is_padded: true, ..Reply::default() };
    for (message, limit, length) in [
        (12, 65_535, 468),
        (468 - 15, 65_535, 468),
        (468 - 14, 65_535, 936),
        (936, 65_535, 1404),
        (936, 1232, 1232),
        (1232 - 15, 1232, 1232),
        (1232 - 14, 1232, 1232 - 3),
        (1232 - 11, 1232, 1232),
        (65_515, 65_535, 65_535),
    ] {
        assert_eq!(message + whole(&reply, message, limit).len(), length, "{message} {limit}");
    }
}

#[test]
fn an_extended_error_is_left_out_where_there_is_no_room_rfc_8914_section_3() {
    let error = Some(ExtendedError { code: 0, text: "four" });
    let reply = Reply { error, ..Reply::default() };
    assert_eq!(options_of(&whole(&reply, 512 - 21, 512)), [(15, b"\0\0four".to_vec())]);
    assert_eq!(options_of(&whole(&reply, 512 - 20, 512)), []);
    let padded = Reply { is_padded: true, ..reply };
    assert_eq!(options_of(&whole(&padded, 512 - 20, 512)), [(12, vec![0; 5])]);
}

proptest! {
    #[test]
    fn records_keep_to_their_limit(
        message in 12_usize..2000, spare in 0_usize..2000, text in 0_usize..60,
        cookie: bool, nsid in prop::option::of(prop::collection::vec(any::<u8>(), 1..MAX_NSID_BYTES)),
        keepalive: Option<u16>, is_padded: bool,
    ) {
        let text = &"something went wrong with the answer to this query, indeed!!"[..text];
        let reply = Reply {
            cookie: cookie.then_some([1; 24]),
            nsid: nsid.as_deref(),
            keepalive,
            error: Some(ExtendedError { code: 7, text }),
            is_padded,
            ..Reply::default()
        };
        let limit = message + reply.length() + spare;
        let record = whole(&reply, message, limit);
        let codes: Vec<u16> = options_of(&record).iter().map(|(code, _)| *code).collect();
        prop_assert_eq!(codes.contains(&15), spare >= 6 + text.len());
    }

    #[test]
    fn any_options_are_safe(options in prop::collection::vec(any::<u8>(), 0..64), ttl: u32, class: u16) {
        if let Ok(edns) = Edns::parse(class, ttl, &options) {
            let reply = Reply { subnet: edns.subnet, ..Reply::default() };
            let mut out = vec![0; reply.length()];
            reply.write(0, &reply.fit(100, 512), &mut out);
            prop_assert!(out.len() <= 11 + 4 + 4 + 16);
        }
    }
}
