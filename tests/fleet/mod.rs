//! Both programs as their operators see them: start, status, metrics, logs, reload, drain, and the pair together.

mod example;
mod openapi;
mod operations;
mod pair;
mod reload;
mod stop;

use harness::origin::Origin;
use harness::plan::Plan;

/// Three datacenters with two edges and a parent each are too many for a test: two with one edge, one parent, and a
/// name server that checks them.
fn pair(origin: &Origin) -> Plan {
    Plan::new()
        .datacenter("icn", 37.46, 126.44)
        .datacenter("fra", 50.03, 8.57)
        .nameserver("ns1", "icn")
        .edge("icn-1", "icn")
        .edge("fra-1", "fra")
        .parent("icn-p1", "icn")
        .zone("cdn.test", "static IN A 192.0.2.1", &[("www", "web")])
        .toml(
            "[steering.web]\ncheck = \"edge\"\nttl = { max = \"5s\", min = \"1s\" }\n\
             [check.edge]\nkind = \"http\"\nhost = \"www.cdn.test\"\ninterval = \"200ms\"\ntimeout = \"200ms\"\n\
             down_after = 2\nup_after = 2",
        )
        .toml(&format!("[origin.static]\nservers = [ {{ url = \"{}\" }} ]", origin.url()))
        .toml(
            "[tier.shield]\nparents = [\"icn-p1\"]\n\
             [cache.assets]\nttl = { default = \"10m\" }\n\
             [site.www]\nhosts = [\"www.cdn.test\"]\ntier = \"shield\"\n\
             routes = [ { path = \"/*\", origin = \"static\", cache = \"assets\" } ]",
        )
}
