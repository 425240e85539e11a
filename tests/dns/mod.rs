//! `geodns` from outside: answers on the wire, steering by client network, health that moves clients.

mod answers;
mod bad_input;
mod encrypted;
mod failover;
mod fuzz;
mod geography;
mod health;
mod operating;
mod protocol;
mod records;
mod rehearsal;
mod shares;
mod steering;
mod storms;
mod taps;
mod zones;

use harness::fleet::Fleet;
use harness::plan::Plan;

/// Records of the tests' zone, under its SOA and name servers.
const RECORDS: &str = "\
static IN A 192.0.2.1
static IN A 192.0.2.2
static IN AAAA 2001:db8::1
alias IN CNAME static
@ IN MX 10 mail
@ IN TXT \"one\" \"two\"
mail 120 IN A 192.0.2.25
a.b.c IN A 192.0.2.9
*.wild IN A 192.0.2.77
";

/// A check that notices within 200 ms × 2, and the policy `web` that uses it.
const STEERING: &str = "\
[check.edge]
kind = \"http\"
host = \"www.cdn.test\"
interval = \"200ms\"
timeout = \"200ms\"
down_after = 2
up_after = 2
[steering.web]
order = \"nearest\"
answers = 2
check = \"edge\"
ttl = { max = \"30s\", min = \"1s\" }
";

/// Three datacenters with one edge each, which nobody starts; without a check, all count as up.
fn unchecked(geo: &str) -> Plan {
    Plan::new()
        .three_datacenters()
        .nameserver("ns1", "icn")
        .edge("icn-1", "icn")
        .edge("fra-1", "fra")
        .edge("iad-1", "iad")
        .zone("cdn.test", RECORDS, &[("www", "web")])
        .toml("[steering.web]\norder = \"nearest\"\nttl = { max = \"30s\", min = \"1s\" }")
        .toml(geo)
}

/// One name server with the tests' zone.
#[track_caller]
fn name_server() -> Fleet {
    let mut fleet = unchecked("").write();
    fleet.node_mut("ns1").start();
    fleet
}
