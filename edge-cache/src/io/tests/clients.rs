//! What clients are given, good and bad ones, over HTTP/1.1 and HTTP/2.

use super::*;

#[tokio::test]
async fn an_http2_client_sees_a_cut_as_a_reset() {
    let text =
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 100\r\n\r\nonly this";
    let origin = ScriptedOrigin::start(move |_| vec![send(text), Step::Cut]).await;
    let edge = simple(&origin);
    let (status, body) = http2(edge.https, "/a").await;
    assert_eq!(status, 200);
    assert!(body.is_err());
}

#[tokio::test]
async fn https_speaks_http2_with_the_same_key_rules() {
    let origin = ScriptedOrigin::start(|_| vec![send(OK)]).await;
    let edge = simple(&origin);
    let (status, body) = http2(edge.https, "/a").await;
    assert_eq!((status, body.unwrap().as_ref()), (200, b"0123456789".as_slice()));
    let (status, _) = http2(edge.https, "/a").await;
    assert_eq!(status, 200);
    assert_eq!((origin.count(), edge.counted(Outcome::Hit)), (1, 1));
    assert!(origin.last().contains("x-forwarded-proto: https"), "{}", origin.last());
}

#[tokio::test]
async fn an_unsafe_method_is_passed_on_with_content_in_both_directions() {
    let origin = ScriptedOrigin::start(|_| {
        vec![send(
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nnew\r\n0\r\n\r\n",
        )]
    })
    .await;
    let edge = simple(&origin);
    let fields = "Transfer-Encoding: chunked\r\nX-Custom: yes\r\n\r\n5\r\nhello\r\n0\r\n";
    let made = request(edge.http, "PATCH", "/api/a", fields).await;
    assert_eq!((made.status, made.body.as_slice(), made.whole), (201, b"new".as_slice(), true));
    let head = origin.last();
    assert!(head.starts_with("patch /api/a http/1.1"), "{head}");
    for field in [
        "x-custom: yes",
        "host: www.test",
        "via: 1.1 edge-1",
        "cdn-loop: meridian",
        "x-forwarded-for: 127.0.0.1",
    ] {
        assert!(head.contains(field), "{field} in {head}");
    }
    assert_eq!(edge.counted(Outcome::Pass), 1);
}

#[tokio::test]
async fn a_large_body_is_neither_buffered_nor_stored() {
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    // 64 MiB, four times the memory; the last byte waits until the client has read a part.
    let origin = ScriptedOrigin::start(move |_| {
        let mut steps = vec![send(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n",
        )];
        let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
        steps.extend((0..64).map(|_| send(&chunk)));
        steps.extend([Step::Wait(Arc::clone(&wait)), send("0\r\n\r\n")]);
        steps
    })
    .await;
    let edge = simple(&origin);
    let mut client = TcpStream::connect(edge.http).await.unwrap();
    client
        .write_all(b"GET /a HTTP/1.1\r\nHost: www.test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut read = 0;
    let mut buffer = vec![0; 1 << 20];
    while read < 63 << 20 {
        let length = client.read(&mut buffer).await.unwrap();
        assert!(length > 0, "ended after {read} bytes");
        read += length;
        assert!(edge.node.fills.held() <= 16 << 20);
    }
    gate.add_permits(1);
    let mut end = Vec::new();
    client.read_to_end(&mut end).await.unwrap();
    assert!(end.ends_with(b"0\r\n\r\n"));
    assert_eq!(edge.node.store.memory().stats().objects, 0);
}

#[tokio::test]
async fn what_cannot_be_trusted_is_refused_and_the_connection_closed() {
    let origin = ScriptedOrigin::start(|_| vec![send(OK)]).await;
    let edge = simple(&origin);
    let next = "GET /smuggled HTTP/1.1\r\nHost: www.test\r\n\r\n";
    let long = format!("GET / HTTP/1.1\r\nHost: www.test\r\nX: {}\r\n\r\n", "y".repeat(40_000));
    for (text, status) in [
        (
            "POST / HTTP/1.1\r\nHost: www.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: www.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: www.test\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: www.test\r\nContent-Length: +4\r\n\r\nabcd", 400),
        ("GET / HTTP/1.1\r\nHost: www.test\r\nHost: www.test\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: www.test\r\nBad Name: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : www.test\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: www.test\r\n folded: x\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: www.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 0),
        (&long, 431),
        ("nonsense\r\n\r\n", 400),
    ] {
        let answer = raw(edge.http, format!("{text}{next}").as_bytes()).await;
        assert!(!answer.is_empty(), "no answer to {text:?}");
        let response = Response::parse(&answer, false);
        let expected = if status == 0 {
            response.status == 400 || response.status == 501
        } else {
            response.status == status
        };
        assert!(expected, "{text:?}: {response:?}");
        let answers = answer.windows(9).filter(|window| window == b"HTTP/1.1 ").count();
        assert_eq!(answers, 1, "{text:?}: {}", String::from_utf8_lossy(&answer));
    }
    // Far more than is read: the answer must not be lost in a reset.
    let endless = format!("GET / HTTP/1.1\r\nHost: www.test\r\nX: {}", "y".repeat(2_000_000));
    assert_eq!(Response::parse(&raw(edge.http, endless.as_bytes()).await, false).status, 431);
    assert_eq!(origin.count(), 0);
    let unknown =
        raw(edge.http, b"GET / HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n").await;
    assert_eq!(Response::parse(&unknown, false).status, 421);
}

#[tokio::test]
async fn a_node_that_ends_finishes_its_requests() {
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let origin =
        ScriptedOrigin::start(move |_| vec![Step::Wait(Arc::clone(&wait)), send(OK)]).await;
    let mut edge = simple(&origin);
    let address = edge.http;
    let begun = tokio::spawn(async move { get(address, "/a").await });
    edge.until("it has begun", |node| node.fills.len() == 1).await;
    let health = request(edge.http, "GET", "/.meridian/health", "").await;
    assert_eq!(health.status, 200);
    edge.node.set_drained(true);
    let health = request(edge.http, "GET", "/.meridian/health", "").await;
    assert_eq!(health.status, 503);
    edge.node.stop();
    let workers = edge.workers.take().unwrap();
    let ended = tokio::task::spawn_blocking(|| workers.join());
    gate.add_permits(1);
    assert_eq!(begun.await.unwrap().body, b"0123456789");
    ended.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn an_idle_connection_and_a_slow_head_are_closed() {
    let origin = ScriptedOrigin::start(|_| vec![send(OK)]).await;
    let edge = start(
        "edge-1",
        "idle = \"1s\"\nhead_timeout = \"1s\"",
        &site(&server(origin.address), "", ""),
    );
    for begun in ["", "GET / HT", "GET /a HTTP/1.1\r\nHost: www.test\r\n\r\n"] {
        // `raw` fails when it is not closed.
        raw(edge.http, begun.as_bytes()).await;
    }
}

#[tokio::test]
async fn a_reload_takes_effect_or_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meridian.toml");
    let (old, new) = (
        ScriptedOrigin::start(|_| vec![send(OK)]).await,
        ScriptedOrigin::start(|_| vec![send(OK)]).await,
    );
    let config = |origin: &ScriptedOrigin| {
        format!(
            "[datacenter.icn]\nlocation = [37.0, 126.0]\n[edge.edge-1]\ndatacenter = \"icn\"\nhttp = [\"127.0.0.1:1\"]\nadmin = \"127.0.0.1:3\"\n{}",
            site(&server(origin.address), "", "")
        )
    };
    std::fs::write(&path, config(&old)).unwrap();
    let source = Source { path: path.clone(), node: None };
    let (_, plan) = super::super::node::load(&source).unwrap();
    let node = Node::new(source, plan).unwrap_or_else(|error| panic!("{error}"));
    let mut workers = Workers::start(&node, 1).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let first = workers.listen(&[any], &[]).unwrap()[0];
    assert_eq!(get(first, "/api/1").await.status, 200);
    std::fs::write(&path, "[edge.edge-1]\nbogus = 1\n").unwrap();
    assert!(node.reload().is_err());
    assert_eq!(node.telemetry.reload_ok.get(), 0.0);
    assert_eq!(get(first, "/api/2").await.status, 200);
    assert_eq!((old.count(), new.count()), (2, 0));
    std::fs::write(&path, config(&new)).unwrap();
    node.reload().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(node.telemetry.reload_ok.get(), 1.0);
    // A listener more, then the first one less; a connection that it took lives on.
    let mut kept = TcpStream::connect(first).await.unwrap();
    kept.write_all(b"GET /api/3 HTTP/1.1\r\nHost: www.test\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 15];
    kept.read_exact(&mut answer).await.unwrap();
    let second = workers.listen(&[first, any], &[]).unwrap()[1];
    assert_eq!(get(second, "/api/4").await.status, 200);
    workers.listen(&[second], &[]).unwrap();
    kept.write_all(b"GET /api/5 HTTP/1.1\r\nHost: www.test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    kept.read_to_end(&mut rest).await.unwrap();
    assert!(rest.windows(15).any(|window| window == b"HTTP/1.1 200 OK"));
    let end = tokio::time::Instant::now() + DEADLINE;
    while TcpStream::connect(first).await.is_ok() {
        assert!(tokio::time::Instant::now() < end, "the listener was not closed");
    }
    assert_eq!((old.count(), new.count()), (2, 3));
    node.stop();
}
