//! A request of a trace.

/// The number of an object.
pub type Id = u64;

/// A request for an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When, in milliseconds since the trace began.
    pub at: u64,
    /// The object.
    pub id: Id,
    /// The length of its body.
    pub bytes: u64,
    /// How long the response may be used without asking, in seconds.
    pub ttl: u32,
}
