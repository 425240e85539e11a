//! Two servers, the same bytes, the same answers: random queries to geodns and to a peer that serves the same world.
//!
//! [`worlds`] is what both serve; [`random`] makes queries from a seed; [`ask`] sends them; [`answer`] reads what comes
//! back and tells what differs; [`known`] names the differences that are meant, each with its reason. Anything else is
//! a fault of one of the two. [`resolver`] is the same with a caching resolver between.

pub mod answer;
pub mod ask;
pub mod known;
pub mod random;
pub mod resolver;
pub mod worlds;
