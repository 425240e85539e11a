//! What this node says of itself and keeps of its own, read when it starts and with every reload.

use shared::config::{Loaded, Problem};

use crate::answer::Server;

/// Reads what the configuration says of the nameserver `name`.
pub(super) fn server(config: &Loaded, name: &str) -> Result<Server, Vec<Problem>> {
    let Some(spec) = config.spec.nameserver.get(name) else { return Ok(Server::default()) };
    let text = |text: &Option<String>| text.as_ref().map(|text| text.as_bytes().into());
    Ok(Server { nsid: text(&spec.nsid), version: text(&spec.version), idle: spec.tcp_idle.get() })
}
