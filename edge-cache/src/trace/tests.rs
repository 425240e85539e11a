//! The four forms, good and broken.

use super::*;
use proptest::prelude::*;

fn one(line: &str) -> Request<'_> {
    let mut reader = Reader::default();
    let request = reader.line(line);
    request.unwrap_or_else(|| panic!("{line}: {:?} {:?}", reader.counts(), reader.broken()))
}

const AT: UnixMillis = UnixMillis(1_795_266_040_000);

fn request(host: &'static str, target: &'static str, size: u64) -> Request<'static> {
    Request {
        at: AT,
        host: host.into(),
        target: target.into(),
        is_head: false,
        status: 200,
        size: Some(size),
        hit: None,
    }
}

#[test]
fn combined_lines_of_three_servers() {
    let time = "[21/Nov/2026:13:00:40 +0000]";
    let nginx = format!(
        r#"203.0.113.9 - - {time} "GET /a.png?v=1 HTTP/1.1" 200 512 "https://r.test/" "Mozilla/5.0 (X11; \"q\")""#
    );
    assert_eq!(one(&nginx), request("", "/a.png?v=1", 512));
    let cache = format!("{nginx} \"-\" rt=0.001 HIT");
    assert_eq!(one(&cache), Request { hit: Some(true), ..request("", "/a.png?v=1", 512) });
    let apache =
        format!(r#"www.cdn.test:443 203.0.113.9 - bob {time} "GET / HTTP/1.1" 200 7 "-" "-""#);
    assert_eq!(one(&apache), request("www.cdn.test", "/", 7));
    let common = format!(r#"www.cdn.test 203.0.113.9 - - {time} "GET / HTTP/1.0" 200 7"#);
    assert_eq!(one(&common), request("www.cdn.test", "/", 7));
    let varnish = format!(
        r#"203.0.113.9 - - {time} "GET http://WWW.cdn.test/b?x HTTP/1.1" 200 9 "-" "curl" miss"#
    );
    assert_eq!(one(&varnish), Request { hit: Some(false), ..request("www.cdn.test", "/b?x", 9) });
    let escaped =
        format!(r#"203.0.113.9 - - {time} "GET /\"q\"\xE2\x82\xAC HTTP/1.1" 200 9 "-" "-""#);
    assert_eq!(one(&escaped), request("", "/\"q\"€", 9));
    let spaced = format!(r#"::1 - - {time} "GET /a b HTTP/1.1" 200 9"#);
    assert_eq!(one(&spaced), request("", "/a b", 9));
}

#[test]
fn lines_of_json() {
    let own = r#"{"time":"2026-11-21T13:00:40.000Z","node":"e1","site":"www","client":"127.0.0.1","method":"GET",
        "host":"www.cdn.test","path":"/a","query":"b=1","status":200,"bytes":11,"whole":true,"duration_ms":0.2,
        "cache":"hit","reason":"fresh","collapsed":false,"http":"1.1"}"#;
    assert_eq!(one(own), Request { hit: Some(true), ..request("www.cdn.test", "/a?b=1", 11) });
    let nginx = r#"{"time_iso8601":"2026-11-21T14:00:40+01:00","request":"GET /a?b=1 HTTP/1.1","http_host":"www.cdn.test",
        "status":"200","body_bytes_sent":"11","upstream_cache_status":"MISS","nested":{"path":[1,{"a":2}]}}"#;
    assert_eq!(one(nginx), Request { hit: Some(false), ..request("www.cdn.test", "/a?b=1", 11) });
    let numbers =
        r#"{"ts":1795266040.0,"url":"https://www.cdn.test/a?b=1","query":"b=1","size":11}"#;
    assert_eq!(one(numbers), request("www.cdn.test", "/a?b=1", 11));
    let cloudflare = r#"{"EdgeStartTimestamp":1795266040000000000,"ClientRequestHost":"www.cdn.test",
        "ClientRequestMethod":"GET","ClientRequestURI":"/a","EdgeResponseStatus":200,"EdgeResponseBytes":11,
        "CacheCacheStatus":"dynamic"}"#;
    let mut reader = Reader::default();
    assert_eq!(reader.line(cloudflare), None);
    assert_eq!(reader.counts().passed, 1, "{:?}", reader.broken());
}

#[test]
fn tables_with_and_without_a_head() {
    for text in [
        "1795266040,/a,11",
        "1795266040.0\t/a\t11\tx",
        "1795266040 /a  11",
        "1795266040; \"/a\" ;11",
    ] {
        assert_eq!(one(text), request("", "/a", 11), "{text}");
    }
    let mut reader = Reader::default();
    assert_eq!(reader.line("\u{feff}size,ignored,Key,time"), None);
    assert_eq!(
        reader.line("11,\"x,y\",\"a \"\"b\"\", c\",1795266040"),
        Some(request("", "a \"b\", c", 11))
    );
    assert_eq!(reader.format(), Some(Format::Csv));
    assert_eq!((reader.counts().blank, reader.counts().requests), (1, 1));
    let ids = one("1 4711 200");
    assert_eq!((ids.target.as_ref(), ids.size, ids.at.0), ("4711", Some(200), 1000));
}

#[test]
fn what_no_cache_answers_is_left_out_and_counted() {
    let mut reader = Reader::default();
    let mut line = |method: &str, status: u16| {
        let line = format!(
            r#"203.0.113.9 - - [21/Nov/2026:13:00:40 +0000] "{method} /a HTTP/1.1" {status} 5 "-" "-""#
        );
        reader.line(&line).map(|request| (request.is_head, request.size))
    };
    assert_eq!(line("GET", 206), Some((false, Some(5))));
    assert_eq!(line("GET", 404), Some((false, Some(5))));
    assert_eq!(line("HEAD", 200), Some((true, None)));
    assert_eq!(line("GET", 304), Some((false, None)));
    for (method, status) in
        [("POST", 200), ("OPTIONS", 204), ("GET", 500), ("GET", 302), ("GET", 401)]
    {
        assert_eq!(line(method, status), None, "{method} {status}");
    }
    assert_eq!(
        reader.line(r#"203.0.113.9 - - [21/Nov/2026:13:00:40 +0000] "-" 400 0 "-" "-""#),
        None
    );
    assert_eq!(
        reader.line(r#"203.0.113.9 - - [21/Nov/2026:13:00:40 +0000] "CONNECT a:1 HTTP/1.1" 405 0"#),
        None
    );
    assert_eq!(reader.line(""), None);
    assert_eq!(reader.line("# comment"), None);
    let counts = Counts {
        lines: 13,
        requests: 4,
        other_methods: 4,
        other_statuses: 3,
        blank: 2,
        ..Counts::default()
    };
    assert_eq!(reader.counts(), &counts);
}

#[test]
fn broken_lines_are_counted_and_the_first_ones_named() {
    let good = r#"203.0.113.9 - - [21/Nov/2026:13:00:40 +0000] "GET /a HTTP/1.1" 200 5"#;
    let mut reader = Reader::default();
    assert_eq!(reader.line("no form at all"), None);
    assert!(reader.line(good).is_some());
    for (bad, why) in [
        ("x", "it has no time in brackets"),
        (r#"a - - [then] "GET / HTTP/1.1" 200 5"#, "`then` is no time"),
        (r#"a - - [21/Nov/2026:13:00:40 +0000] "GET / HTTP/1.1 200 5"#, "its request has no end"),
        (r#"a - - [21/Nov/2026:13:00:40 +0000] "GET / HTTP/1.1" abc 5"#, "`abc` is no status"),
        (
            r#"a - - [21/Nov/2026:13:00:40 +0000] "GET / HTTP/1.1" 200 -5"#,
            "`-5` is no number of bytes",
        ),
        (
            r#"a - - [21/Nov/2026:13:00:40 +0000] "GET nowhere HTTP/1.1" 200 5"#,
            "`nowhere` is neither a path nor a URL",
        ),
        (r#"{"time":1}"#, "it has no time in brackets"),
    ] {
        assert_eq!(reader.line(bad), None, "{bad}");
        assert_eq!(reader.broken().last().map(|broken| broken.why.as_str()), Some(why), "{bad}");
    }
    assert_eq!(reader.broken()[0].line, 1);
    assert_eq!(
        reader.broken()[1],
        Broken { line: 3, why: "it has no time in brackets".into(), text: "x".into() }
    );
    let long = format!("{good} \"{}\"", "x".repeat(LONGEST_LINE));
    assert_eq!(reader.line(&long), None);
    assert_eq!(
        reader.broken().last().map(|broken| broken.why.as_str()),
        Some("it is longer than 64 KiB")
    );
    for _ in 0..100 {
        reader.line("again");
    }
    assert_eq!((reader.counts().broken, reader.broken().len()), (109, KEPT));
    assert!(reader.line(good).is_some());
    let mut reader = Reader::new(Some(Format::Json));
    for (bad, why) in [
        ("{", "it is no object of JSON: EOF while parsing an object at line 1 column 1"),
        (
            "[1]",
            "it is no object of JSON: invalid type: sequence, expected an object at line 1 column 0",
        ),
        (r#"{"path":"/","bytes":1}"#, "it has no time (`time`, `timestamp`, `ts`, …)"),
        (r#"{"time":1,"path":"/"}"#, "it has no size (`bytes`, `body_bytes_sent`, `size`, …)"),
        (r#"{"time":1,"bytes":1}"#, "it has no path (`path`, `uri`, `url`, `request`, …)"),
        (r#"{"time":1,"bytes":1.5,"path":"/"}"#, "`1.500000` is no number of bytes"),
    ] {
        assert_eq!(reader.line(bad), None, "{bad}");
        assert_eq!(reader.broken().last().map(|broken| broken.why.as_str()), Some(why), "{bad}");
    }
    let mut reader = Reader::new(Some(Format::Csv));
    for (bad, why) in [
        ("1,2", "it has not the three columns time, key and size"),
        ("x,/a,1", "`x` is no time"),
        ("1,,1", "its key is empty"),
        ("1,/a,many", "`many` is no number of bytes"),
    ] {
        assert_eq!(reader.line(bad), None, "{bad}");
        assert_eq!(reader.broken().last().map(|broken| broken.why.as_str()), Some(why), "{bad}");
    }
}

#[test]
fn the_key_is_host_and_target() {
    let one = request("a", "/b", 1);
    assert_eq!(one.key(), request("a", "/b", 2).key());
    assert_ne!(one.key(), request("a", "/c", 1).key());
    assert_ne!(one.key(), request("b", "/b", 1).key());
    assert_ne!(request("a", "b/", 1).key(), request("ab", "/", 1).key());
}

/// Pieces of all forms, put together at random.
fn lines() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("203.0.113.9 - - ".to_owned()),
        Just("[21/Nov/2026:13:00:40 +0000] ".to_owned()),
        Just("\"GET /a HTTP/1.1\" ".to_owned()),
        Just("200 ".to_owned()),
        Just("{\"time\":1,".to_owned()),
        Just("\"bytes\":1,\"path\":\"/\"}".to_owned()),
        Just("1,key,5".to_owned()),
        "[\\[\\]{}\",;:\\\\x0-9a-fA-F /\t-]{0,12}",
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn every_line_is_counted_once_and_none_panics(lines in prop::collection::vec(lines(), 0..20)) {
        for format in [None, Some(Format::Combined), Some(Format::Json), Some(Format::Csv)] {
            let mut reader = Reader::new(format);
            for line in &lines {
                let _ = reader.line(line);
            }
            let Counts { lines, requests, other_methods, other_statuses, passed, blank, broken } = *reader.counts();
            prop_assert_eq!(lines, requests + other_methods + other_statuses + passed + blank + broken);
            prop_assert!(reader.broken().len() <= KEPT);
        }
    }

    #[test]
    fn any_bytes_are_a_line(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut reader = Reader::default();
        let _ = reader.line(&String::from_utf8_lossy(&bytes));
        prop_assert_eq!(reader.counts().lines, 1);
    }

    #[test]
    fn a_request_survives_each_form(host in "[a-z]{1,10}\\.test", path in "/[a-z0-9/._-]{0,20}", size in 0..1u64 << 40, secs in 1_000_000_000..4_000_000_000u64) {
        let at = UnixMillis::from_secs(secs);
        let json = format!("{{\"time\":\"{at}\",\"host\":\"{host}\",\"path\":\"{path}\",\"bytes\":{size},\"status\":200}}");
        let csv = format!("{secs},http://{host}{path},{size}");
        let forms = [json, csv];
        for line in &forms {
            let request = one(line);
            prop_assert_eq!(request.at, at);
            prop_assert_eq!((request.host.as_ref(), request.target.as_ref(), request.size), (host.as_str(), path.as_str(), Some(size)));
        }
    }
}
