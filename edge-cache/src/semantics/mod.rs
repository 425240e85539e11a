//! The rules of HTTP that a shared cache in front of an origin obeys (RFC 9110, 9111 and companions), as plain functions
//! over values. Nothing here knows a socket, a clock or a store: `now` and headers come in, what to do goes out.
//!
//! * [`policy`]: what the operator decided for a route, in the form the rules use.
//! * [`reason`]: the one list of reason codes.
//! * [`cache_control`], [`structured`], [`surrogate`], [`date`]: parsers.
//! * [`freshness`]: may this response be stored, and how long is it fresh.
//! * [`head`]: a stored response without its body.
//! * [`vary`], [`language`], [`search`]: which stored response a request selects.
//! * [`conditional`], [`update`]: preconditions and revalidation, and what a 304 makes of what is stored.
//! * [`invalidation`]: what an unsafe request makes invalid.
//! * [`range`]: byte ranges.
//! * [`headers`], [`marks`]: what is taken off and put on at each hop.

mod age;
pub mod cache_control;
pub mod compress;
pub mod conditional;
pub mod date;
mod deception;
pub mod fields;
pub mod freshness;
pub mod head;
pub mod headers;
pub mod invalidation;
pub mod language;
pub mod marks;
pub mod policy;
pub mod range;
pub mod reason;
pub mod search;
pub mod structured;
pub mod surrogate;
mod targeted;
pub mod update;
mod validator;
pub mod vary;

pub use fields::{Fields, Lines, SharedFields};
pub use head::{Life, StoredHead};
pub use policy::{Policy, Profile, Ranges};
pub use reason::Reason;
