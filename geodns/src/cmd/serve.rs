//! `serve`

use super::{BAD_CONFIG, DONE, FAILED, Global, config_path, fail};
use crate::io::{load, serve};

pub(super) fn run(global: &Global) -> u8 {
    let path = match config_path(global) {
        Ok(path) => path,
        Err(code) => return code,
    };
    let loading = match load::load(&path) {
        Ok(loading) => loading,
        Err(problems) => return fail(&problems.join("\n"), BAD_CONFIG),
    };
    for warning in &loading.warnings {
        tracing::warn!("{warning}");
    }
    let nameservers = &loading.config.spec.nameserver;
    let name = match (&global.node, nameservers.len()) {
        (Some(name), _) if nameservers.contains_key(name) => name.clone(),
        (Some(name), _) => return fail(&format!("there is no nameserver `{name}`"), BAD_CONFIG),
        (None, 1) => nameservers.keys().cloned().collect(),
        (None, 0) => return fail("the configuration has no nameserver", BAD_CONFIG),
        (None, _) => {
            let names: Vec<_> = nameservers.keys().map(String::as_str).collect();
            return fail(&format!("say which one with --node: {}", names.join(", ")), 2);
        }
    };
    match serve::run(&name, path, loading) {
        Ok(()) => DONE,
        Err(why) => fail(&why, FAILED),
    }
}
