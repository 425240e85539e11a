//! What outlives a restart: the operator's word, what is known of targets, ramps that are under way; and the form in
//! which it lies in the state file.
//!
//! The operator's word is never lost silently: a file in which it cannot be read is refused. The rest is only ever a
//! head start: what of it cannot be read is told and done without.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::time::UnixMillis;

use crate::health::Mode;
use crate::intake::Return;
use crate::monitor::Belief;

/// The operator's word on a datacenter or an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// What is wanted.
    pub mode: Mode,
    /// Since when.
    #[serde(default)]
    pub since: UnixMillis,
    /// Until when; none: until the operator says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMillis>,
}

/// All of them, by name, so that they outlive reloads and restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overrides {
    /// By datacenter.
    pub datacenters: BTreeMap<String, Override>,
    /// By edge.
    pub edges: BTreeMap<String, Override>,
}

impl Overrides {
    /// Takes out those whose time is over. Returns their names.
    pub fn expire(&mut self, now: UnixMillis) -> Vec<String> {
        let mut expired = Vec::new();
        for names in [&mut self.datacenters, &mut self.edges] {
            names.retain(|name, given| {
                let goes_on = given.until.is_none_or(|until| now < until);
                if !goes_on {
                    expired.push(name.clone());
                }
                goes_on
            });
        }
        expired
    }

    /// When the next one ends by itself.
    pub fn next_end(&self) -> Option<UnixMillis> {
        self.datacenters.values().chain(self.edges.values()).filter_map(|given| given.until).min()
    }
}

/// The content of a state file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Saved {
    /// Counts the writes, over restarts.
    pub generation: u64,
    /// When it was written.
    pub written: UnixMillis,
    /// The operator's word.
    pub overrides: Overrides,
    /// What is known of targets.
    pub targets: Vec<Belief>,
    /// Datacenters that are out or on their way back.
    pub returns: Vec<Return>,
}

impl Saved {
    /// Reads a file's content, of this version or of one before it. Returns what could not be read, too.
    ///
    /// # Errors
    /// It cannot be told what the operator wants.
    pub fn read(content: &[u8]) -> Result<(Self, Vec<String>), String> {
        let Value::Object(mut fields) =
            serde_json::from_slice(content).map_err(|error| error.to_string())?
        else {
            return Err("this is no object".to_owned());
        };
        let Some(overrides) = fields.remove("overrides") else {
            // The first version had nothing but overrides, and of them nothing but the mode.
            return Ok((
                Self { overrides: first_version(fields.into())?, ..Self::default() },
                Vec::new(),
            ));
        };
        let mut saved = Self {
            overrides: serde_json::from_value(overrides)
                .map_err(|error| format!("`overrides`: {error}"))?,
            ..Self::default()
        };
        let mut lost = Vec::new();
        fn field<T: DeserializeOwned + Default>(
            name: &str,
            fields: &mut serde_json::Map<String, Value>,
            lost: &mut Vec<String>,
        ) -> T {
            let Some(value) = fields.remove(name) else { return T::default() };
            serde_json::from_value(value).unwrap_or_else(|error| {
                lost.push(format!("`{name}`: {error}"));
                T::default()
            })
        }
        saved.generation = field("generation", &mut fields, &mut lost);
        saved.written = field("written", &mut fields, &mut lost);
        saved.targets = field("targets", &mut fields, &mut lost);
        saved.returns = field("returns", &mut fields, &mut lost);
        Ok((saved, lost))
    }

    /// The content to write.
    ///
    /// # Errors
    /// None that is known of.
    pub fn content(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec_pretty(self).map_err(|error| error.to_string())
    }
}

fn first_version(fields: Value) -> Result<Overrides, String> {
    #[derive(Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Modes {
        datacenters: BTreeMap<String, Mode>,
        edges: BTreeMap<String, Mode>,
    }
    let modes: Modes = serde_json::from_value(fields).map_err(|error| error.to_string())?;
    let with = |names: BTreeMap<String, Mode>| {
        let since = UnixMillis::default();
        let names = names.into_iter();
        names.map(|(name, mode)| (name, Override { mode, since, until: None })).collect()
    };
    Ok(Overrides { datacenters: with(modes.datacenters), edges: with(modes.edges) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::hold::Hold;
    use shared::health::State;

    fn saved() -> Saved {
        let drained = Override {
            mode: Mode::Drain,
            since: UnixMillis(1),
            until: Some(UnixMillis(7_200_001)),
        };
        let mut overrides = Overrides::default();
        overrides.datacenters.insert("icn".to_owned(), drained);
        overrides.edges.insert("fra-1".to_owned(), Override { until: None, ..drained });
        let belief = Belief {
            check: "edge".to_owned(),
            edge: "icn-1".to_owned(),
            state: State::Down,
            since: UnixMillis(5),
            seen: UnixMillis(6),
            hold: Hold::default(),
        };
        let returns = serde_json::from_str(
            r#"[{"policy":"web","datacenter":"icn","ramp":{"returning":{"since":9,"share":0.25}}}]"#,
        );
        Saved {
            generation: 3,
            written: UnixMillis(8),
            overrides,
            targets: vec![belief],
            returns: returns.unwrap(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let content = saved().content().unwrap();
        assert_eq!(Saved::read(&content), Ok((saved(), Vec::new())));
        assert_eq!(Saved::read(b"{}"), Ok((Saved::default(), Vec::new())));
    }

    #[test]
    fn the_first_version_is_read() {
        let content = br#"{"datacenters": {"icn": "drain"}, "edges": {"fra-1": "down"}}"#;
        let (saved, lost) = Saved::read(content).unwrap();
        assert_eq!(saved.overrides.datacenters["icn"].mode, Mode::Drain);
        assert_eq!(saved.overrides.edges["fra-1"].mode, Mode::Down);
        assert_eq!((saved.targets.len(), lost.len()), (0, 0));
    }

    #[test]
    fn damage_costs_knowledge_but_never_the_operators_word() {
        let good = String::from_utf8(saved().content().unwrap()).unwrap();
        for (from, to, lost) in [("\"down\"", "\"sideways\"", 1), ("\"seen\"", "\"sene\"", 1)] {
            let (read, told) = Saved::read(good.replace(from, to).as_bytes()).unwrap();
            assert_eq!((read.overrides, read.targets.len()), (saved().overrides, 0));
            assert_eq!(told.len(), lost, "{told:?}");
        }
        for damaged in [
            good.replace("\"drain\"", "\"drane\""),
            good.replace("\"until\"", "\"untl\""),
            good.replace("\"overrides\"", "\"overides\""),
            good[..good.len() / 2].to_owned(),
            String::new(),
            "[]".to_owned(),
        ] {
            assert!(Saved::read(damaged.as_bytes()).is_err(), "{damaged}");
        }
    }

    #[test]
    fn what_has_an_end_ends() {
        let mut overrides = saved().overrides;
        assert_eq!(overrides.next_end(), Some(UnixMillis(7_200_001)));
        assert!(overrides.expire(UnixMillis(7_200_000)).is_empty());
        assert_eq!(overrides.expire(UnixMillis(7_200_001)), ["icn"]);
        assert_eq!((overrides.edges.len(), overrides.next_end()), (1, None));
    }
}
