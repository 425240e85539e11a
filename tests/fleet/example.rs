//! The example of the design, as it stands in `config/examples`, serves: only its addresses are other ones, so that two
//! runs on one machine do not meet.

use std::net::SocketAddr;
use std::path::Path;

use harness::dns::Query;
use harness::origin::{Origin, Script};
use harness::process::{Process, Program};
use harness::{wait, wire};

#[test]
fn the_example_of_the_design_serves() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples");
    let dir = tempfile::tempdir().unwrap();
    // All of 127.0.0.0/8 is ours: the process id picks a /16.
    let ours = format!("127.{}.", std::process::id() % 200 + 20);
    let text = std::fs::read_to_string(examples.join("cdn.toml")).unwrap();
    let config = dir.path().join("cdn.toml");
    std::fs::write(
        &config,
        text.replace("\"127.0.", &format!("\"{ours}")).replace("//127.0.", &format!("//{ours}")),
    )
    .unwrap();
    std::fs::copy(examples.join("cdn.test.zone"), dir.path().join("cdn.test.zone")).unwrap();
    let at = |rest: &str| -> SocketAddr { format!("{ours}{rest}").parse().unwrap() };

    let origins =
        ["9.1:9001", "9.2:9001", "9.3:9002", "9.4:9003"].map(|rest| Origin::start_on(at(rest)));
    let [one, two, bucket, api] = &origins;
    for origin in [one, two] {
        origin.route("/healthz", Script::ok("healthy"));
        origin.route("/index.html", Script::ok("page").cache_control("max-age=60"));
    }
    bucket.route("/logo.png", Script::ok("picture").cache_control("max-age=60"));
    api.route("/api/time", Script::ok("now").cache_control("no-store"));

    let mut processes = Vec::new();
    for (program, node, admin) in [
        (Program::EdgeCache, "icn-p1", at("1.10:9090")),
        (Program::EdgeCache, "fra-p1", at("2.10:9090")),
        (Program::EdgeCache, "icn-1", at("1.1:9090")),
        (Program::EdgeCache, "fra-1", at("2.1:9090")),
        (Program::Geodns, "ns1", at("0.53:8053")),
    ] {
        let log = dir.path().join(format!("{node}.log"));
        let args = ["serve", "--config", config.to_str().unwrap(), "--node", node];
        let mut process = Process::start(program.path(), &args, &log);
        wait::until("a node to become ready", || {
            let told = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(process.exited().is_none(), "{node} has ended:\n{}", told());
            let reply = wire::Request::get(&admin.to_string(), "/readyz").try_send(admin)?;
            (reply.status == 200).then_some(())
        });
        processes.push(process);
    }

    let sent_to =
        |name: &str, subnet: &str| Query::a(name).subnet(subnet).udp(at("0.53:5353")).addresses();
    // Asia by distance, Europe by distance, the operator's own network by `networks`.
    for (name, subnet, edge) in [
        ("www.cdn.test", "211.60.0.0/24", "1.1:80"),
        ("www.cdn.test", "91.12.0.0/24", "2.1:80"),
        ("www.cdn.test", "10.1.2.0/24", "1.1:80"),
        ("a.img.cdn.test", "91.12.0.0/24", "2.1:80"),
    ] {
        assert_eq!(sent_to(name, subnet), [at(edge).ip()], "{name} for {subnet}");
    }

    let edge = at("1.1:8080");
    let get = |host: &str, target: &str| wire::get(edge, host, target);
    assert_eq!(get("www.cdn.test", "/index.html").text(), "page");
    assert_eq!(get("www.cdn.test", "/index.html?utm_source=mail").text(), "page");
    assert_eq!(one.count("/index.html") + two.count("/index.html"), 1, "`utm_*` is dropped");
    assert_eq!(get("a.img.cdn.test", "/images/logo.png").text(), "picture");
    assert_eq!(bucket.count("/logo.png"), 1, "without its prefix");
    for _ in 0..2 {
        assert_eq!(get("www.cdn.test", "/api/time").text(), "now");
    }
    assert_eq!(api.count("/api/time"), 2);
}
