//! `check`

use shared::config::{Loaded, Problem};
use shared::io::command::Global;
use shared::io::files::System;

use crate::io::{certificate, identity, load};

pub(super) fn run(global: &Global) -> u8 {
    let path = match global.config_path() {
        Ok(path) => path,
        Err(code) => return code,
    };
    let loading = match load::load(&path) {
        Ok(loading) => loading,
        Err(mut problems) => {
            if let Ok(config) = shared::config::load(&path, &System) {
                problems.extend(own_files(global, &config));
            }
            return global.report(&path, &problems, "");
        }
    };
    let spec = &loading.config.spec;
    if let Some(node) = global.node.as_ref().filter(|node| !spec.nameserver.contains_key(*node)) {
        return super::no_nameserver(Some(node), spec);
    }
    let mut problems = own_files(global, &loading.config);
    let zones = &loading.tables.zones;
    let summary = format!(
        "zones {}, names {}, warnings {}",
        zones.iter().count(),
        zones.names(),
        loading.warnings.len()
    );
    problems.extend(loading.warnings);
    global.report(&path, &problems, &summary)
}

/// What is wrong with the files that nameservers keep to themselves: secrets, certificates, keys.
fn own_files(global: &Global, config: &Loaded) -> Vec<Problem> {
    let names = config.spec.nameserver.keys();
    names
        .filter(|name| global.node.as_ref().is_none_or(|node| node == *name))
        .flat_map(|name| {
            [
                load::token_problem(config, name),
                identity::cookie_problem(config, name),
                certificate::problem(config, name),
            ]
        })
        .flatten()
        .collect()
}
