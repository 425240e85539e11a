//! Which registry each block of addresses belongs to.
//!
//! Made by `scripts/registry-table.py` from IANA's registries of
//! 2023-12-18 (IPv4) and 2019-11-06 (IPv6).

use super::Registry::{self, Afrinic, Apnic, Arin, Lacnic, RipeNcc};

/// One letter for each IPv4 /8: a**F**rinic, a**P**nic, **A**rin, **L**acnic, **R**ipe ncc, `-` none.
pub(super) const IPV4_SLASH8: &[u8; 256] = b"\
    -PRAARAAAA-AAAPAAAAAAAAAARAPAAAR\
    AAAAPRAPAFPPAARAAPARARAAARPPPPRA\
    AAAAAAAAAAAAARRRRRRRRRRRRRRRRRRR\
    AAAAAPFPAFPAARPPPPPPPPPPPPPPPPP-\
    AAAAAPAAAAAAARAAARAAAAPRAPFAAAAA\
    AAAPAAAAAAAPAAAPRLRLPLPPARLLRLLL\
    ARRRFFAALLPPAAAAAAPPRRAAARPPPPPP\
    --------------------------------";

/// The first 32 bits of each IPv6 block, its prefix length, its registry; ascending and disjoint.
pub(super) const IPV6: &[(u32, u8, Registry); 33] = &[
    (0x2001_0200, 23, Apnic),
    (0x2001_0400, 23, Arin),
    (0x2001_0600, 23, RipeNcc),
    (0x2001_0800, 22, RipeNcc),
    (0x2001_0c00, 23, Apnic),
    (0x2001_0e00, 23, Apnic),
    (0x2001_1200, 23, Lacnic),
    (0x2001_1400, 22, RipeNcc),
    (0x2001_1800, 23, Arin),
    (0x2001_1a00, 23, RipeNcc),
    (0x2001_1c00, 22, RipeNcc),
    (0x2001_2000, 19, RipeNcc),
    (0x2001_4000, 23, RipeNcc),
    (0x2001_4200, 23, Afrinic),
    (0x2001_4400, 23, Apnic),
    (0x2001_4600, 23, RipeNcc),
    (0x2001_4800, 23, Arin),
    (0x2001_4a00, 23, RipeNcc),
    (0x2001_4c00, 23, RipeNcc),
    (0x2001_5000, 20, RipeNcc),
    (0x2001_8000, 19, Apnic),
    (0x2001_a000, 20, Apnic),
    (0x2001_b000, 20, Apnic),
    (0x2003_0000, 18, RipeNcc),
    (0x2400_0000, 12, Apnic),
    (0x2600_0000, 12, Arin),
    (0x2610_0000, 23, Arin),
    (0x2620_0000, 23, Arin),
    (0x2630_0000, 12, Arin),
    (0x2800_0000, 12, Lacnic),
    (0x2a00_0000, 12, RipeNcc),
    (0x2a10_0000, 12, RipeNcc),
    (0x2c00_0000, 12, Afrinic),
];
