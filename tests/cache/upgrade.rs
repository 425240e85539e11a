//! Connections that are switched to another protocol: only where the route says so, only after the origin's 101, and
//! closed when either side closes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use harness::fleet::Fleet;
use harness::origin::{Origin, Script};
use harness::wait;
use harness::wire::{Request, Wire};

use super::{HOST, plan};

/// An origin that switches to a protocol which echoes, in upper case. `/refused` it answers with 403, `/other` with a
/// protocol that nobody asked for, `/bye` it closes after the first echo.
struct Echo {
    addr: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || Self::serve(&stream, &seen));
            }
        });
        Self { addr, heads }
    }

    fn serve(stream: &TcpStream, heads: &Mutex<Vec<String>>) {
        let mut reader = BufReader::new(stream);
        let mut writer = stream;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let asked = head.to_ascii_lowercase().contains("\r\nupgrade: websocket\r\n");
        heads.lock().unwrap().push(head);
        let answer = match path.as_str() {
            "/ws/refused" => "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
            "/ws/other" => "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
            // Bytes of the new protocol in the same segment as the 101.
            _ if asked => {
                "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello "
            }
            _ => "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nplain",
        };
        if writer.write_all(answer.as_bytes()).is_err() || !answer.contains(" 101 ") {
            return;
        }
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            let echo = buffer[..length].to_ascii_uppercase();
            if writer.write_all(&echo).is_err() || path == "/ws/bye" {
                break;
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn asked(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn fleet(origin: &Echo, more: &str) -> Fleet {
    plan(&Origin::start())
        .cache_node("e1", "icn", "edge", more)
        .toml(&format!("[origin.echo]\nservers = [ {{ url = \"http://{}\" }} ]", origin.addr))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\nroutes = [\n\
             {{ path = \"/ws/*\", origin = \"echo\", upgrade = [\"websocket\"] }},\n\
             {{ path = \"/*\", origin = \"echo\" }},\n]"
        ))
        .start()
}

fn asking(path: &str) -> Request<'_> {
    let request = Request::get(HOST, path).field("Connection", "keep-alive, Upgrade");
    request.field("Upgrade", "h2c, WebSocket").field("Sec-WebSocket-Key", "k")
}

/// RFC 9110 §7.8.
#[test]
fn rfc9110_7_8_a_connection_is_switched_after_the_origins_101() {
    let origin = Echo::start();
    let fleet = fleet(&origin, "");
    let edge = fleet.node("e1");
    let mut wire = Wire::connect(edge.http());
    wire.send(asking("/ws/a").bytes());
    let head = wire.read_head();
    assert_eq!(head.status, 101);
    assert_eq!(head.field("upgrade"), Some("websocket"));
    assert!(head.joined("connection").eq_ignore_ascii_case("upgrade"));
    assert_eq!(head.field("sec-websocket-accept"), Some("x"));
    assert_eq!(wire.read_exactly(6), b"hello ");
    // Neither frames nor what looks like a request is looked at.
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n";
    for text in ["one", "\0\u{1}\r\r\n", smuggled] {
        wire.send(text);
        assert_eq!(wire.read_exactly(text.len()), text.to_ascii_uppercase().as_bytes());
    }
    let big = vec![b'x'; 1 << 20];
    for piece in big.chunks(64 << 10) {
        wire.send(piece);
        assert_eq!(wire.read_exactly(piece.len()), piece.to_ascii_uppercase());
    }
    // The client's end is the origin's, and then both are closed.
    wire.finish();
    wire.assert_closed();
    let asked = origin.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let sent = asked[0].to_ascii_lowercase();
    assert!(sent.contains("connection: upgrade\r\n") && sent.contains("upgrade: websocket\r\n"));
    assert!(sent.contains("sec-websocket-key: k\r\n") && !sent.contains("h2c"), "{sent}");
}

#[test]
fn a_tunnel_ends_when_the_origin_closes_or_both_are_silent() {
    let origin = Echo::start();
    let fleet = fleet(&origin, "idle = \"1s\"");
    let edge = fleet.node("e1");
    let mut wire = Wire::connect(edge.http());
    wire.send(asking("/ws/bye").bytes());
    assert_eq!(wire.read_head().status, 101);
    wire.send("x");
    assert_eq!(wire.read_exactly(7), b"hello X");
    wire.assert_closed();
    let mut silent = Wire::connect(edge.http());
    silent.send(asking("/ws/a").bytes());
    assert_eq!(silent.read_head().status, 101);
    assert_eq!(silent.read_exactly(6), b"hello ");
    silent.assert_closed();
    wait::until("the origin's connections to be given back", || {
        let open = edge.metrics().sum("edge_cache_origin_connections", &[("origin", "echo")]);
        (open == 0.0).then_some(())
    });
}

/// Pitfall 40: nothing is switched before the origin has said so, and only to what was asked for.
#[test]
fn pitfall_40_without_a_101_the_connection_stays_what_it_is() {
    let origin = Echo::start();
    let fleet = fleet(&origin, "");
    let edge = fleet.node("e1");
    let mut wire = Wire::connect(edge.http());
    // A second request right behind the first: were the connection switched, the origin would get it as bytes.
    let mut bytes = asking("/ws/refused").bytes();
    bytes.extend(Request::get(HOST, "/plain").bytes());
    wire.send(bytes);
    let refused = wire.read_reply("GET");
    assert_eq!((refused.status, refused.text().as_str()), (403, "no"));
    assert_eq!(wire.read_reply("GET").text(), "plain");
    let other = asking("/ws/other").send(edge.http());
    assert_eq!(other.status, 502);
    assert!(other.head.joined("proxy-status").contains("http_protocol_error"), "{other:?}");
}

/// On other routes the field buys nothing: not even a way past the cache.
#[test]
fn on_other_routes_upgrade_is_not_heard() {
    let origin = Echo::start();
    let fleet = fleet(&origin, "");
    let edge = fleet.node("e1");
    for _ in 0..3 {
        let reply = asking("/plain").send(edge.http());
        assert_eq!((reply.status, reply.text().as_str()), (200, "plain"));
    }
    let asked = origin.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(!asked[0].to_ascii_lowercase().contains("upgrade"), "{asked:?}");
    // Nor on a route that switches, to a protocol that it does not list, or from HTTP/1.0.
    let request = Request::get(HOST, "/ws/b").field("Connection", "upgrade");
    assert_eq!(request.field("Upgrade", "h2c").send(edge.http()).text(), "plain");
    let old = format!(
        "GET /ws/b HTTP/1.0\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
    let mut wire = Wire::connect(edge.http());
    wire.send(old);
    assert_eq!(wire.read_reply("GET").text(), "plain");
}

#[test]
fn an_origin_that_is_away_is_an_error_as_always() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x"));
    origin.go_down();
    let fleet = plan(&origin)
        .edge("e1", "icn")
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\nroutes = [ {{ path = \"/*\", origin = \"static\", upgrade = [\"websocket\"] }} ]"
        ))
        .start();
    assert_eq!(asking("/ws").send(fleet.node("e1").http()).status, 502);
}
