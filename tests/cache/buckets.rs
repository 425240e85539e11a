//! Signed requests to S3-compatible buckets: taken by a server that checks signatures (moto), the same as botocore's,
//! signed anew at each attempt, never seen by a parent, and for no method that the operator has not named.
//!
//! moto and botocore are Python's: `scripts/bucket.sh` installs them. Where they are not, these tests say that they were
//! skipped; the others need none of them.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use harness::fleet::Fleet;
use harness::origin::{Origin, Request as Seen, Script};
use harness::plan::Plan;
use harness::wire::{Reply, Request};
use serde_json::{Value, json};

use super::{HOST, STRICT};

/// The Python that has moto; none: said, and failed where `scripts/bucket.sh` wants it.
fn python() -> Option<PathBuf> {
    let at_root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bucket/bin/python");
    let python = std::env::var_os("MERIDIAN_BUCKET_PYTHON").map(PathBuf::from);
    let wanted = python.is_some();
    let python = python.unwrap_or(at_root);
    let has_moto = Command::new(&python)
        .args(["-c", "import moto.server, boto3, flask"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    assert!(has_moto || !wanted, "{} has no moto[server]", python.display());
    if !has_moto {
        eprintln!("skipped: scripts/bucket.sh installs the S3 server that this test asks");
    }
    has_moto.then_some(python)
}

/// moto, with the bucket `assets`.
struct Bucket {
    process: Child,
    port: u64,
    id: String,
    secret: String,
}

impl Bucket {
    fn start(python: &PathBuf) -> Self {
        let mut process = Command::new(python)
            .args(["-c", include_str!("buckets/moto.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        let text = |key: &str| told[key].as_str().unwrap().to_owned();
        Self {
            process,
            port: told["port"].as_u64().unwrap(),
            id: text("id"),
            secret: text("secret"),
        }
    }

    fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// A site before the bucket `assets` of this server, with the credentials of `secrets/bucket`.
fn plan(plan: Plan, server: &str, route: &str, credentials: &str) -> Plan {
    plan.file("secrets/bucket", credentials)
        .toml(&format!(
            "[origin.bucket]\nservers = [ {{ url = \"http://{server}\" }} ]\nhost = \"{server}\"\n\
             sigv4 = {{ region = \"us-east-1\", credentials_file = \"secrets/bucket\" }}"
        ))
        .toml(&format!("[cache.assets]\n{STRICT}"))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\nroutes = [ {{ path = \"/*\", origin = \"bucket\", {route} }} ]"
        ))
}

fn one_edge() -> Plan {
    Plan::new().datacenter("icn", 37.46, 126.44).edge("e1", "icn")
}

fn ask(fleet: &Fleet, request: Request<'_>) -> Reply {
    request.send(fleet.node("e1").http())
}

#[test]
fn a_bucket_that_checks_signatures_is_read() {
    let Some(python) = python() else { return };
    let bucket = Bucket::start(&python);
    let credentials = format!("{}\n{}\n", bucket.id, bucket.secret);
    let cached = "cache = \"assets\"";
    let fleet = plan(one_edge(), &bucket.authority(), cached, &credentials).start();
    let get = |target: &str| fleet.node("e1").get(target);
    for (target, name) in [
        ("/assets/plain.txt", "plain.txt"),
        ("/assets/with%20space.txt", "with space.txt"),
        ("/assets/a+b=c&d.txt", "a+b=c&d.txt"),
        ("/assets/@(x)!'*,;:$.txt", "@(x)!'*,;:$.txt"),
        ("/assets/%e2%82%ac/%C3%a4.txt", "\u{20ac}/\u{e4}.txt"),
        ("/assets/100%25.txt", "100%.txt"),
    ] {
        let reply = get(target);
        assert_eq!((reply.status, reply.text()), (200, format!("the object {name}")), "{target}");
        assert!(get(target).cache_status().contains("hit"), "{target}");
    }
    let list = get("/assets?list-type=2&prefix=a%2Bb");
    assert!(list.status == 200 && list.text().contains("a+b=c&amp;d.txt"), "{}", list.text());
    // Stale at once: validated with If-None-Match.
    assert_eq!(get("/assets/short.txt").text(), "0123456789");
    let again = get("/assets/short.txt");
    assert_eq!(again.text(), "0123456789");
    assert!(again.cache_status().contains("fwd-status=304"), "{}", again.cache_status());
    let head = ask(&fleet, Request::new("HEAD", HOST, "/assets/plain.txt"));
    assert_eq!((head.status, head.field("content-length")), (200, Some("20")));
    assert_eq!(get("/assets/none.txt").status, 404);
}

#[test]
fn a_range_and_a_condition_go_beside_the_signature() {
    let Some(python) = python() else { return };
    let bucket = Bucket::start(&python);
    let credentials = format!("{}\n{}\n", bucket.id, bucket.secret);
    let passed = "cache = \"off\"";
    let fleet = plan(one_edge(), &bucket.authority(), passed, &credentials).start();
    let part = ask(&fleet, Request::get(HOST, "/assets/short.txt").field("Range", "bytes=2-4"));
    assert_eq!((part.status, part.text().as_str()), (206, "234"));
    let tag = part.field("etag").unwrap().to_owned();
    let same = ask(&fleet, Request::get(HOST, "/assets/short.txt").field("If-None-Match", tag));
    assert_eq!(same.status, 304);
    // Who visits may not write, whatever he sends along.
    let put = Request::new("PUT", HOST, "/assets/mine.txt").body("mine");
    assert!(ask(&fleet, put).status >= 400);
    assert!(ask(&fleet, Request::new("DELETE", HOST, "/assets/plain.txt")).status >= 400);
    assert_eq!(ask(&fleet, Request::get(HOST, "/assets/mine.txt")).status, 404);
    assert_eq!(ask(&fleet, Request::get(HOST, "/assets/plain.txt")).status, 200);
    // Unless the operator has said so; the content is signed as UNSIGNED-PAYLOAD.
    let writable = "cache = \"off\", methods = [\"GET\", \"PUT\"]";
    let fleet = plan(one_edge(), &bucket.authority(), writable, &credentials).start();
    let put = Request::new("PUT", HOST, "/assets/mine.txt").body("mine");
    assert_eq!(ask(&fleet, put).status, 200);
    assert_eq!(ask(&fleet, Request::get(HOST, "/assets/mine.txt")).text(), "mine");
    assert_eq!(ask(&fleet, Request::new("DELETE", HOST, "/assets/mine.txt")).status, 405);
}

#[test]
fn wrong_credentials_are_refused_and_new_ones_are_taken_by_a_reload() {
    let Some(python) = python() else { return };
    let bucket = Bucket::start(&python);
    let wrong = format!("{}\n{}x\n", bucket.id, bucket.secret);
    let passed = "cache = \"off\"";
    let fleet = plan(one_edge(), &bucket.authority(), passed, &wrong).start();
    let refused = fleet.node("e1").get("/assets/plain.txt");
    assert!(refused.status == 403 && refused.text().contains("Signature"), "{}", refused.text());
    let reload = || fleet.node("e1").admin_request("POST", "/v1/reload", "");
    let file = fleet.dir().join("secrets/bucket");
    std::fs::write(&file, "only one line\n").unwrap();
    let told = reload();
    assert!(told.status >= 400 && told.text().contains("session token"), "{}", told.text());
    assert!(!told.text().contains("only one line"), "what the file holds is not told");
    std::fs::write(&file, format!("{}\n{}\n", bucket.id, bucket.secret)).unwrap();
    assert_eq!(reload().status, 200);
    assert_eq!(fleet.node("e1").get("/assets/plain.txt").status, 200);
}

/// A small generator of targets; `seed` is printed with what differs.
fn random_target(seed: &mut u64) -> String {
    let mut next = |below: u64| {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) % below
    };
    let characters: Vec<&str> =
        "a b Z 0 9 - _ . ~ ! $ ' ( ) * + , ; : @ %20 %25 %2B %26 %3D %c3%a4 %E2%82%AC %41 %7e"
            .split(' ')
            .collect();
    let mut word = |more: &[&'static str]| {
        let length = 1 + next(8);
        let all: Vec<&str> = characters.iter().chain(more).copied().collect();
        (0..length)
            .map(|_| all[usize::try_from(next(all.len() as u64)).unwrap()])
            .collect::<String>()
    };
    let path: String = (0..3).map(|_| format!("/x{}", word(&["&", "="]))).collect();
    let query: Vec<String> =
        (0..3).map(|at| format!("{at}{}={}", word(&["/"]), word(&["/", "?"]))).collect();
    format!("{path}?{}", query.join("&"))
}

fn field<'a>(seen: &'a Seen, name: &str) -> &'a str {
    seen.field(name).unwrap_or_default()
}

#[test]
fn signatures_are_those_of_botocore() {
    let Some(python) = python() else { return };
    for token in ["", "\nthe//session==token"] {
        let origin = Origin::start();
        origin.route("/*", Script::ok("x"));
        let server = origin.addr().to_string();
        let credentials = format!("AKIDEXAMPLE\nwJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY{token}\n");
        let fleet = plan(one_edge(), &server, "cache = \"off\"", &credentials).start();
        let mut seed = 20_261_121;
        let targets: Vec<String> = (0..100).map(|_| random_target(&mut seed)).collect();
        for (at, target) in targets.iter().enumerate() {
            let method = if at % 3 == 0 { "HEAD" } else { "GET" };
            let mut request = Request::new(method, HOST, target).field("X-Amz-Meta-Mine", "no");
            if at % 2 == 0 {
                request = request.field("Range", "bytes=0-9").field("If-None-Match", "\"a\"");
            }
            assert_eq!(ask(&fleet, request).status, 200, "{target}");
        }
        let mut signer = Command::new(&python)
            .args(["-c", include_str!("buckets/botocore_signs.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = signer.stdin.take().unwrap();
        let mut output = BufReader::new(signer.stdout.take().unwrap());
        let seen = origin.requests_in_order();
        assert_eq!(seen.len(), targets.len());
        for (client, seen) in targets.iter().zip(&seen) {
            let line = json!({
                "method": seen.method,
                "client": client,
                "target": seen.target,
                "host": server,
                "date": field(seen, "x-amz-date"),
                "sha256": field(seen, "x-amz-content-sha256"),
                "token": field(seen, "x-amz-security-token"),
                "id": "AKIDEXAMPLE",
                "secret": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                "region": "us-east-1",
            });
            writeln!(input, "{line}").unwrap();
            let mut told = String::new();
            output.read_line(&mut told).unwrap();
            let told: Value = serde_json::from_str(&told).unwrap();
            assert_eq!(told["target"], seen.target.as_str(), "{client}");
            assert_eq!(told["authorization"], field(seen, "authorization"), "{client}");
            assert_eq!(field(seen, "x-amz-security-token"), token.trim());
            assert_eq!(seen.field("x-amz-meta-mine"), None);
        }
        drop(input);
        assert!(signer.wait().unwrap().success());
    }
}

/// Every attempt has its own signature; the client's Authorization and `x-amz-*` fields never reach the bucket.
#[test]
fn requests_are_signed_at_each_attempt_and_only_for_the_origin() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=60"));
    let server = origin.addr().to_string();
    let fleet = plan(one_edge(), &server, "cache = \"off\"", "AKID\nsecret\ntoken\n").start();
    let theirs =
        Request::get(HOST, "/a").field("Authorization", "Basic eA==").field("X-Amz-Acl", "x");
    assert_eq!(ask(&fleet, theirs).status, 200);
    let delete = Request::new("DELETE", HOST, "/a").field("X-Amz-Acl", "x");
    assert_eq!(ask(&fleet, delete).status, 200);
    let seen = origin.requests("/a");
    assert!(field(&seen[0], "authorization").starts_with("AWS4-HMAC-SHA256 Credential=AKID/"));
    assert_eq!(field(&seen[0], "x-amz-security-token"), "token");
    assert_eq!((seen[0].field("x-amz-acl"), seen[1].field("authorization")), (None, None));
}

#[test]
fn a_parent_sees_no_signature() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=60"));
    let server = origin.addr().to_string();
    let tiers = one_edge().parent("p1", "icn").toml("[tier.shield]\nparents = [\"p1\"]");
    let route = "cache = \"assets\" } ]\ntier = \"shield\"\n# {";
    let mut fleet = plan(tiers, &server, route, "AKID\nsecret\n").write();
    let parent = fleet.node_mut("p1").stand_in();
    parent.route("/*", Script::ok("from the parent").cache_control("max-age=60"));
    fleet.node_mut("e1").start();
    assert_eq!(fleet.node("e1").get("/a").text(), "from the parent");
    let seen = parent.requests("/a");
    assert!(seen[0].fields.iter().all(|(name, _)| {
        !name.eq_ignore_ascii_case("authorization")
            && !name.to_ascii_lowercase().starts_with("x-amz")
    }));
    assert_eq!(origin.total(), 0);
}
