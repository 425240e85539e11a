//! What is done about origins and parents that fail, and how connections to them are used.

use super::*;

#[tokio::test]
async fn a_failure_is_shared_and_asked_again_by_the_next() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let edge = start("edge-1", "", &site(&server(free), "", ""));
    let refused = get(edge.http, "/a").await;
    assert_eq!((refused.status, refused.whole), (502, true));
    let status = refused.field("proxy-status").unwrap();
    assert!(status.contains("edge-1") && status.contains("error=connection_refused"), "{status}");
    assert_eq!(get(edge.http, "/api/a").await.status, 502);
    let origin = ScriptedOrigin::start(|_| vec![Step::Cut]).await;
    let edge = simple(&origin);
    let cut = get(edge.http, "/a").await;
    assert_eq!(cut.status, 502);
    let status = cut.field("proxy-status").unwrap();
    assert!(status.contains("connection_terminated"), "{status}");
}

#[tokio::test]
async fn another_server_is_asked_when_one_does_not_answer() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let cutting = ScriptedOrigin::start(|_| vec![Step::Cut]).await;
    let origin = ScriptedOrigin::start(|_| vec![send(OK)]).await;
    let servers = [dead, cutting.address, origin.address].map(server).join(", ");
    let edge = start("edge-1", "", &site(&servers, "", ""));
    for n in 0..6 {
        assert_eq!(get(edge.http, &format!("/{n}")).await.status, 200);
    }
    assert_eq!(origin.count(), 6);
    // What may not be sent twice goes to nobody else once it was sent.
    let edge = start("edge-1", "", &site(&server(cutting.address), "", ""));
    let before = cutting.count();
    let post = request(edge.http, "POST", "/api/a", "Content-Length: 0\r\n").await;
    assert_eq!((post.status, cutting.count() - before), (502, 1));
}

#[tokio::test]
async fn another_origin_stands_in_for_one_that_fails() {
    let origin =
        ScriptedOrigin::start(|_| vec![send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")]).await;
    let backup = ScriptedOrigin::start(|_| vec![send(OK)]).await;
    let config = site(&server(origin.address), "", "")
        .replace("[cache.c]", "failover = \"backup\"\n[cache.c]")
        + &format!("[origin.backup]\nservers = [{}]\n", server(backup.address));
    let edge = start("edge-1", "", &config);
    let response = get(edge.http, "/a").await;
    assert_eq!((response.status, origin.count(), backup.count()), (200, 1, 1));
}

#[tokio::test]
async fn connections_are_used_again_but_not_after_half_a_response() {
    let origin = ScriptedOrigin::start(|_| vec![send(OK)]).await;
    let edge = simple(&origin);
    for n in 0..5 {
        assert_eq!(get(edge.http, &format!("/{n}")).await.status, 200);
        edge.until("it is stored", |node| node.fills.is_empty()).await;
    }
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1);
    let large = format!(
        "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 50000000\r\n\r\n{}",
        "x".repeat(1 << 20)
    );
    let half = ScriptedOrigin::start(move |head| {
        if head.contains("/large") { vec![send(&large)] } else { vec![send(OK)] }
    })
    .await;
    let edge = simple(&half);
    let mut client = TcpStream::connect(edge.http).await.unwrap();
    client.write_all(b"GET /api/large HTTP/1.1\r\nHost: www.test\r\n\r\n").await.unwrap();
    let _ = client.read(&mut [0; 1000]).await.unwrap();
    drop(client);
    edge.until("the client has gone", |node| node.telemetry.in_flight.load(Ordering::Relaxed) == 0)
        .await;
    let next = get(edge.http, "/api/a").await;
    assert_eq!(next.body, b"0123456789");
    assert_eq!(half.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn connections_to_an_origin_stay_within_the_limit() {
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let origin =
        ScriptedOrigin::start(move |_| vec![Step::Wait(Arc::clone(&wait)), send(OK)]).await;
    let config = site(&server(origin.address), "", "")
        .replace("[cache.c]", "max_connections = 3\n[cache.c]");
    let edge = start("edge-1", "", &config);
    let clients: Vec<_> = (0..20)
        .map(|n| {
            let address = edge.http;
            tokio::spawn(async move { get(address, &format!("/{n}")).await.status })
        })
        .collect();
    edge.until("all wait", |node| node.fills.len() == 20).await;
    gate.add_permits(1000);
    for client in clients {
        assert_eq!(client.await.unwrap(), 200);
    }
    assert_eq!(origin.count(), 20);
    assert!(origin.connections.load(Ordering::SeqCst) <= 3);
}

#[tokio::test]
async fn an_edge_asks_its_parent_and_the_origin_when_that_is_gone() {
    let origin = ScriptedOrigin::start(|_| vec![send(OK)]).await;
    let site =
        site(&server(origin.address), "", "tier = \"t\"") + "[tier.t]\nparents = [\"p-1\"]\n";
    let mut parent = start("p-1", "role = \"parent\"", &site);
    let table = format!(
        "[edge.p-1]\ndatacenter = \"icn\"\nrole = \"parent\"\nhttp = [\"{}\"]\nadmin = \"127.0.0.1:4\"\n",
        parent.http
    );
    let config = table + &site;
    let (one, two) = (start("edge-1", "", &config), start("edge-2", "", &config));
    let miss = get(one.http, "/a").await;
    let status = miss.field("cache-status").unwrap();
    assert!(
        status.starts_with("p-1; fwd=uri-miss") && status.contains("edge-1; fwd=uri-miss"),
        "{status}"
    );
    let hit = get(two.http, "/a").await;
    let status = hit.field("cache-status").unwrap();
    assert!(status.starts_with("p-1; hit") && status.contains("edge-2; fwd=uri-miss"), "{status}");
    assert!(get(one.http, "/a").await.field("cache-status").unwrap().starts_with("edge-1; hit"));
    assert_eq!(
        (origin.count(), parent.counted(Outcome::Miss), parent.counted(Outcome::Hit)),
        (1, 1, 1)
    );
    // The scheme that the client used is part of the key at both.
    let (status, _) = http2(one.https, "/a").await;
    assert_eq!((status, parent.counted(Outcome::Miss)), (200, 2));
    parent.node.stop();
    let workers = parent.workers.take().unwrap();
    tokio::task::spawn_blocking(|| workers.join()).await.unwrap();
    let direct = get(one.http, "/b").await;
    assert_eq!((direct.status, origin.count()), (200, 3));
    assert!(direct.field("cache-status").unwrap().starts_with("edge-1; fwd"), "{direct:?}");
}

#[tokio::test]
async fn rfc8586_a_request_that_goes_in_circles_is_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let edge = start("edge-1", "", &site(&server(address), "", ""));
    let target = edge.http;
    // The "origin" is the edge itself.
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut back = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut back).await;
            });
        }
    });
    let response = get(edge.http, "/api/a").await;
    assert_eq!(response.status, 508, "{response:?}");
}

#[tokio::test]
async fn a_server_that_is_silent_is_given_up() {
    let never = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&never);
    let silent = ScriptedOrigin::start(move |_| vec![Step::Wait(Arc::clone(&wait))]).await;
    let short = "first_byte = \"100ms\", between_bytes = \"100ms\"";
    let long = "first_byte = \"10s\", between_bytes = \"10s\"";
    let config = site(&server(silent.address), "", "").replace(long, short);
    let edge = start("edge-1", "", &config);
    for path in ["/a", "/api/a"] {
        let response = get(edge.http, path).await;
        assert_eq!(response.status, 504);
        let status = response.field("proxy-status").unwrap();
        assert!(status.contains("error=http_response_timeout"), "{status}");
    }
    assert_eq!(silent.count(), 2);
    let wait = Arc::clone(&never);
    let stalls = ScriptedOrigin::start(move |_| {
        vec![
            send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
            Step::Wait(Arc::clone(&wait)),
        ]
    })
    .await;
    let edge = start("edge-1", "", &site(&server(stalls.address), "", "").replace(long, short));
    for path in ["/a", "/api/a"] {
        let response = get(edge.http, path).await;
        assert!(!response.whole, "{response:?}");
    }
    assert_eq!(edge.node.store.memory().stats().objects, 0);
}

#[tokio::test]
async fn an_error_of_the_parent_is_told_to_all_who_wait() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let parent = start("p-1", "role = \"parent\"", &site(&server(dead), "", ""));
    let tier = site(&server(dead), "", "tier = \"t\"") + "[tier.t]\nparents = [\"p-1\"]\n";
    let table = format!(
        "[edge.p-1]\ndatacenter = \"icn\"\nrole = \"parent\"\nhttp = [\"{}\"]\nadmin = \"127.0.0.1:4\"\n",
        parent.http
    );
    let edge = start("edge-1", "", &(table + &tier));
    let response = get(edge.http, "/a").await;
    assert_eq!(response.status, 502);
    let status = response.field("cache-status").unwrap();
    assert!(status.starts_with("p-1; ") && status.contains("edge-1; "), "{status}");
    let again = get(edge.http, "/a").await;
    assert!(!again.field("cache-status").unwrap().contains("known-uncacheable"), "{again:?}");
    assert_eq!(parent.counted(Outcome::Error), 2);
}

/// RFC 9110 §15.2.2: nobody was asked to switch protocols, so nobody is switched.
#[tokio::test]
async fn a_101_that_nobody_asked_for_is_an_error() {
    let switched = "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let origin = ScriptedOrigin::start(move |_| vec![send(switched)]).await;
    let edge = simple(&origin);
    for path in ["/a", "/api/a"] {
        let refused = request(edge.http, "GET", path, "Upgrade: x\r\n").await;
        let status = refused.field("proxy-status").unwrap_or_default();
        assert!(refused.status == 502 && status.contains("http_protocol_error"), "{status}");
    }
}

/// RFC 9112 §7.1: bad chunks are the client's fault, and no client can make a server look dead.
#[tokio::test]
async fn a_clients_broken_content_is_not_the_origins_failure() {
    let origin = ScriptedOrigin::start(|_| vec![send(OK)]).await;
    let edge = simple(&origin);
    for chunk in ["zz\r\nhello\r\n", "+5\r\nhello\r\n", "5\r\nhelloXX", "fffffffffffffffff\r\n"] {
        let text = format!(
            "POST /api/a HTTP/1.1\r\nHost: www.test\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
        );
        let answer = Response::parse(&raw(edge.http, text.as_bytes()).await, false);
        assert_eq!(answer.status, 400, "{chunk:?}: {}", answer.head);
    }
    let snapshot = edge.node.snapshot.load();
    let servers = snapshot.origins.values().flat_map(|origin| &origin.upstream.servers);
    assert!(servers.into_iter().all(super::super::server::Server::is_up));
    assert_eq!(get(edge.http, "/api/a").await.status, 200);
}

/// RFC 9112 §6.1, §6.3: a response with both framings, or with a transfer coding that nobody asked for, is neither passed on
/// nor stored: what its content is would be a matter of opinion.
#[tokio::test]
async fn rfc9112_6_3_a_response_that_is_framed_in_an_odd_way_is_an_error() {
    for framing in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ] {
        let odd = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{framing}\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"
        );
        let origin = ScriptedOrigin::start(move |_| vec![send(&odd)]).await;
        let edge = simple(&origin);
        for path in ["/a", "/a", "/api/a"] {
            let refused = get(edge.http, path).await;
            let status = refused.field("proxy-status").unwrap_or_default();
            assert_eq!(refused.status, 502, "{framing}");
            assert!(status.contains("http_protocol_error"), "{framing}: {status}");
        }
        assert_eq!(origin.count(), 3, "{framing}");
    }
}
