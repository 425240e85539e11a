//! Cookies in queries and answers, and what rate limiting makes of answers.

use std::sync::Arc;

use super::*;
use crate::cookie::{Secrets, State};
use crate::rrl::{Limiter, Settings};

const COOKIE: u16 = 10;

fn server(rate: Option<(u32, u8)>) -> Server {
    let limiter = |(rate, slip)| {
        let exempt = vec!["192.0.2.0/24".parse().unwrap()];
        let settings = Settings { rate, slip, prefix_v4: 24, prefix_v6: 56, exempt };
        Arc::new(Limiter::new(settings, &[1; 16]))
    };
    let cookies = Some(Secrets::new(&[9; 16], None));
    Server { cookies, limiter: rate.map(limiter), ..Server::default() }
}

/// An answer, or the reason why there is none.
fn ask_server(
    server: &Server,
    packet: &[u8],
    client: &Client,
    now: UnixMillis,
) -> Result<(Message, Vec<u8>, Facts), Reason> {
    let mut out = vec![0; 65_535];
    match answer(packet, client, &Context { server, now }, &snapshot(), &mut out) {
        Outcome::Respond { length, facts } => {
            out.truncate(length);
            Ok((Message::from_vec(&out).unwrap(), out, facts))
        }
        Outcome::Drop(reason) => Err(reason),
    }
}

fn cookie_in(response: &[u8]) -> Option<Vec<u8>> {
    options_of(response).into_iter().find(|(code, _)| *code == COOKIE).map(|(_, data)| data)
}

/// The cookie that this client learns.
fn learn(server: &Server) -> Vec<u8> {
    let packet = with_options("static.cdn.test", 1, &[(COOKIE, &[7; 8])]);
    let (_, response, facts) = ask_server(server, &packet, &client(Transport::Tcp), NOW).unwrap();
    assert_eq!((facts.cookie, facts.rcode), (State::ClientOnly, Rcode::NoError));
    cookie_in(&response).unwrap()
}

#[test]
fn who_sends_a_cookie_gets_one_rfc_7873_section_5_2() {
    let server = server(None);
    let learnt = learn(&server);
    assert_eq!((learnt.len(), &learnt[..8]), (24, &[7; 8][..]));
    for (sent, state) in [
        (learnt.clone(), State::Valid),
        (vec![7; 8], State::ClientOnly),
        ([&[7; 8][..], &[0; 16]].concat(), State::Invalid),
        (vec![7; 40], State::Invalid),
    ] {
        for transport in Transport::ALL {
            // §5.2.3, §5.2.4: without rate limiting they are answered like all others.
            let packet = with_options("static.cdn.test", 1, &[(COOKIE, &sent)]);
            let (message, response, facts) =
                ask_server(&server, &packet, &client(transport), NOW).unwrap();
            assert_eq!((facts.cookie, message.answers.len()), (state, 1));
            assert_eq!(cookie_in(&response).unwrap(), learnt, "{state:?} {transport:?}");
        }
    }
    let (_, response, facts) =
        ask_server(&server, &with_options("static.cdn.test", 1, &[]), &client(Transport::Udp), NOW)
            .unwrap();
    assert_eq!((cookie_in(&response), facts.cookie), (None, State::Absent));
}

#[test]
fn cookies_of_other_lengths_get_formerr_rfc_7873_section_5_2_2() {
    for length in [0, 7, 9, 15, 41, 100] {
        let packet = with_options("static.cdn.test", 1, &[(COOKIE, &vec![7; length])]);
        let (message, response, _) =
            ask_server(&server(None), &packet, &client(Transport::Udp), NOW).unwrap();
        assert_eq!(u16::from(message.metadata.response_code), 1, "{length}");
        assert_eq!((message.edns.is_some(), cookie_in(&response)), (true, None));
    }
}

#[test]
fn a_query_without_question_is_for_a_cookie_rfc_7873_section_5_4() {
    let server = server(None);
    let learnt = learn(&server);
    let without_question = |options: &[(u16, &[u8])]| {
        let mut packet = with_options("x", 1, options);
        packet.drain(12..12 + 3 + 4);
        packet[5] = 0;
        packet
    };
    for (sent, rcode, state) in [
        (&[7; 8][..], Rcode::NoError, State::ClientOnly),
        (&learnt, Rcode::NoError, State::Valid),
        (&[7; 24], Rcode::BadCookie, State::Invalid),
    ] {
        let packet = without_question(&[(COOKIE, sent)]);
        let (message, response, facts) =
            ask_server(&server, &packet, &client(Transport::Udp), NOW).unwrap();
        assert_eq!((facts.rcode, facts.cookie, facts.reason), (rcode, state, Reason::Cookie));
        assert_eq!(u16::from(message.metadata.response_code), rcode as u16);
        assert!(message.queries.is_empty() && message.answers.is_empty());
        assert_eq!(cookie_in(&response).unwrap(), learnt);
    }
    let (_, _, facts) =
        ask_server(&server, &without_question(&[]), &client(Transport::Udp), NOW).unwrap();
    assert_eq!(facts.rcode, Rcode::FormErr, "nothing is asked");
    let mut update = without_question(&[(COOKIE, &[7; 8])]);
    update[2] = 5 << 3;
    let (_, response, facts) = ask_server(&server, &update, &client(Transport::Udp), NOW).unwrap();
    assert_eq!((facts.rcode, cookie_in(&response)), (Rcode::NotImp, Some(learnt)));
}

#[test]
fn over_its_rate_a_client_is_told_to_come_by_tcp() {
    let server = server(Some((5, 2)));
    let packet = plain("big.cdn.test", 16, class::IN);
    let udp = client(Transport::Udp);
    let mut seen = [0; 3];
    for _ in 0..25 {
        match ask_server(&server, &packet, &udp, NOW) {
            Ok((_, _, facts)) if facts.reason == Reason::Static => seen[0] += 1,
            Ok((message, response, facts)) => {
                assert_eq!((facts.reason, facts.truncated), (Reason::RateLimit, true));
                assert!(message.metadata.truncation && message.answers.is_empty());
                assert_eq!(response.len(), packet.len(), "no larger than the query");
                seen[1] += 1;
            }
            Err(reason) => {
                assert_eq!(reason, Reason::RateLimit);
                seen[2] += 1;
            }
        }
    }
    assert_eq!(seen, [5, 10, 10]);
    for transport in [Transport::Tcp, Transport::Tls, Transport::Https, Transport::Quic] {
        let (message, ..) = ask_server(&server, &packet, &client(transport), NOW).unwrap();
        assert_eq!(message.answers.len(), 5, "{transport:?} has no limit");
    }
    let exempt = Client { address: "192.0.2.1:53".parse().unwrap(), ..udp };
    for _ in 0..50 {
        assert!(ask_server(&server, &packet, &exempt, NOW).is_ok());
    }
    // A second later there is room again.
    let later = UnixMillis(NOW.0 + 1000);
    assert_eq!(ask_server(&server, &packet, &udp, later).unwrap().2.reason, Reason::Static);
}

#[test]
fn over_its_rate_nobody_is_told_who_answers() {
    const NSID: u16 = 3;
    let server = Server { nsid: Some([b'n'; 128].into()), ..server(Some((5, 1))) };
    let packet = with_options("static.cdn.test", 1, &[(NSID, &[])]);
    let udp = client(Transport::Udp);
    for _ in 0..5 {
        let (_, response, _) = ask_server(&server, &packet, &udp, NOW).unwrap();
        assert!(response.len() > packet.len() + 128);
    }
    let (message, response, facts) = ask_server(&server, &packet, &udp, NOW).unwrap();
    assert_eq!((facts.reason, message.metadata.truncation), (Reason::RateLimit, true));
    assert!(response.len() <= packet.len(), "{} for {}", response.len(), packet.len());
}

#[test]
fn over_its_rate_a_client_without_a_good_cookie_gets_one_rfc_7873_section_5_2_3() {
    let server = server(Some((5, 1)));
    let learnt = learn(&server);
    let udp = client(Transport::Udp);
    let with_cookie = |cookie: &[u8]| with_options("static.cdn.test", 1, &[(COOKIE, cookie)]);
    for _ in 0..5 {
        assert!(ask_server(&server, &with_cookie(&[7; 8]), &udp, NOW).is_ok());
    }
    for sent in [&[7; 8][..], &[7; 24]] {
        let (message, response, facts) =
            ask_server(&server, &with_cookie(sent), &udp, NOW).unwrap();
        assert_eq!((facts.rcode, facts.reason), (Rcode::BadCookie, Reason::RateLimit));
        assert_eq!(u16::from(message.metadata.response_code), 23);
        assert!(message.answers.is_empty() && !message.metadata.truncation);
        assert!(!message.metadata.authoritative);
        assert_eq!(cookie_in(&response).unwrap()[8..], learnt[8..]);
    }
    // With it, and by TCP, there is no limit; and never BADCOOKIE by TCP (§5.2.3).
    for _ in 0..20 {
        let (message, ..) = ask_server(&server, &with_cookie(&learnt), &udp, NOW).unwrap();
        assert_eq!(message.answers.len(), 1);
        let tcp = client(Transport::Tcp);
        let (message, ..) = ask_server(&server, &with_cookie(&[7; 24]), &tcp, NOW).unwrap();
        assert_eq!(message.answers.len(), 1);
    }
}

#[test]
fn every_kind_of_answer_has_its_rate() {
    let server = server(Some((3, 0)));
    let udp = client(Transport::Udp);
    let sent =
        |packet: &[u8]| (0..10).filter(|_| ask_server(&server, packet, &udp, NOW).is_ok()).count();
    assert_eq!(sent(&plain("static.cdn.test", 1, 1)), 3);
    assert_eq!(sent(&plain("www.cdn.test", 1, 1)), 0, "another name");
    assert_eq!(sent(&plain("nope.cdn.test", 1, 1)), 3);
    assert_eq!(sent(&plain("static.cdn.test", 28, 1)), 0, "no data is as negative as no name");
    assert_eq!(sent(&plain("x.sub.cdn.test", 1, 1)), 3);
    assert_eq!(sent(&plain("www.example", 1, 1)), 3);
    assert_eq!(sent(&plain("cdn.test", 16, 3)), 0, "another refusal");
    let mut broken = plain("static.cdn.test", 1, 1);
    broken.push(0);
    assert_eq!(sent(&broken), 0, "what is malformed counts, too");
    let mut response = plain("static.cdn.test", 1, 1);
    response[2] |= 0x80;
    assert_eq!(ask_server(&server, &response, &udp, NOW).unwrap_err(), Reason::NotAQuery);
}
