#!/usr/bin/env python3
"""Print shared/src/geo/registry/table.rs: which regional Internet registry each IPv4 /8 and IPv6 block belongs to.

    scripts/registry-table.py ipv4-address-space.xml ipv6-unicast-address-assignments.xml \\
        > shared/src/geo/registry/table.rs

Both files come from IANA, which publishes them as XML:
    https://www.iana.org/assignments/ipv4-address-space/
    https://www.iana.org/assignments/ipv6-unicast-address-assignments/

A block belongs to the registry whose whois server IANA names for it: so legacy blocks count for the registry that
administers them. Reserved blocks and those of IANA itself belong to none.
"""

import argparse
import ipaddress
import sys
import xml.etree.ElementTree as ElementTree

NAMESPACE = "{http://www.iana.org/assignments}"
REGISTRIES = {
    "whois.afrinic.net": ("F", "Afrinic"),
    "whois.apnic.net": ("P", "Apnic"),
    "whois.arin.net": ("A", "Arin"),
    "whois.lacnic.net": ("L", "Lacnic"),
    "whois.ripe.net": ("R", "RipeNcc"),
}


def records(path):
    """The date of a registry file, and its records as (prefix, whois server)."""
    root = ElementTree.parse(path).getroot()
    found = [
        (record.findtext(NAMESPACE + "prefix"), record.findtext(NAMESPACE + "whois"))
        for record in root.iter(NAMESPACE + "record")
        if record.findtext(NAMESPACE + "status") in ("ALLOCATED", "LEGACY")
    ]
    return root.findtext(NAMESPACE + "updated"), found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ipv4", help="IANA's ipv4-address-space.xml")
    parser.add_argument("ipv6", help="IANA's ipv6-unicast-address-assignments.xml")
    arguments = parser.parse_args()

    v4_date, v4 = records(arguments.ipv4)
    letters = ["-"] * 256
    for prefix, whois in v4:
        block, length = prefix.split("/")
        if length != "8":
            sys.exit(f"{arguments.ipv4}: {prefix} is not a /8")
        if whois in REGISTRIES:
            letters[int(block)] = REGISTRIES[whois][0]

    v6_date, v6 = records(arguments.ipv6)
    networks = sorted(
        (ipaddress.IPv6Network(prefix), REGISTRIES[whois][1]) for prefix, whois in v6 if whois in REGISTRIES
    )
    if not networks or letters.count("-") == 256:
        sys.exit("no block belongs to a registry: are these IANA's XML files, in this order?")
    if any(network.prefixlen > 32 for network, _ in networks):
        sys.exit(f"{arguments.ipv6}: a block is longer than /32")

    print("//! Which registry each block of addresses belongs to.")
    print("//!")
    print("//! Made by `scripts/registry-table.py` from IANA's registries of")
    print(f"//! {v4_date} (IPv4) and {v6_date} (IPv6).")
    print()
    print("use super::Registry::{self, Afrinic, Apnic, Arin, Lacnic, RipeNcc};")
    print()
    print("/// One letter for each IPv4 /8: a**F**rinic, a**P**nic, **A**rin, **L**acnic, **R**ipe ncc, `-` none.")
    print('pub(super) const IPV4_SLASH8: &[u8; 256] = b"\\')
    for row in range(0, 256, 32):
        end = "" if row == 224 else "\\"
        print(f"    {''.join(letters[row : row + 32])}{end}" + ('";' if row == 224 else ""))
    print()
    print("/// The first 32 bits of each IPv6 block, its prefix length, its registry; ascending and disjoint.")
    print(f"pub(super) const IPV6: &[(u32, u8, Registry); {len(networks)}] = &[")
    for network, registry in networks:
        top = int(network.network_address) >> 96
        print(f"    (0x{top >> 16:04x}_{top & 0xFFFF:04x}, {network.prefixlen}, {registry}),")
    print("];")


if __name__ == "__main__":
    main()
