//! Bodies that lie in segments: stored whole and in part, read while they arrive and by those who lag.

use super::*;

/// What the origin has: `length` bytes that tell their place.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 251 + at) as u8).collect()
}

fn whole(length: usize, fields: &str) -> Vec<Step> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {length}\r\n{fields}\r\n"
    );
    vec![send(&head), Step::Send(content(length))]
}

#[tokio::test]
async fn a_body_longer_than_a_segment_is_stored_and_read_in_segments() {
    const LENGTH: usize = (1 << 20) + 77;
    for fields in ["ETag: \"v1\"\r\n", ""] {
        let origin = ScriptedOrigin::start(move |_| whole(LENGTH, fields)).await;
        let edge = simple(&origin);
        let miss = get(edge.http, "/a").await;
        assert!(miss.whole && miss.body == content(LENGTH));
        let hit = get(edge.http, "/a").await;
        assert!(hit.whole && hit.body == content(LENGTH));
        let stats = edge.node.store.memory().stats();
        assert_eq!((stats.objects, stats.segments), (1, 5));
        for (start, end) in [(0, 0), (262_143, 262_144), (262_144, 524_287), (5, LENGTH - 1)] {
            let range = format!("Range: bytes={start}-{end}\r\n");
            let part = request(edge.http, "GET", "/a", &range).await;
            assert_eq!(part.status, 206);
            assert!(part.whole && part.body == content(LENGTH)[start..=end], "{start}-{end}");
        }
        let parts =
            request(edge.http, "GET", "/a", "Range: bytes=262140-262150, 9-10, -2\r\n").await;
        assert!(parts.whole && parts.status == 206);
        let has = |start: usize, end: usize| {
            let part = &content(LENGTH)[start..=end];
            parts.body.windows(part.len()).any(|window| window == part)
        };
        assert!(has(262_140, 262_150) && has(9, 10) && has(LENGTH - 2, LENGTH - 1));
        let head = request(edge.http, "HEAD", "/a", "").await;
        assert_eq!(head.field("content-length").unwrap(), LENGTH.to_string());
        assert_eq!(origin.count(), 1);
    }
}

#[tokio::test]
async fn a_body_without_a_length_is_stored_in_segments_only_if_it_ends() {
    const LENGTH: usize = 600_000;
    for ends in [true, false] {
        let origin = ScriptedOrigin::start(move |_| {
            let mut steps = vec![send(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n",
            )];
            for chunk in content(LENGTH).chunks(100_000) {
                steps.push(send(&format!("{:x}\r\n", chunk.len())));
                steps.push(Step::Send([chunk, b"\r\n"].concat()));
            }
            steps.push(if ends { send("0\r\n\r\n") } else { Step::Cut });
            steps
        })
        .await;
        let edge = simple(&origin);
        let miss = get(edge.http, "/a").await;
        assert!(miss.body == content(LENGTH));
        assert_eq!(miss.whole, ends);
        let over = |node: &Node| node.fills.is_empty() && node.fills.held() == 0;
        edge.until("the fetch is over", over).await;
        let stats = edge.node.store.memory().stats();
        assert_eq!((stats.objects, stats.segments), if ends { (1, 3) } else { (0, 0) });
    }
}

/// A client that reads nothing holds up nobody, costs no more than a window, and gets all in the end.
#[tokio::test]
async fn a_client_that_lags_reads_from_the_store() {
    const LENGTH: usize = 12 << 20;
    let origin = ScriptedOrigin::start(|_| whole(LENGTH, "ETag: \"v1\"\r\n")).await;
    let config = site(&server(origin.address), "", "");
    let edge = start("edge-1", "max_object = \"16MiB\"", &config);
    let mut slow = TcpStream::connect(edge.http).await.unwrap();
    let ask = b"GET /a HTTP/1.1\r\nHost: www.test\r\nConnection: close\r\n\r\n";
    slow.write_all(ask).await.unwrap();
    edge.until("the fetch has begun", |node| node.fills.len() == 1).await;
    let fast = get(edge.http, "/a").await;
    assert!(fast.whole && fast.body == content(LENGTH));
    assert!(edge.node.fills.held() <= 2 << 20, "{}", edge.node.fills.held());
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.unwrap();
    let slow = Response::parse(&answer, false);
    assert!(slow.whole && slow.body == content(LENGTH));
    assert_eq!(origin.count(), 1);
}

/// The first byte and the last one that a request asks for, of a body of this length.
fn asked(head: &str, length: usize) -> Option<(usize, usize)> {
    let value = head.lines().find_map(|line| line.strip_prefix("range: bytes="))?;
    let (first, last) = value.split_once('-').unwrap();
    Some(match first {
        "" => (length.saturating_sub(last.parse().unwrap()), length - 1),
        first => (
            first.parse().unwrap(),
            last.parse().map_or(length - 1, |last: usize| last.min(length - 1)),
        ),
    })
}

/// An origin that gives parts of `body`, with these fields.
fn part(head: &str, body: &[u8], fields: &str) -> Vec<Step> {
    let (status, (first, last), more) = match asked(head, body.len()) {
        Some((first, _)) if first >= body.len() => {
            let more = format!("Content-Range: bytes */{}\r\n", body.len());
            return vec![send(&format!("HTTP/1.1 416 No\r\nContent-Length: 0\r\n{more}\r\n"))];
        }
        Some((first, last)) => {
            let more = format!("Content-Range: bytes {first}-{last}/{}\r\n", body.len());
            ("206 Partial Content", (first, last), more)
        }
        None => ("200 OK", (0, body.len() - 1), String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nCache-Control: max-age=60\r\nContent-Length: {}\r\n{more}{fields}\r\n",
        last + 1 - first
    );
    vec![send(&head), Step::Send(body[first..=last].to_vec())]
}

const S: usize = 256 << 10;

fn range(first: usize, last: usize) -> String {
    format!("Range: bytes={first}-{last}\r\n")
}

/// The ranges that the origin was asked for, one after the other.
fn ranges(origin: &ScriptedOrigin) -> Vec<String> {
    let requests = origin.requests.lock().unwrap();
    let range = |head: &String| {
        head.lines().find_map(|line| line.strip_prefix("range: ")).unwrap_or("whole").to_owned()
    };
    requests.iter().map(range).collect()
}

#[tokio::test]
async fn a_range_of_what_is_not_stored_costs_its_segments() {
    const LENGTH: usize = 20_000_000;
    let body = content(LENGTH);
    let given = body.clone();
    let origin = ScriptedOrigin::start(move |head| part(head, &given, "ETag: \"v1\"\r\n")).await;
    let edge = simple(&origin);
    for (first, last, expected) in [
        (7_000_000, 7_000_000, &["bytes=6815744-7077887"][..]),
        (7_000_001, 7_000_009, &[]),
        (10, 20, &["bytes=0-262143"]),
        // In order, so that the next one comes, too.
        (S, S + 1, &["bytes=262144-786431"]),
        (2 * S, 2 * S + 1, &[]),
        // What is missing in a row, around what is there.
        (6_800_000, 7_100_000, &["bytes=6553600-6815743", "bytes=7077888-7602175"]),
        (LENGTH - 5, LENGTH + 5, &["bytes=19922944-20185087"]),
    ] {
        let before = origin.count();
        let response = request(edge.http, "GET", "/a", &range(first, last)).await;
        let last = last.min(LENGTH - 1);
        assert_eq!(response.status, 206, "{response:?}");
        assert!(response.whole && response.body == body[first..=last], "{first}-{last}");
        let content_range = format!("bytes {first}-{last}/{LENGTH}");
        assert_eq!(response.field("content-range").unwrap(), content_range);
        assert_eq!(ranges(&origin)[before..], *expected, "{first}-{last}");
        edge.until("fetches end", |node| node.fills.is_empty()).await;
    }
    let before = origin.count();
    let head = request(edge.http, "HEAD", "/a", "").await;
    assert_eq!((head.status, head.field("content-length").unwrap()), (200, LENGTH.to_string()));
    let beyond = request(edge.http, "GET", "/a", "Range: bytes=20000000-\r\n").await;
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.field("content-range").unwrap(), "bytes */20000000");
    let same = request(edge.http, "GET", "/a", "If-None-Match: \"v1\"\r\n").await;
    assert_eq!(same.status, 304);
    assert_eq!(origin.count(), before, "answered from what is known");
    let parts = request(edge.http, "GET", "/a", "Range: bytes=0-9, 15000000-15000009\r\n").await;
    assert!(parts.whole && parts.status == 206);
    assert!(parts.body.windows(10).any(|window| window == &body[15_000_000..15_000_010]));
    assert_eq!(ranges(&origin)[before..], ["bytes=14942208-15204351"]);
    let misses = origin.requests.lock().unwrap()[1..]
        .iter()
        .filter(|head| head.contains("if-range: \"v1\""))
        .count();
    assert_eq!(misses, origin.count() - 1, "what completes it must be of the same version");
    // The whole is put together of what is there and what is missing.
    let whole = get(edge.http, "/a").await;
    assert_eq!(whole.status, 200);
    assert!(whole.whole && whole.body == body);
    assert!(!ranges(&origin).contains(&"whole".to_owned()));
}

#[tokio::test]
async fn the_first_request_may_be_for_the_end_for_several_parts_or_for_nothing() {
    let body = content(3 * S + 100);
    let given = body.clone();
    let origin = ScriptedOrigin::start(move |head| part(head, &given, "ETag: \"v1\"\r\n")).await;
    for (value, expected, status) in [
        ("-1", &["bytes=-262144"][..], 206),
        ("-300", &["bytes=-262144", "bytes=524288-786431"], 206),
        ("0-0, -1", &["bytes=-262144", "bytes=0-262143"], 206),
        ("5-", &["bytes=0-262143", "bytes=262144-1048575"], 206),
        ("99999999-", &["bytes=99876864-100139007"], 416),
        ("0-99999999", &["bytes=0-4194303"], 206),
        ("-0", &["bytes=0-262143"], 416),
    ] {
        let edge = simple(&origin);
        let before = origin.count();
        let response = request(edge.http, "GET", "/a", &format!("Range: bytes={value}\r\n")).await;
        assert!(response.whole && response.status == status, "{value}: {}", response.head);
        assert_eq!(ranges(&origin)[before..], *expected, "{value}");
        if status == 416 {
            assert_eq!(response.field("content-range").unwrap(), format!("bytes */{}", body.len()));
        }
        let end = match value {
            "-300" => &body[body.len() - 300..],
            "5-" => &body[5..],
            _ => &[],
        };
        assert!(response.body.ends_with(end), "{value}");
    }
}

#[tokio::test]
async fn a_thousand_clients_of_one_segment_cost_one_request() {
    let body = content(40 * S);
    let given = body.clone();
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let origin = ScriptedOrigin::start(move |head| {
        let mut steps = part(head, &given, "ETag: \"v1\"\r\n");
        steps.insert(0, Step::Wait(Arc::clone(&wait)));
        steps
    })
    .await;
    let edge = simple(&origin);
    for (round, segment) in [3, 9].into_iter().enumerate() {
        let clients: Vec<_> = (0..300)
            .map(|n| {
                let (address, at) = (edge.http, segment * S + 7 * n);
                tokio::spawn(async move {
                    (at, request(address, "GET", "/a", &range(at, at + 6)).await)
                })
            })
            .collect();
        let waiting = |node: &Node| node.telemetry.in_flight.load(Ordering::Relaxed) == 300;
        edge.until("all wait", waiting).await;
        gate.add_permits(1);
        for client in clients {
            let (at, response) = client.await.unwrap();
            assert_eq!((response.status, response.body.as_slice()), (206, &body[at..at + 7]));
        }
        assert_eq!(origin.count(), round + 1);
    }
}

/// A changed validator drops what was stored of the old version, and no answer has bytes of both.
#[tokio::test]
async fn versions_do_not_mix() {
    let version = Arc::new(AtomicUsize::new(1));
    let now = Arc::clone(&version);
    let body = |version: usize| vec![version as u8; 8 * S + version];
    let origin = ScriptedOrigin::start(move |head| {
        let version = now.load(Ordering::SeqCst);
        let tag = format!("\"v{version}\"");
        let fields = format!("ETag: {tag}\r\n");
        let other = head.contains("if-range: ") && !head.contains(&format!("if-range: {tag}"));
        part(if other { "" } else { head }, &body(version), &fields)
    })
    .await;
    let edge = simple(&origin);
    let one = request(edge.http, "GET", "/a", &range(0, 0)).await;
    assert_eq!((one.status, one.body.as_slice()), (206, &[1][..]));
    version.store(2, Ordering::SeqCst);
    let still = request(edge.http, "GET", "/a", &range(5, 5)).await;
    assert_eq!((still.status, still.body.as_slice()), (206, &[1][..]), "it is fresh");
    // The first byte that is wanted is of another version now: so is the answer, from its head on.
    let two = request(edge.http, "GET", "/a", &range(3 * S, 3 * S)).await;
    assert_eq!((two.status, two.body.as_slice()), (206, &[2][..]), "{}", two.head);
    assert_eq!(two.field("etag").unwrap(), "\"v2\"");
    version.store(3, Ordering::SeqCst);
    // It begins with what is stored, which is of the old version, but the rest is not far: that is asked before anything
    // is sent.
    let three = request(edge.http, "GET", "/a", &range(3 * S, 6 * S)).await;
    assert_eq!(three.field("etag").unwrap(), "\"v3\"");
    // The part, or all of it where nothing stored was left to begin with: never a byte of another version.
    assert!(three.whole && [3 * S + 1, 8 * S + 3].contains(&three.body.len()), "{}", three.head);
    assert!(three.body.iter().all(|byte| *byte == 3));
    let more = request(edge.http, "GET", "/a", &range(0, 2 * S)).await;
    assert!(more.whole && more.body == vec![3; 2 * S + 1]);
    version.store(4, Ordering::SeqCst);
    // What is far cannot be asked before: what was promised is of the old version, and the rest does not come.
    let cut = request(edge.http, "GET", "/a", &range(0, 8 * S)).await;
    assert_eq!(cut.field("etag").unwrap(), "\"v3\"");
    assert!(!cut.whole && cut.body.len() >= 7 * S && cut.body.iter().all(|byte| *byte == 3));
    let whole = get(edge.http, "/a").await;
    assert!(whole.whole && whole.body == body(4));
    assert_eq!(whole.field("etag").unwrap(), "\"v4\"");
}

/// RFC 9110 §15.3.7, RFC 9111 §3.4: what is sent for a part is held against what it says of itself.
#[tokio::test]
async fn a_part_that_lies_is_never_served_as_what_it_is_not() {
    let body = content(4 * S);
    let answer = |fields: &str, content: &[u8]| {
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nETag: \"v1\"\r\nCache-Control: max-age=60\r\n{fields}\r\n"
        );
        vec![send(&head), Step::Send(content.to_vec()), Step::Cut]
    };
    let sized = |content_range: &str, length: usize| {
        answer(&format!("Content-Length: {length}\r\n{content_range}"), &body[..length])
    };
    let chunked = |content_range: &str, length: usize| {
        let framed =
            [format!("{length:x}\r\n").as_bytes(), &body[..length], b"\r\n0\r\n\r\n"].concat();
        answer(&format!("Transfer-Encoding: chunked\r\n{content_range}"), &framed)
    };
    for (name, lie, is_cut) in [
        ("no Content-Range", sized("", S), false),
        ("another part", sized("Content-Range: bytes 1-262144/1048576\r\n", S), false),
        ("no length of the whole", sized("Content-Range: bytes 0-262143/*\r\n", S), false),
        ("shorter than it says", sized("Content-Range: bytes 0-262143/1048576\r\n", S - 1), false),
        ("longer than it says", sized("Content-Range: bytes 0-262143/1048576\r\n", S + 1), false),
        ("several parts", sized("Content-Type: multipart/byteranges; boundary=x\r\n", S), false),
        ("fewer chunks", chunked("Content-Range: bytes 0-262143/1048576\r\n", S - 1), true),
        ("more chunks", chunked("Content-Range: bytes 0-262143/1048576\r\n", S + 1), true),
        (
            "cut short",
            answer(
                "Content-Length: 262144\r\nContent-Range: bytes 0-262143/1048576\r\n",
                &body[..9],
            ),
            true,
        ),
    ] {
        let given = body.clone();
        let origin = ScriptedOrigin::start(move |head| match head.contains("range: ") {
            true => lie.clone(),
            false => part(head, &given, "ETag: \"v1\"\r\n"),
        })
        .await;
        let edge = simple(&origin);
        let response = request(edge.http, "GET", "/a", &range(100, S - 1)).await;
        if is_cut {
            assert!(response.status == 206 && !response.whole, "{name}: {}", response.head);
            assert!(body[100..S].starts_with(&response.body), "{name}");
        } else {
            assert!(response.status == 206 && response.whole, "{name}: {}", response.head);
            assert!(response.body == body[100..S], "{name}");
            assert_eq!(ranges(&origin), ["bytes=0-262143", "whole"], "{name}");
        }
        let whole = get(edge.http, "/a").await;
        assert!(whole.body == body[..whole.body.len()], "{name}");
        edge.until("fetches end", |node| node.fills.is_empty() && node.fills.held() == 0).await;
    }
}

/// RFC 9111 §3.4: without a strong validator nothing is put together. The client has its part; the next one the whole.
#[tokio::test]
async fn a_part_without_a_strong_validator_is_not_combined() {
    for fields in ["", "ETag: W/\"v1\"\r\n"] {
        let body = content(3 * S);
        let given = body.clone();
        let origin = ScriptedOrigin::start(move |head| part(head, &given, fields)).await;
        let edge = simple(&origin);
        let first = request(edge.http, "GET", "/a", &range(S, S + 9)).await;
        assert_eq!((first.status, first.body.as_slice()), (206, &body[S..S + 10]));
        assert_eq!(ranges(&origin), ["bytes=262144-524287"]);
        assert_eq!(edge.node.store.memory().stats().objects, 0);
        let second = request(edge.http, "GET", "/a", &range(S, S + 9)).await;
        assert_eq!((second.status, second.body.as_slice()), (206, &body[S..S + 10]));
        assert_eq!(ranges(&origin)[1..], ["whole"]);
        edge.until("fetches end", |node| node.fills.is_empty()).await;
        let hit = get(edge.http, "/a").await;
        assert!(hit.whole && hit.body == body && origin.count() == 2);
    }
}

#[tokio::test]
async fn a_part_that_may_not_be_stored_answers_its_client() {
    let body = content(20_000_000);
    let given = body.clone();
    let origin = ScriptedOrigin::start(move |head| {
        part(head, &given, "ETag: \"v1\"\r\nCDN-Cache-Control: private\r\n")
    })
    .await;
    let edge = simple(&origin);
    let first = request(edge.http, "GET", "/a", &range(S + 5, S + 9)).await;
    assert_eq!(
        (first.status, first.body.as_slice()),
        (206, &body[S + 5..S + 10]),
        "{}",
        first.head
    );
    assert_eq!(first.field("content-range").unwrap(), "bytes 262149-262153/20000000");
    assert_eq!(origin.count(), 1);
    // It is known now, and passed on as it is.
    let second = request(edge.http, "GET", "/a", &range(7, 9)).await;
    assert_eq!((second.status, second.body.as_slice()), (206, &body[7..10]));
    assert_eq!(ranges(&origin)[1..], ["bytes=7-9"]);
    assert_eq!(edge.node.store.memory().stats().objects, 0);
}

/// What has come of a transfer that broke is good for those who need no more, under a strong validator only.
#[tokio::test]
async fn a_broken_transfer_leaves_segments_under_a_strong_validator() {
    for (fields, segments) in [("ETag: \"v1\"\r\n", 2), ("", 0)] {
        let body = content(4 * S);
        let given = body.clone();
        let origin = ScriptedOrigin::start(move |head| {
            let mut steps = part(head, &given, fields);
            if !head.contains("range: ") {
                steps[1] = Step::Send(given[..2 * S + 9].to_vec());
                steps.push(Step::Cut);
            }
            steps
        })
        .await;
        let edge = simple(&origin);
        let cut = get(edge.http, "/a").await;
        assert!(!cut.whole && cut.status == 200);
        edge.until("fetches end", |node| node.fills.is_empty()).await;
        assert_eq!(edge.node.store.memory().stats().segments, segments);
        if segments > 0 {
            let part = request(edge.http, "GET", "/a", &range(S, S + 1)).await;
            assert!(part.field("cache-status").unwrap().contains("; hit"), "{}", part.head);
            let whole = get(edge.http, "/a").await;
            assert!(whole.whole && whole.body == body);
            assert_eq!(ranges(&origin), ["whole", "bytes=524288-1048575"]);
        }
    }
}

/// A stale part is checked with the validator, and what is fetched is what is needed.
#[tokio::test]
async fn a_stale_part_is_revalidated_in_parts() {
    let changed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let now = Arc::clone(&changed);
    let origin = ScriptedOrigin::start(move |head| {
        let version = u8::from(now.load(Ordering::SeqCst)) + 1;
        let tag = format!("\"v{version}\"");
        let fields = format!("ETag: {tag}\r\nAge: 60\r\n");
        if head.contains(&format!("if-none-match: {tag}")) {
            return vec![send(&format!(
                "HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\n{fields}\r\n"
            ))];
        }
        part(head, &vec![version; 8 * S], &fields)
    })
    .await;
    let config = site(
        &server(origin.address),
        "stale = { while_revalidate = \"0s\", if_error = \"0s\", after_wait = \"0s\" }",
        "",
    );
    let edge = start("edge-1", "", &config);
    for (at, version, asked) in
        [(0, 1, "bytes=0-262143"), (1, 1, "bytes=0-262143"), (2, 2, "bytes=0-262143")]
    {
        changed.store(version == 2, Ordering::SeqCst);
        let response = request(edge.http, "GET", "/a", &range(at, at)).await;
        assert_eq!((response.status, response.body.as_slice()), (206, &[version][..]), "{at}");
        assert_eq!(ranges(&origin).last().unwrap(), asked);
        edge.until("the segment is stored", |node| node.fills.held() == 0).await;
    }
    assert_eq!(origin.count(), 3);
}

/// Both tiers keep parts.
#[tokio::test]
async fn a_parent_keeps_the_segments_that_its_edges_ask_for() {
    let body = content(30 * S);
    let given = body.clone();
    let origin = ScriptedOrigin::start(move |head| part(head, &given, "ETag: \"v1\"\r\n")).await;
    let site =
        site(&server(origin.address), "", "tier = \"t\"") + "[tier.t]\nparents = [\"p-1\"]\n";
    let parent = start("p-1", "role = \"parent\"", &site);
    let table = format!(
        "[edge.p-1]\ndatacenter = \"icn\"\nrole = \"parent\"\nhttp = [\"{}\"]\nadmin = \"127.0.0.1:4\"\n",
        parent.http
    );
    let config = table + &site;
    let edges = [start("edge-1", "", &config), start("edge-2", "", &config)];
    for edge in &edges {
        for at in [9 * S + 5, 20 * S] {
            let response = request(edge.http, "GET", "/a", &range(at, at)).await;
            assert_eq!(
                (response.status, response.body.as_slice()),
                (206, &body[at..=at]),
                "{}",
                response.head
            );
        }
    }
    assert_eq!(ranges(&origin), ["bytes=2359296-2621439", "bytes=5242880-5505023"]);
    parent.until("both are stored", |node| node.store.memory().stats().segments == 2).await;
    let whole = get(edges[0].http, "/a").await;
    assert!(whole.whole && whole.body == body);
    assert!(!ranges(&origin).contains(&"whole".to_owned()));
}

/// A body larger than the store passes through it in parts, and what is asked for most, its head, stays.
#[tokio::test]
async fn a_body_larger_than_the_store_is_read_in_parts() {
    const LENGTH: usize = 40 << 20;
    let body = Arc::new(content(LENGTH));
    let given = Arc::clone(&body);
    let origin = ScriptedOrigin::start(move |head| part(head, &given, "ETag: \"v1\"\r\n")).await;
    let edge = simple(&origin);
    let first = request(edge.http, "GET", "/a", &range(0, 0)).await;
    assert_eq!(first.status, 206);
    for _ in 0..2 {
        let whole = get(edge.http, "/a").await;
        assert!(whole.whole && whole.body == *body);
        let stats = edge.node.store.memory().stats();
        assert!(stats.objects == 1 && stats.bytes <= 16 << 20, "{stats:?}");
        edge.until("fetches end", |node| node.fills.is_empty() && node.fills.held() == 0).await;
    }
    let most = LENGTH.div_ceil(4 << 20) * 2 + 40;
    assert!(origin.count() <= most, "{} requests", origin.count());
    let hit = request(edge.http, "HEAD", "/a", "").await;
    assert!(hit.field("cache-status").unwrap().contains("hit"), "{}", hit.head);
}
