//! `serve`

use shared::config::listing;
use shared::io::command::{BAD_CONFIG, DONE, FAILED, Global, fail};

use super::no_nameserver;
use crate::io::{certificate, load, serve};

pub(super) fn run(global: &Global) -> u8 {
    let path = match global.config_path() {
        Ok(path) => path,
        Err(code) => return code,
    };
    let loading = match load::load(&path) {
        Ok(loading) => loading,
        Err(problems) => return fail(&listing(&problems), BAD_CONFIG),
    };
    let spec = &loading.config.spec;
    let nameservers = &spec.nameserver;
    let name = match (&global.node, nameservers.len()) {
        (Some(name), _) if nameservers.contains_key(name) => name.clone(),
        (None, 1) => nameservers.keys().cloned().collect(),
        (node, _) => return no_nameserver(node.as_deref(), spec),
    };
    let token = load::token_problem(&loading.config, &name);
    if let Some(problem) = token.or_else(|| certificate::problem(&loading.config, &name)) {
        return fail(&problem.to_string(), BAD_CONFIG);
    }
    for warning in &loading.warnings {
        tracing::warn!("{warning}");
    }
    match serve::run(&name, path, loading) {
        Ok(()) => DONE,
        Err(why) => fail(&why, FAILED),
    }
}
