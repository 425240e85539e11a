//! Stable and random draws among a datacenter's edges, and among datacenters by weight.
//!
//! Stable draws are rendezvous hashing: each candidate gets a score from its own name and the key, the best scores win.
//! So a candidate that goes away moves only its own keys, and one that has too much load gives up some of them: which,
//! and to whom, is as stable. Randomness comes in as a number.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::world::{MAX_ANSWERS, Pick};

/// One that can be drawn.
pub trait Candidate {
    /// Its stable number.
    fn key(&self) -> u64;
    /// Its share; 0: only when no other is left.
    fn weight(&self) -> u32;
    /// Which part of its keys it keeps in stable draws: see [`kept`].
    fn kept(&self) -> u32 {
        EVERYTHING
    }
}

/// The part of one that keeps all its keys.
pub const EVERYTHING: u32 = u32::MAX;

/// Below this load, a share of what an edge can take, nobody gives keys up: with so little to do a warm cache is worth
/// more than balance.
const IDLE: f64 = 0.1;

/// The part of its keys that an edge with this load keeps, of [`EVERYTHING`], where it may have `bound` times the mean:
/// as much as brings the load that it has with all of them to the bound. Who gave keys up has less load, and takes some
/// back; since clients follow within the TTL of answers and reports come sooner, it settles in between.
pub fn kept(load: f64, mean: f64, bound: f64) -> u32 {
    let most = (bound * mean).max(IDLE);
    // Written so that what is no number gives nothing up.
    if load > most { (most / load * f64::from(EVERYTHING)) as u32 } else { EVERYTHING }
}

/// Positions that were drawn, best first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drawn {
    positions: [u16; MAX_ANSWERS],
    length: usize,
}

impl Drawn {
    /// The positions.
    pub fn as_slice(&self) -> &[u16] {
        self.positions.get(..self.length).unwrap_or_default()
    }

    fn push(&mut self, position: usize) {
        if let (Some(slot), Ok(position)) =
            (self.positions.get_mut(self.length), u16::try_from(position))
        {
            *slot = position;
            self.length += 1;
        }
    }
}

/// What a draw depends on.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Random.
    pub draw: u64,
    /// The client's network.
    pub client: u64,
    /// The name asked for.
    pub name: u64,
}

/// Draws `count` of the candidates.
pub fn pick(by: Pick, candidates: &[impl Candidate], count: usize, keys: &Keys) -> Drawn {
    let count = count.min(MAX_ANSWERS).min(candidates.len());
    let mut drawn = Drawn::default();
    match by {
        Pick::All => {
            let total = candidates.len() as u64;
            let start = keys.draw.checked_rem(total).unwrap_or(0) as usize;
            for position in (start..candidates.len()).chain(0..start).take(count) {
                drawn.push(position);
            }
        }
        Pick::Weighted => rank(candidates, count, keys.draw, |_| true, &mut drawn),
        Pick::HashClient => bounded(candidates, count, keys.client, &mut drawn),
        Pick::HashName => bounded(candidates, count, keys.name, &mut drawn),
    }
    drawn
}

/// The best scores among those that keep this key, then among those that gave it up.
fn bounded(candidates: &[impl Candidate], count: usize, key: u64, drawn: &mut Drawn) {
    rank(candidates, count, key, |candidate| keeps(candidate, key), drawn);
    if drawn.length < count {
        rank(candidates, count, key, |candidate| !keeps(candidate, key), drawn);
    }
}

/// Whether a candidate keeps this key. Keys that a smaller part holds are in every larger one.
fn keeps(candidate: &impl Candidate, key: u64) -> bool {
    let kept = candidate.kept();
    // Another hash than that of the score: a candidate's own keys all have good scores.
    kept == EVERYTHING
        || (xxh3_64_with_seed(&candidate.key().to_be_bytes(), !key) >> 32) < u64::from(kept)
}

/// Adds the best scores among those that `counts`, until there are `count`: one pass that keeps the best in order.
fn rank<C: Candidate>(
    candidates: &[C],
    count: usize,
    key: u64,
    counts: impl Fn(&C) -> bool,
    drawn: &mut Drawn,
) {
    let first = drawn.length;
    let mut scores = [0.0; MAX_ANSWERS];
    for (position, candidate) in (0_u16..).zip(candidates) {
        if !counts(candidate) {
            continue;
        }
        let score = score(candidate.key(), candidate.weight(), key);
        let best = scores.get(first..drawn.length).unwrap_or_default();
        let at = first + best.iter().take_while(|other| **other >= score).count();
        if at >= count {
            continue;
        }
        drawn.length = (drawn.length + 1).min(count);
        if let (Some(scores), Some(positions)) =
            (scores.get_mut(at..drawn.length), drawn.positions.get_mut(at..drawn.length))
        {
            scores.rotate_right(1);
            positions.rotate_right(1);
            if let (Some(to), Some(taken)) = (scores.first_mut(), positions.first_mut()) {
                (*to, *taken) = (score, position);
            }
        }
    }
}

/// Weighted rendezvous: with `u` uniform in (0, 1), the greatest `-weight / ln(u)` wins with a probability in
/// proportion to the weight. Weight 0 scores below all others, in a stable order of its own.
pub fn score(candidate: u64, weight: u32, key: u64) -> f64 {
    let hash = xxh3_64_with_seed(&candidate.to_le_bytes(), key);
    // 53 bits, and a half so that neither 0 nor 1 can come out.
    let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    if weight == 0 { uniform - 1.0 } else { f64::from(weight) / -uniform.ln() }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct C(u64, u32);
    /// With the part of its keys that it keeps.
    struct K(u64, u32);
    impl Candidate for K {
        fn key(&self) -> u64 {
            self.0
        }
        fn weight(&self) -> u32 {
            1
        }
        fn kept(&self) -> u32 {
            self.1
        }
    }
    impl Candidate for C {
        fn key(&self) -> u64 {
            self.0
        }
        fn weight(&self) -> u32 {
            self.1
        }
    }

    fn keys(n: u64) -> Keys {
        Keys { draw: n, client: n, name: n }
    }

    fn drawn(by: Pick, candidates: &[C], count: usize, n: u64) -> Vec<u16> {
        pick(by, candidates, count, &keys(n)).as_slice().to_vec()
    }

    #[test]
    fn all_rotates() {
        let three = [C(1, 1), C(2, 1), C(3, 1)];
        assert_eq!(drawn(Pick::All, &three, 9, 0), [0, 1, 2]);
        assert_eq!(drawn(Pick::All, &three, 2, 2), [2, 0]);
        assert!(drawn(Pick::All, &[], 2, 5).is_empty());
    }

    #[test]
    fn draws_are_distinct_and_as_many_as_asked() {
        let many: Vec<_> = (0..40).map(|n| C(n, u32::try_from(n % 3).unwrap())).collect();
        for by in [Pick::All, Pick::Weighted, Pick::HashClient, Pick::HashName] {
            for n in 0..50 {
                let mut positions = drawn(by, &many, 99, n);
                positions.sort_unstable();
                positions.dedup();
                assert_eq!(positions.len(), MAX_ANSWERS);
            }
        }
    }

    #[test]
    fn shares_follow_weights() {
        let candidates = [C(1, 1), C(2, 3), C(3, 0)];
        let mut counts = [0_u32; 3];
        for n in 0..10_000 {
            counts[usize::from(drawn(Pick::Weighted, &candidates, 1, n)[0])] += 1;
        }
        assert_eq!(counts[2], 0);
        assert!((2300..2700).contains(&counts[0]), "{counts:?}");
        assert_eq!(drawn(Pick::Weighted, &[C(3, 0)], 1, 7), [0]);
    }

    #[test]
    fn a_candidate_that_goes_moves_only_its_own_keys() {
        let before = [C(1, 1), C(2, 1), C(3, 1)];
        let after = [C(1, 1), C(3, 1)];
        for n in 0..1000 {
            let first = before[usize::from(drawn(Pick::HashClient, &before, 1, n)[0])].0;
            let second = after[usize::from(drawn(Pick::HashClient, &after, 1, n)[0])].0;
            assert!(first == second || first == 2);
        }
    }

    #[test]
    fn what_a_share_is_kept_of_follows_from_the_load() {
        let part = |load, mean| f64::from(kept(load, mean, 1.25)) / f64::from(EVERYTHING);
        assert_eq!(part(0.5, 0.5), 1.0);
        assert_eq!(part(0.625, 0.5), 1.0, "at the bound");
        assert!((part(1.25, 0.5) - 0.5).abs() < 1e-6, "at twice the bound");
        assert_eq!(part(0.09, 0.001), 1.0, "idle");
        assert_eq!(part(0.0, 0.0), 1.0);
        for load in [f64::NAN, -1.0] {
            assert_eq!(part(load, 0.5), 1.0);
        }
        assert_eq!(part(f64::INFINITY, 0.5), 0.0);
    }

    #[test]
    fn who_has_too_much_gives_up_a_part_that_nests_to_the_next_ranked() {
        let at = |kept: f64, count: usize, n: u64| -> Vec<u64> {
            let part = (kept * f64::from(EVERYTHING)) as u32;
            let edges = [K(1, EVERYTHING), K(2, part), K(3, EVERYTHING)];
            let drawn = pick(Pick::HashName, &edges, count, &keys(n));
            drawn.as_slice().iter().map(|position| edges[usize::from(*position)].0).collect()
        };
        for (part, expected) in [(0.9, 0.9), (0.5, 0.5), (0.1, 0.1), (0.0, 0.0)] {
            let (mut own, mut stayed) = (0.0, 0.0);
            for n in 0..6000 {
                let ranked = at(1.0, 3, n);
                let now = at(part, 1, n);
                if ranked[0] != 2 {
                    assert_eq!(now[0], ranked[0], "the others' keys stay");
                    continue;
                }
                own += 1.0;
                if now[0] == 2 {
                    stayed += 1.0;
                    assert_eq!(
                        at(part + 0.1, 1, n),
                        [2],
                        "what a smaller part holds is in a larger one"
                    );
                } else {
                    assert_eq!(now[0], ranked[1], "to the next");
                    assert_eq!(
                        at(part, 3, n),
                        [ranked[1], ranked[2], 2],
                        "and it stays the last resort"
                    );
                }
            }
            let share: f64 = stayed / own;
            assert!((share - expected).abs() < 0.03, "{share} {expected}");
        }
    }

    #[test]
    fn ranks_are_those_of_a_plain_sort() {
        for n in 0..300 {
            let some: Vec<_> =
                (0..1 + n % 20).map(|c| C(c * 77, u32::try_from(c % 4).unwrap())).collect();
            let mut sorted: Vec<usize> = (0..some.len()).collect();
            let of = |at: usize| score(some[at].0, some[at].1, n);
            sorted.sort_by(|a, b| of(*b).total_cmp(&of(*a)));
            let wanted: Vec<u16> = sorted.iter().take(MAX_ANSWERS).map(|at| *at as u16).collect();
            assert_eq!(drawn(Pick::HashClient, &some, 99, n), wanted);
        }
    }
}
