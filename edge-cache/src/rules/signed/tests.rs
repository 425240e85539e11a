//! Signatures: what is good, what is not, and that nothing in between is.

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000;

fn keys() -> Keys {
    let secret = |name: &str| (name.to_owned(), format!("{name}-0123456789abcdef0123456789abcdef"));
    Keys::new([secret("k1"), secret("k2")]).unwrap()
}

fn grant(scope: Scope) -> Grant {
    Grant {
        key: "k1".to_owned(),
        host: "www.cdn.test".to_owned(),
        scope,
        expires: NOW + 60,
        from: None,
        network: None,
    }
}

fn url(path: &str, query: Option<&str>) -> Scope {
    Scope::Url { path: path.to_owned(), query: other_parameters(query) }
}

fn prefix(prefix: &str) -> Scope {
    Scope::Prefix(prefix.to_owned())
}

fn ask(host: &str, path: &str, query: Option<&str>, now: u64) -> Result<(), Reason> {
    let headers = HeaderMap::new();
    let client = Some("192.0.2.1".parse().unwrap());
    let path = normalise_path(path).unwrap();
    keys().check(&Signed { host, path: &path, query, headers: &headers, client }, now)
}

fn here(path: &str, query: &str) -> Result<(), Reason> {
    ask("www.cdn.test", path, Some(query), NOW)
}

/// The text that is signed is a contract with whoever makes signatures elsewhere; the digest was made with
/// `printf … | openssl dgst -sha256 -hmac`.
#[test]
fn the_canonical_text_never_changes() {
    let whole = Grant {
        from: Some(NOW - 5),
        network: Some("192.0.2.0/24".parse().unwrap()),
        ..grant(url("/a%2Fb", Some("z=1&b=%7e&a=2")))
    };
    assert_eq!(
        whole.canonical(),
        "meridian-signature-1\nkey=k1\nhost=www.cdn.test\npath=/a%2Fb\nquery=a=2&b=~&z=1\n\
         expires=1800000060\nfrom=1799999995\nnet=192.0.2.0/24\n"
    );
    let below = grant(prefix("/v/"));
    assert_eq!(
        below.canonical(),
        "meridian-signature-1\nkey=k1\nhost=www.cdn.test\nprefix=/v/\nexpires=1800000060\n"
    );
    assert_eq!(
        keys().sign(&below).unwrap(),
        "md-key=k1&md-expires=1800000060&md-prefix=/v/&md-sig=f6cb232276001138d57015678b13c4339ff1b4d4dbf4dfd6fa382fad90c7a7d2"
    );
    assert!(keys().sign(&Grant { key: "k3".to_owned(), ..below }).is_none());
}

#[test]
fn a_signed_url_is_good_for_itself_until_it_expires() {
    let signed = keys().sign(&grant(url("/a/b", Some("x=1&y=2")))).unwrap();
    let (good, bad) = (Ok(()), Err(Reason::SignatureInvalid));
    for (host, path, query, now, expected) in [
        ("www.cdn.test", "/a/b", format!("x=1&y=2&{signed}"), NOW, good),
        // The order of parameters and the spelling of escapes are nothing.
        ("www.cdn.test", "/a/b", format!("{signed}&y=%32&x=1"), NOW, good),
        ("www.cdn.test", "/a/./c/../%62", format!("x=1&{signed}&y=2"), NOW, good),
        ("www.cdn.test", "/a/b", format!("x=1&y=2&{signed}"), NOW + 59, good),
        (
            "www.cdn.test",
            "/a/b",
            format!("x=1&y=2&{signed}"),
            NOW + 60,
            Err(Reason::SignatureExpired),
        ),
        ("img.cdn.test", "/a/b", format!("x=1&y=2&{signed}"), NOW, bad),
        ("www.cdn.test", "/a/B", format!("x=1&y=2&{signed}"), NOW, bad),
        ("www.cdn.test", "/a/b/", format!("x=1&y=2&{signed}"), NOW, bad),
        ("www.cdn.test", "/a/b/../c", format!("x=1&y=2&{signed}"), NOW, bad),
        ("www.cdn.test", "/a/b", format!("x=1&{signed}"), NOW, bad),
        ("www.cdn.test", "/a/b", format!("x=1&y=3&{signed}"), NOW, bad),
        ("www.cdn.test", "/a/b", format!("x=1&y=2&z=3&{signed}"), NOW, bad),
        ("www.cdn.test", "/a/b", format!("x=1&y=2&y=2&{signed}"), NOW, bad),
        ("www.cdn.test", "/a/b", "x=1&y=2".to_owned(), NOW, Err(Reason::SignatureMissing)),
        ("www.cdn.test", "/a/b", format!("x=1&y=2&{signed}&md-from=1"), NOW, bad),
        ("www.cdn.test", "/a/b", format!("x=1&y=2&{signed}&md-prefix=/"), NOW, bad),
        ("www.cdn.test", "/a/b", format!("x=1&y=2&{signed}&md-net=0.0.0.0/0"), NOW, bad),
        ("www.cdn.test", "/a/b", format!("x=1&y=2&{signed}&md-sig="), NOW, bad),
        ("www.cdn.test", "/a/b", format!("x=1&y=2&{signed}&%6Dd-key=k1"), NOW, bad),
        ("www.cdn.test", "/a/b", format!("x=1&y=2&{}", signed.replace("k1", "k2")), NOW, bad),
        ("www.cdn.test", "/a/b", format!("x=1&y=2&{}", signed.replace("k1", "k9")), NOW, bad),
        (
            "www.cdn.test",
            "/a/b",
            format!("x=1&y=2&{}", signed.replace("expires=1", "expires=01")),
            NOW,
            bad,
        ),
        (
            "www.cdn.test",
            "/a/b",
            format!("x=1&y=2&{}", signed.replace("expires=1", "expires=2")),
            NOW,
            bad,
        ),
        ("www.cdn.test", "/a/b", "x=1&y=2&md-sig".to_owned(), NOW, bad),
    ] {
        assert_eq!(ask(host, path, Some(&query), now), expected, "{host} {path} {query}");
    }
    assert_eq!(ask("www.cdn.test", "/a/b", None, NOW), Err(Reason::SignatureMissing));
}

#[test]
fn prefixes_end_at_segments() {
    for (signed, path, good) in [
        ("/v", "/v", true),
        ("/v", "/v/a", true),
        ("/v", "/v//a", true),
        ("/v", "/video", false),
        ("/v", "/", false),
        ("/v/", "/v", false),
        ("/v/", "/v/", true),
        ("/v/", "/v/a/b", true),
        ("/v/", "/v/../w", false),
        ("/v/", "/v/%2e%2e/w", false),
        ("/v/", "/v/..%2Fw", false),
        ("/v/", "/v/..;/w", false),
        ("/v/", "/v/a%2Fb;c//d", true),
        ("/v/", "/w/../v/a", true),
        ("/v/", "/V/a", false),
        ("/", "/anything", true),
        ("/a%2Fb/", "/a%2fb/c", true),
        ("/a%2Fb/", "/a/b/c", false),
        ("/a&b=c+d/", "/a&b=c+d/e", true),
    ] {
        let query = keys().sign(&grant(prefix(signed))).unwrap();
        let expected = if good { Ok(()) } else { Err(Reason::SignatureScope) };
        assert_eq!(here(path, &query), expected, "{signed} {path}");
        assert_eq!(here(path, &format!("any=1&{query}")), expected, "{signed} {path}");
    }
    // Signed, but written otherwise than normalised: no such thing is made here.
    for odd in ["/v/../", "/%76/", "v/"] {
        let query = keys().sign(&grant(prefix(odd))).unwrap();
        assert_eq!(here("/v/a", &query), Err(Reason::SignatureInvalid), "{odd}");
    }
}

#[test]
fn times_networks_and_keys() {
    let base = grant(prefix("/"));
    let network = |text: &str| Some(text.parse().unwrap());
    for (grant, expected) in [
        (Grant { from: Some(NOW), ..base.clone() }, Ok(())),
        (Grant { from: Some(NOW + 1), ..base.clone() }, Err(Reason::SignatureEarly)),
        (Grant { expires: NOW, ..base.clone() }, Err(Reason::SignatureExpired)),
        (Grant { expires: u64::MAX, ..base.clone() }, Ok(())),
        (Grant { network: network("192.0.2.0/24"), ..base.clone() }, Ok(())),
        (
            Grant { network: network("198.51.100.0/24"), ..base.clone() },
            Err(Reason::SignatureNetwork),
        ),
        (
            Grant { network: network("2001:db8::/32"), ..base.clone() },
            Err(Reason::SignatureNetwork),
        ),
        (Grant { key: "k2".to_owned(), ..base.clone() }, Ok(())),
    ] {
        assert_eq!(here("/a", &keys().sign(&grant).unwrap()), expected, "{grant:?}");
    }
    let bound = keys().sign(&Grant { network: network("::/0"), ..base }).unwrap();
    let (headers, path) = (HeaderMap::new(), "/a");
    let nobody =
        Signed { host: "www.cdn.test", path, query: Some(&bound), headers: &headers, client: None };
    assert_eq!(keys().check(&nobody, NOW), Err(Reason::SignatureNetwork));
    let short = Keys::new([("k".to_owned(), "x".repeat(31))]);
    assert!(short.unwrap_err().contains("31 characters"));
}

#[test]
fn cookies_count_where_the_url_says_nothing() {
    let good = keys().sign(&grant(prefix("/v/"))).unwrap();
    let other = keys().sign(&grant(prefix("/w/"))).unwrap();
    let ask = |lines: &[String], query: Option<&str>| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::from_str(line).unwrap());
        }
        let request =
            Signed { host: "www.cdn.test", path: "/v/a", query, headers: &headers, client: None };
        keys().check(&request, NOW)
    };
    for (lines, query, expected) in [
        (vec![format!("md-signed={good}")], None, Ok(())),
        (vec![format!("a=b; md-signed={good}; c=d")], Some("q=1"), Ok(())),
        (vec![format!("a=b"), format!("md-signed={other}; md-signed={good}")], None, Ok(())),
        (vec![format!("md-signed={other}")], None, Err(Reason::SignatureScope)),
        (vec![format!("md-signed={good}x")], None, Err(Reason::SignatureInvalid)),
        (vec![format!("xmd-signed={good}")], None, Err(Reason::SignatureMissing)),
        (vec!["md-signed=".to_owned()], None, Err(Reason::SignatureInvalid)),
        (vec![format!("md-signed={good}")], Some("md-key=k1"), Err(Reason::SignatureInvalid)),
        (
            vec![format!("{}md-signed={good}", "md-signed=x;".repeat(8))],
            None,
            Err(Reason::SignatureInvalid),
        ),
    ] {
        assert_eq!(ask(&lines, query), expected, "{lines:?}");
    }
}

#[test]
fn nothing_of_a_signature_goes_on() {
    for (query, expected) in [
        (None, None),
        (Some(""), Some("")),
        (Some("b=2&a=1"), Some("b=2&a=1")),
        (Some("b=%7e&md-sig=1&a=1&%6dd-key=x"), Some("b=%7e&a=1")),
        (Some("md-sig=1"), None),
        (Some("md-sigs=1&MD-SIG=2"), Some("md-sigs=1&MD-SIG=2")),
    ] {
        assert_eq!(without_signature(query).as_deref(), expected, "{query:?}");
    }
    let without = |line: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_static(line));
        without_cookie(&headers).map(|rest| rest.map(|rest| rest.to_str().unwrap().to_owned()))
    };
    assert_eq!(without("a=b; c=d"), None);
    assert_eq!(without("a=b;md-signed=x; c=d"), Some(Some("a=b; c=d".to_owned())));
    assert_eq!(without("md-signed=x; md-signed"), Some(None));
}

#[test]
fn no_shared_cache_keeps_what_a_signature_opened() {
    for (cache_control, expected) in [
        (&[][..], "private"),
        (&["public, max-age=60, s-maxage=600"], "private, max-age=60"),
        (&["Public", "S-MaxAge=\"5\", immutable"], "private, immutable"),
        (&["private=\"a, b\", no-cache=\"set-cookie, x\""], "private, no-cache=\"set-cookie, x\""),
        (&["no-store"], "no-store"),
        (&["max-age=60, no-store"], "max-age=60, no-store"),
    ] {
        let mut headers = HeaderMap::new();
        for line in cache_control {
            headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
        }
        headers.insert("cdn-cache-control", HeaderValue::from_static("max-age=9"));
        headers.insert("surrogate-control", HeaderValue::from_static("max-age=9"));
        keep_private(&mut headers);
        let lines: Vec<_> = headers.iter().map(|(_, value)| value.to_str().unwrap()).collect();
        assert_eq!(lines, [expected], "{cache_control:?}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(query in "\\PC{0,60}", cookie in "[ -~]{0,60}", key in "(md-(key|sig|expires|prefix|net|from)=?[%0-9a-f/&]{0,6}){0,6}") {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_str(&format!("md-signed={cookie}")).unwrap());
        for query in [None, Some(&query), Some(&key)] {
            let query = query.map(String::as_str);
            let request = Signed { host: "a", path: "/", query, headers: &headers, client: None };
            prop_assert!(keys().check(&request, NOW).is_err());
            let _ = without_signature(query);
        }
    }

    /// Any change of URL, prefix, expiry, host, network or key fails.
    #[test]
    fn whatever_is_changed_is_refused(
        (path, other_path) in ("/[a-c]{1,3}(/[a-c]{1,3})?", "/[a-c]{1,3}(/[a-c]{1,3})?"),
        (query, other_query) in ("[a-c]=[0-9]&[d-f]=[0-9]", "[a-c]=[0-9]&[d-f]=[0-9]"),
        (expires, other_expires) in (NOW + 1..NOW + 9, NOW + 1..NOW + 9),
        (host, other_host) in ("[ab]\\.test", "[ab]\\.test"),
        (below, other_below) in (any::<bool>(), any::<bool>()),
        (key, other_key) in ("k[12]", "k[12]"),
    ) {
        let make = |path: &str, query: &str, expires, host: &str, below, key: &str| Grant {
            key: key.to_owned(),
            host: host.to_owned(),
            scope: if below { prefix(path) } else { url(path, Some(query)) },
            expires,
            from: None,
            network: None,
        };
        let signed = make(&path, &query, expires, &host, below, &key);
        let claimed = make(&other_path, &other_query, other_expires, &other_host, other_below, &other_key);
        let parameters = keys().sign(&signed).unwrap();
        let (_, signature) = parameters.split_once("md-sig=").unwrap();
        let text = format!("{other_query}&{}", claimed.parameters(signature));
        let result = ask(&other_host, &other_path, Some(&text), NOW);
        // A prefix says nothing of the query.
        prop_assert_eq!(result.is_ok(), signed == claimed);
    }

    /// One flipped bit anywhere is refused, or not a change.
    #[test]
    fn one_other_character_is_refused(at in any::<prop::sample::Index>(), with in "[0-9a-zA-Z/=&%.-]") {
        let text = format!("x=1&{}", keys().sign(&grant(url("/a", Some("x=1")))).unwrap());
        let at = at.index(text.len());
        let mut changed = text.clone();
        changed.replace_range(at..=at, &with);
        if changed != text {
            prop_assert!(here("/a", &changed).is_err(), "{}", changed);
        }
    }
}

#[test]
fn the_log_holds_no_signature() {
    assert_eq!(redacted("a=1&md-key=k"), "a=1&md-key=k");
    assert_eq!(redacted("md-sig=ab&a=1&md%2Dsi%67=cd&md-sig"), "md-sig=-&a=1&md-sig=-&md-sig=-");
}
