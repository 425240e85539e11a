//! What answering reads beside the snapshot: who asks, and who we are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shared::time::UnixMillis;

use crate::cookie::{self, Secrets};
use crate::edns::{self, Edns, Keepalive};
use crate::rrl::Limiter;

/// How a query came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Answers are bounded by what the client can take.
    Udp,
    /// Answers are bounded by the length field, here and below.
    Tcp,
    /// RFC 7858.
    Tls,
    /// RFC 8484.
    Https,
    /// RFC 9250.
    Quic,
}

impl Transport {
    /// Every transport, in order.
    pub const ALL: [Self; 5] = [Self::Udp, Self::Tcp, Self::Tls, Self::Https, Self::Quic];

    /// As metrics and logs call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "dot",
            Self::Https => "doh",
            Self::Quic => "doq",
        }
    }

    /// Whether nobody on the way can read it: only then does padding hide anything (RFC 7830 §6).
    pub const fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::Https | Self::Quic)
    }

    /// Whether its connections are TCP's, for whose idle time RFC 7828 speaks. HTTP/2 and QUIC have their own
    /// (RFC 9250 §5.5.2).
    pub const fn keeps_alive(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Address and port.
    pub address: SocketAddr,
    /// How.
    pub transport: Transport,
    /// A random number for draws.
    pub draw: u64,
}

/// What this node says of itself, and what it keeps of its own: the same for all its threads, replaced by a reload.
#[derive(Debug, Default)]
pub struct Server {
    /// What NSID, `id.server` and `hostname.bind` say; [`edns::MAX_NSID_BYTES`] at most.
    pub nsid: Option<Box<[u8]>>,
    /// What `version.bind` and `version.server` say; 255 octets at most.
    pub version: Option<Box<[u8]>>,
    /// How long a connection without a query is kept.
    pub idle: Duration,
    /// What cookies are made with; without, they are neither answered nor asked for.
    pub cookies: Option<Secrets>,
    /// Response rate limiting, where it is configured.
    pub limiter: Option<Arc<Limiter>>,
}

/// What answering reads beside the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Context<'s> {
    /// Who answers.
    pub server: &'s Server,
    /// When: the wall clock, read once for a batch of queries.
    pub now: UnixMillis,
}

impl<'s> Context<'s> {
    /// The OPT record for an answer to a query that had `edns`, as far as it is known before the answer is, and what the
    /// query's cookie says.
    pub fn opt<'p>(&self, edns: &Edns<'p>, client: &Client) -> (edns::Reply<'p>, cookie::State)
    where
        's: 'p,
    {
        let mut reply = edns::Reply {
            dnssec_ok: edns.dnssec_ok,
            subnet: edns.subnet,
            ..edns::Reply::default()
        };
        let mut state = cookie::State::Absent;
        if let (Some(cookie), Some(secrets)) = (edns.cookie, &self.server.cookies) {
            let (found, answered) = secrets.check(cookie, client.address.ip(), self.now);
            state = found;
            reply.cookie = Some(answered);
        }
        if edns.nsid {
            reply.nsid = self.server.nsid.as_deref();
        }
        if edns.keepalive != Keepalive::Absent && client.transport.keeps_alive() {
            reply.keepalive = Some(tenths(self.server.idle));
        }
        reply.is_padded = edns.padding && client.transport.is_encrypted();
        (reply, state)
    }
}

/// In units of 100 ms (RFC 7828 §3.1); what is longer than the field can say is said to be the longest.
fn tenths(idle: Duration) -> u16 {
    u16::try_from(idle.as_millis() / 100).unwrap_or(u16::MAX)
}
