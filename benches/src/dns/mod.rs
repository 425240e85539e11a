//! DNS servers side by side: one world written down for each of them, processes of their own on loopback, loads that
//! check what comes back.
//!
//! [`world`] is what all serve; [`peers`] writes it as each server's configuration; [`crate::process`] runs them and
//! reads what they cost, [`ready`] waits for them; [`load`] and [`stream`] ask; [`echo`] is the floor that no server can go below; [`goals`] and [`table`]
//! tell what came of it. [`message`] makes queries; the differential tests in [`crate::compare`] stand on the same.

pub mod cases;
pub mod echo;
pub mod goals;
pub mod hickory;
pub mod latency;
pub mod load;
pub mod message;
pub mod peers;
pub mod ready;
pub mod stream;
pub mod table;
pub mod world;
