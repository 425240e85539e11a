//! Options of EDNS other than cookie and client subnet, extended errors, and who this server says it is.

use super::*;

#[test]
fn nsid_is_told_to_who_asks_rfc_5001() {
    let asked = with_options("static.cdn.test", 1, &[(3, b"")]);
    let (response, _) = send_to(&named(), &snapshot(), &asked, Transport::Udp);
    assert_eq!(options_of(&response), [(3, b"ns1.icn".to_vec())]);
    let (response, _) = send(&snapshot(), &asked, Transport::Udp);
    assert_eq!(options_of(&response), [], "none configured, none told");
    let not_asked = with_options("static.cdn.test", 1, &[]);
    let (response, _) = send_to(&named(), &snapshot(), &not_asked, Transport::Udp);
    assert_eq!(options_of(&response), []);
}

#[test]
fn idle_time_is_told_to_who_asks_over_tcp_rfc_7828() {
    let asked = with_options("static.cdn.test", 1, &[(11, b"")]);
    for (transport, options) in [
        (Transport::Udp, vec![]),
        (Transport::Tcp, vec![(11, vec![0, 100])]),
        (Transport::Tls, vec![(11, vec![0, 100])]),
        (Transport::Https, vec![]),
        (Transport::Quic, vec![]),
    ] {
        let (response, _) = send_to(&named(), &snapshot(), &asked, transport);
        assert_eq!(options_of(&response), options, "{transport:?}");
    }
    // §3.2.1: clients must not name a time; over UDP the option is ignored whatever it holds.
    let wrong = with_options("static.cdn.test", 1, &[(11, &[0, 1])]);
    let (_, facts) = send_to(&named(), &snapshot(), &wrong, Transport::Tcp);
    assert_eq!(facts.rcode, Rcode::FormErr);
    let (_, facts) = send_to(&named(), &snapshot(), &wrong, Transport::Udp);
    assert_eq!(facts.rcode, Rcode::NoError);
}

#[test]
fn who_pads_gets_padded_where_nobody_else_can_read_rfc_8467_section_4_1() {
    let padded = with_options("static.cdn.test", 1, &[(12, &[0; 20])]);
    let not_padded = with_options("static.cdn.test", 1, &[]);
    for transport in Transport::ALL {
        let (response, _) = send(&snapshot(), &padded, transport);
        assert_eq!(response.len() == 468, transport.is_encrypted(), "{transport:?}");
        let (response, _) = send(&snapshot(), &not_padded, transport);
        assert!(response.len() < 100);
    }
    let (response, _) =
        send(&snapshot(), &with_options("big.cdn.test", 16, &[(12, b"")]), Transport::Tls);
    assert_eq!(response.len(), 936);
}

#[test]
fn errors_tell_more_to_who_speaks_edns_rfc_8914() {
    let snapshot = snapshot();
    for (name, qtype, code) in
        [("www.example", 1, 20), ("cdn.test", rtype::AXFR, 21), ("cdn.test", rtype::IXFR, 21)]
    {
        let (response, _) = send(&snapshot, &with_options(name, qtype, &[]), Transport::Udp);
        assert_eq!(options_of(&response), [(15, vec![0, code])], "{name}");
        let (response, _) = send(&snapshot, &plain(name, qtype, 1), Transport::Udp);
        assert!(Message::from_vec(&response).unwrap().edns.is_none());
    }
    let mut notify = with_options("cdn.test", 6, &[]);
    notify[2] |= 4 << 3;
    let (response, _) = send(&snapshot, &notify, Transport::Udp);
    assert_eq!(options_of(&response), [(15, vec![0, 21])]);
    let (response, _) = send(&snapshot, &with_options("www.cdn.test", 1, &[]), Transport::Udp);
    assert_eq!(options_of(&response), [], "nothing went wrong");
    let down = snapshot.with_health(testing::down(&snapshot.tables.world, &[0, 1, 2, 3, 4, 5]));
    let (response, facts) = send(&down, &with_options("www.cdn.test", 1, &[]), Transport::Udp);
    let [(15, told)] = &options_of(&response)[..] else { panic!("an extended error") };
    assert_eq!(&told[2..], facts.reason.explanation().as_bytes());
}

#[test]
fn identity_is_told_in_class_chaos_where_configured_rfc_4892() {
    let (server, snapshot) = (named(), snapshot());
    for (name, text) in [
        ("id.server", "ns1.icn"),
        ("HOSTNAME.bind", "ns1.icn"),
        ("version.bind", "meridian 1"),
        ("version.server", "meridian 1"),
    ] {
        let (response, facts) =
            send_to(&server, &snapshot, &plain(name, 16, class::CH), Transport::Udp);
        let message = Message::from_vec(&response).unwrap();
        assert_eq!(message.answers.len(), 1, "{name}");
        let record = &message.answers[0];
        assert_eq!((record.ttl, record.data.to_string().as_str()), (0, text), "{name}");
        assert_eq!(facts.reason, Reason::Identity);
        let (_, facts) = send(&snapshot, &plain(name, 16, class::CH), Transport::Udp);
        assert_eq!((facts.rcode, facts.reason), (Rcode::Refused, Reason::Class), "{name}");
        let (_, facts) = send_to(&server, &snapshot, &plain(name, 1, class::CH), Transport::Udp);
        assert_eq!(facts.rcode, Rcode::Refused, "{name} A");
        let (_, facts) = send_to(&server, &snapshot, &plain(name, 16, 255), Transport::Udp);
        assert_eq!(facts.rcode, Rcode::Refused, "{name} in class ANY");
    }
}

/// The longest question, every option, and no room to spare.
#[test]
fn every_option_fits_beside_the_longest_question() {
    let label = [b"\x3f".as_slice(), &[b'a'; 63]].concat();
    let name = [label.repeat(3), [b"\x3d".as_slice(), &[b'b'; 61], b"\0"].concat()].concat();
    let subnet = [&[0, 2, 128, 0][..], &[7; 16]].concat();
    let options: &[(u16, &[u8])] =
        &[(8, &subnet), (10, &[1; 40]), (3, b""), (11, b""), (12, b""), (65_001, b"")];
    let mut packet = with_options("x", 16, options);
    packet.splice(12..15, name.iter().copied());
    let at = packet.len() - options.iter().map(|(_, data)| 4 + data.len()).sum::<usize>() - 8;
    packet[at..at + 2].copy_from_slice(&512_u16.to_be_bytes());
    let server = Server { nsid: Some(vec![b'n'; edns::MAX_NSID_BYTES].into()), ..named() };
    for transport in Transport::ALL {
        let (response, facts) = send_to(&server, &snapshot(), &packet, transport);
        assert_eq!(facts.rcode, Rcode::Refused);
        assert!(transport != Transport::Udp || response.len() <= 512, "{}", response.len());
        assert!(options_of(&response).iter().any(|(code, data)| *code == 3 && data.len() == 128));
    }
}
