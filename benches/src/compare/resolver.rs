//! unbound with its subnet cache in front of geodns, as hard on its servers as it can be.

use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::path::Path;

use anyhow::Context as _;

use super::worlds::{APEX, OTHER};
use crate::dns::peers::find;

/// Writes its configuration and gives the command that runs it in the foreground.
///
/// `before` is the server that it asks for our zones. Queries may come with client subnets, which it passes on to every
/// server, and what comes back is kept by scope.
pub fn unbound(
    dir: &Path,
    address: SocketAddrV4,
    before: SocketAddrV4,
) -> anyhow::Result<Vec<String>> {
    let mut text = format!(
        "server:\n  interface: {ip}@{port}\n  port: {port}\n  do-ip6: no\n  num-threads: 1\n  username: \"\"\n  chroot: \"\"\n  \
         directory: \"{dir}\"\n  pidfile: \"\"\n  use-syslog: no\n  verbosity: 1\n  access-control: 127.0.0.0/8 allow\n  \
         do-not-query-localhost: no\n  module-config: \"subnetcache validator iterator\"\n  \
         client-subnet-zone: \".\"\n  client-subnet-always-forward: yes\n  \
         max-ecs-tree-size-ipv4: 1000000\n  max-ecs-tree-size-ipv6: 1000000\n  msg-cache-size: 64m\n  rrset-cache-size: 64m\n  \
         harden-below-nxdomain: yes\n  harden-glue: yes\n  harden-algo-downgrade: yes\n  aggressive-nsec: yes\n  \
         qname-minimisation: yes\n  qname-minimisation-strict: yes\n  use-caps-for-id: yes\n  val-permissive-mode: no\n  \
         local-zone: \"test.\" nodefault\n\
         remote-control:\n  control-enable: no\n",
        ip = address.ip(),
        port = address.port(),
        dir = dir.display()
    );
    for zone in [APEX, OTHER] {
        let _ = write!(
            text,
            "stub-zone:\n  name: {zone}\n  stub-addr: {}@{}\n",
            before.ip(),
            before.port()
        );
    }
    let file = dir.join("unbound.conf");
    #[expect(clippy::disallowed_methods, reason = "a test writes configurations")]
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let program = find("unbound").context("unbound is not installed")?;
    let command = [program.display().to_string(), "-d".into(), "-c".into()];
    Ok(command.into_iter().chain([file.display().to_string()]).collect())
}
