//! SIGTERM: what is begun is finished, nothing new is taken, and the process ends with 0.

use harness::dns::{Query, Tcp};
use harness::origin::{Gate, Origin, Script};
use harness::process::Signal;
use harness::wait::{self, PATIENCE};
use harness::wire::{End, Request, Wire};

#[test]
fn a_cache_node_finishes_what_it_has_begun() {
    let origin = Origin::start();
    let gate = Gate::new();
    origin
        .route("/slow", Script::ok("firstsecond").cache_control("max-age=60").hold_after(5, &gate));
    let mut fleet = super::pair(&origin).write();
    fleet.node_mut("icn-1").start();
    let (http, admin) = (fleet.node("icn-1").http(), fleet.node("icn-1").admin());
    let host = admin.to_string();
    let mut client = Wire::connect(http);
    client.send(Request::get("www.cdn.test", "/slow").bytes());
    let head = client.read_head();
    assert_eq!(client.read_exactly(5), b"first");
    let mut idle = Wire::connect(http);
    idle.send(Request::get("www.cdn.test", "/.meridian/health").bytes());
    assert_eq!(idle.read_reply("GET").status, 200);

    fleet.node_mut("icn-1").signal(Signal::Term);
    wait::until("the node to say that it is not ready", || {
        let reply = Request::get(&host, "/readyz").try_send(admin);
        reply.is_none_or(|reply| reply.status == 503).then_some(())
    });
    idle.assert_closed();
    assert!(!fleet.node_mut("icn-1").has_ended(), "a client is still being served");
    gate.open();
    assert_eq!(
        (head.field("content-length"), client.read_exactly(6)),
        (Some("11"), b"second".to_vec())
    );
    client.assert_closed();
    assert_eq!(fleet.node_mut("icn-1").ended(PATIENCE).code(), Some(0));
}

#[test]
fn a_cache_node_does_not_wait_for_ever() {
    let origin = Origin::start();
    let gate = Gate::new();
    origin.route("/stuck", Script::ok("firstsecond").hold_after(5, &gate));
    let plan = super::pair(&origin).cache_node("icn-2", "icn", "edge", "drain_timeout = \"300ms\"");
    let mut fleet = plan.write();
    fleet.node_mut("icn-2").start();
    let mut client = Wire::connect(fleet.node("icn-2").http());
    client.send(Request::get("www.cdn.test", "/stuck").bytes());
    let head = client.read_head();
    fleet.node_mut("icn-2").signal(Signal::Term);
    assert!(fleet.node_mut("icn-2").ended(PATIENCE).success());
    assert_ne!(client.read_body("GET", &head).end, End::Complete);
    gate.open();
}

#[test]
fn a_name_server_ends_and_leaves_no_query_unanswered() {
    let origin = Origin::start();
    let mut fleet = super::pair(&origin).write();
    fleet.node_mut("ns1").start();
    let dns = fleet.node("ns1").dns();
    let mut tcp = Tcp::connect(dns);
    tcp.send(&Query::a("static.cdn.test").bytes());
    assert!(tcp.receive().is_some());
    fleet.node_mut("ns1").signal(Signal::Term);
    assert_eq!(fleet.node_mut("ns1").ended(PATIENCE).code(), Some(0));
    assert!(tcp.receive().is_none(), "the connection is closed");
    assert!(
        harness::dns::udp_raw_within(
            dns,
            &Query::a("static.cdn.test").bytes(),
            std::time::Duration::from_millis(100)
        )
        .is_none()
    );
}
