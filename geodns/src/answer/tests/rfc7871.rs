//! The client subnet option (RFC 7871) from the bytes of a query to the bytes of an answer, row by row of the faults that
//! were measured on other servers: the default is one datacenter, 10.0.0.0/8 is another's, 10.1.0.0/16 a third's.

use super::*;
use crate::testing::IAD;
use crate::world::{AllDown, Order, Pick, Policy};

fn mapped(change: impl Fn(&mut Policy)) -> Snapshot {
    let world = testing::world(&[], |policy| {
        policy.order = Order::Listed;
        change(policy);
    });
    testing::snapshot(world, &[("10.0.0.0/8", "fra"), ("10.1.0.0/16", "iad")])
}

/// A query with this client subnet option.
fn query(name: &str, qtype: u16, option: &[u8]) -> Vec<u8> {
    let mut packet = plain(name, qtype, 1);
    packet[11] = 1;
    packet.extend([0, 0, 41, 4, 208, 0, 0, 0, 0]);
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let options = [&[0, 8][..], &length(option), option].concat();
    packet.extend(length(&options));
    packet.extend(options);
    packet
}

/// The rcode, how many answers, and the scope of the option, which must be the query's otherwise.
fn told(response: &[u8], option: &[u8]) -> (u8, u8, Option<u8>) {
    let head = [&[0, 8, 0, u8::try_from(option.len()).unwrap()][..], option].concat();
    let mut found = response.windows(head.len()).filter(|window| {
        window.iter().zip(&head).enumerate().all(|(at, (got, sent))| at == 7 || got == sent)
    });
    let scope = found.next().map(|window| window[7]);
    assert!(found.next().is_none(), "one option");
    (response[3] & 15, response[7], scope)
}

const A: u16 = 1;
const TXT: u16 = 16;
const AAAA: u16 = 28;

#[test]
fn every_row_of_the_faults_of_others() {
    let snapshot = mapped(|_| {});
    for (what, name, qtype, option, rcode, answers, scope) in [
        ("the longer network", "www.cdn.test", A, &[0, 1, 24, 0, 10, 1, 2][..], 0, 2, Some(16)),
        ("beside it: not the whole /8", "www.cdn.test", A, &[0, 1, 16, 0, 10, 2], 0, 2, Some(15)),
        (
            "the default, as wide as it is true",
            "www.cdn.test",
            A,
            &[0, 1, 16, 0, 172, 32],
            0,
            2,
            Some(1),
        ),
        ("too short to tell: ask finer", "www.cdn.test", A, &[0, 1, 8, 0, 10], 0, 2, Some(16)),
        ("nothing told", "www.cdn.test", A, &[0, 1, 0, 0], 0, 2, Some(0)),
        ("nobody's network", "www.cdn.test", A, &[0, 1, 16, 0, 172, 16], 0, 2, Some(0)),
        ("loopback", "www.cdn.test", A, &[0, 1, 8, 0, 127], 0, 2, Some(0)),
        ("link-local", "www.cdn.test", A, &[0, 2, 10, 0, 0xfe, 0x80], 0, 2, Some(0)),
        ("no data", "www.cdn.test", AAAA, &[0, 1, 24, 0, 10, 1, 2], 0, 0, Some(0)),
        (
            "a type that is not steered",
            "www.cdn.test",
            TXT,
            &[0, 1, 24, 0, 10, 1, 2],
            0,
            1,
            Some(0),
        ),
        ("a static name", "static.cdn.test", A, &[0, 1, 24, 0, 10, 1, 2], 0, 1, Some(0)),
        ("no such name", "nope.cdn.test", A, &[0, 1, 24, 0, 10, 1, 2], 3, 0, Some(0)),
        ("a wildcard", "a.img.cdn.test", A, &[0, 1, 24, 0, 10, 1, 2], 0, 2, Some(16)),
        ("a delegation", "x.sub.cdn.test", A, &[0, 1, 24, 0, 10, 1, 2], 0, 0, Some(0)),
        ("not ours", "www.example", A, &[0, 1, 24, 0, 10, 1, 2], 5, 0, Some(0)),
        // §7.2.1: the alias holds for all; its target is asked for separately.
        ("an alias", "alias.cdn.test", A, &[0, 1, 24, 0, 10, 1, 2], 0, 1, Some(0)),
        ("an alias, no scope", "alias.cdn.test", A, &[0, 1, 0, 0], 0, 3, Some(0)),
        (
            "an alias to a static name",
            "chain1.cdn.test",
            A,
            &[0, 1, 24, 0, 10, 1, 2],
            0,
            3,
            Some(0),
        ),
        // IPv4 in IPv6: 6to4 by its IPv4 network, the others hold none in a subnet (RFC 3056, 4380, 6052, 4291).
        ("6to4", "www.cdn.test", A, &[0, 2, 40, 0, 0x20, 2, 10, 1, 2], 0, 2, Some(32)),
        ("6to4, nobody's", "www.cdn.test", A, &[0, 2, 32, 0, 0x20, 2, 192, 168], 0, 2, Some(0)),
        ("Teredo", "www.cdn.test", A, &[0, 2, 32, 0, 0x20, 1, 0, 0], 0, 2, Some(0)),
        ("NAT64", "www.cdn.test", A, &[0, 2, 32, 0, 0, 0x64, 0xff, 0x9b], 0, 2, Some(0)),
        ("mapped", "www.cdn.test", A, &[0, 2, 0, 0], 0, 2, Some(0)),
        ("early drafts' family 0", "www.cdn.test", A, &[0, 0, 0, 0], 0, 2, Some(0)),
        ("bits after the prefix", "www.cdn.test", A, &[0, 1, 20, 0, 10, 1, 0x21], 1, 0, None),
        ("four octets for a /24", "www.cdn.test", A, &[0, 1, 24, 0, 10, 1, 2, 0], 1, 0, None),
        ("too few octets", "www.cdn.test", A, &[0, 1, 24, 0, 10, 1], 1, 0, None),
        ("longer than an address", "www.cdn.test", A, &[0, 1, 33, 0, 10, 1, 2, 0, 0], 1, 0, None),
        ("a scope in a query", "www.cdn.test", A, &[0, 1, 24, 24, 10, 1, 2], 1, 0, None),
        ("an unknown family", "www.cdn.test", A, &[0, 3, 24, 0, 10, 1, 2], 1, 0, None),
    ] {
        for transport in [Transport::Udp, Transport::Tcp] {
            let (response, _) = send(&snapshot, &query(name, qtype, option), transport);
            let (got_rcode, got_answers, got_scope) = told(&response, option);
            // What is malformed is not echoed.
            let wanted = (rcode, answers, if rcode == 1 { None } else { scope });
            assert_eq!((got_rcode, got_answers, got_scope), wanted, "{what}, {transport:?}");
        }
    }
    // None in the query: none in the answer, whatever else is in it.
    let (response, _) = send(&snapshot, &plain("www.cdn.test", A, 1), Transport::Udp);
    assert_eq!(response[11], 0, "no OPT");
    let mut packet = plain("www.cdn.test", A, 1);
    packet[11] = 1;
    packet.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    let (response, _) = send(&snapshot, &packet, Transport::Udp);
    assert!(!response.windows(4).any(|window| window == [0, 8, 0, 7]));
}

#[test]
fn policies_bound_scopes() {
    let option = [0, 1, 24, 0, 10, 1, 2];
    let scope = |change: &dyn Fn(&mut Policy)| {
        let snapshot = mapped(change);
        let (response, facts) = send(&snapshot, &query("www.cdn.test", A, &option), Transport::Udp);
        let (_, _, scope) = told(&response, &option);
        (scope.unwrap(), facts.datacenter.unwrap())
    };
    assert_eq!(scope(&|_| {}), (16, IAD));
    assert_eq!(
        scope(&|policy| policy.ecs.enabled = false),
        (0, testing::ICN),
        "echoed all the same"
    );
    assert_eq!(scope(&|policy| policy.ecs.max_v4 = 8), (8, FRA), "the cap's network decides");
    assert_eq!(scope(&|policy| policy.ecs.max_v4 = 0), (0, testing::ICN));
    assert_eq!(scope(&|policy| policy.pick = Pick::HashClient).0, 24, "as fine as the draw");
    assert_eq!(scope(&|policy| policy.order = Order::Weighted).0, 24);
    assert_eq!(scope(&|policy| policy.ramp = std::time::Duration::from_secs(1)).0, 16);
}

/// Health and draws have no part in a scope.
#[test]
fn scopes_are_the_same_whatever_is_down() {
    let option = [0, 1, 24, 0, 10, 2, 2];
    for all_down in [AllDown::LastGood, AllDown::All, AllDown::Fallback(IAD)] {
        let snapshot = mapped(|policy| policy.all_down = all_down);
        for state in 0..64_u16 {
            let down: Vec<u16> = (0..6).filter(|edge| state >> edge & 1 == 1).collect();
            let now = snapshot.with_health(testing::down(&snapshot.tables.world, &down));
            let packet = query("www.cdn.test", A, &option);
            let (response, _) = send(&now, &packet, Transport::Udp);
            let (rcode, answers, scope) = told(&response, &option);
            assert_eq!((rcode, scope), (0, Some(15)), "{down:?}");
            assert!(answers > 0, "{down:?}");
        }
    }
}
