//! Answers that stand in no zone file as such: addresses and HTTPS records of what an ALIAS leads to, HTTPS records of
//! steered names, and `_explain`.

use super::{Answering, Current};
use crate::explain;
use crate::reason::Reason;
use crate::rtype;
use crate::wire::{QUESTION_NAME, Section, class};
use crate::world::Family;
use crate::zone::{Found, Node, Zone};

/// The label before a name that asks for its explanation.
const EXPLAIN: &[u8] = b"\x08_explain";

impl Answering<'_, '_> {
    /// Answers A, AAAA and HTTPS queries that the name itself holds no records for; false when nothing stands for them.
    pub(super) fn derived(
        &mut self,
        qtype: u16,
        zone: &Zone,
        node: Node<'_>,
        current: &Current<'_>,
        aliased: bool,
    ) -> bool {
        let (via, target) = match node.alias() {
            Some((alias, target)) => (Some(alias), target),
            None => (None, node),
        };
        if let (Some(policy), Some(family)) = (target.steered(), Family::of_type(qtype)) {
            self.steered(policy, family, zone, current, aliased, via);
            return true;
        }
        if let (Some(alias), Some(rrset)) = (via, target.rrset(qtype)) {
            let ttl = Some(alias.ttl.min(rrset.ttl()));
            self.response.put_owned(Section::Answer, rrset.count, rrset.wire, current.at, ttl);
            return true;
        }
        if let (rtype::HTTPS, Some(policy)) = (qtype, target.steered())
            && let Some(service) = self.snapshot.tables.services.of(policy)
        {
            self.https((policy, service), zone, current, aliased, via);
            return true;
        }
        false
    }

    /// `_explain.NAME` TXT for clients on this machine: why they get what they get at NAME. False for everybody else,
    /// and where the zone has such a name itself.
    #[cold]
    pub(super) fn explained(&mut self) -> bool {
        let zones = &self.snapshot.tables.zones;
        let asked = self.name.as_wire();
        let Some(name) = asked.strip_prefix(EXPLAIN) else { return false };
        if !self.client.address.ip().to_canonical().is_loopback()
            || zones.exists(asked)
            || !matches!(zones.find(name, false), Found::Node(..))
        {
            return false;
        }
        let told = explain::brief(self.snapshot, self.client, self.query, name);
        self.facts.policy = told.policy;
        self.facts.scope_bits = told.scope_bits;
        self.facts.reason = Reason::Explained;
        self.authoritative = true;
        for texts in &told.records {
            self.response.put(Section::Answer, 1, &text_record(texts));
        }
        true
    }
}

/// A TXT record at the name of the question, never to be cached. What is too long for one string goes on in the next.
fn text_record(texts: &[String]) -> Vec<u8> {
    let mut rdata = Vec::new();
    for text in texts.iter().flat_map(|text| text.as_bytes().chunks(255)) {
        rdata.push(text.len() as u8);
        rdata.extend_from_slice(text);
    }
    let mut record = QUESTION_NAME.to_be_bytes().to_vec();
    record.extend(rtype::TXT.to_be_bytes());
    record.extend(class::IN.to_be_bytes());
    record.extend([0; 4]);
    record.extend(u16::try_from(rdata.len()).unwrap_or(0).to_be_bytes());
    record.extend(rdata);
    record
}

#[cfg(test)]
mod tests;
