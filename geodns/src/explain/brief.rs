//! The explanation in the few words that a TXT record holds.

use super::{Leads, Steering, steering};
use crate::answer::Client;
use crate::name::{Name, Shown};
use crate::snapshot::Snapshot;
use crate::wire::Query;
use crate::world::{Family, PolicyId};
use crate::zone::{Found, Node};

/// What `_explain.NAME` answers.
#[derive(Clone, Debug, Default)]
pub struct Brief {
    /// A record's character-strings, for each record.
    pub records: Vec<Vec<String>>,
    /// The policy, when the name is steered.
    pub policy: Option<PolicyId>,
    /// The scope of the decision.
    pub scope_bits: u8,
}

/// Explains `name`, in lower-case wire form, to the client of `query`: a record for each address family.
pub fn brief(snapshot: &Snapshot, client: &Client, query: &Query<'_>, name: &[u8]) -> Brief {
    let Found::Node(_, node) = snapshot.tables.zones.find(name, false) else {
        return Brief::default();
    };
    let (asked, target, most_ttl) = match node.alias() {
        Some((alias, target)) => (Some(alias.name.clone()), target, alias.ttl),
        None => (Name::from_wire(name), node, u32::MAX),
    };
    let alias = node.alias().map(|(alias, _)| format!("alias={}", alias.name));
    let mut told = Brief { policy: target.steered(), ..Brief::default() };
    let (Some(policy), Some(name)) = (told.policy, asked) else {
        let texts = ["not steered".to_owned(), types(target)];
        told.records.push(alias.into_iter().chain(texts).collect());
        return told;
    };
    let leads = Leads { name, policy, most_ttl };
    for family in Family::ALL {
        let Some(steering) = steering(snapshot, query, client, family, &leads) else {
            continue;
        };
        told.scope_bits = told.scope_bits.max(steering.scope_bits);
        told.records.push(texts(family, alias.as_deref(), &steering));
    }
    told
}

fn types(node: Node<'_>) -> String {
    let types = node.rrsets().map(|rrset| crate::rtype::Shown(rrset.rtype).to_string());
    match types.collect::<Vec<_>>() {
        types if types.is_empty() => format!("{} holds no records", Shown(node.name())),
        types => format!("{} holds {}", Shown(node.name()), types.join(" ")),
    }
}

fn texts(family: Family, alias: Option<&str>, steering: &Steering) -> Vec<String> {
    let whose = if steering.decided_by_subnet { "subnet" } else { "client" };
    let list = steering.candidates.iter().map(|candidate| match &candidate.code {
        Some(code) => format!("{}={code}", candidate.datacenter),
        None => candidate.datacenter.clone(),
    });
    let own = [
        match family {
            Family::V4 => "A".to_owned(),
            Family::V6 => "AAAA".to_owned(),
        },
        format!("policy={}", steering.policy),
        format!("by={} ({whose}) scope={}", steering.decided_by, steering.scope_bits),
        format!("matched={} ({})", steering.network, steering.matched),
        format!("list={}", list.collect::<Vec<_>>().join(" ")),
        format!(
            "datacenter={} reason={}",
            steering.datacenter.as_deref().unwrap_or("none"),
            steering.reason
        ),
        format!("ttl={} ({})", steering.ttl, steering.ttl_because),
    ];
    let (head, rest) = own.split_at(1);
    head.iter().cloned().chain(alias.map(str::to_owned)).chain(rest.iter().cloned()).collect()
}
