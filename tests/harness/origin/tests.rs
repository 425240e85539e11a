//! The scripted origin, tried by itself.

use super::*;
use crate::wire::{self, End};

#[test]
fn answers_counts_and_records() {
    let origin = Origin::start();
    origin.route("/a/*", Script::ok("long").field("X-Test", "1"));
    origin.once("/a/b", Script::status(503, "first"));
    let first = wire::get(origin.addr(), "h.test", "/a/b");
    assert_eq!((first.status, first.body.as_slice()), (503, &b"first"[..]));
    let second = wire::get(origin.addr(), "h.test", "/a/b?q");
    assert_eq!((second.status, second.field("x-test")), (200, Some("1")));
    assert_eq!(origin.count("/a/b"), 2);
    assert_eq!(origin.requests("/a/b")[1].field("host"), Some("h.test"));
    assert_eq!(wire::get(origin.addr(), "h.test", "/none").status, 404);
    assert_eq!(origin.connections(), 3);
}

#[test]
fn chunks_are_framed_between_pauses() {
    let origin = Origin::start();
    let gate = Gate::new();
    origin.route("/c", Script::ok("onetwo").chunked().hold_after(3, &gate));
    let mut wire = wire::Wire::connect(origin.addr());
    wire.send("GET /c HTTP/1.1\r\nHost: h\r\n\r\n");
    let head = wire.read_head();
    assert_eq!(wire.read_exactly(8), b"3\r\none\r\n");
    gate.arrived(1);
    gate.open();
    let body = wire.read_body("GET", &head);
    assert_eq!((body.bytes.as_slice(), body.end), (&b"two"[..], End::Complete));
}

#[test]
fn cuts_by_fin_and_by_reset() {
    let origin = Origin::start();
    origin.route("/fin", Script::ok("0123456789").cut_after(4));
    origin.route("/rst", Script::ok("0123456789").reset_after(4));
    let fin = wire::get(origin.addr(), "h", "/fin");
    assert_eq!((fin.body.as_slice(), fin.end), (&b"0123"[..], End::Cut));
    assert_eq!(wire::get(origin.addr(), "h", "/rst").end, End::Reset);
}

#[test]
fn goes_down_and_comes_back() {
    let origin = Origin::start();
    origin.go_down();
    assert!(TcpStream::connect(origin.addr()).is_err());
    origin.come_back();
    assert_eq!(wire::get(origin.addr(), "h", "/healthz").status, 200);
}

#[test]
fn unmet_expectations_fail() {
    let origin = Origin::start();
    origin.route("/", Script::ok("").expect_field("X-Must", "be").expect_no_field("Host"));
    let _ = wire::get(origin.addr(), "h", "/");
    let check = std::panic::AssertUnwindSafe(|| origin.assert_expectations());
    let panic = std::panic::catch_unwind(check).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("X-Must: got None") && text.contains("Host: got Some"), "{text}");
}
