//! What a configuration becomes for one node.

use super::*;
use shared::config::Files;
use std::path::{Path, PathBuf};

/// The rules' own defaults are those of the configuration.
#[test]
fn a_policy_without_keys_is_the_default() {
    let made = policy(&CacheSpec::default()).unwrap();
    assert_eq!(format!("{made:?}"), format!("{:?}", Policy::default()));
}

struct One<'a>(&'a str);

impl Files for One<'_> {
    fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
        Ok(self.0.as_bytes().to_vec())
    }
    fn glob(&self, _: &str) -> Result<Vec<PathBuf>, String> {
        Ok(Vec::new())
    }
    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

const FILE: &str = r#"
[datacenter.icn]
location = [37.46, 126.44]
[datacenter.fra]
location = [50.03, 8.57]
[datacenter.iad]
location = [38.95, -77.45]
[edge.fra-1]
datacenter = "fra"
address = ["192.0.2.1"]
http = ["192.0.2.1:80"]
admin = "127.0.0.1:9090"
memory = "64MiB"
[edge.iad-p1]
datacenter = "iad"
role = "parent"
http = ["198.51.100.1:80"]
admin = "127.0.0.1:9091"
[edge.icn-p1]
datacenter = "icn"
role = "both"
address = ["203.0.113.1"]
http = ["203.0.113.1:80"]
admin = "127.0.0.1:9092"
[origin.static]
servers = [ { url = "http://127.0.9.1:9001" } ]
failover = "backup"
[origin.backup]
servers = [ { url = "http://127.0.9.2:9001" } ]
[origin.unused]
servers = [ { url = "http://127.0.9.3:9001" } ]
[cache.assets]
key = { query = "none", keep = ["v"] }
[tier.shield]
parents = "nearest-datacenter"
[site.www]
hosts = ["www.cdn.test"]
tier = "shield"
routes = [
  { path = "/api/*", origin = "static", cache = "off" },
  { path = "/*", origin = "static", cache = "assets" },
]
"#;

fn plan(node: Option<&str>) -> Result<Plan, Vec<Problem>> {
    let loaded = shared::config::load(Path::new("m.toml"), &One(FILE)).unwrap();
    Plan::new(&loaded, node)
}

#[test]
fn an_edge_asks_the_parents_of_the_nearest_datacenter_first() {
    let plan = plan(Some("fra-1")).unwrap();
    let tier = plan.sites[0].tier.clone().unwrap();
    assert_eq!(tier.groups, [["iad-p1"], ["icn-p1"]]);
    assert_eq!(plan.parents["iad-p1"].url.to_string(), "http://198.51.100.1");
    assert_eq!(plan.max_object, 8 << 20);
    assert_eq!(plan.origins.keys().collect::<Vec<_>>(), ["backup", "static"]);
    assert!(plan.sites[0].routes[0].policy.is_none());
    assert_eq!(plan.sites[0].routes[1].policy.as_ref().unwrap().key.query, QueryMode::Allow);
}

/// What comes from loopback is believed only where nodes are there: elsewhere it may be a proxy, which passes on what
/// its clients say.
#[test]
fn nodes_are_believed_and_nobody_else() {
    let believes = |file: &str, node: &str, peer: &str| {
        let loaded = shared::config::load(Path::new("m.toml"), &One(file)).unwrap();
        Plan::new(&loaded, Some(node)).unwrap().is_peer(peer.parse().unwrap())
    };
    let near = FILE.replace("198.51.100.1", "127.0.0.7");
    for (file, node, peer, expected) in [
        (FILE, "icn-p1", "198.51.100.1", true),
        (FILE, "icn-p1", "::ffff:198.51.100.1", true),
        (FILE, "icn-p1", "198.51.100.2", false),
        (FILE, "icn-p1", "203.0.113.1", false),
        (FILE, "icn-p1", "127.0.0.1", false),
        (&near, "icn-p1", "127.0.0.1", true),
        (&near, "icn-p1", "::1", true),
        (FILE, "fra-1", "198.51.100.1", false),
        (&near, "fra-1", "127.0.0.1", false),
    ] {
        assert_eq!(believes(file, node, peer), expected, "{node} {peer}");
    }
}

#[test]
fn a_parent_asks_no_parent_and_one_of_both_knows_itself() {
    assert!(plan(Some("iad-p1")).unwrap().sites[0].tier.is_none());
    assert!(plan(Some("icn-p1")).unwrap().parents["icn-p1"].is_self);
}

/// A parent works for bytes, who is asked by clients for requests; over a disk the policy that knows of it is best for both.
#[test]
fn the_policy_of_the_memory_tier_is_that_of_the_role_or_what_is_said() {
    let of = |file: &str, node: &str| {
        let loaded = shared::config::load(Path::new("m.toml"), &One(file)).unwrap();
        let settings = Plan::new(&loaded, Some(node)).unwrap().memory(7);
        (settings.policy, settings.over_disk)
    };
    assert_eq!(of(FILE, "fra-1"), (StorePolicy::SizeAware, false));
    assert_eq!(of(FILE, "icn-p1"), (StorePolicy::SizeAware, false));
    assert_eq!(of(FILE, "iad-p1"), (StorePolicy::S3Fifo, false));
    for (name, policy) in [
        ("moka", StorePolicy::Moka),
        ("lru", StorePolicy::Lru),
        ("s3-fifo", StorePolicy::S3Fifo),
        ("size-aware", StorePolicy::SizeAware),
    ] {
        let file =
            FILE.replace("role = \"parent\"", &format!("role = \"parent\"\npolicy = \"{name}\""));
        assert_eq!(of(&file, "iad-p1"), (policy, false), "{name}");
    }
    let disk = "memory = \"64MiB\"\ndisk = { path = \"d\", size = \"1GiB\" }";
    assert_eq!(
        of(&FILE.replace("memory = \"64MiB\"", disk), "fra-1"),
        (StorePolicy::SizeAware, true)
    );
    let parent = FILE.replace(
        "role = \"parent\"",
        "role = \"parent\"\ndisk = { path = \"d\", size = \"1GiB\" }",
    );
    assert_eq!(of(&parent, "iad-p1"), (StorePolicy::SizeAware, true));
    let told = parent.replace("disk =", "policy = \"s3-fifo\"\ndisk =");
    assert_eq!(of(&told, "iad-p1"), (StorePolicy::S3Fifo, true));
}

#[test]
fn what_differs_from_the_start_waits_for_the_next_one() {
    let started = plan(Some("fra-1")).unwrap();
    let mut new = started.clone();
    new.edge.segment.0 *= 2;
    new.edge.max_connections += 1;
    assert_eq!(started.fixed_at_start(&new), ["segment"]);
    assert_eq!(started.fixed_at_start(&started), [""; 0]);
}

#[test]
fn a_node_must_be_named_where_there_are_several() {
    assert!(plan(None).unwrap_err()[0].message.contains("--node"));
    assert!(plan(Some("lhr-1")).unwrap_err()[0].message.contains("`fra-1`"));
}
