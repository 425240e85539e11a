//! Why a query was answered as it was: one list for the log, the metrics, extended errors and `explain`.

use crate::edns::ExtendedError;

/// The reason of an answer, an error, or silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// Data of the zone file.
    Static,
    /// The name exists, the type does not.
    NoData,
    /// The name does not exist.
    NxDomain,
    /// The name is delegated to other servers.
    Referral,
    /// One RRset in place of all (RFC 8482).
    MinimalAny,
    /// An alias that leads out of our zones, or to a name whose answer has another scope.
    Alias,
    /// Steered to the first datacenter of the client's list.
    FirstChoice,
    /// Steered to a later one: those before it are not up.
    Failover,
    /// Steered to a later one: those before it have no address of this family.
    OtherFamily,
    /// Steered to a later one: one before it returns, and does not take this client yet.
    Ramp,
    /// Steered to a later one: one before it has too much load, and gave this client up.
    Shed,
    /// Steered to a later one: one before it has all the clients that it may have.
    MaxShare,
    /// No datacenter is up: the last good answer goes on.
    LastGood,
    /// No datacenter is up: all are answered as if they were.
    AllDown,
    /// No datacenter is up: the policy's fallback.
    Fallback,
    /// No datacenter is up, and the policy wants no data then.
    DownNoData,
    /// No datacenter is up, and the policy wants SERVFAIL then.
    DownServFail,
    /// No datacenter of the policy has an address of this family.
    NoFamily,
    /// The name is in none of our zones.
    NotAuthoritative,
    /// A zone transfer.
    Transfer,
    /// A class other than IN.
    Class,
    /// Who this server is, or what it runs.
    Identity,
    /// Why a client on this machine gets what it gets.
    Explained,
    /// A name that grew too long under a DNAME.
    NameTooLong,
    /// Nothing was asked but a cookie (RFC 7873 §5.4).
    Cookie,
    /// The client's network is over its rate: not answered, or only so that a client that is no forgery gets on.
    RateLimit,
    /// A message that breaks the format.
    Malformed,
    /// An opcode other than QUERY.
    Opcode,
    /// An EDNS version other than 0.
    EdnsVersion,
    /// A signature by a key that we do not have.
    UnknownKey,
    /// Not answered: too short, or itself an answer.
    NotAQuery,
    /// Not answered: from port 0, where nobody listens.
    SourcePort,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 32] = [
        Self::Static,
        Self::NoData,
        Self::NxDomain,
        Self::Referral,
        Self::MinimalAny,
        Self::Alias,
        Self::FirstChoice,
        Self::Failover,
        Self::OtherFamily,
        Self::Ramp,
        Self::Shed,
        Self::MaxShare,
        Self::LastGood,
        Self::AllDown,
        Self::Fallback,
        Self::DownNoData,
        Self::DownServFail,
        Self::NoFamily,
        Self::NotAuthoritative,
        Self::Transfer,
        Self::Class,
        Self::Identity,
        Self::Explained,
        Self::NameTooLong,
        Self::Cookie,
        Self::RateLimit,
        Self::Malformed,
        Self::Opcode,
        Self::EdnsVersion,
        Self::UnknownKey,
        Self::NotAQuery,
        Self::SourcePort,
    ];

    /// The code in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::NoData => "nodata",
            Self::NxDomain => "nxdomain",
            Self::Referral => "referral",
            Self::MinimalAny => "minimal-any",
            Self::Alias => "alias",
            Self::FirstChoice => "first-choice",
            Self::Failover => "failover",
            Self::OtherFamily => "other-family",
            Self::Ramp => "ramp",
            Self::Shed => "shed",
            Self::MaxShare => "max-share",
            Self::LastGood => "all-down-last-good",
            Self::AllDown => "all-down-all",
            Self::Fallback => "all-down-fallback",
            Self::DownNoData => "all-down-nodata",
            Self::DownServFail => "all-down-servfail",
            Self::NoFamily => "no-family",
            Self::NotAuthoritative => "not-authoritative",
            Self::Transfer => "transfer",
            Self::Class => "class",
            Self::Identity => "identity",
            Self::Explained => "explained",
            Self::NameTooLong => "name-too-long",
            Self::Cookie => "cookie",
            Self::RateLimit => "rate-limit",
            Self::Malformed => "malformed",
            Self::Opcode => "opcode",
            Self::EdnsVersion => "edns-version",
            Self::UnknownKey => "unknown-key",
            Self::NotAQuery => "not-a-query",
            Self::SourcePort => "source-port",
        }
    }

    /// The extended error (RFC 8914) that an answer for this reason carries. A text only where the code alone would not
    /// say it.
    pub const fn extended_error(self) -> Option<ExtendedError> {
        const NOT_AUTHORITATIVE: u16 = 20;
        const NOT_SUPPORTED: u16 = 21;
        const OTHER: u16 = 0;
        let (code, text) = match self {
            Self::NotAuthoritative => (NOT_AUTHORITATIVE, ""),
            Self::Transfer | Self::Class | Self::Opcode => (NOT_SUPPORTED, ""),
            Self::LastGood
            | Self::AllDown
            | Self::Fallback
            | Self::DownNoData
            | Self::DownServFail
            | Self::Malformed => (OTHER, self.explanation()),
            _ => return None,
        };
        Some(ExtendedError { code, text })
    }

    /// What it means, for people.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Static => "data of the zone file",
            Self::NoData => "the name exists, this type does not",
            Self::NxDomain => "the name does not exist",
            Self::Referral => "the name is delegated to other servers",
            Self::MinimalAny => "one RRset in place of all (RFC 8482)",
            Self::Alias => "an alias; its target is asked for separately",
            Self::FirstChoice => "the first datacenter of the client's list is up",
            Self::Failover => "the datacenters before it are not up",
            Self::OtherFamily => "the datacenters before it have no address of this family",
            Self::Ramp => "a datacenter before it returns, and does not take this client yet",
            Self::Shed => "a datacenter before it has too much load, and gave this client up",
            Self::MaxShare => "a datacenter before it has all the clients that it may have",
            Self::LastGood => "no datacenter is up: the last good answer goes on",
            Self::AllDown => "no datacenter is up: all are answered as if they were",
            Self::Fallback => "no datacenter is up: the policy's fallback",
            Self::DownNoData => "no datacenter is up, and the policy wants no data then",
            Self::DownServFail => "no datacenter is up, and the policy wants SERVFAIL then",
            Self::NoFamily => "no datacenter of the policy has an address of this family",
            Self::NotAuthoritative => "the name is in none of our zones",
            Self::Transfer => "zone transfers are not offered",
            Self::Class => "only class IN is served",
            Self::Identity => "who this server is, or what it runs",
            Self::Explained => "the explanation of another name",
            Self::NameTooLong => "the name grew too long under a DNAME",
            Self::Cookie => "nothing was asked but a cookie",
            Self::RateLimit => "the client's network is over its rate",
            Self::Malformed => "the message breaks the format",
            Self::Opcode => "only queries are served",
            Self::EdnsVersion => "only version 0 of EDNS is spoken",
            Self::UnknownKey => "signed by a key that is not configured",
            Self::NotAQuery => "too short, or itself an answer",
            Self::SourcePort => "nobody listens at port 0",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_in_order() {
        let codes: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }
}
