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
        edge.until("the fetch is over", |node| node.fills.is_empty()).await;
        let stats = edge.node.store.memory().stats();
        assert_eq!((stats.objects, stats.segments), if ends { (1, 3) } else { (0, 0) });
        assert_eq!(edge.node.fills.held(), 0);
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
