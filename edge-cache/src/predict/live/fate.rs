//! What a request says of the cache that it was for.

use crate::semantics::Reason;
use crate::semantics::reason::Outcome;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The store answered, or a fetch that was going on.
    Hit,
    /// Nothing was stored.
    Absent,
    /// Something was stored and could not be used: it was fetched again, as it would have been by a cache of any size.
    Renewed,
    /// It was fetched and is not stored.
    Unstored,
}

impl Fate {
    /// What a reason says of it. None: no cache has a part in it. `collapsed`: it was answered from another's fetch.
    pub const fn of(reason: Reason, collapsed: bool) -> Option<Self> {
        use Reason as R;
        match reason.outcome() {
            Outcome::Hit | Outcome::Stale | Outcome::Revalidated => Some(Self::Hit),
            Outcome::Miss if collapsed => Some(Self::Hit),
            Outcome::Miss => Some(match reason {
                R::UriMiss | R::VaryMiss | R::PartialMiss => Self::Absent,
                R::Expired
                | R::NoCache
                | R::SoftPurged
                | R::Purged
                | R::RequestNoCache
                | R::RequestMaxAge
                | R::RequestMinFresh => Self::Renewed,
                _ => Self::Unstored,
            }),
            Outcome::Pass | Outcome::Error => None,
        }
    }
}
