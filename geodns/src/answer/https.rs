//! HTTPS records (RFC 9460) of steered names, written from the decision that A and AAAA answers follow.

use super::{Answering, Current, decide};
use crate::reason::Reason;
use crate::rtype;
use crate::service::{MAX_ALPN_BYTES, Protocols, Service};
use crate::steer::Decision;
use crate::wire::{Rcode, Section, class};
use crate::world::{Family, PolicyId};
use crate::zone::{Alias, RDATA_AT, Zone};

const PARAM_ALPN: u16 = 1;
const PARAM_NO_DEFAULT_ALPN: u16 = 2;
const PARAM_PORT: u16 = 3;
const PARAM_IPV4HINT: u16 = 4;
const PARAM_IPV6HINT: u16 = 6;

/// Owner, type, class, TTL and length, priority 1, target `.`.
const HEAD_BYTES: usize = RDATA_AT + 3;

/// Key and length of a parameter.
const PARAM_BYTES: usize = 4;

impl Answering<'_, '_> {
    /// One record in ServiceMode: the target is the owner itself, the hints are the addresses that an A and an AAAA query
    /// of this client would get.
    #[inline(never)]
    pub(super) fn https(
        &mut self,
        (id, service): (PolicyId, Service),
        zone: &Zone,
        current: &Current<'_>,
        aliased: bool,
        via: Option<&Alias>,
    ) {
        let name = via.map_or_else(|| current.name, |alias| alias.name.as_wire());
        let decided =
            |family| decide(self.snapshot, id, family, name, self.client, self.query, |_, _| {});
        let (Some(v4), Some(v6)) = (decided(Family::V4), decided(Family::V6)) else {
            return self.fail(Rcode::ServFail, Reason::DownServFail);
        };
        // Both families have the same lists, and so the same scopes; were it not so, the finer one holds for both.
        let scope_bits = v4.scope_bits.max(v6.scope_bits);
        self.facts.policy = Some(id);
        if aliased && scope_bits > 0 {
            self.facts.reason = Reason::Alias;
            return;
        }
        let first = if v4.datacenter.is_some() { v4 } else { v6 };
        self.facts.datacenter = first.datacenter;
        self.facts.scope_bits = scope_bits;
        if first.datacenter.is_none() {
            let is_down = |reason| matches!(reason, Reason::DownServFail | Reason::DownNoData);
            let reason = if is_down(v4.reason) { v4.reason } else { v6.reason };
            return match reason {
                Reason::DownServFail => self.fail(Rcode::ServFail, reason),
                _ => self.negative(zone, current, reason),
            };
        }
        self.facts.reason = first.reason;
        let ttls = [v4, v6].into_iter().filter(|d| d.datacenter.is_some()).map(|d| d.ttl);
        let ttl = ttls.chain(via.map(|alias| alias.ttl)).min().unwrap_or(0);
        self.put_https(service, current.at, ttl, [v4, v6]);
    }

    fn put_https(&mut self, service: Service, owner: u16, ttl: u32, [v4, v6]: [Decision<'_>; 2]) {
        let mut head = [0; HEAD_BYTES + 3 * PARAM_BYTES + MAX_ALPN_BYTES + 2];
        let mut at = 0;
        let mut push = |octets: &[u8]| {
            if let Some(room) = head.get_mut(at..at + octets.len()) {
                room.copy_from_slice(octets);
                at += octets.len();
            }
        };
        push(&owner.to_be_bytes());
        push(&rtype::HTTPS.to_be_bytes());
        push(&class::IN.to_be_bytes());
        push(&ttl.to_be_bytes());
        push(&[0, 0, 0, 1, 0]);
        let reports = &self.snapshot.health.facts.reports;
        let of_edge = |edge: u16| {
            let report = reports.get(usize::from(edge)).and_then(|report| report.as_deref());
            Protocols::of(report)
        };
        let edges = v4.targets().chain(v6.targets()).map(|target| of_edge(target.edge));
        // Edges that speak nothing in common are taken to speak what clients take for granted.
        if let Some(spoken) = edges.reduce(Protocols::and).filter(|spoken| !spoken.is_none()) {
            let mut room = [0; MAX_ALPN_BYTES];
            let alpn = spoken.write(&mut room);
            push(&param(PARAM_ALPN, alpn.len()));
            push(alpn);
            if spoken.lacks_default() {
                push(&param(PARAM_NO_DEFAULT_ALPN, 0));
            }
        }
        if let Some(port) = service.port {
            push(&param(PARAM_PORT, 2));
            push(&port.to_be_bytes());
        }
        let put = self.response.put(Section::Answer, 1, head.get(..at).unwrap_or_default());
        for (key, width, decision) in [(PARAM_IPV4HINT, 4, v4), (PARAM_IPV6HINT, 16, v6)] {
            let count: usize = decision.targets().map(|target| usize::from(target.count)).sum();
            if count == 0 {
                continue;
            }
            self.response.put(Section::Answer, 0, &param(key, count * width));
            for target in decision.targets() {
                for record in target.records.chunks_exact(RDATA_AT + width) {
                    let address = record.get(RDATA_AT..).unwrap_or_default();
                    self.response.put(Section::Answer, 0, address);
                }
            }
        }
        if let Some(put) = put {
            self.response.close_record(put);
        }
    }
}

fn param(key: u16, length: usize) -> [u8; PARAM_BYTES] {
    let [key_high, key_low] = key.to_be_bytes();
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    [key_high, key_low, high, low]
}
