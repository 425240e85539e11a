//! What an edge says of itself at `/v1/report`, and `geodns` acts on.

use serde::{Deserialize, Serialize};

/// `GET /v1/report`. Fields that a reader does not know are passed over; of those that are missing nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The node's name.
    pub node: String,
    /// Its datacenter.
    pub datacenter: String,
    /// Whether it takes new clients.
    pub state: State,
    /// Client connections now.
    pub connections: u64,
    /// Requests now.
    pub in_flight: u64,
    /// The fullest of its limits, as a share of it: connections, or what else it measures. 1 is full.
    pub load: f64,
    /// Bits per second sent to clients, on the average of the last seconds.
    pub egress_bps: f64,
    /// Share of the requests since the start that the store answered. None: there were none.
    pub hit_ratio: Option<f64>,
    /// How warm the store is, 0 to 1.
    pub warmth: f64,
    /// Position in the control log up to which it has applied everything. None: it follows none.
    pub applied: Option<u64>,
    /// What clients can speak to it, as ALPN names: `http/1.1`, `h2`.
    pub protocols: Vec<String>,
    /// Its origins.
    pub origins: Vec<OriginState>,
}

/// Whether a node takes new clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does.
    #[default]
    Serving,
    /// It finishes what it has.
    Draining,
}

/// An origin as a node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OriginState {
    /// Its name.
    pub name: String,
    /// Whether one of its servers is up.
    pub up: bool,
}
