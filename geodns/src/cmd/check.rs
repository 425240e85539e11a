//! `check`

use shared::io::command::Global;

use crate::io::load;

pub(super) fn run(global: &Global) -> u8 {
    let path = match global.config_path() {
        Ok(path) => path,
        Err(code) => return code,
    };
    let loading = match load::load(&path) {
        Ok(loading) => loading,
        Err(problems) => return global.report(&path, &problems, ""),
    };
    let nameservers = loading.config.spec.nameserver.keys();
    if let Some(node) = global.node.as_ref().filter(|node| nameservers.clone().all(|n| n != *node))
    {
        return super::no_nameserver(Some(node), &loading.config.spec);
    }
    let mut problems: Vec<_> = nameservers
        .filter(|name| global.node.as_ref().is_none_or(|node| node == *name))
        .filter_map(|name| load::token_problem(&loading.config, name))
        .collect();
    let zones = &loading.tables.zones;
    let summary = format!(
        "{} zones, {} names, {} warnings",
        zones.iter().count(),
        zones.names(),
        loading.warnings.len()
    );
    problems.extend(loading.warnings);
    global.report(&path, &problems, &summary)
}
