//! Proof that answering a query takes nothing from the heap.
#![expect(unsafe_code, reason = "an allocator that counts is the only witness")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use crate::answer::{Client, Context, Outcome, Server, Transport, answer};
use crate::edns::UDP_SIZE;
use crate::metrics::{Batch, Stats};
use crate::name::Name;
use crate::testing;
use crate::wire::write_query;
use crate::world::{Order, Pick, Policy, Shed};
use shared::time::UnixMillis;

struct Counting;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is the system allocator's work; the counter is the thread's own and takes no memory itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = TAKEN.try_with(|taken| taken.set(taken.get() + 1));
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[test]
fn answers_take_nothing_from_the_heap() {
    taken_by(|_| {});
    // Everything that a policy may have on.
    taken_by(|policy| {
        policy.pick = Pick::HashClient;
        policy.ramp = Duration::from_secs(60);
        policy.shed = Some(Shed { above: 0.8, resume: 0.5 });
        policy.max_share = vec![(testing::FRA, 0.1)];
    });
    taken_by(|policy| (policy.order, policy.pick) = (Order::Weighted, Pick::Weighted));
}

fn taken_by(change: impl Fn(&mut Policy)) {
    let world = testing::world(&[], change);
    let stats = Stats::new(&world);
    let snapshot = testing::snapshot(world, &[]);
    let mut out = vec![0; usize::from(UDP_SIZE)];
    let mut batch = Batch::default();
    let server = Server::default();
    let context = Context { server: &server, now: UnixMillis(0) };
    assert!(TAKEN.get() > 0, "what was made until here is counted");
    for (name, qtype, subnet) in [
        ("static.cdn.test", 1, None),
        ("www.cdn.test", 1, None),
        ("www.cdn.test", 1, Some("80.1.0.0/20")),
        ("a.img.cdn.test", 28, Some("2a00::/32")),
        ("www.cdn.test", 15, Some("80.1.0.0/20")),
        ("www.cdn.test", 65, Some("80.1.0.0/20")),
        ("flat.cdn.test", 65, Some("80.1.0.0/20")),
        ("flat.cdn.test", 1, Some("80.1.0.0/20")),
        ("fixed.cdn.test", 1, None),
        ("nope.cdn.test", 1, None),
        ("b.cdn.test", 16, None),
        ("x.y.wild.cdn.test", 16, None),
        ("chain1.cdn.test", 1, None),
        ("alias.cdn.test", 1, Some("80.1.0.0/20")),
        ("loop1.cdn.test", 1, None),
        ("x.old.cdn.test", 1, None),
        ("x.sub.cdn.test", 1, None),
        ("cdn.test", 255, None),
        ("big.cdn.test", 16, None),
        ("www.example", 1, None),
    ] {
        let subnet = subnet.map(|subnet| subnet.parse().unwrap());
        let packet = write_query(1, &Name::parse_absolute(name).unwrap(), qtype, subnet);
        let mut ask = |draw| {
            let address = "198.51.100.7:5300".parse().unwrap();
            let client = Client { address, transport: Transport::Udp, draw };
            let outcome = answer(&packet, &client, &context, &snapshot, &mut out);
            assert!(matches!(outcome, Outcome::Respond { .. }));
            stats.note(Transport::Udp, &outcome, &mut batch);
            stats.add(&mut batch);
        };
        // The batch grows once.
        ask(0);
        let before = TAKEN.get();
        (1..100).for_each(&mut ask);
        assert_eq!(TAKEN.get() - before, 0, "{name} {qtype}");
    }
}
