//! Which of an origin's servers a request goes to. Pure choice: health, counters and connections are the caller's.

use crate::tier;

/// How servers share the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// The fewest requests in flight for its weight.
    LeastConnections,
    /// By the cache key, so that a server sees the same URLs.
    Hash,
}

/// A server as the choice sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerView {
    /// Stable hash of its URL ([`crate::tier::name_hash`]).
    pub id: u64,
    /// It answers its health checks.
    pub up: bool,
    /// Its share; at least 1 counts.
    pub weight: u32,
    /// Requests in flight.
    pub in_flight: u32,
}

/// Servers already tried for a request, by index; those beyond the 64th count as tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried(u64);

impl Tried {
    /// Adds one.
    pub const fn add(&mut self, index: usize) {
        if index < 64 {
            self.0 |= 1 << index;
        }
    }

    /// Whether it was tried.
    pub const fn has(self, index: usize) -> bool {
        index >= 64 || self.0 & (1 << index) != 0
    }
}

/// The server for a request: among those that are up and not yet tried; when none is up, among those not yet tried
/// (health never empties a choice). `None` when all were tried.
///
/// `tick` grows by one per request (an atomic counter of the caller); `key` is the cache key's hash.
pub fn choose(
    balance: Balance,
    servers: &[ServerView],
    tried: Tried,
    tick: u64,
    key: u128,
) -> Option<usize> {
    let untried = |at: &usize| !tried.has(*at);
    let any_up = (0..servers.len()).any(|at| untried(&at) && servers[at].up);
    let candidates = || (0..servers.len()).filter(untried).filter(|at| servers[*at].up || !any_up);
    match balance {
        Balance::RoundRobin => {
            let total: u64 = candidates().map(|at| weight(&servers[at])).sum();
            let mut slot = slot(tick, total)?;
            candidates().find(|at| {
                let share = weight(&servers[*at]);
                let mine = slot < share;
                slot = slot.saturating_sub(share);
                mine
            })
        }
        Balance::LeastConnections => {
            // Among equals the turn decides, so that idle servers share the load too.
            let count = servers.len();
            let turn = usize::try_from(tick % u64::try_from(count).ok()?.max(1)).ok()?;
            candidates().min_by(|a, b| {
                let (x, y) = (&servers[*a], &servers[*b]);
                let load = |server: &ServerView| u128::from(server.in_flight) + 1;
                let after = |at: usize| (at + count - turn) % count;
                (load(x) * u128::from(weight(y)))
                    .cmp(&(load(y) * u128::from(weight(x))))
                    .then_with(|| after(*a).cmp(&after(*b)))
            })
        }
        Balance::Hash => candidates().max_by(|a, b| {
            let score =
                |at: usize| tier::score(key, servers[at].id, f64::from(servers[at].weight.max(1)));
            score(*a).total_cmp(&score(*b)).then_with(|| b.cmp(a))
        }),
    }
}

fn weight(server: &ServerView) -> u64 {
    u64::from(server.weight.max(1))
}

/// The slot of a turn in a round of `total` slots. Each slot comes once per round, and turns that follow one another fall
/// far apart (the stride is near the golden section of the round), so that a heavy server's turns are spread evenly.
fn slot(tick: u64, total: u64) -> Option<u64> {
    let turn = tick.checked_rem(total)?;
    let mut stride = (u128::from(total) * 618).div_ceil(1000);
    while gcd(stride, u128::from(total)) != 1 {
        stride += 1;
    }
    u64::try_from(u128::from(turn) * stride % u128::from(total)).ok()
}

const fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn servers(weights: &[u32]) -> Vec<ServerView> {
        weights
            .iter()
            .enumerate()
            .map(|(i, weight)| ServerView {
                id: tier::name_hash(&format!("s{i}")),
                up: true,
                weight: *weight,
                in_flight: 0,
            })
            .collect()
    }

    fn turns(servers: &[ServerView], count: u64) -> Vec<usize> {
        (0..count)
            .filter_map(|tick| choose(Balance::RoundRobin, servers, Tried::default(), tick, 0))
            .collect()
    }

    #[test]
    fn round_robin_is_smooth() {
        assert_eq!(turns(&servers(&[1, 1]), 4), [0, 1, 0, 1]);
        assert_eq!(turns(&servers(&[2, 1]), 6), [0, 1, 0, 0, 1, 0]);
        // The heavy one is never kept waiting, nor asked for long alone.
        let heavy = turns(&servers(&[5, 1, 1]), 700);
        let longest = heavy.chunk_by(|a, b| a == b).map(<[usize]>::len).max().unwrap();
        assert!(longest <= 5, "{longest}");
    }

    #[test]
    fn health_never_empties_a_choice() {
        let mut two = servers(&[1, 1]);
        two[0].up = false;
        assert_eq!(turns(&two, 3), [1, 1, 1]);
        two[1].up = false;
        assert_eq!(turns(&two, 4), [0, 1, 0, 1]);
        let mut tried = Tried::default();
        for balance in [Balance::RoundRobin, Balance::LeastConnections, Balance::Hash] {
            tried = Tried::default();
            let first = choose(balance, &two, tried, 7, 9).unwrap();
            tried.add(first);
            let second = choose(balance, &two, tried, 8, 9).unwrap();
            assert_ne!(first, second);
            tried.add(second);
            assert_eq!(choose(balance, &two, tried, 9, 9), None);
            assert_eq!(choose(balance, &[], Tried::default(), 0, 0), None);
        }
        assert!(tried.has(0) && tried.has(1) && !tried.has(2) && tried.has(64));
        tried.add(99);
    }

    #[test]
    fn a_retry_prefers_a_server_that_is_up() {
        let mut three = servers(&[1, 1, 1]);
        three[1].up = false;
        let mut tried = Tried::default();
        tried.add(0);
        assert_eq!(choose(Balance::RoundRobin, &three, tried, 5, 0), Some(2));
        tried.add(2);
        assert_eq!(choose(Balance::RoundRobin, &three, tried, 5, 0), Some(1));
    }

    #[test]
    fn least_connections_counts_weights() {
        let least = |servers: &[ServerView], tick| {
            choose(Balance::LeastConnections, servers, Tried::default(), tick, 0)
        };
        let mut three = servers(&[1, 1, 2]);
        three[0].in_flight = 3;
        three[1].in_flight = 2;
        three[2].in_flight = 4;
        assert_eq!(least(&three, 0), Some(2));
        three[2].in_flight = 9;
        assert_eq!(least(&three, 0), Some(1));
        let idle = servers(&[1, 1, 1]);
        assert_eq!(
            [0, 1, 2, 3].map(|tick| least(&idle, tick)),
            [Some(0), Some(1), Some(2), Some(0)]
        );
    }

    #[test]
    fn hash_moves_only_the_keys_of_a_server_that_goes() {
        let all = servers(&[1, 1, 1, 1]);
        let mut without = all.clone();
        without[1].up = false;
        for i in 0..1000u128 {
            let pick = |servers: &[ServerView]| {
                choose(Balance::Hash, servers, Tried::default(), 0, i).unwrap()
            };
            let before = pick(&all);
            if before != 1 {
                assert_eq!(pick(&without), before);
            }
        }
    }

    proptest! {
        /// In every round each server gets exactly its weight.
        #[test]
        fn rounds_are_exact(weights in proptest::collection::vec(1..40u32, 1..8), start in 0..1000u64) {
            let all = servers(&weights);
            let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            let mut counts = vec![0; weights.len()];
            for tick in start * total..(start + 1) * total {
                counts[choose(Balance::RoundRobin, &all, Tried::default(), tick, 0).unwrap()] += 1;
            }
            prop_assert_eq!(counts, weights);
        }

        #[test]
        fn huge_weights_do_not_overflow(weights in proptest::collection::vec(any::<u32>(), 0..6), tick in any::<u64>(), key in any::<u128>(), load in any::<u32>()) {
            let mut all = servers(&weights);
            for server in &mut all {
                server.in_flight = load;
            }
            for balance in [Balance::RoundRobin, Balance::LeastConnections, Balance::Hash] {
                let choice = choose(balance, &all, Tried::default(), tick, key);
                prop_assert_eq!(choice.is_none(), all.is_empty());
            }
        }
    }
}
