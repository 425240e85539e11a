//! Which parent an edge asks (DESIGN §7.5): rendezvous hashing over the cache key, so that every edge chooses alike and a
//! parent that comes or goes moves only its own keys; bounded load, so that no parent gets far more than its share.

/// A parent as the choice sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParentView {
    /// Stable hash of its name ([`name_hash`]).
    pub id: u64,
    /// It answers its health checks.
    pub up: bool,
    /// Its share against the others; 0 takes it out. Grows while a node that has returned is warming.
    pub weight: f64,
    /// Requests of ours that it is busy with.
    pub in_flight: u32,
}

/// Hash of a node's name, the same on every node and in every version.
pub fn name_hash(name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes())
}

/// Puts into `order` the indices of the parents to try, best first; empty when none is up (ask the origin).
///
/// A parent with more than `bounded_load` times its weighted share of all requests in flight goes behind the others;
/// `None`: no bound. The bound counts the request that is being placed, so an idle parent always takes one.
pub fn choose(
    key: u128,
    parents: &[ParentView],
    bounded_load: Option<f64>,
    order: &mut Vec<usize>,
) {
    order.clear();
    order.extend((0..parents.len()).filter(|at| is_candidate(&parents[*at])));
    let shares: f64 = order.iter().map(|at| parents[*at].weight).sum();
    let load: f64 = order.iter().map(|at| f64::from(parents[*at].in_flight)).sum::<f64>() + 1.0;
    let overloaded = |parent: &ParentView| {
        let bound = |factor: f64| (factor.max(1.0) * load * parent.weight / shares).ceil();
        bounded_load.is_some_and(|factor| f64::from(parent.in_flight) + 1.0 > bound(factor))
    };
    order.sort_by(|a, b| {
        let (a, b) = (&parents[*a], &parents[*b]);
        overloaded(a)
            .cmp(&overloaded(b))
            .then_with(|| score(key, b.id, b.weight).total_cmp(&score(key, a.id, a.weight)))
            // Two nodes of one hash: any order that does not depend on the list.
            .then_with(|| a.id.cmp(&b.id))
    });
}

fn is_candidate(parent: &ParentView) -> bool {
    parent.up && parent.weight > 0.0 && parent.weight.is_finite()
}

/// Weighted rendezvous (highest random weight): the winner among any set of nodes is the same as in any larger set without
/// those that would beat it, and wins a share of keys in proportion to its weight.
pub fn score(key: u128, id: u64, weight: f64) -> f64 {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&key.to_le_bytes());
    bytes[16..].copy_from_slice(&id.to_le_bytes());
    let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
    // 53 bits are what a double holds exactly; never 0, never 1.
    let unit = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -weight / unit.ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parents(count: usize) -> Vec<ParentView> {
        (0..count)
            .map(|i| ParentView {
                id: name_hash(&format!("p{i}")),
                up: true,
                weight: 1.0,
                in_flight: 0,
            })
            .collect()
    }

    fn order(key: u128, parents: &[ParentView], bound: Option<f64>) -> Vec<usize> {
        let mut order = vec![99];
        choose(key, parents, bound, &mut order);
        order
    }

    fn key(i: u32) -> u128 {
        xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes())
    }

    /// DESIGN §7.5: a parent that goes moves only its own keys, and moves them to each key's next choice.
    #[test]
    fn a_parent_that_goes_moves_only_its_own_keys() {
        let all = parents(5);
        let mut without = all.clone();
        without[2].up = false;
        for i in 0..2000 {
            let before = order(key(i), &all, None);
            let after = order(key(i), &without, None);
            let expected: Vec<_> = before.iter().copied().filter(|at| *at != 2).collect();
            assert_eq!(after, expected);
        }
    }

    #[test]
    fn shares_follow_weights() {
        let mut all = parents(3);
        all[0].weight = 2.0;
        all[2].weight = 0.5;
        let mut counts = [0u32; 3];
        for i in 0..35_000 {
            counts[order(key(i), &all, None)[0]] += 1;
        }
        for (count, expected) in counts.iter().zip([20_000, 10_000, 5_000]) {
            assert!(count.abs_diff(expected) < 500, "{counts:?}");
        }
    }

    /// A node that is warming takes a growing share, and keeps what it has taken.
    #[test]
    fn a_growing_weight_only_gains_keys() {
        let mut all = parents(4);
        all[1].weight = 0.1;
        let before: Vec<_> = (0..3000).map(|i| order(key(i), &all, None)[0]).collect();
        all[1].weight = 0.6;
        for (i, before) in before.iter().enumerate() {
            let now = order(key(u32::try_from(i).unwrap()), &all, None)[0];
            assert!(now == *before || now == 1);
        }
    }

    #[test]
    fn bounded_load_puts_the_busy_last() {
        let mut all = parents(3);
        let k = key(7);
        let plain = order(k, &all, Some(1.25));
        assert_eq!(plain, order(k, &all, None));
        all[plain[0]].in_flight = 10;
        assert_eq!(order(k, &all, Some(1.25)), [plain[1], plain[2], plain[0]]);
        assert_eq!(order(k, &all, None), plain);
        // Evenly busy is not overloaded.
        for parent in &mut all {
            parent.in_flight = 10;
        }
        assert_eq!(order(k, &all, Some(1.25)), plain);
    }

    #[test]
    fn none_up_is_nobody() {
        let mut all = parents(2);
        all[0].up = false;
        all[1].weight = 0.0;
        assert!(order(1, &all, Some(1.25)).is_empty());
        assert!(order(1, &[], None).is_empty());
        all[1].weight = f64::NAN;
        assert!(order(1, &all, Some(f64::NAN)).is_empty());
    }

    /// Part of the contract between nodes and versions.
    #[test]
    fn the_choice_never_changes() {
        assert_eq!(name_hash("icn-p1"), 1_407_820_681_335_467_623);
        let ids = ["icn-p1", "fra-p1", "iad-p1"].map(name_hash);
        let picks: Vec<_> = (0..8)
            .map(|i| {
                (0..3)
                    .max_by(|a, b| {
                        score(key(i), ids[*a], 1.0).total_cmp(&score(key(i), ids[*b], 1.0))
                    })
                    .unwrap()
            })
            .collect();
        assert_eq!(picks, [0, 0, 1, 2, 0, 1, 1, 2]);
    }

    proptest! {
        #[test]
        fn the_order_is_a_permutation_of_those_up(
            key in any::<u128>(),
            nodes in proptest::collection::vec((any::<u64>(), any::<bool>(), 0.0..10.0f64, any::<u32>()), 0..12),
            bound in proptest::option::of(0.0..3.0f64),
        ) {
            let all: Vec<_> = nodes
                .into_iter()
                .map(|(id, up, weight, in_flight)| ParentView { id, up, weight, in_flight })
                .collect();
            let mut chosen = order(key, &all, bound);
            chosen.sort_unstable();
            let expected: Vec<_> = (0..all.len()).filter(|at| all[*at].up && all[*at].weight > 0.0).collect();
            prop_assert_eq!(chosen, expected);
        }

        /// The list's order does not matter: every edge chooses alike.
        #[test]
        fn the_list_order_does_not_matter(key in any::<u128>(), turn in 0..6usize) {
            let all = parents(6);
            let mut turned = all.clone();
            turned.rotate_left(turn);
            let names = |list: &[ParentView]| order(key, list, None).iter().map(|at| list[*at].id).collect::<Vec<_>>();
            prop_assert_eq!(names(&all), names(&turned));
        }
    }
}
