//! `edge-cache` from outside: one node, or a few, in front of scripted origins.

mod admission;
mod advise;
mod buckets;
mod collapsing;
mod cors;
mod disk;
mod durability;
mod encodings;
mod ends;
mod explain;
mod failures;
mod fuzz;
mod hostile;
mod http2_origins;
mod interim;
mod memory;
mod pitfalls;
mod purge;
mod ranges;
mod refused;
mod replay;
mod reuse;
mod reused;
mod routes;
mod rules;
mod secure;
mod selection;
mod sharing;
mod signed;
mod stores;
mod tiers;
mod upgrade;

use harness::fleet::Fleet;
use harness::origin::Origin;
use harness::plan::Plan;

/// The host of the tests' site.
const HOST: &str = "www.cdn.test";

/// Nothing is served stale, and what gives no lifetime of its own is stored for ten minutes.
const STRICT: &str =
    "stale = { while_revalidate = \"0s\", if_error = \"0s\", after_wait = \"10s\" }";

/// A datacenter, and the scripted origin as `static` with short time-outs.
fn plan(origin: &Origin) -> Plan {
    Plan::new().datacenter("icn", 37.46, 126.44).toml(&format!(
        "[origin.static]\nservers = [ {{ url = \"{}\" }} ]\n\
         timeouts = {{ connect = \"500ms\", first_byte = \"2s\", between_bytes = \"2s\" }}",
        origin.url()
    ))
}

/// The policy `assets` with these lines, and a site that caches everything with it.
fn site(plan: Plan, policy: &str) -> Plan {
    plan.toml(&format!("[cache.assets]\n{policy}")).toml(&format!(
        "[site.www]\nhosts = [\"{HOST}\"]\nroutes = [ {{ path = \"/*\", origin = \"static\", cache = \"assets\" }} ]"
    ))
}

/// One edge, `e1`, that caches everything by this policy.
#[track_caller]
fn one_edge(origin: &Origin, policy: &str) -> Fleet {
    site(plan(origin).edge("e1", "icn"), policy).start()
}
