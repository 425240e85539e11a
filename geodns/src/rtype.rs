//! Record types: their numbers and mnemonics, for zone files, logs and the command line.

#![expect(missing_docs, reason = "the constants bear the names of IANA's registry")]

use std::fmt;

pub const A: u16 = 1;
pub const NS: u16 = 2;
pub const CNAME: u16 = 5;
pub const SOA: u16 = 6;
pub const MX: u16 = 15;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;
pub const DNAME: u16 = 39;
pub const OPT: u16 = 41;
pub const DS: u16 = 43;
pub const RRSIG: u16 = 46;
pub const NSEC: u16 = 47;
pub const NSEC3: u16 = 50;
pub const NSEC3PARAM: u16 = 51;
pub const SVCB: u16 = 64;
pub const HTTPS: u16 = 65;
pub const TSIG: u16 = 250;
pub const IXFR: u16 = 251;
pub const AXFR: u16 = 252;
pub const ANY: u16 = 255;
/// Of zone files only: a private number, the one that others use for it. Never on the wire.
pub const ALIAS: u16 = 65_401;

/// Mnemonics and numbers, the common ones first.
const MNEMONICS: &[(&str, u16)] = &[
    ("A", A),
    ("AAAA", AAAA),
    ("HTTPS", HTTPS),
    ("NS", NS),
    ("SOA", SOA),
    ("MX", MX),
    ("TXT", TXT),
    ("CNAME", CNAME),
    ("PTR", 12),
    ("SRV", SRV),
    ("CAA", 257),
    ("SVCB", SVCB),
    ("DS", DS),
    ("DNSKEY", 48),
    ("TLSA", 52),
    ("HINFO", 13),
    ("RP", 17),
    ("AFSDB", 18),
    ("LOC", 29),
    ("NAPTR", 35),
    ("CERT", 37),
    ("DNAME", DNAME),
    ("OPT", OPT),
    ("SSHFP", 44),
    ("RRSIG", RRSIG),
    ("NSEC", NSEC),
    ("NSEC3", NSEC3),
    ("NSEC3PARAM", NSEC3PARAM),
    ("SMIMEA", 53),
    ("CDS", 59),
    ("CDNSKEY", 60),
    ("OPENPGPKEY", 61),
    ("CSYNC", 62),
    ("ZONEMD", 63),
    ("SPF", 99),
    ("TSIG", TSIG),
    ("IXFR", IXFR),
    ("AXFR", AXFR),
    ("ANY", ANY),
    ("URI", 256),
    ("MB", 7),
    ("MG", 8),
    ("MR", 9),
    ("NULL", 10),
    ("WKS", 11),
    ("MINFO", 14),
    ("X25", 19),
    ("ISDN", 20),
    ("RT", 21),
    ("KEY", 25),
    ("PX", 26),
    ("GPOS", 27),
    ("KX", 36),
    ("APL", 42),
    ("IPSECKEY", 45),
    ("DHCID", 49),
    ("HIP", 55),
    ("NINFO", 56),
    ("NID", 104),
    ("L32", 105),
    ("L64", 106),
    ("LP", 107),
    ("EUI48", 108),
    ("EUI64", 109),
    ("AVC", 258),
    ("RESINFO", 261),
    ("WALLET", 262),
    ("TA", 32_768),
    ("DLV", 32_769),
    ("ALIAS", ALIAS),
    ("ANAME", ALIAS),
];

/// The number of a mnemonic in any case, `TYPE123` included (RFC 3597 §5).
pub fn parse(text: &str) -> Option<u16> {
    let known = MNEMONICS.iter().find(|(mnemonic, _)| mnemonic.eq_ignore_ascii_case(text));
    if let Some((_, number)) = known {
        return Some(*number);
    }
    let (head, digits) = text.split_at_checked(4)?;
    let number = head.eq_ignore_ascii_case("TYPE") && digits.bytes().all(|b| b.is_ascii_digit());
    number.then(|| digits.parse().ok()).flatten()
}

/// Shows a type by its mnemonic, or as `TYPE123`.
pub struct Shown(pub u16);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match MNEMONICS.iter().find(|(_, number)| *number == self.0) {
            Some((mnemonic, _)) => f.write_str(mnemonic),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_reads_back() {
        for number in 0..=u16::MAX {
            assert_eq!(parse(&Shown(number).to_string()), Some(number));
        }
        assert_eq!(parse("aaaa"), Some(AAAA));
        assert_eq!(parse("type65"), Some(HTTPS));
        for text in ["", "TYPE", "TYPE65536", "TYPE-1", "TYPE+1", "NOPE", "é"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
