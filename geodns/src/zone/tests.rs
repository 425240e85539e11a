//! What zones hold, by the examples of the RFCs, and what is no zone.

use std::path::Path;

use super::*;
use crate::rtype;

const SOA: &str =
    "$TTL 300\n@ SOA ns1 host 7 1h 10m 2w 60\n@ NS ns1\n@ NS ns.other.\nns1 A 192.0.2.1\n";

/// Builds zones from (apex, text after the usual head, steered names).
fn build(zones: &[(&str, &str, &[&str])]) -> (Zones, Vec<String>) {
    let mut builder = Builder::default();
    let mut problems = Vec::new();
    for (apex, text, steered) in zones {
        let apex = Name::parse_absolute(apex).unwrap();
        let whole = match text.strip_prefix('!') {
            Some(bare) => bare.to_owned(),
            None => format!("{SOA}{text}"),
        };
        let (records, found) =
            file::read(Path::new("z"), &apex, &|_| Ok(whole.clone().into_bytes()));
        problems.extend(found.iter().map(Problem::to_string));
        let steered: Vec<Steered> = steered
            .iter()
            .map(|owner| Steered {
                owner: Name::parse(owner.as_bytes(), Some(&apex)).unwrap(),
                policy: 3,
            })
            .collect();
        builder.add(&apex, records, &steered, Location { file: "z".into(), line: 0 });
    }
    let (zones, found) = builder.build();
    problems.extend(found.iter().map(Problem::to_string));
    (zones, problems)
}

fn good(text: &str, steered: &[&str]) -> Zones {
    let (zones, problems) = build(&[("cdn.test", text, steered)]);
    assert_eq!(problems, [] as [String; 0]);
    zones
}

/// What a lookup finds, in short: the types of the node, or why there is none.
fn found(zones: &Zones, name: &str, for_ds: bool) -> String {
    let name = Name::parse_absolute(name).unwrap().to_lower();
    match zones.find(name.as_wire(), for_ds) {
        Found::Node(zone, node) => {
            let types: Vec<_> =
                node.rrsets().map(|set| rtype::Shown(set.rtype).to_string()).collect();
            let steered = node.steered().map_or("", |_| " steered");
            format!("{} [{}]{steered}", zone.apex, types.join(" "))
        }
        Found::Delegated(node) => {
            format!("delegated, {} glue", node.referral().unwrap().glue_count)
        }
        Found::Renamed(..) => "renamed".to_owned(),
        Found::Missing(zone) => format!("{} missing", zone.apex),
        Found::Foreign => "foreign".to_owned(),
    }
}

/// The example zone of RFC 4592 §2.2.1 and the answers it lists.
#[test]
fn wildcards_as_in_rfc_4592_section_2_2_1() {
    let zones = good(
        "* 3600 TXT \"this is a wildcard\"\n* 3600 MX 10 host1\nsub.* 3600 TXT \"this is not\"\n\
         host1 3600 A 192.0.2.1\n_ssh._tcp.host1 3600 SRV 0 0 22 host1\n_ssh._tcp.host2 3600 SRV 0 0 22 host1\n\
         subdel 3600 NS ns.other.\nsubdel 3600 NS ns.elsewhere.\n",
        &[],
    );
    for (name, expected) in [
        ("host3.cdn.test", "cdn.test. [MX TXT]"),
        ("foo.bar.cdn.test", "cdn.test. [MX TXT]"),
        ("host1.cdn.test", "cdn.test. [A]"),
        ("sub.*.cdn.test", "cdn.test. [TXT]"),
        ("_telnet._tcp.host1.cdn.test", "cdn.test. missing"),
        ("host.subdel.cdn.test", "delegated, 0 glue"),
        ("ghost.*.cdn.test", "cdn.test. missing"),
        ("host2.cdn.test", "cdn.test. []"),
        ("_tcp.host2.cdn.test", "cdn.test. []"),
        ("*.cdn.test", "cdn.test. [MX TXT]"),
        ("other", "foreign"),
        (".", "foreign"),
    ] {
        assert_eq!(found(&zones, name, false), expected, "{name}");
    }
}

#[test]
fn delegations_end_authority() {
    let zones = good(
        "sub NS ns.sub\nsub NS ns1\nns.sub A 192.0.2.7\nns.sub AAAA 2001:db8::7\nsub DS 1 13 2 aabb\nx.y TXT z\n",
        &[],
    );
    for (name, for_ds, expected) in [
        ("sub.cdn.test", false, "delegated, 3 glue"),
        ("sub.cdn.test", true, "cdn.test. [NS DS]"),
        ("ns.sub.cdn.test", false, "delegated, 3 glue"),
        ("a.b.sub.cdn.test", true, "delegated, 3 glue"),
        ("y.cdn.test", false, "cdn.test. []"),
        ("cdn.test", true, "cdn.test. [NS SOA]"),
    ] {
        assert_eq!(found(&zones, name, for_ds), expected, "{name}");
    }
}

#[test]
fn a_child_zone_takes_over_from_its_parent() {
    let (zones, problems) = build(&[
        ("sub.cdn.test", "www A 192.0.2.9\n", &[]),
        ("cdn.test", "sub NS ns1.sub\nns1.sub A 192.0.2.1\nsub DS 1 13 2 aabb\n", &[]),
        ("lone.cdn.test", "", &[]),
    ]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("does not delegate lone.cdn.test."));
    assert_eq!(found(&zones, "www.sub.cdn.test", false), "sub.cdn.test. [A]");
    assert_eq!(found(&zones, "sub.cdn.test", false), "sub.cdn.test. [NS SOA]");
    assert_eq!(found(&zones, "sub.cdn.test", true), "cdn.test. [NS DS]");
    assert_eq!(found(&zones, "lone.cdn.test", true), "lone.cdn.test. [NS SOA]");
    assert_eq!(found(&zones, "nope.cdn.test", false), "cdn.test. missing");
}

#[test]
fn steered_names_exist_with_all_that_lies_between() {
    let zones = good("www TXT hello\n", &["www", "*.img", "@"]);
    for (name, expected) in [
        ("www.cdn.test", "cdn.test. [TXT] steered"),
        ("WWW.CDN.test", "cdn.test. [TXT] steered"),
        ("cdn.test", "cdn.test. [NS SOA] steered"),
        ("img.cdn.test", "cdn.test. []"),
        ("a.img.cdn.test", "cdn.test. [] steered"),
        ("a.b.img.cdn.test", "cdn.test. [] steered"),
        ("x.www.cdn.test", "cdn.test. missing"),
    ] {
        assert_eq!(found(&zones, name, false), expected, "{name}");
    }
}

#[test]
fn dnames_rename_what_lies_below_and_not_themselves_rfc_6672_section_2_3() {
    let zones = good("old DNAME new.other.\n", &[]);
    assert_eq!(found(&zones, "old.cdn.test", false), "cdn.test. [DNAME]");
    assert_eq!(found(&zones, "a.b.old.cdn.test", false), "renamed");
}

#[test]
fn negative_answers_carry_the_lower_of_ttl_and_minimum_rfc_2308_section_3() {
    let zones = good("", &[]);
    let negative_ttl = |zone: &Zone| Rrset { rtype: 6, count: 1, wire: &zone.negative }.ttl();
    let zone = zones.iter().next().unwrap();
    assert_eq!((negative_ttl(zone), zone.serial), (60, 7));
    let (zones, _) =
        build(&[("cdn.test", "!@ 30 SOA ns.other. h.other. 1 2 3 4 5000\n@ 9 NS ns.other.", &[])]);
    assert_eq!(negative_ttl(zones.iter().next().unwrap()), 30);
}

#[test]
fn names_of_any_octets_are_found() {
    let zones = good("\\000\\255\\.x TXT odd\n", &[]);
    assert_eq!(found(&zones, "\\000\\255\\.X.cdn.test", false), "cdn.test. [TXT]");
}

#[test]
fn what_is_no_zone_is_refused() {
    for (text, steered, part) in [
        ("!$TTL 9\n@ NS ns.other.\n", &[] as &[&str], "no SOA"),
        ("!$TTL 9\n@ SOA a. b. 1 2 3 4 5\n", &[], "no NS"),
        ("@ SOA x y 1 2 3 4 5\n", &[], "one SOA"),
        ("a SOA x y 1 2 3 4 5\n", &[], "belongs to the apex"),
        ("www.example. A 192.0.2.1\n", &[], "outside of zone"),
        ("a CNAME b\na TXT x\n", &[], "stands alone"),
        ("@ CNAME b\n", &[], "stands alone"),
        ("a CNAME b\n", &["a"], "stands alone"),
        ("a CNAME b\na CNAME c\n", &[], "more than one CNAME"),
        ("*.a NS ns1\n", &[], "wildcard"),
        ("a DNAME b.\nx.a TXT y\n", &[], "below the DNAME"),
        ("@ DS 1 13 2 aabb\n", &[], "parent"),
        ("sub NS ns.sub\n", &[], "no address"),
        ("@ NS nowhere\n", &[], "no address"),
        ("@ NS al\nal CNAME ns1\n", &[], "alias"),
        ("@ MX 1 al\nal CNAME ns1\n", &[], "alias"),
        (
            "a A 192.0.2.1\n",
            &["a"],
            "z:6: a.cdn.test. is steered and has A records in the zone file: keep one of both",
        ),
        (
            "sub NS ns1\n",
            &["www.sub"],
            "z:6: steered name www.sub.cdn.test. is delegated at sub.cdn.test.",
        ),
        ("a 5 A 192.0.2.1\na 6 A 192.0.2.2\n", &[], "lowest"),
        ("sub NS ns1\nx.sub TXT y\n", &[], "only glue"),
        ("x.img TXT y\n", &["*.img"], "does not answer for it"),
        ("a ALIAS ns1\na A 192.0.2.1\n", &[], "z:6: a.cdn.test. has an ALIAS and addresses"),
        ("a ALIAS ns1\na CNAME ns1\n", &[], "stands alone"),
        ("a ALIAS ns1\na ALIAS ns2\n", &[], "more than one ALIAS"),
        ("a ALIAS ns1\n", &["a"], "is steered and has an ALIAS"),
        ("sub NS ns1\nsub ALIAS ns1\n", &[], "is delegated"),
        ("\na ALIAS a\n", &[], "z:7: ALIAS: a.cdn.test. leads back to itself"),
        ("a ALIAS b\nb ALIAS a\n", &[], "leads back to itself"),
        ("a ALIAS b\nb CNAME c\nc CNAME b\n", &[], "leads back to itself"),
        ("*.a ALIAS x.a\n", &[], "leads back to itself"),
        ("a ALIAS www.other.\n", &[], "in none of the zones served here"),
        ("a ALIAS b\nb CNAME www.other.\n", &[], "in none of the zones served here"),
        ("a ALIAS nope\n", &[], "does not exist in zone cdn.test."),
        ("a ALIAS x.sub\nsub NS ns1\n", &[], "delegated to other servers"),
        ("a ALIAS x.old\nold DNAME new\n", &[], "below a DNAME"),
        ("a ALIAS b\nb TXT x\n", &[], "neither A nor AAAA"),
        (
            "a ALIAS c1\nc1 CNAME c2\nc2 CNAME c3\nc3 CNAME c4\nc4 CNAME c5\nc5 CNAME c6\nc6 CNAME c7\nc7 CNAME c8\n\
             c8 CNAME ns1\n",
            &[],
            "more than 8 names",
        ),
    ] {
        let (_, problems) = build(&[("cdn.test", text, steered)]);
        assert!(problems.iter().any(|p| p.contains(part)), "{text}: {problems:?}");
    }
    let apex = Name::parse_absolute("cdn.test").unwrap();
    let (_, problems) =
        file::read(Path::new("z"), &apex, &|_| Ok(b"\x1b[2Ja A 192.0.2.1\n".into()));
    let shown = problems.iter().map(ToString::to_string).collect::<String>();
    assert!(shown.contains("`\\u{1b}[2Ja` has an octet outside of printable ASCII"), "{shown}");
    let (_, problems) = build(&[("cdn.test", "", &[]), ("CDN.test", "", &[])]);
    assert!(problems.iter().any(|p| p.contains("twice")), "{problems:?}");
}

#[test]
fn duplicate_records_count_once_rfc_2181_section_5() {
    let zones = good("a A 192.0.2.1\na A 192.0.2.1\nA A 192.0.2.2\n", &[]);
    let name = Name::parse_absolute("a.cdn.test").unwrap();
    let Found::Node(_, node) = zones.find(name.as_wire(), false) else { panic!("missing") };
    assert_eq!(node.rrset(rtype::A).unwrap().count, 2);
}

/// The target of an ALIAS may be in another zone, before or after, steered or behind CNAMEs and other ALIASes.
#[test]
fn aliases_lead_through_all_zones_served() {
    let (zones, problems) = build(&[
        ("shop.test", "@ 40 ALIAS www.cdn.test.\n@ MX 10 ns1\n", &[]),
        ("cdn.test", "www CNAME edge\nflat ALIAS shop.test.\n", &["edge"]),
    ]);
    assert_eq!(problems, [] as [String; 0]);
    for (name, ttl, through) in [("shop.test", 40, 1), ("flat.cdn.test", 40, 2)] {
        let name = Name::parse_absolute(name).unwrap();
        let Found::Node(_, node) = zones.find(name.as_wire(), false) else { panic!("missing") };
        let (alias, target) = node.alias().unwrap();
        assert_eq!((alias.ttl, alias.through.len()), (ttl, through), "{name}");
        assert_eq!(alias.name.to_string(), "edge.cdn.test.");
        assert_eq!((target.steered(), node.rrset(rtype::ALIAS)), (Some(3), None));
    }
}

/// Names below a delegation, an ALIAS and a child zone do not make the building of many zones slower than their names.
#[test]
fn many_zones_below_one_another_build_in_linear_time() {
    let mut builder = Builder::default();
    let mut delegations = SOA.to_owned();
    let read = |apex: &Name, text: &str| {
        let (records, problems) = file::read(Path::new("z"), apex, &|_| Ok(text.into()));
        assert!(problems.is_empty(), "{problems:?}");
        records
    };
    let whole = Location { file: "z".into(), line: 0 };
    for n in 0..20_000 {
        delegations += &format!("z{n} NS ns.other.\n");
        let apex = Name::parse_absolute(&format!("z{n}.cdn.test")).unwrap();
        builder.add(&apex, read(&apex, SOA), &[], whole.clone());
    }
    let apex = Name::parse_absolute("cdn.test").unwrap();
    builder.add(&apex, read(&apex, &delegations), &[], whole);
    let (zones, _) = builder.build();
    assert_eq!((zones.iter().count(), zones.names()), (20_001, 2 * 20_001));
    assert_eq!(found(&zones, "z19999.cdn.test", true), "cdn.test. [NS]");
    assert_eq!(found(&zones, "ns1.z19999.cdn.test", false), "z19999.cdn.test. [A]");
}
