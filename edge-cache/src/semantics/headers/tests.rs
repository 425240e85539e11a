//! Tests of what is taken off and put on at each hop.

use proptest::prelude::*;

use super::*;

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    headers
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

fn get<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    assert!(headers.get_all(name).iter().count() <= 1, "{name} stands there twice");
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn rfc9113_8_2_3_cookies_are_one_field() {
    let client = headers(&[("cookie", "a=1"), ("cookie", "b=2; c=3")]);
    let rfc = Policy { profile: Profile::Rfc, ..Policy::default() };
    for policy in [None, Some(&rfc)] {
        assert_eq!(get(&for_origin(&client, policy, &[]), "cookie"), Some("a=1; b=2; c=3"));
    }
}

/// Pitfall 32.
#[test]
fn rfc9110_7_6_1_connection_fields() {
    let mut message = headers(&[
        ("connection", "close, X-One,, te"),
        ("connection", "x-two, Host, cache-control, AUTHORIZATION, bad name"),
        ("x-one", "1"),
        ("x-two", "2"),
        ("x-three", "3"),
        ("host", "a"),
        ("cache-control", "no-store"),
        ("authorization", "x"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("proxy-authorization", "x"),
        ("proxy-authenticate", "x"),
        ("te", "trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
    ]);
    strip_hop_by_hop(&mut message);
    assert_eq!(names(&message), ["authorization", "cache-control", "host", "x-three"]);
}

#[test]
fn rfc9110_6_5_1_what_may_be_a_trailer() {
    let mut trailers = headers(&[
        ("grpc-status", "0"),
        ("x-checksum", "1"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("set-cookie", "a=b"),
        ("authorization", "x"),
        ("cache-control", "max-age=60"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
    ]);
    strip_trailers(&mut trailers);
    assert_eq!(names(&trailers), ["grpc-status", "x-checksum"]);
    assert!(takes_trailers(&headers(&[("te", "gzip;q=0.5, Trailers")])));
    assert!(!takes_trailers(&headers(&[("te", "gzip")])));
}

/// Pitfall 6 and RFC 9111 §3.1.
#[test]
fn rfc9111_3_1_what_is_not_stored() {
    let mut message = headers(&[
        ("cache-control", "no-cache=\"a, B\", private=c, max-age=60"),
        ("a", "1"),
        ("b", "2"),
        ("c", "3"),
        ("d", "4"),
        ("trailer", "x"),
        ("age", "5"),
        ("cache-status", "parent; hit"),
        ("proxy-status", "parent; error=dns_timeout"),
        ("connection", "d"),
    ]);
    strip_for_storage(&mut message);
    assert_eq!(names(&message), ["cache-control"]);
}

#[test]
fn rfc9111_5_2_2_4_listed_fields_are_the_first_clients() {
    let received = headers(&[
        ("cache-control", "max-age=60, private=\"set-cookie, age, a\", no-cache=x"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("a", "1"),
        ("x", "2"),
        ("age", "3"),
        ("b", "4"),
    ]);
    let mut stored = received.clone();
    strip_for_storage(&mut stored);
    assert_eq!(names(&stored), ["b", "cache-control"]);
    let whole = with_listed(&stored, &received).unwrap();
    assert_eq!(names(&whole), ["a", "b", "cache-control", "set-cookie", "x"]);
    assert_eq!(whole.get_all("set-cookie").iter().count(), 2);
    assert!(with_listed(&stored, &stored).is_none());
}

/// Fields that we write ourselves are written by nobody else, in no spelling: programs that are given fields as variables
/// (RFC 3875 §4.1.18) do not tell `_` from `-`.
#[test]
fn rfc3875_4_1_18_disguised_fields() {
    let hostile = [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-server",
        "x-forwarded-ssl",
        "x_forwarded_for",
        "x-forwarded_proto",
        "x_original_url",
        "content_length",
        "transfer_encoding",
        "cdn_loop",
        "meridian-fence",
        "meridian-anything",
    ];
    let mut client = HeaderMap::new();
    for name in hostile {
        client.insert(name, HeaderValue::from_static("x"));
    }
    client.insert("x_custom", HeaderValue::from_static("x"));
    assert_eq!(names(&for_origin(&client, None, &[])), ["x_custom"]);
    let rfc = Policy { profile: Profile::Rfc, ..Policy::default() };
    assert_eq!(names(&for_origin(&client, Some(&rfc), &[])), ["x_custom"]);
    // Not even where an origin says that its responses depend on them.
    let varying = hostile.map(HeaderName::from_static);
    assert!(for_origin(&client, Some(&Policy::default()), &varying).is_empty());
}

#[test]
fn what_nodes_tell_each_other_is_in_no_interim_response_and_no_trailers() {
    let fields = [("meridian-fence", "5"), ("link", "</a>"), ("content-length", "5")];
    assert_eq!(names(&interim_fields(&headers(&fields))), ["link"]);
    let mut trailers = headers(&fields);
    strip_trailers(&mut trailers);
    assert_eq!(names(&trailers), ["link"]);
}

/// Pitfalls 30 and 44: unkeyed input does not reach the origin of a cacheable route.
#[test]
fn pitfall_44_unkeyed_input() {
    let client = headers(&[
        ("host", "a"),
        ("authorization", "x"),
        ("accept", "*/*"),
        ("accept-encoding", "deflate, br;q=0.1, gzip"),
        ("cookie", "sid=1; lang=de; b=2"),
        ("x-device", "phone"),
        ("x-evil", "1"),
        ("x-forwarded-host", "evil"),
        ("x-original-url", "/admin"),
        ("x-http-method-override", "DELETE"),
        ("forwarded", "for=1.2.3.4"),
        ("if-none-match", "\"a\""),
        ("range", "bytes=0-1"),
        ("connection", "x-gone"),
        ("x-gone", "1"),
        ("cache-control", "no-cache"),
    ]);
    let mut policy = Policy::default();
    policy.key.headers = vec![HeaderName::from_static("x-device")];
    policy.key.cookies = vec!["lang".to_owned()];
    let mut fill = for_origin(&client, Some(&policy), &[]);
    assert_eq!(names(&fill), ["accept", "accept-encoding", "authorization", "cookie", "x-device"]);
    assert_eq!(get(&fill, "accept-encoding"), Some("gzip, br"));
    assert_eq!(get(&fill, "cookie"), Some("lang=de"));
    assert_eq!(
        names(&for_origin(&client, Some(&Policy::default()), &[])),
        ["accept", "accept-encoding", "authorization"]
    );
    // Pitfall 30: a revalidation in the background is nobody's.
    let none = vary::Vary::of(&HeaderMap::new());
    without_credentials(&mut fill, &policy, &none);
    assert_eq!(names(&fill), ["accept", "accept-encoding", "cookie", "x-device"]);

    policy.profile = Profile::Rfc;
    let mut fill = for_origin(&client, Some(&policy), &[]);
    assert_eq!(
        names(&fill),
        [
            "accept",
            "accept-encoding",
            "authorization",
            "cache-control",
            "cookie",
            "x-device",
            "x-evil"
        ]
    );
    assert_eq!(get(&fill, "accept-encoding"), Some("gzip, br"));
    let by_cookie = vary::Vary::of(&headers(&[("vary", "cookie")]));
    let mut varied = fill.clone();
    without_credentials(&mut varied, &policy, &by_cookie);
    assert_eq!(get(&varied, "cookie"), get(&fill, "cookie"));
    without_credentials(&mut fill, &policy, &none);
    assert_eq!(get(&fill, "cookie"), Some("lang=de"));
    let pass = for_origin(&client, None, &[]);
    assert_eq!(
        names(&pass),
        [
            "accept",
            "accept-encoding",
            "authorization",
            "cache-control",
            "cookie",
            "if-none-match",
            "range",
            "x-device",
            "x-evil",
            "x-http-method-override"
        ]
    );
}

/// A field that the key's responses vary by is in their key: it may be sent, and is told apart.
#[test]
fn pitfall_44_what_responses_vary_by_is_keyed() {
    let client = headers(&[("x-device", "phone"), ("x-evil", "1"), ("cookie", "a=1")]);
    let varying = [HeaderName::from_static("x-device"), COOKIE];
    let policy = Policy::default();
    assert_eq!(names(&for_origin(&client, Some(&policy), &varying)), ["x-device"]);
    assert_eq!(unsent(&client, &policy, &varying), ["x-evil"]);
    assert_eq!(unsent(&client, &policy, &[]), ["x-device", "x-evil"]);
    let rfc = Policy { profile: Profile::Rfc, ..Policy::default() };
    assert!(unsent(&client, &rfc, &[]).is_empty());
}

#[test]
fn edge_architecture_3_surrogate_capability() {
    let client = headers(&[("surrogate-capability", "theirs=\"Surrogate/1.0\"")]);
    let policy = Policy { surrogate_control: true, ..Policy::default() };
    let fill = for_origin(&client, Some(&policy), &[]);
    assert_eq!(get(&fill, "surrogate-capability"), Some("meridian=\"Surrogate/1.0\""));
}

#[test]
fn range_and_conditions_are_added_and_nothing_of_who_asks() {
    let client = headers(&[
        ("range", "bytes=0-1"),
        ("if-none-match", "\"a\""),
        ("cookie", "id=1"),
        ("authorization", "Basic x"),
    ]);
    let mut message = headers(&[("accept", "*/*")]);
    add_range_and_conditions(&mut message, &client);
    assert_eq!(names(&message), ["accept", "if-none-match", "range"]);
}

#[test]
fn rfc9111_5_1_age_once() {
    let mut message = headers(&[("age", "3"), ("age", "4")]);
    set_age(&mut message, Duration::from_millis(5999));
    assert_eq!(get(&message, "age"), Some("5"));
    set_age(&mut message, Duration::MAX);
    assert_eq!(get(&message, "age"), Some("2147483648"));
}

#[test]
fn rfc9110_6_6_1_date() {
    let now = UnixMillis::from_secs(784_111_777);
    for fields in [&[][..], &[("date", "junk")], &[("date", "0"), ("date", "1")]] {
        let mut message = headers(fields);
        ensure_date(&mut message, now);
        assert_eq!(get(&message, "date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    }
    let mut message = headers(&[("date", "Sun, 06 Nov 1994 08:49:36 GMT")]);
    ensure_date(&mut message, now);
    assert_eq!(get(&message, "date"), Some("Sun, 06 Nov 1994 08:49:36 GMT"));
}

proptest! {
    #[test]
    fn no_connection_value_panics(value in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            let mut message = HeaderMap::new();
            message.insert(CONNECTION, value.clone());
            message.insert("cookie", value);
            let _ = for_origin(&message, Some(&Policy::default()), &[]);
            strip_for_storage(&mut message);
            prop_assert!(!message.contains_key(CONNECTION));
        }
    }

}
