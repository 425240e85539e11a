//! EDNS (RFC 6891) and its options: what the OPT record of a query says, and the one we answer with.
//!
//! Reads client subnet (RFC 7871), cookie (RFC 7873), NSID (RFC 5001), keepalive (RFC 7828) and padding (RFC 7830).
//! Options we do not know are passed over and never echoed. Which of them an answer carries, and what is in them, is
//! [`crate::answer`]'s decision; [`Reply`] knows their form, and gives up extended errors (RFC 8914) and padding before
//! an answer would grow over its limit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shared::prefix::Prefix;

/// The UDP payload we announce and never exceed: what passes without fragments (DNS flag day 2020).
pub const UDP_SIZE: u16 = 1232;

/// What a client without EDNS can take over UDP (RFC 1035 §2.3.4); smaller announcements count as this.
pub const MIN_UDP_SIZE: u16 = 512;

/// Answers to clients that pad are padded to a multiple of this (RFC 8467 §4.1).
pub const PADDING_BLOCK: usize = 468;

/// What NSID says at most: with every other option and the longest question it still fits into [`MIN_UDP_SIZE`].
pub const MAX_NSID_BYTES: usize = 128;

const OPTION_NSID: u16 = 3;
const OPTION_SUBNET: u16 = 8;
const OPTION_COOKIE: u16 = 10;
const OPTION_KEEPALIVE: u16 = 11;
const OPTION_PADDING: u16 = 12;
const OPTION_ERROR: u16 = 15;

/// Octets of an OPT record without options: root, type, class, TTL, length.
const OPT_BYTES: usize = 11;

/// The OPT record of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns<'p> {
    /// The largest UDP answer that the client can take, at least [`MIN_UDP_SIZE`].
    pub udp_size: u16,
    /// The client's version; we speak 0.
    pub version: u8,
    /// The DO bit, which answers copy (RFC 3225).
    pub dnssec_ok: bool,
    /// The client subnet.
    pub subnet: Option<Subnet<'p>>,
    /// The cookie: 8 octets, or 16 to 40 (RFC 7873 §4). Of several the first counts (§5.2).
    pub cookie: Option<&'p [u8]>,
    /// Whether the server's identity is asked for. What the option holds in a query is ignored (RFC 5001 §2.1).
    pub nsid: bool,
    /// The keepalive option.
    pub keepalive: Keepalive,
    /// Whether the client pads, and so wants answers padded (RFC 7830 §4).
    pub padding: bool,
}

/// The keepalive option of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keepalive {
    /// None.
    #[default]
    Absent,
    /// Our idle time-out is asked for.
    Asked,
    /// It holds a time-out, which only answers may (RFC 7828 §3.2.1). Over UDP the whole option is ignored (§3.2.2).
    WithTimeout,
}

/// A well-formed client subnet option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet<'p> {
    /// The option's data, echoed byte for byte but for the scope.
    data: &'p [u8],
    /// The network's first address; `None` for family 0, which tells nothing.
    pub address: Option<IpAddr>,
    /// SOURCE PREFIX-LENGTH.
    pub source_bits: u8,
}

/// An OPT record that breaks its format: the answer is FORMERR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl<'p> Edns<'p> {
    /// A record without options.
    pub const fn bare(udp_size: u16, version: u8, dnssec_ok: bool) -> Self {
        Self {
            udp_size: if udp_size < MIN_UDP_SIZE { MIN_UDP_SIZE } else { udp_size },
            version,
            dnssec_ok,
            subnet: None,
            cookie: None,
            nsid: false,
            keepalive: Keepalive::Absent,
            padding: false,
        }
    }

    /// Reads the OPT record with these CLASS, TTL and RDATA. The options of a version that we do not speak are left
    /// alone: their format may be another.
    pub fn parse(class: u16, ttl: u32, mut options: &'p [u8]) -> Result<Self, Malformed> {
        let [_, version, flags, _] = ttl.to_be_bytes();
        let mut edns = Self::bare(class, version, flags & 0x80 != 0);
        if version > 0 {
            return Ok(edns);
        }
        while !options.is_empty() {
            let (head, rest) = options.split_first_chunk::<4>().ok_or(Malformed)?;
            let [code_high, code_low, length_high, length_low] = *head;
            let length = usize::from(u16::from_be_bytes([length_high, length_low]));
            let (data, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
            match u16::from_be_bytes([code_high, code_low]) {
                // Two subnets contradict each other; which one counts is nowhere said.
                OPTION_SUBNET if edns.subnet.replace(Subnet::parse(data)?).is_some() => {
                    return Err(Malformed);
                }
                // RFC 7873 §5.2.2: other lengths are FORMERR.
                OPTION_COOKIE if !matches!(data.len(), 8 | 16..=40) => return Err(Malformed),
                OPTION_COOKIE if edns.cookie.is_none() => edns.cookie = Some(data),
                OPTION_NSID => edns.nsid = true,
                OPTION_KEEPALIVE if data.is_empty() => edns.keepalive = Keepalive::Asked,
                OPTION_KEEPALIVE => edns.keepalive = Keepalive::WithTimeout,
                OPTION_PADDING => edns.padding = true,
                _ => {}
            }
            options = rest;
        }
        Ok(edns)
    }
}

impl<'p> Subnet<'p> {
    /// RFC 7871 §6 and §7.1.2: a known family, a scope of zero, exactly the octets that the prefix needs, and zeros
    /// after its last bit.
    fn parse(data: &'p [u8]) -> Result<Self, Malformed> {
        let (head, address) = data.split_first_chunk::<4>().ok_or(Malformed)?;
        let [family_high, family_low, source_bits, scope_bits] = *head;
        let family = u16::from_be_bytes([family_high, family_low]);
        let width: u8 = match family {
            1 => 32,
            2 => 128,
            // Nothing but "no information" can be said without a family; some forwarders do say it.
            0 => 0,
            _ => return Err(Malformed),
        };
        let exact = address.len() == usize::from(source_bits.div_ceil(8));
        if scope_bits != 0 || source_bits > width || !exact {
            return Err(Malformed);
        }
        if let (1..=7, Some(last)) = (source_bits % 8, address.last())
            && last & (0xff >> (source_bits % 8)) != 0
        {
            return Err(Malformed);
        }
        let mut octets = [0; 16];
        for (octet, &given) in octets.iter_mut().zip(address) {
            *octet = given;
        }
        let address = match family {
            1 => {
                let [a, b, c, d, ..] = octets;
                Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
            }
            2 => Some(IpAddr::V6(Ipv6Addr::from(octets))),
            _ => None,
        };
        Ok(Self { data, address, source_bits })
    }
}

/// The option that a resolver sends for a client in `network`, code and length included.
pub fn subnet_option(network: Prefix) -> Vec<u8> {
    let (family, octets) = match network.network() {
        IpAddr::V4(v4) => (1, v4.octets().to_vec()),
        IpAddr::V6(v6) => (2, v6.octets().to_vec()),
    };
    let kept = usize::from(network.length().div_ceil(8));
    let mut option = OPTION_SUBNET.to_be_bytes().to_vec();
    option.extend(u16::try_from(4 + kept).unwrap_or(0).to_be_bytes());
    option.extend([0, family, network.length(), 0]);
    option.extend(octets.iter().take(kept));
    option
}

/// An extended error (RFC 8914).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedError {
    /// INFO-CODE.
    pub code: u16,
    /// EXTRA-TEXT, empty where the code says it all.
    pub text: &'static str,
}

/// The OPT record of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reply<'p> {
    /// Copied from the query.
    pub dnssec_ok: bool,
    /// The subnet of the query, when it had one.
    pub subnet: Option<Subnet<'p>>,
    /// For which part of the address space the answer holds.
    pub scope_bits: u8,
    /// The client's cookie and ours.
    pub cookie: Option<[u8; 24]>,
    /// Who we are, [`MAX_NSID_BYTES`] at most.
    pub nsid: Option<&'p [u8]>,
    /// How long we keep an idle connection, in units of 100 ms.
    pub keepalive: Option<u16>,
    /// What went wrong. Left out where there is no room for it.
    pub error: Option<ExtendedError>,
    /// Whether the message is padded to a multiple of [`PADDING_BLOCK`].
    pub is_padded: bool,
}

impl Reply<'_> {
    /// How many octets the record has without what [`fit`](Self::fit) adds to it.
    pub fn length(&self) -> usize {
        OPT_BYTES
            + self.subnet.map_or(0, |subnet| 4 + subnet.data.len())
            + self.cookie.map_or(0, |cookie| 4 + cookie.len())
            + self.nsid.map_or(0, |nsid| 4 + nsid.len())
            + self.keepalive.map_or(0, |_| 4 + 2)
    }

    /// Decides what else goes into the record of a message of `message` octets, this record's [`length`](Self::length)
    /// included, that may grow to `limit`.
    #[inline]
    pub fn fit(&self, message: usize, limit: usize) -> Fitted {
        if self.error.is_none() && !self.is_padded {
            return Fitted { extra: 0, error: None, padding: None };
        }
        self.fit_extras(message, limit)
    }

    fn fit_extras(&self, message: usize, limit: usize) -> Fitted {
        let length = |error: ExtendedError| 4 + 2 + error.text.len();
        let error = self.error.filter(|error| message + length(*error) <= limit);
        let message_with_error = message + error.map_or(0, length);
        // RFC 8467 §4.1: a block that would pass the limit ends at the limit.
        let least = message_with_error + 4;
        let padded = least.next_multiple_of(PADDING_BLOCK).min(limit);
        let padding = (self.is_padded && least <= limit).then(|| padded.saturating_sub(least));
        let whole = padding.map_or(message_with_error, |padding| least + padding);
        Fitted { extra: whole - message, error, padding }
    }

    /// Writes the record with the upper eight bits of `rcode`. `out` must hold exactly [`length`](Self::length) octets
    /// and those of `fitted`.
    pub fn write(&self, rcode: u16, fitted: &Fitted, out: &mut [u8]) {
        let Some((head, mut rest)) = out.split_first_chunk_mut::<OPT_BYTES>() else { return };
        let [rcode_high, _] = (rcode >> 4 << 8).to_be_bytes();
        let [size_high, size_low] = UDP_SIZE.to_be_bytes();
        let [length_high, length_low] = u16::try_from(rest.len()).unwrap_or(0).to_be_bytes();
        let flags = if self.dnssec_ok { 0x80 } else { 0 };
        *head = [0, 0, 41, size_high, size_low, rcode_high, 0, flags, 0, length_high, length_low];
        if let Some(subnet) = self.subnet {
            let data = put_option(&mut rest, OPTION_SUBNET, subnet.data);
            if let Some(scope) = data.get_mut(3) {
                *scope = self.scope_bits;
            }
        }
        if !rest.is_empty() {
            self.write_others(fitted, rest);
        }
    }

    fn write_others(&self, fitted: &Fitted, mut rest: &mut [u8]) {
        if let Some(cookie) = &self.cookie {
            put_option(&mut rest, OPTION_COOKIE, cookie);
        }
        if let Some(nsid) = self.nsid {
            put_option(&mut rest, OPTION_NSID, nsid);
        }
        if let Some(timeout) = self.keepalive {
            put_option(&mut rest, OPTION_KEEPALIVE, &timeout.to_be_bytes());
        }
        if let Some(error) = fitted.error {
            let length = 2 + error.text.len();
            let data = open_option(&mut rest, OPTION_ERROR, length);
            if let Some((code, text)) = data.split_first_chunk_mut::<2>() {
                *code = error.code.to_be_bytes();
                text.copy_from_slice(error.text.as_bytes());
            }
        }
        if let Some(padding) = fitted.padding {
            open_option(&mut rest, OPTION_PADDING, padding).fill(0);
        }
    }
}

/// What goes into an OPT record because there is room for it.
#[derive(Clone, Copy, Debug)]
pub struct Fitted {
    /// How many octets that is.
    pub extra: usize,
    error: Option<ExtendedError>,
    padding: Option<usize>,
}

/// Takes an option with `length` octets of data off the front of `rest` and returns its data. Empty, and nothing
/// taken, when there is no room.
fn open_option<'o>(rest: &mut &'o mut [u8], code: u16, length: usize) -> &'o mut [u8] {
    let Some((option, after)) = std::mem::take(rest).split_at_mut_checked(4 + length) else {
        return &mut [];
    };
    *rest = after;
    let Some((head, data)) = option.split_first_chunk_mut::<4>() else { return &mut [] };
    let [code_high, code_low] = code.to_be_bytes();
    let [length_high, length_low] = u16::try_from(length).unwrap_or(0).to_be_bytes();
    *head = [code_high, code_low, length_high, length_low];
    data
}

fn put_option<'o>(rest: &mut &'o mut [u8], code: u16, data: &[u8]) -> &'o mut [u8] {
    let room = open_option(rest, code, data.len());
    if room.len() == data.len() {
        room.copy_from_slice(data);
    }
    room
}

#[cfg(test)]
mod tests;
