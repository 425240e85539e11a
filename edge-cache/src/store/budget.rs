//! What of a process's memory the memory tier may take, when everything else is counted, and what has to wait or is
//! refused where that is not enough.
//!
//! A node's limit is that of the process. What is known is set aside before it is there: connections at their measured
//! cost, bodies being fetched, the index of the disks. What is not known shows in the resident memory, which corrects the
//! reckoning: down at once, and up slowly. Both leave an allocator the time to give back what has been let go.

use shared::config::CONNECTION_MEMORY as CONNECTION;

/// What a request takes while its response goes out, the least share and what it would fetch the rest with included.
const REQUEST: u64 = 32 << 10;
/// A response that waits for its client may hold so much, however many there are.
const LEAST_SHARE: u64 = 4 << 10;
/// More at once speeds nothing up.
const MOST_PIECE: u64 = 32 << 10;
/// What a process takes more than before its first request when it serves, whatever is asked of it: stacks, tables,
/// auxiliary caches.
const WARM: u64 = 6 << 20;
/// Steps after a correction downwards before the next one: what has been let go is given back in about that time.
const DOWN: u32 = 3;
/// The same for corrections upwards, which nobody waits for.
const UP: u32 = 10;

/// What is known at a moment; bytes, where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Resident memory of the process.
    pub resident: u64,
    /// As much of it as is pages of files: the program itself, as far as it has been used.
    pub mapped: u64,
    /// What the memory tier holds, as it weighs it.
    pub stored: u64,
    /// Client connections, a count.
    pub connections: u64,
    /// Requests that are being answered, a count.
    pub requests: u64,
    /// Bodies that are being fetched.
    pub fills: u64,
    /// The index of the disks.
    pub index: u64,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the process is kept to: what was configured, or what can be had.
    pub limit: u64,
    /// What the memory tier may hold.
    pub capacity: u64,
    /// What bodies that are being fetched may hold; what is beyond waits.
    pub fills: u64,
    /// Client connections that may be open, a count; others are refused.
    pub connections: u64,
    /// Whether more is fetched than somebody waits for.
    pub reads_ahead: bool,
    /// Nothing is left to give: requests are refused, too.
    pub is_full: bool,
}

/// The state of the reckoning.
#[derive(Clone, Debug)]
pub struct Budget {
    memory: u64,
    /// What the memory tier takes in any case.
    fixed: u64,
    /// What the process takes that does nothing, without pages of files: known at the first step.
    idle: Option<u64>,
    /// What resident memory has shown beyond what is known; negative where things are weighed too high.
    correction: i64,
    settling: u32,
    reads_ahead: bool,
    full: bool,
}

/// What a process is kept to that takes `own` bytes by itself: `memory`, unless that leaves less than a quarter of it. A
/// setting that is too small makes a small cache, not one that refuses everybody.
pub fn attainable(memory: u64, own: u64) -> u64 {
    memory.max(own.saturating_add(memory / 4))
}

/// What a response that waits for its client may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// What is stored, as it lies there.
    Stored,
    /// A copy of so many bytes.
    Copy(usize),
}

/// The share of each of so many requests in flight, where bodies lie in segments of this size: together no more than a
/// sixteenth of `limit`, but for the least that makes sense.
pub fn share(limit: u64, in_flight: u64, segment: u64) -> Share {
    let each = limit / 16 / in_flight.max(1);
    // With a window of the fetch that brings it.
    if each >= segment.saturating_mul(4) {
        return Share::Stored;
    }
    // One waits for the socket while the next is made.
    let piece = (each / 4).clamp(LEAST_SHARE, MOST_PIECE);
    Share::Copy(usize::try_from(piece).unwrap_or(usize::MAX))
}

impl Budget {
    /// For a process of `memory` bytes, whose memory tier takes `fixed` of them whatever it is told; mostly none.
    pub const fn new(memory: u64, fixed: u64) -> Self {
        Self {
            memory,
            fixed,
            idle: None,
            correction: 0,
            settling: 0,
            reads_ahead: true,
            full: false,
        }
    }

    /// What follows from what is taken now. To be asked ten times a second.
    pub fn step(&mut self, taken: Taken) -> Verdict {
        let idle = *self.idle.get_or_insert_with(|| {
            let counted = taken.index.saturating_add(taken.stored).saturating_add(taken.mapped);
            taken.resident.saturating_sub(counted)
        });
        let own = idle.saturating_add(taken.mapped.min(taken.resident));
        let limit = attainable(self.memory, own.saturating_add(WARM));
        let load = taken
            .connections
            .saturating_mul(CONNECTION)
            .saturating_add(taken.requests.saturating_mul(REQUEST));
        // What is being fetched ends soon; connections may stay for long.
        let settled = own.saturating_add(load).saturating_add(taken.index);
        let known = settled.saturating_add(taken.fills);
        // What is not known, to begin with: what has been freed and not been given back, fragments.
        let ceiling = limit.saturating_sub(known).saturating_sub(limit / 12);
        // The memory tier has this in any case: without it nothing would be shared among those who ask for the same.
        let floor = self.fixed.clamp(limit / 16, limit);
        self.correct(taken, limit, ceiling, floor);
        let capacity =
            signed(ceiling).saturating_sub(self.correction).clamp(signed(floor), signed(limit));
        let capacity = capacity.unsigned_abs();
        let is_least = capacity <= floor;
        let gives = self.fixed == 0;
        // Each of these has a way back that is longer than the way there. Refusing requests helps only where it is they
        // that take the memory: a process that is too large by itself serves those few all the same.
        let clients = load.saturating_add(taken.fills);
        self.full = match self.full {
            true => taken.resident > limit && clients > limit / 16,
            false => is_least && taken.resident > limit + limit / 20 && clients > limit / 8,
        };
        self.reads_ahead = match self.reads_ahead {
            true => !(gives && is_least) && taken.resident <= limit,
            false => !(gives && capacity <= floor * 2) && taken.resident <= limit - limit / 32,
        };
        // Fetches fill memory faster than it can be had from elsewhere: a little more at each step.
        let fills = taken.fills.saturating_add(limit / 32);
        let fills = fills.min(limit.saturating_sub(settled) / 4).max(limit / 16);
        // What is not known is there, too, as far as it shows.
        let reserve = floor + limit / 16 + self.correction.max(0).unsigned_abs();
        let more = match is_least && taken.resident > limit {
            true => 0,
            false => limit.saturating_sub(settled).saturating_sub(reserve),
        } / (CONNECTION + REQUEST);
        Verdict {
            limit,
            capacity,
            fills,
            connections: if self.full { 0 } else { taken.connections.saturating_add(more) },
            reads_ahead: self.reads_ahead,
            is_full: self.full,
        }
    }

    fn correct(&mut self, taken: Taken, limit: u64, ceiling: u64, floor: u64) {
        self.settling = self.settling.saturating_add(1);
        let (resident, high, low) =
            (taken.resident.min(u64::MAX / 2), limit - limit / 32, limit - limit / 12);
        let now = signed(ceiling).saturating_sub(self.correction);
        let change = if resident > high {
            if self.settling < DOWN || now <= signed(floor) {
                return;
            }
            signed((resident + limit / 16).saturating_sub(limit))
        } else if self.settling < UP {
            return;
        } else if resident < low && signed(taken.stored) > now - now / 16 {
            // As much as there is: the tier is full, and would use it.
            -signed((low - resident) / 2)
        } else if resident < low && self.correction > 0 {
            // It is not needed, but is no reason to be careful any more either.
            -(self.correction / 16 + 1)
        } else {
            return;
        };
        self.correction =
            self.correction.saturating_add(change).clamp(-signed(limit / 8), signed(limit));
        self.settling = 0;
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_limit_below_what_the_process_takes_by_itself_still_leaves_something() {
        assert_eq!(attainable(256 * MIB, 40 * MIB), 256 * MIB);
        assert_eq!(attainable(16 * MIB, 40 * MIB), 44 * MIB);
        let mut budget = Budget::new(16 * MIB, 0);
        // Before its first request, and from then on: more of the program is used, tables grow.
        let mut taken = Taken { resident: 23 * MIB, mapped: 20 * MIB, ..Taken::default() };
        budget.step(taken);
        taken.mapped = 22 * MIB;
        for _ in 0..100 {
            taken.resident = taken.mapped + 9 * MIB + taken.stored;
            let verdict = budget.step(taken);
            assert_eq!(verdict.limit, (22 + 3 + 6 + 4) * MIB);
            assert!(!verdict.is_full && verdict.capacity >= verdict.limit / 16, "{verdict:?}");
            (taken.stored, taken.requests, taken.connections) = (verdict.capacity, 20, 20);
        }
    }

    #[test]
    fn a_process_that_is_too_large_by_itself_refuses_no_requests() {
        let mut budget = Budget::new(64 * MIB, 0);
        budget.step(Taken { resident: 14 * MIB, ..Taken::default() });
        for _ in 0..100 {
            let (connections, requests) = (50, 50);
            let resident = 200 * MIB;
            let taken = Taken { resident, connections, requests, ..Taken::default() };
            assert!(!budget.step(taken).is_full);
        }
    }

    /// A process: what it takes besides the tier, which is always full, and an allocator that gives back with a delay.
    struct Process {
        budget: Budget,
        resident: u64,
        /// What a stored byte really takes, in percent.
        weighs: u64,
        base: u64,
    }

    impl Process {
        fn new(limit: u64, weighs: u64) -> Self {
            Self { budget: Budget::new(limit, 0), resident: 14 * MIB, weighs, base: 14 * MIB }
        }

        /// A second, with this many connections and this much that nobody counts.
        fn second(&mut self, connections: u64, unknown: u64, stored: &mut u64) -> Verdict {
            let mut last = None;
            for _ in 0..10 {
                let taken = Taken {
                    resident: self.resident,
                    stored: *stored,
                    connections,
                    ..Taken::default()
                };
                let verdict = self.budget.step(taken);
                *stored = verdict.capacity;
                let needs =
                    self.base + connections * CONNECTION + unknown + *stored * self.weighs / 100;
                // Half of what is free is given back in a step.
                self.resident = needs.max(self.resident - self.resident.saturating_sub(needs) / 2);
                last = Some(verdict);
            }
            last.unwrap()
        }
    }

    #[test]
    fn resident_memory_comes_to_the_limit_whatever_a_stored_byte_takes() {
        for (limit, weighs) in [(64, 100), (512, 85), (512, 118), (4096, 105)] {
            let limit = limit * MIB;
            let mut process = Process::new(limit, weighs);
            let mut stored = 0;
            let mut seen = Vec::new();
            for _ in 0..60 {
                process.second(10, 0, &mut stored);
                seen.push(process.resident as f64 / limit as f64);
            }
            let last = &seen[30..];
            assert!(
                last.iter().all(|share| (0.85..1.02).contains(share)),
                "{limit} {weighs} {seen:?}"
            );
            let wide = last.iter().fold((2.0_f64, 0.0_f64), |(a, b), x| (a.min(*x), b.max(*x)));
            assert!(wide.1 - wide.0 < 0.02, "it swings: {limit} {weighs} {last:?}");
        }
    }

    #[test]
    fn what_nobody_counts_makes_the_tier_smaller_and_it_comes_back() {
        let limit = 512 * MIB;
        let mut process = Process::new(limit, 100);
        let mut stored = 0;
        for _ in 0..20 {
            process.second(100, 0, &mut stored);
        }
        let before = stored;
        for _ in 0..20 {
            process.second(100, 200 * MIB, &mut stored);
        }
        assert!(process.resident <= limit, "{}", process.resident / MIB);
        assert!(stored < before - 150 * MIB, "{}", stored / MIB);
        for _ in 0..90 {
            process.second(100, 0, &mut stored);
        }
        assert!(stored > before - before / 8, "{} of {}", stored / MIB, before / MIB);
    }

    #[test]
    fn connections_are_set_aside_before_they_show_and_refused_before_they_break_it() {
        let limit = 64 * MIB;
        let mut budget = Budget::new(limit, 0);
        let idle = Taken { resident: 14 * MIB, ..Taken::default() };
        let before = budget.step(idle);
        let after = budget.step(Taken { connections: 1000, ..idle });
        assert_eq!(before.capacity - after.capacity, 1000 * CONNECTION);
        assert!((700..1000).contains(&before.connections), "{}", before.connections);
        assert!(before.connections * (CONNECTION + REQUEST) + 14 * MIB <= limit);
        let asking = budget.step(Taken { connections: 1000, requests: 100, ..idle });
        assert_eq!(after.capacity - asking.capacity, 100 * REQUEST);
        let many = Taken { connections: 1_000_000, ..idle };
        let crowded = budget.step(many);
        assert_eq!(crowded.capacity, limit / 16, "the tier keeps its least");
        assert_eq!(crowded.connections, many.connections, "and nobody else comes in");
    }

    #[test]
    fn above_the_limit_with_nothing_left_to_give_connections_are_refused_until_there_is_room() {
        let limit = 64 * MIB;
        let mut budget = Budget::new(limit, 0);
        budget.step(Taken { resident: 14 * MIB, ..Taken::default() });
        let connections = 500;
        let over = Taken {
            resident: limit + 4 * MIB,
            stored: limit / 16,
            connections,
            ..Taken::default()
        };
        let verdicts: Vec<_> = (0..60).map(|_| budget.step(over)).collect();
        assert!(verdicts[0].connections > 0, "first the tier gives");
        let last = verdicts.last().unwrap();
        assert_eq!((last.connections, last.reads_ahead, last.is_full), (0, false, true));
        let still = budget.step(Taken { resident: limit + 1, ..over });
        assert_eq!(still.connections, 0);
        let room = budget.step(Taken { resident: limit, ..over });
        assert!(room.connections > 0);
        assert!(!room.reads_ahead, "that takes more room");
    }

    #[test]
    fn shares_are_small_where_many_wait() {
        let segment = 256 << 10;
        assert_eq!(share(1 << 30, 1, segment), Share::Stored);
        assert_eq!(share(1 << 30, 64, segment), Share::Stored);
        assert_eq!(share(1 << 30, 65, segment), Share::Copy(32 << 10));
        assert_eq!(share(1 << 30, 2048, segment), Share::Copy(8 << 10));
        assert_eq!(share(1 << 30, 1 << 20, segment), Share::Copy(4 << 10));
        assert_eq!(share(0, 0, segment), Share::Copy(4 << 10));
    }

    #[test]
    fn a_tier_that_cannot_be_told_its_size_leaves_less_to_connections() {
        let idle = Taken { resident: 14 * MIB, ..Taken::default() };
        let flexible = Budget::new(256 * MIB, 0).step(idle);
        let mut budget = Budget::new(256 * MIB, 192 * MIB);
        let verdict = budget.step(idle);
        assert!(verdict.reads_ahead && verdict.capacity >= 192 * MIB);
        assert!(verdict.connections < flexible.connections / 3, "{verdict:?}");
        assert!(verdict.connections * (CONNECTION + REQUEST) + (14 + 192) * MIB <= 256 * MIB);
    }

    proptest! {
        #[test]
        fn whatever_is_taken_the_verdict_is_within_the_limit(
            limit in 0..1u64 << 44,
            fixed in 0..1u64 << 44,
            steps in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()), 1..50),
        ) {
            let mut budget = Budget::new(limit, fixed);
            for (resident, stored, connections, fills, index) in steps {
                let requests = connections / 2;
                let mapped = resident / 3;
                let taken = Taken { resident, mapped, stored, connections, requests, fills, index };
                let verdict = budget.step(taken);
                prop_assert!(verdict.limit >= limit);
                let limit = verdict.limit;
                prop_assert!(verdict.capacity <= limit && verdict.fills <= limit);
                prop_assert!(verdict.capacity >= limit / 16);
                prop_assert!(verdict.connections <= connections.saturating_add(limit / CONNECTION));
            }
        }
    }
}
