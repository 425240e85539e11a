//! The answer path with a small world, and what it keeps to whatever the packet: used by libFuzzer and by the tests.

use std::net::SocketAddr;
use std::sync::Arc;

use geodns::answer::{Client, Context, Outcome, Server, Transport, answer};
use geodns::cookie::Secrets;
use geodns::io::load::load;
use geodns::rrl::{Limiter, Settings};
use geodns::snapshot::Snapshot;
use geodns::wire::Rcode;
use hickory_proto::op::Message;
use shared::time::UnixMillis;

const CONFIG: &str = r#"
[datacenter.icn]
location = [37.46, 126.44]
[datacenter.fra]
location = [50.03, 8.57]
[nameserver.ns1]
listen = ["192.0.2.53:53"]
admin = "127.0.0.1:8053"
[edge.icn-1]
datacenter = "icn"
address = ["192.0.2.1", "2001:db8::1"]
http = ["192.0.2.1:80"]
admin = "127.0.0.1:9091"
[edge.fra-1]
datacenter = "fra"
address = ["192.0.2.2"]
http = ["192.0.2.2:80"]
admin = "127.0.0.1:9092"
[zone."cdn.test"]
file = "zone"
steer = { "www" = "web", "*.img" = "web" }
[steering.web]
order = "nearest"
"#;

const ZONE: &str = "\
$TTL 300
@ SOA ns1 hostmaster 7 1h 10m 2w 60
@ NS ns1
@ NS ns2
ns1 A 192.0.2.53
ns2 A 192.0.2.54
www TXT hello
static A 192.0.2.80
alias CNAME www
chain1 CNAME chain2
chain2 CNAME static
loop1 CNAME loop2
loop2 CNAME loop1
*.spin CNAME a.spin
*.wild TXT wildcard
deep.a.b TXT below
a\\000b\\.c TXT odd
sub NS ns.sub
ns.sub A 192.0.2.7
old DNAME new
x.new A 192.0.2.99
big TXT 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789
big TXT 1123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789
big TXT 2123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789
big TXT 3123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789
big TXT 4123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789
";

/// What our answers over UDP never exceed.
const UDP_SIZE: usize = 1232;

/// A client subnet option that tells nothing.
const NO_FAMILY: [u8; 8] = [0, 8, 0, 4, 0, 0, 0, 0];

/// All that answering reads.
pub(super) struct Target {
    snapshot: Snapshot,
    servers: [Server; 2],
}

impl Target {
    /// Loads the world from files, as a node does.
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("meridian.toml");
        std::fs::write(&config, CONFIG).expect("a configuration");
        std::fs::write(folder.path().join("zone"), ZONE).expect("a zone");
        let loading = load(&config).unwrap_or_else(|problems| panic!("{problems:?}"));
        let named = || Server {
            nsid: Some(b"ns1".as_slice().into()),
            version: Some(b"meridian".as_slice().into()),
            idle: std::time::Duration::from_secs(10),
            cookies: Some(Secrets::new(&[9; 16], None)),
            ..Server::default()
        };
        let settings =
            Settings { rate: 1, slip: 2, prefix_v4: 24, prefix_v6: 56, exempt: Vec::new() };
        let limiter = Some(Arc::new(Limiter::new(settings, &[5; 16])));
        let servers = [named(), Server { limiter, ..named() }];
        Self { snapshot: Snapshot::presumed_up(loading.tables), servers }
    }

    /// Answers `packet` over every transport, with and without rate limiting, and panics when an answer is not what
    /// every answer must be.
    pub(super) fn check(&self, packet: &[u8]) {
        for server in &self.servers {
            for transport in Transport::ALL {
                for address in ["1.208.0.1:5300", "[2001:db8::7]:5300"] {
                    self.check_one(packet, server, transport, address.parse().expect("an address"));
                }
            }
        }
    }

    fn check_one(&self, packet: &[u8], server: &Server, transport: Transport, address: SocketAddr) {
        let client = Client { address, transport, draw: packet.len() as u64 };
        let context = Context { server, now: UnixMillis(1_559_731_985_000) };
        let mut out = vec![0xaa; 65_535];
        let outcome = answer(packet, &client, &context, &self.snapshot, &mut out);
        let Outcome::Respond { length, facts } = outcome else { return };
        let response = &out[..length];

        // Only queries are answered, and by a response with their id, opcode and RD.
        assert!(packet.len() >= 12 && packet[2] & 0x80 == 0, "not a query");
        assert_eq!(response[..2], packet[..2], "the id");
        assert_eq!(response[2] & 0xf9, packet[2] & 0x79 | 0x80, "QR, opcode, RD");
        assert_eq!(response[3] & 0xf0, 0, "RA, Z, AD, CD");
        if response[5] == 1 {
            let question = question(packet).expect("a question");
            assert_eq!(&response[12..12 + question.len()], question, "the question, in its case");
        }

        // No longer than the client can take; what was over its rate is no longer than what it asked with, but for our
        // cookie, and the OPT record's fixed part.
        let query = Message::from_vec(packet).ok();
        if transport == Transport::Udp {
            assert!(length <= UDP_SIZE, "{length}");
            if let Some(query) = &query {
                let said = query.edns.as_ref().map_or(512, |edns| edns.max_payload().max(512));
                assert!(length <= usize::from(said), "{length} of {said}");
            }
        }

        // Whatever it is, others can read it. hickory-proto does not know the subnet of no family, which is echoed.
        let message = match Message::from_vec(response) {
            Ok(message) => message,
            Err(_) if response.windows(8).any(|octets| octets == NO_FAMILY) => return,
            Err(error) => panic!("{error}: {response:02x?}"),
        };
        assert_eq!(u16::from(message.metadata.response_code), facts.rcode as u16);
        assert_eq!(message.metadata.truncation, facts.truncated);
        if facts.truncated {
            assert!(message.answers.is_empty() && message.authorities.is_empty());
        }
        if !matches!(facts.rcode, Rcode::NoError | Rcode::NxDomain | Rcode::YxDomain) {
            assert!(message.answers.is_empty(), "an error with an answer");
            assert!(!message.metadata.authoritative, "an error is nobody's word");
        }
        if let (Some(query), Rcode::NoError | Rcode::NxDomain) = (&query, facts.rcode) {
            assert_eq!(query.edns.is_some(), message.edns.is_some(), "OPT to who sent one");
        }
    }
}

/// The question section of a packet with one question.
fn question(packet: &[u8]) -> Option<&[u8]> {
    let mut at = 12;
    while *packet.get(at)? != 0 {
        at += 1 + usize::from(*packet.get(at)?);
    }
    packet.get(12..at + 5)
}
