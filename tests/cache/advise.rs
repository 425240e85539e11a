//! `edge-cache advise`: how large a cache should be, from a log and from a running node.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Output;

use harness::dice::Dice;
use harness::origin::{Origin, Script};
use harness::process::Program;
use harness::wait;
use serde_json::Value;

use super::{HOST, one_edge};

fn advise(trace: &Path, more: &[&str]) -> Output {
    let mut args = vec!["advise", "--trace", trace.to_str().unwrap()];
    args.extend(more);
    Program::EdgeCache.run(&args)
}

/// An hour of a request a second for one of so many objects of 10,000 bytes.
fn log(path: &Path, objects: usize) {
    let mut dice = Dice::new(1);
    let mut text = String::new();
    for second in 0..3600 {
        writeln!(
            text,
            "{{\"ts\":{},\"host\":\"www.cdn.test\",\"uri\":\"/{}\",\"status\":200,\"bytes\":10000}}",
            1_700_000_000 + second,
            dice.below(objects)
        )
        .unwrap();
    }
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_log_says_how_large_the_cache_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("access.json");
    log(&trace, 100);
    let report = dir.path().join("report");
    let report = report.to_str().unwrap();
    let output = advise(&trace, &["--ttl", "10m", "--output", "json", "--report", report]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    // A request a second of 10,000 bytes, for 600 s.
    let sizing = &told["sizing"][0];
    assert!((number(&sizing["textbook"]) / 6e6 - 1.0).abs() < 0.01, "{sizing}");
    // Nearly all of the hundred objects are asked for in ten minutes.
    assert!((98.0..=100.0).contains(&number(&sizing["objects"])), "{sizing}");
    assert!((number(&sizing["unique"]) / number(&sizing["objects"]) - 10_000.0).abs() < 1.0);
    assert_eq!(sizing["spans"], 5, "3599 seconds hold five whole spans");
    // Each object is fetched about every ten minutes: a sixth of the requests.
    let most = number(&told["most"]);
    assert!((0.83..0.87).contains(&most), "{most}");
    let page = std::fs::read_to_string(dir.path().join("report/index.html")).unwrap();
    assert!(page.contains("BY HAND") && page.matches("<svg").count() == 2, "{page}");

    let output = advise(&trace, &["--want", "45", "--policy", "lru"]);
    let out = String::from_utf8(output.stdout).unwrap();
    // Of equal objects asked for at random, LRU hits as many as it holds: 45 % needs 45 objects of 10,840 bytes.
    let line = out.lines().find(|line| line.starts_with("45.00 % of the requests:"));
    let line = line.unwrap_or_else(|| panic!("{out}"));
    let kib: f64 = line.split_whitespace().nth(5).unwrap().parse().unwrap();
    assert!((420.0..540.0).contains(&kib), "{line}");
    for words in ["requests/s ×", "stored once", "times too much", "HIT RATIO BY SIZE"] {
        assert!(out.contains(words), "{words} in {out}");
    }
    // Ten thousand objects are worth a disk, though it fills slowly: three times its size in a day.
    log(&trace, 10_000);
    let output = advise(&trace, &["--warm-up", "0", "--policy", "lru", "--output", "json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let goal = told["sizes"].as_array().unwrap().last().unwrap();
    let split = &goal["split"];
    assert!(number(&split["from_disk"]) > 0.01, "{goal}");
    assert!(number(&split["ratios"]["objects"]) > number(&split["from_memory"]), "{goal}");
    // Together they are a tenth larger, and the disk takes what was asked for twice.
    let difference = number(&split["ratios"]["objects"]) - number(&goal["hit_ratio"]);
    assert!(difference.abs() < 0.03, "{goal}");
    let written = number(&split["disk_writes"]) * told["trace"]["bytes"].as_f64().unwrap();
    let (hours, size) = (number(&told["trace"]["seconds"]) / 3600.0, number(&split["disk"]));
    assert!(written < 3.0 * size * (hours + 6.0) / 24.0 * 1.05, "{written}: {goal}");
    let disk = ["--memory", "1MiB", "--disk", "64MiB", "--policy", "lru", "--warm-up", "0"];
    let out = String::from_utf8(advise(&trace, &disk).stdout).unwrap();
    assert!(out.contains("lru + 64 MiB OBJECTS / BYTES"), "{out}");
    let output = advise(&trace, &["--want", "101"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(advise(Path::new("/does/not/exist"), &[]).status.code(), Some(1));
}

#[test]
fn a_node_says_what_more_memory_would_give() {
    let origin = Origin::start();
    origin.route("/o/*", Script::ok(vec![b'x'; 2000]).cache_control("max-age=1000"));
    origin.route("/private/*", Script::ok("mine").cache_control("no-store"));
    let fleet = one_edge(&origin, "");
    let edge = fleet.node("e1");
    let cold = fleet.run(Program::EdgeCache, &["advise", "--node", "e1"]);
    let cold = String::from_utf8(cold.stdout).unwrap();
    assert!(cold.contains("Only 0 requests so far: ask again after some thousand."), "{cold}");

    let trace = fleet.dir().join("trace.csv");
    let mut dice = Dice::new(3);
    let (mut text, mut distinct) = (String::new(), BTreeSet::new());
    for n in 0..3000 {
        let within = 1 << dice.below(10);
        let path = match n % 10 {
            0 => format!("/private/{}", dice.below(5)),
            _ => format!("/o/{}", dice.below(within)),
        };
        writeln!(text, "{n},http://{HOST}{path},2000").unwrap();
        if path.starts_with("/o") {
            distinct.insert(path);
        }
    }
    std::fs::write(&trace, text).unwrap();
    let url = format!("http://{}", edge.http());
    let played = Program::EdgeCache.run(&[
        "replay",
        trace.to_str().unwrap(),
        "--url",
        &url,
        "--concurrency",
        "1",
        "--output",
        "json",
    ]);
    let played: Value = serde_json::from_slice(&played.stdout).unwrap();
    assert_eq!(played["live"]["answered"], 3000, "{played}");

    let number = |value: &Value| value.as_f64().unwrap();
    // Those of the sample are on their way to a thread of its own.
    let report = wait::until("all requests are predicted", || {
        let report = edge.admin_json("/v1/advise");
        let known = number(&report["requests"]) > 2600.0;
        let is_whole = number(&report["working_set_hour"]) == 2000.0 * distinct.len() as f64;
        (known && is_whole && number(&report["error"]["objects"]).abs() < 0.005).then_some(report)
    });
    // All that was sent through the store; what is known not to be for it is passed on.
    assert!((2600.0..=3000.0).contains(&number(&report["requests"])), "{report}");
    assert_eq!((&report["policy"], &report["sampled"]), (&"size-aware".into(), &1.0.into()));
    let predictions = report["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), 15, "three policies at five sizes");
    // There is room for everything at a quarter of the memory: no size and no policy is better.
    for prediction in predictions {
        let off = number(&prediction["objects"]) - number(&report["live"]["objects"]);
        assert!(off.abs() < 0.005, "{prediction}: {report}");
    }

    let metrics = edge.metrics();
    let labels = [("tier", "memory"), ("policy", "lru"), ("scale", "0.25"), ("of", "objects")];
    let gauge = metrics.sum("edge_cache_predicted_hit_ratio", &labels);
    assert!((gauge - number(&report["live"]["objects"])).abs() < 0.005, "{gauge}");
    let words = fleet.run(Program::EdgeCache, &["advise", "--node", "e1"]);
    let words = String::from_utf8(words.stdout).unwrap();
    for word in ["(now)", "Twice the memory (", "+0.0 points of requests", "instead of size-aware"]
    {
        assert!(words.contains(word), "{word} in {words}");
    }
}
