//! Stable and random draws among a datacenter's edges, and among datacenters by weight.
//!
//! Stable draws are rendezvous hashing: each candidate gets a score from its own name and the key, the best scores win.
//! So a candidate that goes away moves only its own keys. Randomness comes in as a number.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::world::{MAX_ANSWERS, Pick};

/// One that can be drawn.
pub trait Candidate {
    /// Its stable number.
    fn key(&self) -> u64;
    /// Its share; 0: only when no other is left.
    fn weight(&self) -> u32;
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
        Pick::Weighted => rank(candidates, count, keys.draw, &mut drawn),
        Pick::HashClient => rank(candidates, count, keys.client, &mut drawn),
        Pick::HashName => rank(candidates, count, keys.name, &mut drawn),
    }
    drawn
}

/// The `count` best scores, each found by one pass: count and candidates are few.
fn rank(candidates: &[impl Candidate], count: usize, key: u64, drawn: &mut Drawn) {
    for _ in 0..count {
        let left = (0..candidates.len())
            .zip(candidates)
            .filter(|(position, _)| !drawn.as_slice().contains(&(*position as u16)));
        let best = left.max_by(|(_, a), (_, b)| {
            score(a.key(), a.weight(), key).total_cmp(&score(b.key(), b.weight(), key))
        });
        if let Some((position, _)) = best {
            drawn.push(position);
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
}
