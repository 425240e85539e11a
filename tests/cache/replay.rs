//! `edge-cache replay`: a log through simulated nodes, and through a real one.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Output;

use harness::dice::Dice;
use harness::origin::{Origin, Script};
use harness::process::Program;
use serde_json::Value;

use super::{HOST, one_edge};

/// What the simulator adds to a body, and the steps in which it knows sizes.
const HEAD: u64 = 600;

fn replay(trace: &Path, more: &[&str]) -> Output {
    let mut args = vec!["replay", trace.to_str().unwrap()];
    args.extend(more);
    Program::EdgeCache.run(&args)
}

#[track_caller]
fn json(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Some keys are asked for often, most seldom; each has its size.
fn requests(count: usize) -> Vec<(u64, u64)> {
    let mut dice = Dice::new(4);
    let mut one = || {
        let within = 1 << dice.below(11);
        let key = dice.below(within) as u64;
        (key, 200 + key * 7919 % 50_000)
    };
    (0..count).map(|_| one()).collect()
}

/// Exact LRU the obvious way: hits and bytes of hits.
fn lru(requests: &[(u64, u64)], capacity: u64) -> (u64, u64) {
    let weight = |size: u64| size + HEAD;
    let mut stored: VecDeque<(u64, u64)> = VecDeque::new();
    let (mut hits, mut bytes) = (0, 0);
    for (key, size) in requests {
        if let Some(at) = stored.iter().position(|(other, _)| other == key) {
            stored.remove(at);
            hits += 1;
            bytes += size;
        }
        while stored.iter().map(|(_, size)| weight(*size)).sum::<u64>() + weight(*size) > capacity {
            stored.pop_front();
        }
        stored.push_back((*key, *size));
    }
    (hits, bytes)
}

#[test]
fn a_log_is_replayed_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace.csv");
    let requests = requests(5000);
    let mut text = String::from("time,key,size\n");
    for (at, (key, size)) in requests.iter().enumerate() {
        writeln!(text, "{},object-{key},{size}", 1_700_000_000 + at / 10).unwrap();
    }
    std::fs::write(&trace, text).unwrap();
    let told = json(&replay(
        &trace,
        &["--memory", "200KiB,1MiB,4MiB", "--policy", "lru,s3-fifo,size-aware", "--output", "json"],
    ));
    assert_eq!(
        (&told["trace"]["requests"], &told["trace"]["format"]),
        (&5000.into(), &"csv".into())
    );
    let runs = told["simulated"].as_array().unwrap();
    assert_eq!(runs.len(), 9);
    let total: u64 = requests.iter().map(|(_, size)| size).sum();
    for (run, capacity) in runs.iter().zip([200 << 10, 1 << 20, 4 << 20]) {
        assert_eq!((&run["policy"], &run["memory"]), (&"lru".into(), &Value::from(capacity)));
        let (hits, bytes) = lru(&requests, capacity);
        let ratio = |name: &str| run["ratios"][name].as_f64().unwrap();
        assert!((ratio("objects") - hits as f64 / 5000.0).abs() < 1e-9, "{hits}: {run}");
        assert!((ratio("bytes") - bytes as f64 / total as f64).abs() < 1e-9, "{bytes}: {run}");
        assert_eq!(run["origin_requests"].as_f64().unwrap().round() as u64, 5000 - hits);
        assert_eq!(run["origin_bytes"].as_f64().unwrap().round() as u64, total - bytes);
    }
    let objects = |policy: &str, memory: u64| {
        let run = runs.iter().find(|run| run["policy"] == policy && run["memory"] == memory);
        run.unwrap()["ratios"]["objects"].as_f64().unwrap()
    };
    for policy in ["lru", "s3-fifo", "size-aware"] {
        assert!(objects(policy, 200 << 10) < objects(policy, 1 << 20), "{policy}: {runs:?}");
    }
    assert!(objects("size-aware", 1 << 20) > objects("lru", 1 << 20), "{runs:?}");
    let unlimited = |warm_up: &str| {
        let args = ["--memory", "1GiB", "--output", "json", "--warm-up", warm_up];
        json(&replay(&trace, &args))["simulated"][0]["ratios"]["objects"].as_f64().unwrap()
    };
    let distinct = requests.iter().map(|(key, _)| key).collect::<BTreeSet<_>>().len();
    assert!((unlimited("0") - (5000 - distinct) as f64 / 5000.0).abs() < 1e-9);
    assert!(unlimited("50") > unlimited("0"), "first requests are most of the first half's");
}

#[test]
fn broken_lines_are_named_and_the_rest_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("access.log.gz");
    let line = |path: &str| {
        format!(
            "203.0.113.9 - - [21/Nov/2026:13:00:40 +0000] \"GET {path} HTTP/1.1\" 200 1000 \"-\" \"-\"\n"
        )
    };
    let text = [&line("/a"), "what is this\n", &line("/a"), &line("/b"), "\"GET\n"]
        .map(String::from)
        .concat();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(text.as_bytes()).unwrap();
    std::fs::write(&trace, gz.finish().unwrap()).unwrap();
    let report = dir.path().join("out");
    let output = replay(&trace, &["--memory", "100%,50%", "--report", report.to_str().unwrap()]);
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{out}");
    for word in [
        "5 lines, 3 requests, 2 broken",
        "line 2: it has no time in brackets: what is this",
        "line 5: it has no time in brackets: \\\"GET",
        "2 objects of 2.0 KiB together",
        "size-aware",
        "33.33 %",
    ] {
        assert!(out.contains(word), "{word} in\n{out}");
    }
    let page = std::fs::read_to_string(report.join("index.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("Object hit ratio over size"), "{page}");
    assert!(page.contains("line 2: it has no time in brackets: what is this"));
}

#[test]
fn exit_codes_say_whose_mistake_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let code = |output: Output, words: &str| {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(words), "{words} in {error}");
        output.status.code().unwrap()
    };
    let good = file("good.csv", "1,/a,5\n2,/a,5\n");
    let bad = file("bad.log", "nothing\nin here\n");
    let config = file("meridian.toml", "[edge.e1]\nmemory = 5\n");
    let config = config.to_str().unwrap();
    assert_eq!(code(replay(Path::new("/does/not/exist"), &["--memory", "1MiB"]), "cannot read"), 1);
    assert_eq!(code(replay(&bad, &["--memory", "1MiB"]), "line 2: it is neither"), 1);
    assert_eq!(code(replay(&good, &["--memory", "lots"]), "is not a size"), 2);
    assert_eq!(code(replay(&good, &["--memory", "1MiB", "--policy", "best"]), "size-aware"), 2);
    assert_eq!(code(replay(&good, &["--url", "http://cache"]), "no address with a port"), 2);
    assert_eq!(code(replay(&good, &["--rate", "5"]), "--url"), 2);
    assert_eq!(code(replay(&good, &["--config", config]), "e1"), 78);
    let nobody = Origin::start();
    let url = nobody.url();
    nobody.go_down();
    assert_eq!(code(replay(&good, &["--url", &url]), "cannot reach"), 1);
}

#[test]
fn a_live_node_does_what_the_simulator_says() {
    let origin = Origin::start();
    let requests = requests(3000);
    for (key, size) in &requests {
        let body = vec![b'x'; *size as usize];
        origin.route(&format!("/{key}"), Script::ok(body).cache_control("max-age=1000"));
    }
    let fleet = one_edge(&origin, "");
    let trace = fleet.dir().join("access.log");
    let mut text = String::new();
    for (key, size) in &requests {
        writeln!(
            text,
            "{HOST}:80 203.0.113.9 - - [21/Nov/2026:13:00:40 +0000] \"GET /{key} HTTP/1.1\" 200 {size} \"-\" \"-\""
        )
        .unwrap();
    }
    text.push_str("203.0.113.9 - - [21/Nov/2026:13:00:40 +0000] \"POST /1 HTTP/1.1\" 200 5\n");
    std::fs::write(&trace, text).unwrap();
    let url = format!("http://{}", fleet.node("e1").http());
    let told = json(&replay(
        &trace,
        &["--url", &url, "--memory", "256MiB", "--concurrency", "1", "--output", "json"],
    ));
    let live = &told["live"];
    assert_eq!(
        (&live["answered"], &live["failed"], &live["other_status"]),
        (&3000.into(), &0.into(), &0.into())
    );
    let number = |value: &Value| value.as_f64().unwrap();
    let simulated = &told["simulated"][0]["ratios"];
    for (here, there) in [("hit_ratio", "objects"), ("byte_hit_ratio", "bytes")] {
        let (here, there) = (number(&live[here]), number(&simulated[there]));
        assert!((here - there).abs() < 0.005, "{here} {there}: {told}");
        assert!(here > 0.4, "{told}");
    }
    assert_eq!(live["offload_ratio"], live["hit_ratio"], "there is no parent");
    assert_eq!(
        live["node"]["bytes"].as_f64().unwrap() as u64,
        requests.iter().map(|(_, size)| size).sum::<u64>()
    );
    let missed = 3000.0 * (1.0 - number(&live["hit_ratio"]));
    assert_eq!(
        origin.total(),
        missed.round() as usize,
        "what is no hit is a request to the origin"
    );

    // Everything is stored: at any speed, all are hits.
    let again = replay(&trace, &["--url", &url, "--rate", "100000", "--limit", "500"]);
    let out = String::from_utf8(again.stdout).unwrap();
    assert!(out.contains("500 answered") && out.contains("100.00 %"), "{out}");
}
