//! What purges are and take, on values.

use proptest::prelude::*;

use super::tags::tests::{ORIGIN, tags};
use super::*;
use crate::key::KeyRules;

const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);

fn key(url: &str) -> CacheKey {
    CacheKey::of_url(url, &KeyRules::default()).unwrap()
}

fn hard(at: u64) -> Floor {
    Floor { hard: Position(at), soft: Position(0) }
}

fn url(text: &str) -> Target {
    Target::Url(text.into())
}

fn prefix(text: &str) -> Target {
    Target::Prefix(text.into())
}

#[test]
fn what_each_target_covers() {
    let url_of = |url: &str| key(url);
    for (target, covered, others) in [
        (
            url("https://a.test/x?q=1"),
            &["https://a.test/x?q=1"][..],
            &["https://a.test/x", "http://a.test/x?q=1", "https://a.test/x?q=2"][..],
        ),
        (
            prefix("https://a.test/img"),
            &[
                "https://a.test/img",
                "https://a.test/img/",
                "https://a.test/img/a/b.png",
                "https://a.test/img?q=/a",
                "https://a.test/img/a?q",
            ],
            &[
                "https://a.test/img2",
                "https://a.test/",
                "http://a.test/img/a",
                "https://b.test/img/a",
                "https://a.test/?/img/a",
                "https://a.test/x/img/a",
            ],
        ),
        (
            prefix("https://a.test"),
            &["https://a.test/", "https://a.test/x?y"],
            &["http://a.test/", "https://a.test:8443/", "https://a.test.b/"],
        ),
        (
            Target::Host("a.test".into()),
            &["https://a.test/", "http://a.test:8080/x?y"],
            &["https://b.test/", "https://b.test/a.test/", "https://x.a.test/"],
        ),
        (Target::All, &["https://a.test/", "http://b.test/x"], &[]),
        (Target::Tag("x".into()), &[], &["https://a.test/"]),
    ] {
        let fences = Fences::new(0);
        fences.apply(&target, Kind::Hard, Position(10));
        for text in covered {
            assert_eq!(fences.of_key(&url_of(text)), hard(10), "{target:?} {text}");
        }
        for text in others {
            assert_eq!(fences.of_key(&url_of(text)), Floor::default(), "{target:?} {text}");
        }
    }
}

/// A purge of a URL covers all values of keyed headers and cookies.
#[test]
fn a_url_is_all_its_keys() {
    let fences = Fences::new(0);
    fences.apply(&url("http://a.test/x"), Kind::Hard, Position(10));
    let rules = KeyRules {
        headers: vec![HeaderName::from_static("x-device")],
        cookies: vec!["lang".to_owned()],
        ..KeyRules::default()
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-device", HeaderValue::from_static("a b/c?d"));
    headers.insert("cookie", HeaderValue::from_static("lang=de"));
    let keyed = CacheKey::new("http", "a.test", "/x", None, &headers, &rules);
    assert_ne!(keyed, key("http://a.test/x"));
    assert_eq!(fences.of_key(&keyed), hard(10));
    fences.apply(&prefix("http://a.test"), Kind::Hard, Position(11));
    assert_eq!(fences.of_key(&keyed), hard(11));
}

#[test]
fn tags_and_groups() {
    let fences = Fences::new(0);
    let one = tags(&[("cache-tag", "a, b")]);
    let group = tags(&[("cache-groups", "\"g\"")]);
    let many: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let many = tags(&[("surrogate-key", &many.join(" "))]);
    assert_eq!(fences.of_tags(&many), Floor::default());
    fences.apply(&Target::Tag("b".into()), Kind::Soft, Position(10));
    assert_eq!(fences.of_tags(&one), Floor { hard: Position(0), soft: Position(10) });
    assert_eq!(fences.of_tags(&group), Floor::default());
    assert_eq!(fences.of_tags(&many).soft, Position(10), "more tags than are told apart");
    let of = |origin: &str| Target::Group { origin: origin.into(), name: "g".into() };
    fences.apply(&of("https://b.test"), Kind::Hard, Position(20));
    assert_eq!(fences.of_tags(&group), Floor::default());
    fences.apply(&of(ORIGIN), Kind::Hard, Position(30));
    assert_eq!(fences.of_tags(&group), hard(30));
    fences.apply(&Target::Tag("g".into()), Kind::Hard, Position(40));
    assert_eq!(fences.of_tags(&group), hard(40));
}

#[test]
fn what_came_after_a_purge_is_current() {
    let fences = Fences::new(0);
    let (key, none) = (key("http://a.test/x"), Tags::default());
    assert_eq!(fences.judge(key.url(), &none, Position(0), Floor::default()), Verdict::Current);
    fences.apply(&url("http://a.test/x"), Kind::Soft, Position(10));
    for (fence, expected) in [(9, Verdict::Stale), (10, Verdict::Current), (11, Verdict::Current)] {
        assert_eq!(fences.judge(key.url(), &none, Position(fence), Floor::default()), expected);
    }
    fences.apply(&Target::All, Kind::Hard, Position(5));
    for (fence, expected) in [(4, Verdict::Purged), (5, Verdict::Stale), (9, Verdict::Stale)] {
        assert_eq!(fences.judge(key.url(), &none, Position(fence), Floor::default()), expected);
    }
    assert_eq!(fences.judge(key.url(), &none, Position(10), hard(11)), Verdict::Purged);
    let other = CacheKey::of_url("http://a.test/y", &KeyRules::default()).unwrap();
    assert_eq!(fences.judge(other.url(), &none, Position(5), Floor::default()), Verdict::Current);
}

#[test]
fn positions_grow_whatever_the_clock_does() {
    let positions = Positions::default();
    assert_eq!(positions.current(), Position(0));
    let first = positions.next(NOW);
    assert_eq!(first, Position(NOW.0 * 1000));
    let second = positions.next(UnixMillis(0));
    assert_eq!(second, Position(first.0 + 1));
    positions.observe(Position(second.0 + 100));
    positions.observe(Position(5));
    assert_eq!(positions.current(), Position(second.0 + 100));
    // One that is given is taken, one that comes late gets the next.
    let given = Position(second.0 + 200);
    assert_eq!(positions.claim(given, NOW), given);
    assert_eq!(positions.claim(given, NOW), Position(given.0 + 1));
    assert_eq!(positions.claim(Position(7), NOW), Position(given.0 + 2));
    assert_eq!(positions.current(), Position(given.0 + 2));
}

#[test]
fn fields_between_nodes() {
    let floor = Floor { hard: Position(12), soft: Position(34) };
    assert_eq!(Floor::default().to_field(), None);
    assert_eq!(floor.to_field().unwrap(), "12/34");
    for (text, expected) in [
        ("12/34", Some(floor)),
        ("12/0", Some(hard(12))),
        ("12", None),
        ("", None),
        ("/", None),
        ("+1/2", None),
        ("1/2/3", None),
        ("1 /2", None),
        ("18446744073709551615/0", None),
        ("18446744073709551616/0", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(FENCE, HeaderValue::from_str(text).unwrap());
        assert_eq!(Floor::of_request(&headers, NOW), expected, "{text}");
    }
    let mut headers = HeaderMap::new();
    assert_eq!(take_fence(&mut headers), Position(0));
    headers.insert(FENCE, fence_field(Position(5)));
    assert_eq!(take_fence(&mut headers), Position(5));
    assert!(headers.is_empty());
}

/// Every object ever fetched and every purge, compared one by one: what the fences must not fall short of.
#[derive(Clone, Debug)]
enum Step {
    Fetch { url: usize, tag: usize },
    Purge { target: usize, soft: bool, late: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fetch = (0usize..40, 0usize..40).prop_map(|(url, tag)| Step::Fetch { url, tag });
    let purge = (0usize..130, any::<bool>(), any::<bool>())
        .prop_map(|(target, soft, late)| Step::Purge { target, soft, late });
    proptest::collection::vec(prop_oneof![fetch, purge], 1..200)
}

fn nth_url(n: usize) -> String {
    format!("http://h{}.test/d{}/f{n}", n % 3, n % 7)
}

fn nth_target(n: usize) -> Target {
    match n {
        0..40 => url(&nth_url(n)),
        40..47 => prefix(&format!("http://h0.test/d{}", n - 40)),
        47..50 => Target::Host(format!("h{}.test", n - 47).into()),
        50..90 => Target::Tag(format!("t{}", n - 50).into()),
        // Many that concern nobody, so that tables fill.
        90..129 => url(&format!("http://h9.test/{n}")),
        _ => Target::All,
    }
}

fn covers(target: usize, url: usize, tag: usize) -> bool {
    match target {
        0..40 => target == url,
        40..47 => url.is_multiple_of(3) && url % 7 == target - 40,
        47..50 => url % 3 == target - 47,
        50..90 => tag == target - 50,
        90..129 => false,
        _ => true,
    }
}

proptest! {
    /// What was fetched before a purge of it is purged, whatever came in between and however small the tables are; a late
    /// purge covers all that was fetched before it came.
    #[test]
    fn nothing_older_than_a_purge_is_current(steps in steps(), tiny in any::<bool>()) {
        let mut fences = Fences::new(0);
        if tiny {
            (fences.urls, fences.prefixes) = (Table::new(1), Table::new(1));
            (fences.hosts, fences.tags) = (Table::new(1), Table::new(1));
        }
        let positions = Positions::default();
        let mut fetched: Vec<(usize, usize, Position, Verdict)> = Vec::new();
        for step in steps {
            match step {
                Step::Fetch { url, tag } => {
                    fetched.push((url, tag, positions.current(), Verdict::Current));
                }
                Step::Purge { target, soft, late } => {
                    let kind = if soft { Kind::Soft } else { Kind::Hard };
                    let at = match late {
                        true => positions.claim(Position(positions.current().0 / 2), UnixMillis(1)),
                        false => positions.next(UnixMillis(1)),
                    };
                    fences.apply(&nth_target(target), kind, at);
                    for (url, tag, _, verdict) in &mut fetched {
                        if covers(target, *url, *tag) && *verdict != Verdict::Purged {
                            *verdict = if soft { Verdict::Stale } else { Verdict::Purged };
                        }
                    }
                }
            }
            for (url, tag, fence, verdict) in &fetched {
                let tags = tags(&[("cache-tag", &format!("t{tag}"))]);
                let got = fences.judge(key(&nth_url(*url)).url(), &tags, *fence, Floor::default());
                match (tiny, verdict) {
                    (false, _) => prop_assert_eq!(got, *verdict),
                    (true, Verdict::Current) => {}
                    (true, Verdict::Stale) => prop_assert!(got != Verdict::Current),
                    (true, Verdict::Purged) => prop_assert_eq!(got, Verdict::Purged),
                }
            }
        }
    }

    /// The same purges at the same positions in another order, some of them twice, leave the same fences.
    #[test]
    fn order_does_not_matter(
        purges in proptest::collection::vec((0usize..130, any::<bool>(), 1u64..1000), 1..60),
        seed in any::<prop::sample::Index>(),
    ) {
        let kind = |soft: bool| if soft { Kind::Soft } else { Kind::Hard };
        let (one, other) = (Fences::new(0), Fences::new(0));
        for (target, soft, at) in &purges {
            one.apply(&nth_target(*target), kind(*soft), Position(*at));
        }
        let mut shuffled = purges.clone();
        shuffled.rotate_left(seed.index(purges.len()));
        shuffled.reverse();
        shuffled.push(purges[0]);
        for (target, soft, at) in &shuffled {
            other.apply(&nth_target(*target), kind(*soft), Position(*at));
        }
        prop_assert_eq!(one.latest(), other.latest());
        for n in 0..40 {
            prop_assert_eq!(one.of_key(&key(&nth_url(n))), other.of_key(&key(&nth_url(n))));
            let tags = tags(&[("cache-tag", &format!("t{n}"))]);
            prop_assert_eq!(one.of_tags(&tags), other.of_tags(&tags));
        }
    }
}
