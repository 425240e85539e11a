//! What a zone means, by the sections of the RFCs: wildcards, empty non-terminals, delegations, aliases, DNAMEs.

use harness::dns::{Answer, Query};
use harness::fleet::Fleet;
use harness::plan::Plan;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

#[track_caller]
fn serving(records: &str) -> Fleet {
    let mut fleet = Plan::new()
        .datacenter("icn", 37.46, 126.44)
        .nameserver("ns1", "icn")
        .zone("example.test", records, &[])
        .write();
    fleet.node_mut("ns1").start();
    fleet
}

#[track_caller]
fn ask(fleet: &Fleet, name: &str, kind: RecordType) -> Answer {
    let query = Query::new(&format!("{name}example.test"), kind).edns(1232);
    let (udp, tcp) = (query.udp(fleet.node("ns1").dns()), query.tcp(fleet.node("ns1").dns()));
    assert_eq!(udp.bytes, tcp.bytes, "{name} {kind}: the same on TCP");
    udp
}

/// Code, AA, and how many records in answer, authority and additional section.
fn shape(answer: &Answer) -> (ResponseCode, bool, [usize; 3]) {
    let message = &answer.message;
    let counts = [message.answers.len(), message.authorities.len(), message.additionals.len()];
    (answer.rcode(), answer.authoritative(), counts)
}

const FOUND: (ResponseCode, bool, [usize; 3]) = (ResponseCode::NoError, true, [1, 0, 0]);
const NO_DATA: (ResponseCode, bool, [usize; 3]) = (ResponseCode::NoError, true, [0, 1, 0]);
const NX_DOMAIN: (ResponseCode, bool, [usize; 3]) = (ResponseCode::NXDomain, true, [0, 1, 0]);

/// The zone of RFC 4592 §2.2.1 and every answer that it lists.
#[test]
fn rfc4592_section_2_2_1_every_example() {
    let fleet = serving(
        "*.example.test. 3600 TXT \"this is a wildcard\"\n\
         *.example.test. 3600 MX 10 host1.example.test.\n\
         sub.*.example.test. 3600 TXT \"this is not a wildcard\"\n\
         host1.example.test. 3600 A 192.0.2.1\n\
         _ssh._tcp.host1.example.test. 3600 SRV 0 0 22 host1.example.test.\n\
         _ssh._tcp.host2.example.test. 3600 SRV 0 0 22 host1.example.test.\n\
         subdel.example.test. 3600 NS ns.example.com.\n\
         subdel.example.test. 3600 NS ns.example.net.",
    );
    use RecordType::{A, MX, SRV, TXT};
    for (name, kind, expected) in [
        // "The following responses would be synthesized from one of the wildcards in the zone".
        ("host3.", MX, FOUND),
        ("host3.", A, NO_DATA),
        ("foo.bar.", TXT, FOUND),
        // "The following responses would not be synthesized from any of the wildcards in the zone".
        ("host1.", MX, NO_DATA),
        ("sub.*.", MX, NO_DATA),
        ("_telnet._tcp.host1.", SRV, NX_DOMAIN),
        ("host.subdel.", A, (ResponseCode::NoError, false, [0, 2, 0])),
        ("ghost.*.", MX, NX_DOMAIN),
        // §2.2.2: the names between exist.
        ("_tcp.host1.", A, NO_DATA),
        ("_tcp.host2.", A, NO_DATA),
        ("host2.", MX, NO_DATA),
        // §2.1.1: asked for itself, it is a name like any other.
        ("*.", TXT, FOUND),
        ("*.", A, NO_DATA),
    ] {
        let answer = ask(&fleet, name, kind);
        assert_eq!(shape(&answer), expected, "{name} {kind}: {:?}", answer.answers());
        if expected == FOUND {
            let owner = format!("{name}example.test. ");
            assert!(answer.answers()[0].starts_with(&owner), "{:?}", answer.answers());
        }
    }
}

/// RFC 4592 §3.3.1 and RFC 1034 §4.3.3: a wildcard's alias is followed, its owner is the name asked for.
#[test]
fn rfc4592_section_3_3_1_aliases_of_wildcards() {
    let fleet = serving("* CNAME host\nhost A 192.0.2.1\nhost TXT there\n*.deep.er A 192.0.2.2");
    let answer = ask(&fleet, "any.thing.", RecordType::A);
    assert_eq!(
        answer.answers(),
        ["any.thing.example.test. CNAME host.example.test.", "host.example.test. A 192.0.2.1"]
    );
    // The closest encloser decides: `deep.er` exists, and so the wildcard above it is not for names below.
    assert_eq!(
        ask(&fleet, "x.deep.er.", RecordType::A).answers(),
        ["x.deep.er.example.test. A 192.0.2.2"]
    );
    assert_eq!(shape(&ask(&fleet, "x.er.", RecordType::A)), NX_DOMAIN);
    assert_eq!(shape(&ask(&fleet, "er.", RecordType::A)), NO_DATA);
}

/// RFC 8020 §2: below NXDOMAIN is nothing, and above something is no NXDOMAIN.
#[test]
fn rfc8020_names_between_exist() {
    let fleet = serving("a.b.c.d A 192.0.2.1\nw.*.x TXT below");
    for (name, expected) in [
        ("b.c.d.", NO_DATA),
        ("c.d.", NO_DATA),
        ("d.", NO_DATA),
        ("*.x.", NO_DATA),
        // A wildcard without records stands for the name all the same (RFC 4592 §4.8 and §2.2.2).
        ("y.x.", NO_DATA),
        ("x.a.b.c.d.", NX_DOMAIN),
        ("z.", NX_DOMAIN),
        ("a.z.", NX_DOMAIN),
    ] {
        assert_eq!(shape(&ask(&fleet, name, RecordType::A)), expected, "{name}");
    }
}

/// RFC 1034 §4.2.1, RFC 2181 §6.1, RFC 9471 §3: referrals are not authoritative and carry all glue; RFC 4035 §3.1.4.1: DS
/// is the parent's.
#[test]
fn delegations_refer_without_aa_with_glue_and_the_parent_has_the_ds() {
    let fleet = serving(
        "sub NS ns.sub\nsub NS ns.other\nsub NS ns.elsewhere.test.\nsub DS 1 13 2 aabb\nns.sub A 192.0.2.7\n\
         ns.sub AAAA 2001:db8::7\nother NS ns.other\nns.other A 192.0.2.8\nbelow.sub TXT hidden",
    );
    let referral = (ResponseCode::NoError, false, [0, 3, 3]);
    for (name, kind) in [
        ("sub.", RecordType::A),
        ("sub.", RecordType::NS),
        ("sub.", RecordType::SOA),
        ("sub.", RecordType::ANY),
        ("ns.sub.", RecordType::A),
        ("below.sub.", RecordType::TXT),
        ("x.y.sub.", RecordType::DS),
    ] {
        let answer = ask(&fleet, name, kind);
        assert_eq!(shape(&answer), referral, "{name} {kind}");
        assert!(
            answer.authorities().iter().all(|record| record.starts_with("sub.example.test. NS "))
        );
    }
    assert_eq!(shape(&ask(&fleet, "sub.", RecordType::DS)), FOUND);
    assert_eq!(shape(&ask(&fleet, "other.", RecordType::DS)), NO_DATA);
    assert_eq!(shape(&ask(&fleet, "", RecordType::DS)), NO_DATA);
}

/// RFC 1034 §3.6.2 and §4.3.2: each alias before what it leads to; another type than the one asked is no reason to stop.
#[test]
fn rfc1034_section_3_6_2_aliases_come_in_order_before_addresses() {
    let fleet = serving(
        "z CNAME m\nm CNAME a\na CNAME q\nq A 192.0.2.1\nq AAAA 2001:db8::1\ninto CNAME x.sub\nsub NS ns.sub\nns.sub A 192.0.2.7",
    );
    let chain = [
        "z.example.test. CNAME m.example.test.",
        "m.example.test. CNAME a.example.test.",
        "a.example.test. CNAME q.example.test.",
    ];
    let with = |last: &'static str| chain.iter().copied().chain([last]).collect::<Vec<_>>();
    assert_eq!(ask(&fleet, "z.", RecordType::A).answers(), with("q.example.test. A 192.0.2.1"));
    assert_eq!(
        ask(&fleet, "z.", RecordType::AAAA).answers(),
        with("q.example.test. AAAA 2001:db8::1")
    );
    let none = ask(&fleet, "z.", RecordType::TXT);
    assert_eq!((none.answers(), none.authorities().len()), (chain.map(str::to_owned).to_vec(), 1));
    assert_eq!(shape(&ask(&fleet, "z.", RecordType::CNAME)), FOUND);
    // Into a delegation: the alias is ours to tell, what it leads to is not.
    assert_eq!(
        shape(&ask(&fleet, "into.", RecordType::A)),
        (ResponseCode::NoError, true, [1, 1, 1])
    );
}

/// RFC 6672 §2.2, §2.3, §3.2, §5.3: the DNAME, a CNAME made from it with its TTL, the name itself untouched, YXDOMAIN.
#[test]
fn rfc6672_dnames_rename_what_lies_below() {
    let label = "l".repeat(63);
    let long = format!("{label}.{label}.{}", "m".repeat(60));
    let fleet = serving(&format!(
        "old 77 DNAME new\nold TXT itself\na.new A 192.0.2.1\n*.new TXT wild\nfar DNAME elsewhere.test.\n\
         loop DNAME loop\ngrow DNAME {long}"
    ));
    let answer = ask(&fleet, "a.old.", RecordType::A);
    let texts = answer.answers();
    assert!(texts[0].starts_with("old.example.test. DNAME "), "{texts:?}");
    assert_eq!(
        texts[1..],
        ["a.old.example.test. CNAME a.new.example.test.", "a.new.example.test. A 192.0.2.1"]
    );
    assert!(answer.message.answers.iter().take(2).all(|record| record.ttl == 77));
    assert_eq!(ask(&fleet, "x.y.old.", RecordType::TXT).answers().len(), 3, "and a wildcard there");
    assert_eq!(shape(&ask(&fleet, "old.", RecordType::TXT)), FOUND);
    assert_eq!(shape(&ask(&fleet, "old.", RecordType::DNAME)), FOUND);
    assert_eq!(shape(&ask(&fleet, "old.", RecordType::A)), NO_DATA);
    let far = ask(&fleet, "x.far.", RecordType::A).answers();
    assert_eq!(far[1..], ["x.far.example.test. CNAME x.elsewhere.test."]);
    assert_eq!(
        shape(&ask(&fleet, "a.old.", RecordType::CNAME)),
        (ResponseCode::NoError, true, [2, 0, 0])
    );
    let short = ask(&fleet, "x.grow.", RecordType::A);
    assert_eq!(short.rcode(), ResponseCode::NXDomain, "{:?}", short.answers());
    let too_long = ask(&fleet, &format!("{label}.grow."), RecordType::A);
    assert_eq!(too_long.rcode(), ResponseCode::YXDomain);
    assert_eq!(too_long.answers().len(), 1, "the DNAME that did it: {:?}", too_long.answers());
    // A name that it renames to itself ends.
    let round = ask(&fleet, "x.loop.", RecordType::A);
    assert_eq!(round.rcode(), ResponseCode::NoError);
    assert!(round.answers().len() <= 4, "{:?}", round.answers());
}

/// Names of any octets come from the file to the wire as they are.
#[test]
fn rfc1035_section_5_1_odd_names_are_found() {
    let fleet = serving("sp\\032ace A 192.0.2.1\n\\195\\164 A 192.0.2.2\n_a.UPPER A 192.0.2.3");
    assert_eq!(shape(&ask(&fleet, "sp ace.", RecordType::A)), FOUND);
    assert_eq!(shape(&ask(&fleet, "ä.", RecordType::A)), FOUND);
    assert_eq!(shape(&ask(&fleet, "_A.uPPer.", RecordType::A)), FOUND);
}
