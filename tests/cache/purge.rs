//! Purges: an acknowledged one is final. An origin whose content changes, slow and in any order; purges of all kinds; many
//! clients; edge and parent. Each response says which version it was made from, in every record of its body.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use harness::dice::Dice;
use harness::expect;
use harness::fleet::{Fleet, Node};
use harness::origin::{Gate, Origin, Request as Asked, Script};
use harness::process::Program;
use harness::wire::{End, Request};
use serde_json::{Value, json};

use super::{HOST, STRICT, plan};

/// Targets, each with a version of its own.
const PATHS: usize = 6;
/// A body is this many records, each of which says the version: parts of two versions cannot pass for one. It has two
/// segments.
const RECORDS: usize = 6000;
const RECORD: usize = 16;
const CLIENTS: usize = 8;

fn path(n: usize) -> String {
    format!("/d{}/f{n}", n % 2)
}

fn tags(n: usize) -> String {
    format!("t{n}, g{}", n % 3)
}

/// Edge `e1` before parent `p1`, both open to everybody's PURGE.
fn tiers(origin: &Origin) -> Fleet {
    // Room enough: a segment that somebody reads stays as long as there is.
    let more = "memory = \"256MiB\"\nsegment = \"64KiB\"\npurge_from = [\"127.0.0.0/8\"]";
    plan(origin)
        .cache_node("e1", "icn", "edge", more)
        .cache_node("p1", "icn", "parent", more)
        .toml("[tier.shield]\nparents = [\"p1\"]")
        .toml(&format!(
            "[cache.assets]\n{STRICT}\nkey = {{ drop = [\"utm_*\"], headers = [\"X-Device\"] }}"
        ))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\ntier = \"shield\"\n\
             routes = [ {{ path = \"/*\", origin = \"static\", cache = \"assets\" }} ]"
        ))
        .start()
}

fn purge(node: &Node, order: &Value) -> Value {
    let reply = node.admin_request("POST", "/v1/purge", &order.to_string());
    assert_eq!(reply.status, 200, "{order}: {}", reply.text());
    serde_json::from_slice(&reply.body).unwrap()
}

/// Gates that responses wait at, opened in an order of chance, so that several fetches are always under way.
#[derive(Default)]
struct Delays {
    closed: Mutex<VecDeque<Gate>>,
    more: Condvar,
    over: AtomicBool,
}

impl Delays {
    fn gate(&self) -> Gate {
        let gate = Gate::new();
        self.closed.lock().unwrap().push_back(gate.clone());
        self.more.notify_one();
        gate
    }

    fn open_by_chance(&self, mut dice: Dice) {
        while !self.over.load(Ordering::SeqCst) {
            // Some stay closed until others have come, or until nobody else comes.
            let keep = dice.below(4);
            let closed = self.closed.lock().unwrap();
            let wait = self.more.wait_timeout_while(closed, Duration::from_millis(3), |closed| {
                closed.len() <= keep
            });
            let mut closed = wait.unwrap().0;
            let count = closed.len();
            let next = if count == 0 { None } else { closed.remove(dice.below(count)) };
            drop(closed);
            next.iter().for_each(Gate::open);
        }
        let rest: Vec<Gate> = self.closed.lock().unwrap().drain(..).collect();
        rest.iter().for_each(Gate::open);
    }
}

/// What the origin holds, and what clients may rely on.
#[derive(Default)]
struct World {
    content: [AtomicU64; PATHS],
    /// No client that asks now may get an older version.
    acknowledged: [AtomicU64; PATHS],
    delays: Delays,
    dice: Mutex<Option<Dice>>,
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        let world = Self::default();
        *world.dice.lock().unwrap() = Some(Dice::new(seed));
        Arc::new(world)
    }

    fn chance(&self, bound: usize) -> usize {
        self.dice.lock().unwrap().as_mut().unwrap().below(bound)
    }

    fn acknowledge(&self, n: usize, version: u64) {
        self.acknowledged[n].fetch_max(version, Ordering::SeqCst);
    }

    /// The version is that of the moment at which the request arrives; when its bytes arrive, chance says.
    fn answer(&self, request: &Asked) -> Script {
        let n: usize = request.path().rsplit_once('f').unwrap().1.parse().unwrap();
        if request.method == "POST" {
            let version = self.content[n].fetch_add(1, Ordering::SeqCst) + 1;
            return Script::ok(version.to_string());
        }
        let version = self.content[n].load(Ordering::SeqCst);
        let tag = format!("\"{n}-{version}\"");
        let same = |name: &str| request.field(name).map(|value| value.contains(&tag));
        let body = format!("{version:>15}\n").repeat(RECORDS);
        let part = request.field("range").and_then(|range| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            let last = last.parse().unwrap_or(body.len() - 1).min(body.len() - 1);
            Some((first.parse::<usize>().ok()?, last))
        });
        let script = match part {
            _ if same("if-match") == Some(false) => Script::status(412, ""),
            _ if same("if-none-match") == Some(true) => Script::status(304, ""),
            Some((first, last)) if same("if-range") != Some(false) && first <= last => {
                let range = format!("bytes {first}-{last}/{}", body.len());
                Script::status(206, &body.as_bytes()[first..=last]).field("Content-Range", &range)
            }
            _ => Script::ok(body),
        };
        let script = script
            .cache_control("max-age=600")
            .field("ETag", &tag)
            .field("Cache-Tag", &tags(n))
            .field("Vary", "Accept-Language");
        match self.chance(6) {
            0 | 1 => script.hold(&self.delays.gate()),
            2 => script.hold_after(RECORD * 100, &self.delays.gate()),
            _ => script,
        }
    }

    /// One request of a client, whose answer must be no older than what was acknowledged before it was sent.
    fn ask(&self, nodes: &[SocketAddr], dice: &mut Dice, seed: u64) {
        let n = dice.below(PATHS);
        let node = nodes[dice.below(nodes.len())];
        let target = match dice.below(4) {
            0 => format!("{}?utm_source={}", path(n), dice.below(100)),
            _ => path(n),
        };
        let least = self.acknowledged[n].load(Ordering::SeqCst);
        let mut request = Request::get(HOST, &target)
            .field("Accept-Language", ["en", "de"][dice.below(2)])
            .field("X-Device", ["a", "b"][dice.below(2)]);
        let from = dice.below(RECORDS - 10);
        let ranged = dice.below(3) == 0;
        if ranged {
            let last = (from + 10) * RECORD - 1;
            request = request.field("Range", format!("bytes={}-{last}", from * RECORD));
        }
        let reply = request.send(node);
        let told =
            format!("seed {seed}: {target} at {node}: {} {}", reply.status, reply.cache_status());
        assert!(reply.status == 200 || (ranged && reply.status == 206), "{told}");
        assert_eq!(reply.end, End::Complete, "{told}");
        let records = if reply.status == 206 { 10 } else { RECORDS };
        assert_eq!(reply.body.len(), records * RECORD, "{told}");
        let versions: Vec<u64> = reply
            .body
            .chunks(RECORD)
            .map(|record| String::from_utf8_lossy(record).trim().parse().unwrap())
            .collect();
        let version = versions[0];
        assert!(versions.iter().all(|other| *other == version), "{told}: two versions in one body");
        assert!(version >= least, "{told}: version {version}, though {least} was acknowledged");
        assert_eq!(reply.field("etag"), Some(&*format!("\"{n}-{version}\"")), "{told}");
        assert!(
            reply.field("cache-tag").is_none() && reply.field("meridian-fence").is_none(),
            "{told}"
        );
    }

    /// Changes some of the content and purges it, by whatever covers it; what was changed is acknowledged at the end.
    fn change_and_purge(&self, nodes: &[&Node], dice: &mut Dice) {
        let n = dice.below(PATHS);
        let (covered, mut order): (Vec<usize>, Value) = match dice.below(8) {
            0 => (vec![n], json!({ "urls": [format!("http://{HOST}{}", path(n))] })),
            1 => (vec![n], json!({ "urls": [format!("{HOST}{}?utm_x=y", path(n))] })),
            2 => {
                let covered = (0..PATHS).filter(|other| other % 2 == n % 2).collect();
                (covered, json!({ "prefixes": [format!("{HOST}/d{}/", n % 2)] }))
            }
            3 => ((0..PATHS).collect(), json!({ "hosts": [HOST] })),
            4 => {
                let covered = (0..PATHS).filter(|other| other % 3 == n % 3).collect();
                (covered, json!({ "tags": [format!("g{}", n % 3)] }))
            }
            5 => (vec![n], json!({ "tags": [format!("t{n}"), "none"] })),
            6 => ((0..PATHS).collect(), json!({ "all": true })),
            _ => {
                let version = self.content[n].fetch_add(1, Ordering::SeqCst) + 1;
                for node in nodes {
                    let target = path(n);
                    let done = Request::new("PURGE", HOST, &target).send(node.http());
                    assert_eq!(done.status, 200, "{}", done.text());
                }
                self.acknowledge(n, version);
                return;
            }
        };
        let versions: Vec<(usize, u64)> = covered
            .iter()
            .map(|n| (*n, self.content[*n].fetch_add(1, Ordering::SeqCst) + 1))
            .collect();
        order["soft"] = (dice.below(3) == 0).into();
        let first = dice.below(nodes.len());
        let mut given = None;
        for at in 0..nodes.len() {
            let node = nodes[(first + at) % nodes.len()];
            // Half of the time the second node is given the position of the first.
            if let Some(seq) = given.filter(|_| dice.below(2) == 0) {
                order["position"] = seq;
            }
            let done = purge(node, &order);
            let known = node.admin_json(&format!("/v1/purge/{}", done["id"].as_str().unwrap()));
            assert_eq!(known, done);
            given = Some(done["seq"].clone());
        }
        for (n, version) in versions {
            self.acknowledge(n, version);
        }
    }

    /// An unsafe method changes the content, and its answer is the acknowledgement (RFC 9111 §4.4).
    fn post(&self, node: &Node, dice: &mut Dice) {
        let n = dice.below(PATHS);
        let target = path(n);
        let reply = Request::new("POST", HOST, &target).body("x").send(node.http());
        assert_eq!(reply.status, 200);
        self.acknowledge(n, reply.text().parse().unwrap());
    }
}

/// Ends the other threads, also where this one fails.
struct Ending<'a> {
    world: &'a World,
    over: &'a AtomicBool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        self.world.delays.over.store(true, Ordering::SeqCst);
        self.world.delays.more.notify_one();
    }
}

/// Clients at the nodes of `served` while purges are given to `purged`: none gets what is older than an acknowledged one.
fn chase(seed: u64, served: &[&str], purged: &[&str], purges: usize) {
    eprintln!("seed {seed}");
    let origin = Origin::start();
    let world = World::new(seed);
    let answering = Arc::clone(&world);
    origin.route_with("/*", move |request| answering.answer(request));
    let fleet = tiers(&origin);
    let nodes: Vec<&Node> = purged.iter().map(|name| fleet.node(name)).collect();
    let addresses: Vec<SocketAddr> = served.iter().map(|name| fleet.node(name).http()).collect();
    let over = AtomicBool::new(false);
    let asked = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let end = Ending { world: &world, over: &over };
        scope.spawn(|| world.delays.open_by_chance(Dice::new(seed ^ 1)));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (world, addresses, over, asked) = (&world, &addresses, &over, &asked);
                scope.spawn(move || {
                    let mut dice = Dice::new(seed.wrapping_mul(31).wrapping_add(client as u64));
                    while !over.load(Ordering::SeqCst) {
                        world.ask(addresses, &mut dice, seed);
                        asked.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let mut dice = Dice::new(seed);
        for _ in 0..purges {
            // Several answers lie between two purges, sometimes none.
            let next = asked.load(Ordering::SeqCst) + dice.below(24) as u64;
            while asked.load(Ordering::SeqCst) < next
                && clients.iter().any(|one| !one.is_finished())
            {
                std::thread::yield_now();
            }
            // Where other nodes are asked too, only their purges are theirs.
            if dice.below(6) == 0 && served.len() == 1 {
                world.post(fleet.node(served[0]), &mut dice);
            } else {
                world.change_and_purge(&nodes, &mut dice);
            }
        }
        over.store(true, Ordering::SeqCst);
        let failed = clients.into_iter().map(|client| client.join()).filter(Result::is_err).count();
        drop(end);
        assert_eq!(failed, 0, "clients got what had been purged: seed {seed}");
    });
    // It was a cache all the while.
    let (requests, asked) = (origin.total() as u64, asked.load(Ordering::SeqCst));
    eprintln!("{asked} requests, {requests} of them at the origin, {purges} purges");
    assert!(asked > 2 * purges as u64 && requests < asked, "{requests} of {asked} at the origin");
}

#[test]
fn after_both_nodes_acknowledge_a_purge_nothing_older_leaves_either() {
    for seed in [1, 2] {
        chase(seed, &["e1", "p1"], &["e1", "p1"], 120);
    }
}

#[test]
fn after_the_edge_alone_acknowledges_a_purge_its_clients_get_nothing_older() {
    for seed in [3, 4] {
        chase(seed, &["e1"], &["e1"], 120);
    }
}

/// Pain 25: the parent still has the old bytes, fresh; the edge that was purged gets new ones through it, and others do, too.
#[test]
fn a_parent_with_the_old_bytes_does_not_give_them_to_a_purged_edge() {
    for order in [
        json!({ "urls": [format!("{HOST}/a")] }),
        json!({ "tags": ["t"] }),
        json!({ "prefixes": [format!("{HOST}/")] , "soft": true }),
        json!({ "all": true }),
    ] {
        let origin = Origin::start();
        let answer = |body: &str| {
            let tag = format!("\"{body}\"");
            Script::ok(body)
                .cache_control("max-age=600")
                .field("Surrogate-Key", "s t")
                .field("ETag", &tag)
        };
        origin.route("/a", answer("old"));
        let fleet = tiers(&origin);
        let (e1, p1) = (fleet.node("e1"), fleet.node("p1"));
        assert_eq!(e1.get("/a").text(), "old");
        assert_eq!(p1.get("/a").text(), "old");
        assert_eq!(origin.total(), 1);
        let (mut at_e1, mut at_p1) = (e1.watch(), p1.watch());
        origin.route("/a", answer("new"));
        purge(e1, &order);
        let purged = e1.get("/a");
        assert_eq!(purged.text(), "new", "{order}: {}", purged.cache_status());
        assert!(purged.field("surrogate-key").is_none());
        assert_eq!(e1.get("/a").text(), "new");
        assert_eq!(p1.get("/a").text(), "new");
        assert_eq!(origin.total(), 2, "{order}");
        expect!(at_e1, edge_cache_purge_seconds_count += 1);
        expect!(at_p1, edge_cache_purge_seconds_count += 0);
    }
}

#[test]
fn the_command_purges_and_says_what_another_node_needs_to_know() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=600").field("Cache-Tag", "red"));
    let fleet = tiers(&origin);
    let e1 = fleet.node("e1");
    e1.get("/a");
    let run = |args: &[&str]| {
        let out = fleet.run(Program::EdgeCache, args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
    };
    let seq = |node: &str, more: &[&str]| -> u64 {
        let mut args = vec!["purge", "--node", node, "--output", "json"];
        args.extend(more);
        let (code, out, error) = run(&args);
        assert_eq!(code, 0, "{error}");
        serde_json::from_str::<Value>(&out).unwrap()["seq"].as_u64().unwrap()
    };
    let first = seq("p1", &["--tag", "red"]);
    let position = first.to_string();
    assert_eq!(seq("e1", &["--tag", "red", "--position", &position]), first);
    assert_eq!(seq("e1", &["--tag", "red", "--position", &position]), first);
    let object = e1.admin_json("/v1/explain?url=http://www.cdn.test/a");
    assert_eq!(object["reason"], "purged");
    assert!(e1.get("/a").cache_status().contains("detail=purged"));
    let object = e1.admin_json("/v1/object?url=http://www.cdn.test/a");
    assert_eq!(object["stored"][0]["tags"], json!(["red"]));
    assert_eq!(object["stored"][0]["fence"].as_u64(), Some(first));
    assert!(seq("e1", &[&format!("{HOST}/a"), "--soft", "--host", HOST, "--all"]) > first);
    assert_eq!(e1.admin_json("/v1/explain?url=http://www.cdn.test/a")["reason"], "soft-purged");

    let (code, out, _) = run(&["purge", "--node", "e1", "--prefix", "www.cdn.test/"]);
    assert!(code == 0 && out.starts_with("purge in force on e1: targets 2\nseq"), "{out}");
    for (args, expected, why) in [
        (&["purge", "--node", "e1"][..], 2, "what is to be purged?"),
        (
            &["purge", "--node", "e1", "https://other.test/"],
            1,
            "no site of this node has the host `other.test`",
        ),
        (&["purge", "--node", "e1", "/a"], 1, "`/a` is no URL"),
        (
            &["purge", "--node", "e1", "--all", "--position", "99999999999999999"],
            1,
            "is no position",
        ),
    ] {
        let (code, _, error) = run(args);
        assert!(code == expected && error.contains(why), "{args:?}: {code} {error}");
    }
    for bad in ["{}", "{\"urls\": \"a\"}", "{\"url\": []}", "[", "{\"all\": false}"] {
        assert_eq!(e1.admin_request("POST", "/v1/purge", bad).status, 400, "{bad}");
    }
    assert_eq!(e1.admin_request("GET", "/v1/purge/none", "").status, 404);
}
