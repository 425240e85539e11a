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
    /// How warm the store is, 0 to 1: as far as it is full, or as it answers what is asked of it now.
    pub warmth: f64,
    /// Position in the control log up to which it has applied everything. None: it follows none.
    pub applied: Option<u64>,
    /// What clients can speak to it, as ALPN names: `http/1.1`, `h2`.
    pub protocols: Vec<String>,
    /// Its origins.
    pub origins: Vec<OriginState>,
}

impl Report {
    /// The same with numbers that can be reckoned with: shares at 0 or more, warmth at 1 at most, no infinity. Whoever
    /// reads a report calls this first; a report comes from another machine.
    #[must_use]
    pub fn sane(mut self) -> Self {
        let least =
            |value: f64, most: f64| if value.is_finite() { value.clamp(0.0, most) } else { 0.0 };
        // A load of a thousand says no more than one of a hundred.
        self.load = least(self.load, 100.0);
        self.egress_bps = least(self.egress_bps, 1e15);
        self.warmth = least(self.warmth, 1.0);
        self.hit_ratio = self.hit_ratio.map(|ratio| least(ratio, 1.0));
        self.protocols.truncate(8);
        self
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strange_numbers_become_sane() {
        let report = Report {
            load: -3.0,
            egress_bps: f64::INFINITY,
            warmth: 7.0,
            hit_ratio: Some(f64::NAN),
            ..Report::default()
        };
        let sane = report.sane();
        assert_eq!(
            (sane.load, sane.egress_bps, sane.warmth, sane.hit_ratio),
            (0.0, 0.0, 1.0, Some(0.0))
        );
    }

    #[test]
    fn what_is_unknown_is_passed_over_and_what_is_missing_has_its_default() {
        let report: Report =
            serde_json::from_str(r#"{"node":"a","state":"draining","later":[1]}"#).unwrap();
        assert_eq!(
            (report.node.as_str(), report.state, report.applied),
            ("a", State::Draining, None)
        );
        assert!(serde_json::from_str::<Report>(r#"{"state":"gone"}"#).is_err());
    }
}
