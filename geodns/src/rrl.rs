//! Response rate limiting: a client network gets only so many answers over UDP in a second, so that forged queries
//! cannot make this server a weapon against the network whose address they carry.
//!
//! Accounts are by client network and [`Kind`] of answer: a flood of forged names that do not exist leaves those who ask
//! for names that do. They are not by name: whoever forges queries would take another name for each. An account is a
//! bucket that holds one second's answers (GCRA: one number, the time at which it will be full again).
//!
//! All threads share one table of 32,768 sets of 8 accounts: 2 MiB, whatever comes. It has no lock and takes nothing on
//! the heap. Of a full set, the account that is nearest to being unused gives way, so that a network under attack keeps
//! its own. Who says with a valid cookie, or over TCP, that its address is its own, is not asked about here.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use shared::prefix::{IpRangeMap, LookupTable, Prefix};
use shared::time::UnixMillis;
use siphasher::sip::SipHasher13;

/// What accounts are kept apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Data.
    Positive,
    /// No such name, or no such data.
    Negative,
    /// A delegation.
    Referral,
    /// Anything that was refused.
    Error,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent.
    Send,
    /// It is over the limit; what is sent instead lets a client that is no forgery go on.
    Slip,
    /// It is over the limit and not sent.
    Drop,
}

/// What is limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Answers in a second, at least 1.
    pub rate: u32,
    /// Every how manieth answer over the limit slips; 0: none. At most 15.
    pub slip: u8,
    /// Bits of a client network, IPv4.
    pub prefix_v4: u8,
    /// Bits of a client network, IPv6.
    pub prefix_v6: u8,
    /// Networks without a limit.
    pub exempt: Vec<Prefix>,
}

/// Sets of the table: a power of two.
const SETS: usize = 1 << 15;
/// Accounts of a set: a cache line.
const WAYS: usize = 8;

/// Ticks of an account's clock in a millisecond.
const TICKS_PER_MILLI: u64 = 4000;
/// What a bucket holds: one second.
const BURST: u64 = 1000 * TICKS_PER_MILLI;
/// The clock goes round in 50 days; an account that lies further ahead than its bucket holds is one of an earlier round.
const CLOCK_BITS: u32 = 44;
const CLOCK_MASK: u64 = (1 << CLOCK_BITS) - 1;
const SLIP_BITS: u32 = 4;

/// An account that several threads write to at once is tried this often; then the answer is sent.
const TRIES: usize = 4;

#[derive(Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// A client's network, as a number that nobody outside can foresee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(u64);

/// The table of accounts.
pub struct Limiter {
    settings: Settings,
    /// What one answer costs.
    cost: u64,
    exempt: LookupTable<bool>,
    key: SipHasher13,
    sets: Box<[Set]>,
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Limiter").field(&self.settings).finish()
    }
}

/// One account: whose it is, how many answers were over the limit since one slipped, and when the bucket will be full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Account {
    mark: u16,
    over: u8,
    full_at: u64,
}

impl Account {
    const fn unpack(word: u64) -> Self {
        Self {
            mark: (word >> (CLOCK_BITS + SLIP_BITS)) as u16,
            over: (word >> CLOCK_BITS) as u8 & ((1 << SLIP_BITS) - 1),
            full_at: word & CLOCK_MASK,
        }
    }

    const fn pack(self) -> u64 {
        (self.mark as u64) << (CLOCK_BITS + SLIP_BITS)
            | (self.over as u64) << CLOCK_BITS
            | self.full_at
    }

    /// How much of the bucket is used up.
    const fn used(self, now: u64) -> u64 {
        let ahead = self.full_at.wrapping_sub(now) & CLOCK_MASK;
        if ahead > BURST { 0 } else { ahead }
    }

    /// Takes the cost of one answer, if it is there.
    const fn charge(self, now: u64, cost: u64, slip: u8) -> (Self, Verdict) {
        let used = self.used(now);
        if used + cost <= BURST {
            let full_at = (now + used + cost) & CLOCK_MASK;
            return (Self { full_at, ..self }, Verdict::Send);
        }
        let over = self.over + 1;
        match slip {
            0 => (self, Verdict::Drop),
            slip if over >= slip => (Self { over: 0, ..self }, Verdict::Slip),
            _ => (Self { over, ..self }, Verdict::Drop),
        }
    }
}

impl Limiter {
    /// An empty table. `key` is random and nobody else's, so that networks cannot be chosen to share accounts.
    pub fn new(settings: Settings, key: &[u8; 16]) -> Self {
        let exempt = settings.exempt.iter().map(|network| (*network, true));
        Self {
            cost: (BURST / u64::from(settings.rate.max(1))).max(1),
            exempt: LookupTable::new(&IpRangeMap::from_prefixes(false, exempt)),
            key: SipHasher13::new_with_key(key),
            sets: (0..SETS).map(|_| Set::default()).collect(),
            settings,
        }
    }

    /// What it was made with.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where the table lies.
    pub fn region(&self) -> Range<*const u8> {
        let Range { start, end } = self.sets.as_ptr_range();
        start.cast()..end.cast()
    }

    /// Octets of the table.
    pub const fn memory(&self) -> usize {
        SETS * size_of::<Set>()
    }

    /// Puts one answer on the account of a client's network.
    pub fn account(
        &self,
        (client, network): (IpAddr, Network),
        kind: Kind,
        now: UnixMillis,
    ) -> Verdict {
        let verdict = self.charge(network, kind, now.0.wrapping_mul(TICKS_PER_MILLI) & CLOCK_MASK);
        // Few are exempt, and few of them are over the limit: that comes last.
        if verdict != Verdict::Send && self.exempt.lookup(client.to_canonical()).0 {
            Verdict::Send
        } else {
            verdict
        }
    }

    fn charge(&self, Network(hash): Network, kind: Kind, now: u64) -> Verdict {
        // The accounts of a network lie in one set, each under a mark of its own.
        let mark = (hash >> 48) as u16 ^ kind as u16;
        let Some(Set(accounts)) = self.sets.get(hash as usize % SETS) else { return Verdict::Send };
        for _ in 0..TRIES {
            let Some((at, word)) = find(accounts, mark, now) else { break };
            let mut account = Account::unpack(word);
            if account.mark != mark {
                account = Account { mark, over: 0, full_at: now };
            }
            let (charged, verdict) = account.charge(now, self.cost, self.settings.slip);
            let charged = charged.pack();
            if charged == word
                || at.compare_exchange(word, charged, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            {
                return verdict;
            }
        }
        Verdict::Send
    }

    /// Where the accounts of a network lie.
    #[inline]
    pub fn accounts_at(&self, Network(hash): Network) -> *const u8 {
        self.sets.as_ptr().wrapping_add(hash as usize % SETS).cast()
    }

    /// The network of a client.
    pub fn network(&self, client: IpAddr) -> Network {
        let (family, bits, length) = match client.to_canonical() {
            IpAddr::V4(v4) => (4, u128::from(v4.to_bits()) << 96, self.settings.prefix_v4),
            IpAddr::V6(v6) => (6, v6.to_bits(), self.settings.prefix_v6),
        };
        let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length.into())).unwrap_or(0);
        let mut octets = [0; 17];
        if let Some((head, tail)) = octets.split_first_chunk_mut::<16>() {
            *head = (bits & mask).to_be_bytes();
            tail.fill(family);
        }
        Network(self.key.hash(&octets))
    }
}

/// The account with this mark, or the one that gives way to it: the one that is nearest to being unused.
fn find(accounts: &[AtomicU64; WAYS], mark: u16, now: u64) -> Option<(&AtomicU64, u64)> {
    let words = || accounts.iter().map(|account| (account, account.load(Ordering::Relaxed)));
    words()
        .find(|(_, word)| Account::unpack(*word).mark == mark)
        .or_else(|| words().min_by_key(|(_, word)| Account::unpack(*word).used(now)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: u64 = 1_700_000_000_000;

    fn limiter(rate: u32, slip: u8) -> Limiter {
        let exempt = vec!["192.0.2.0/28".parse().unwrap(), "2001:db8:ffff::/48".parse().unwrap()];
        Limiter::new(Settings { rate, slip, prefix_v4: 24, prefix_v6: 56, exempt }, &[7; 16])
    }

    fn at(limiter: &Limiter, client: &str, kind: Kind, milli: u64) -> Verdict {
        let client = client.parse().unwrap();
        limiter.account(
            (client, limiter.network(client)),
            kind,
            UnixMillis(START.wrapping_add(milli)),
        )
    }

    /// Sent, slipped and dropped of `count` answers, `every` milliseconds apart.
    fn flood(limiter: &Limiter, client: &str, kind: Kind, count: u64, every: u64) -> [u64; 3] {
        let mut seen = [0; 3];
        for n in 0..count {
            seen[at(limiter, client, kind, n * every) as usize] += 1;
        }
        seen
    }

    #[test]
    fn the_first_second_and_then_the_rate() {
        // Ten seconds at 1000 a second: a bucket of 50, and 50 in each second.
        let [sent, slipped, dropped] =
            flood(&limiter(50, 2), "198.51.100.1", Kind::Positive, 10_000, 1);
        assert!((545..=550).contains(&sent), "{sent}");
        assert!(slipped.abs_diff(dropped) <= 1, "{slipped} {dropped}");
        for rate in [1, 7, 50, 999] {
            let every = 1000 / u64::from(rate) + 1;
            let slow = flood(&limiter(rate, 2), "198.51.100.1", Kind::Positive, 500, every);
            assert_eq!(slow, [500, 0, 0], "at its rate of {rate} a client is never over it");
        }
    }

    #[test]
    fn every_nth_slips() {
        for (slip, slipped, dropped) in
            [(0, 0, 90), (1, 90, 0), (2, 45, 45), (3, 30, 60), (10, 9, 81)]
        {
            let seen = flood(&limiter(10, slip), "198.51.100.1", Kind::Negative, 100, 0);
            assert_eq!(seen, [10, slipped, dropped], "slip {slip}");
        }
    }

    #[test]
    fn networks_and_kinds_have_their_own_accounts() {
        let limiter = limiter(5, 0);
        let exhaust = |client, kind| flood(&limiter, client, kind, 20, 0)[0];
        assert_eq!(exhaust("198.51.100.1", Kind::Positive), 5);
        assert_eq!(exhaust("198.51.100.254", Kind::Positive), 0, "the same /24");
        assert_eq!(exhaust("::ffff:198.51.100.9", Kind::Positive), 0, "the same, mapped");
        assert_eq!(exhaust("198.51.101.1", Kind::Positive), 5);
        assert_eq!(exhaust("198.51.100.1", Kind::Negative), 5);
        assert_eq!(exhaust("198.51.100.1", Kind::Error), 5);
        assert_eq!(exhaust("2001:db8::1", Kind::Positive), 5);
        assert_eq!(exhaust("2001:db8:0:ff::1", Kind::Positive), 0, "the same /56");
        assert_eq!(exhaust("2001:db8:0:100::1", Kind::Positive), 5);
    }

    #[test]
    fn exempt_networks_have_no_limit() {
        let limiter = limiter(1, 2);
        assert_eq!(flood(&limiter, "192.0.2.15", Kind::Error, 100, 0), [100, 0, 0]);
        assert_eq!(flood(&limiter, "2001:db8:ffff::1", Kind::Error, 100, 0), [100, 0, 0]);
        assert_ne!(flood(&limiter, "192.0.2.16", Kind::Error, 100, 0), [100, 0, 0]);
    }

    #[test]
    fn a_quiet_second_fills_the_bucket_and_no_more() {
        let limiter = limiter(10, 0);
        let burst = |from: u64| {
            (0..50)
                .filter(|_| at(&limiter, "10.0.0.1", Kind::Positive, from) == Verdict::Send)
                .count()
        };
        assert_eq!(
            [burst(0), burst(500), burst(1000), burst(9000), burst(9000)],
            [10, 5, 5, 10, 0]
        );
    }

    #[test]
    fn a_clock_that_is_set_back_or_goes_round_locks_nobody_out() {
        let limiter = limiter(10, 0);
        let burst = |now: u64| {
            let send = |_: &i32| {
                at(&limiter, "10.0.0.1", Kind::Positive, now.wrapping_sub(START)) == Verdict::Send
            };
            (0..50).filter(send).count()
        };
        assert_eq!(burst(START), 10);
        assert_eq!(burst(START - 3_600_000), 10);
        let round = (1 << CLOCK_BITS) / TICKS_PER_MILLI;
        assert_eq!(burst(round - 1), 10);
        assert_eq!(burst(round), 0, "the next millisecond, in the next round");
        assert_eq!(burst(round + 1001), 10);
    }

    #[test]
    fn a_flood_of_other_networks_does_not_free_the_one_under_attack() {
        let limiter = limiter(10, 0);
        assert_eq!(flood(&limiter, "203.0.113.1", Kind::Positive, 100, 0)[0], 10);
        // Four times as many networks as there are accounts, with one forged query each.
        for n in 0..(4 * SETS * WAYS) as u32 {
            let client = IpAddr::from((0x2000_0000_u32 + (n << 8)).to_be_bytes());
            let network = limiter.network(client);
            limiter.account((client, network), Kind::Positive, UnixMillis(START));
        }
        assert_eq!(flood(&limiter, "203.0.113.1", Kind::Positive, 100, 0)[0], 0);
        assert_eq!(limiter.memory(), 2 << 20);
    }

    #[test]
    fn threads_share_one_account() {
        let limiter = limiter(100, 0);
        let sent = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    sent.fetch_add(
                        flood(&limiter, "10.0.0.1", Kind::Positive, 1000, 0)[0],
                        Ordering::Relaxed,
                    )
                });
            }
        });
        // One that others write to all the time is let through after a few tries.
        let sent = sent.into_inner();
        assert!((100..200).contains(&sent), "{sent}");
    }

    proptest! {
        /// Whatever the rhythm, no window of a second sees more than twice the rate, and no long time more than it.
        #[test]
        fn no_rhythm_gets_more(rate in 1_u32..200, gaps in prop::collection::vec(0_u64..100, 1..400)) {
            let limiter = limiter(rate, 0);
            let mut sent = Vec::new();
            let mut now = 0;
            for gap in gaps {
                now += gap;
                for _ in 0..5 {
                    if at(&limiter, "10.0.0.1", Kind::Positive, now) == Verdict::Send {
                        sent.push(now);
                    }
                }
            }
            for (index, from) in sent.iter().enumerate() {
                let inside = sent[index..].iter().take_while(|at| **at < from + 1000).count();
                prop_assert!(inside <= 2 * rate as usize + 1, "{inside} of {rate}");
            }
            let most = u64::from(rate) * (now + 1000) / 1000 + 1;
            prop_assert!(sent.len() as u64 <= most, "{} of {most}", sent.len());
        }

        #[test]
        fn accounts_are_kept_whole(mark: u16, over in 0_u8..16, full_at in 0..=CLOCK_MASK) {
            let account = Account { mark, over, full_at };
            prop_assert_eq!(Account::unpack(account.pack()), account);
        }
    }
}
