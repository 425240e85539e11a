//! How large an answer may be, and whether it is sent at all.

use super::{Context, Facts, Reading, Transport};
use crate::cookie;
use crate::edns::{self, Edns, Reply};
use crate::reason::Reason;
use crate::rrl::{Kind, Verdict};
use crate::wire::{Rcode, Response};

/// A message over TCP at most.
pub const MAX_MESSAGE: usize = 65_535;

/// The largest answer that a client can take.
pub(super) fn size(edns: Option<&Edns<'_>>, transport: Transport) -> usize {
    match transport {
        Transport::Udp => {
            edns.map_or(edns::MIN_UDP_SIZE, |edns| edns.udp_size.min(edns::UDP_SIZE)).into()
        }
        _ => MAX_MESSAGE,
    }
}

/// Puts the answer on its client network's account. What is over the limit is not sent (the error), or becomes an
/// answer by which a client that is no forgery gets on: its cookie, or that it is to come by TCP.
pub(super) fn rate(
    reading: &Reading<'_>,
    context: &Context<'_>,
    response: &mut Response<'_>,
    facts: &mut Facts,
    opt: &mut Option<Reply<'_>>,
) -> Result<(), Reason> {
    let Some(limiter) = &context.server.limiter else { return Ok(()) };
    let client = &reading.client;
    if client.transport != Transport::Udp || facts.cookie == cookie::State::Valid {
        return Ok(());
    }
    let address = client.address.ip();
    let network = reading.network.unwrap_or_else(|| limiter.network(address));
    match limiter.account((address, network), kind(facts), context.now) {
        Verdict::Send => return Ok(()),
        Verdict::Drop => return Err(Reason::RateLimit),
        Verdict::Slip => {}
    }
    if let Some(opt) = opt {
        // Who we are is told when there is room for it: this answer is to be no larger than its query.
        opt.nsid = None;
    }
    let (rcode, cookie) = (facts.rcode, facts.cookie);
    *facts = Facts { rcode, reason: Reason::RateLimit, cookie, ..Facts::default() };
    if facts.cookie == cookie::State::Absent {
        response.truncate();
        facts.truncated = true;
    } else {
        // RFC 7873 §5.2.3: nothing but the client's cookie and a new one of ours.
        response.clear();
        facts.rcode = Rcode::BadCookie;
    }
    Ok(())
}

/// The account that an answer is put on.
fn kind(facts: &Facts) -> Kind {
    match (facts.rcode, facts.reason) {
        (Rcode::NxDomain, _)
        | (Rcode::NoError, Reason::NoData | Reason::NoFamily | Reason::DownNoData) => {
            Kind::Negative
        }
        (Rcode::NoError, Reason::Referral) => Kind::Referral,
        (Rcode::NoError, _) => Kind::Positive,
        _ => Kind::Error,
    }
}
