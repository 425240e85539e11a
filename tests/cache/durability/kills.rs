//! `kill -9` in the middle of everything, again and again: what a node has stored on disk is right and no older than what
//! was purged, or it is not there.
//!
//! `MERIDIAN_KILLS=200` makes it as many as are promised (`scripts/kills.sh`); else it is a few.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use harness::dice::Dice;
use harness::fleet::Fleet;
use harness::origin::Origin;
use harness::process::Signal;
use harness::wait::{self, PATIENCE};

use super::world::{PATHS, World};
use crate::cache::{STRICT, plan, site};

const CLIENTS: usize = 4;
/// Kills of a run of all tests.
const FEW: usize = 12;

/// One edge, whose disk holds about half of what there is, and whose memory less.
pub(super) fn edge(origin: &Origin, dir: &Path) -> Fleet {
    let more = format!(
        "memory = \"24MiB\"\nmax_object = \"2MiB\"\nsegment = \"64KiB\"\npurge_from = [\"127.0.0.0/8\"]\n\
         disk = {{ path = \"{}\", size = \"24MiB\", daily_writes = \"1TiB\" }}",
        dir.display()
    );
    site(plan(origin).cache_node("e1", "icn", "edge", &more), STRICT).start()
}

/// Ends the other threads, also where this one fails.
pub(super) struct Ending<'a>(pub(super) &'a World);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
        self.0.up.store(true, Ordering::SeqCst);
    }
}

/// Clients and purges until it is over. Where the node is down, they wait.
pub(super) fn work(world: &World, seed: u64, mut step: impl FnMut(&World, &mut Dice) -> bool) {
    let mut dice = Dice::new(seed);
    while !world.over.load(Ordering::SeqCst) {
        if !step(world, &mut dice) {
            wait::until("the node to be up", || world.up.load(Ordering::SeqCst).then_some(()));
        }
    }
}

fn kills() -> usize {
    let asked = std::env::var("MERIDIAN_KILLS").ok();
    asked.map_or(FEW, |text| text.parse().expect("MERIDIAN_KILLS is a number"))
}

#[test]
fn no_wrong_byte_and_no_resurrected_purge_after_kill_9() {
    let seed = std::env::var("MERIDIAN_SEED").map_or(1, |text| text.parse().unwrap());
    let (origin, dir) = (Origin::start(), tempfile::tempdir().unwrap());
    let world = World::new();
    let answering = Arc::clone(&world);
    origin.route_with("/*", move |request| answering.answer(request));
    let mut fleet = edge(&origin, dir.path());
    let addresses: (SocketAddr, SocketAddr) = (fleet.node("e1").http(), fleet.node("e1").admin());
    let mut dice = Dice::new(seed);
    let (mut from_disk, mut recovered, mut written) = (0.0, 0, 0);
    std::thread::scope(|scope| {
        let ending = Ending(&world);
        let mut workers = Vec::new();
        for client in 0..CLIENTS as u64 {
            let world = &world;
            workers.push(scope.spawn(move || {
                work(world, seed * 31 + client, |world, dice| world.ask(addresses.0, dice));
            }));
        }
        let purger = &world;
        workers.push(scope.spawn(move || {
            let mut next = 0;
            work(purger, seed * 37, |world, dice| {
                // Some answers lie between two purges.
                if world.answered.load(Ordering::SeqCst) < next {
                    std::thread::yield_now();
                    return true;
                }
                next = world.answered.load(Ordering::SeqCst) + dice.below(16) as u64;
                world.change_and_purge(dice, addresses)
            });
        }));
        for kill in 0..kills() {
            let enough = world.answered.load(Ordering::SeqCst) + 20 + dice.below(150) as u64;
            wait::until("clients to be answered", || {
                assert!(
                    workers.iter().all(|worker| !worker.is_finished()),
                    "kill {kill}, seed {seed}"
                );
                (world.answered.load(Ordering::SeqCst) >= enough).then_some(())
            });
            let node = fleet.node_mut("e1");
            from_disk += node.metrics().sum("edge_cache_hits_total", &[("tier", "disk")]);
            let disk = &node.admin_json("/v1/status")["disks"][0];
            recovered += usize::from(disk["start"] == "segments");
            written += disk["written"].as_u64().unwrap();
            world.up.store(false, Ordering::SeqCst);
            node.kill();
            node.start();
            world.up.store(true, Ordering::SeqCst);
        }
        drop(ending);
        let failed = workers.into_iter().map(|worker| worker.join()).filter(Result::is_err).count();
        assert_eq!(failed, 0, "seed {seed}");
    });
    let answered = world.answered.load(Ordering::SeqCst);
    let (hits, purged) = (world.hits.load(Ordering::SeqCst), world.purged.load(Ordering::SeqCst));
    eprintln!(
        "{} kills: {answered} answers, {hits} hits, {from_disk} of them from disk, {purged} purges, {recovered} \
         recoveries, {} MiB written",
        kills(),
        written >> 20
    );
    // It was a store all the while, and was found again.
    assert!(hits > answered / 10 && purged > kills() as u64);
    assert!(from_disk > kills() as f64 && recovered >= kills() * 3 / 4, "{from_disk} {recovered}");
    // After an end in order, too, all is right.
    let node = fleet.node_mut("e1");
    node.signal(Signal::Term);
    assert_eq!(node.ended(PATIENCE).code(), Some(0));
    node.start();
    let mut dice = Dice::new(seed);
    for _ in 0..3 * PATHS {
        assert!(world.ask(addresses.0, &mut dice));
    }
}
