"""Which IP addresses are public: global unicast by IANA's registries of special-purpose addresses (RFC 6890), after the
IPv4 address that an IPv6 form carries has been unwrapped.

The tables are written out, since those of `ipaddress` differ between versions of Python.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

SPECIAL_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this host (RFC 791)
            "10.0.0.0/8",  # private (RFC 1918)
            "100.64.0.0/10",  # behind a carrier's NAT (RFC 6598)
            "127.0.0.0/8",  # loopback (RFC 1122)
            "169.254.0.0/16",  # link-local (RFC 3927), metadata of clouds
            "172.16.0.0/12",
            "192.0.0.0/24",  # IETF protocol assignments (RFC 6890)
            "192.0.2.0/24",  # documentation (RFC 5737)
            "192.88.99.0/24",  # 6to4 relays (RFC 7526)
            "192.168.0.0/16",
            "198.18.0.0/15",  # benchmarks (RFC 2544)
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",  # multicast (RFC 5771)
            "240.0.0.0/4",  # reserved and broadcast
        ),
    )
)
GLOBAL_UNICAST = IPv6Network("2000::/3")  # RFC 4291: what lies outside is loopback, local, multicast or unassigned
SPECIAL_V6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # IETF protocol assignments; Teredo, which lies in it, is unwrapped before
            "2001:db8::/32",  # documentation (RFC 3849)
            "2002::/16",  # 6to4; unwrapped before
            "3fff::/20",  # documentation (RFC 9637)
        ),
    )
)
MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291
COMPATIBLE = IPv6Network("::/96")
TRANSLATED = IPv6Network("64:ff9b::/96")  # NAT64 (RFC 6052)
TRANSLATED_LOCALLY = IPv6Network("64:ff9b:1::/48")  # NAT64 with a prefix of the network's own (RFC 8215)
SIX_TO_FOUR = IPv6Network("2002::/16")  # RFC 3056
TEREDO = IPv6Network("2001::/32")  # RFC 4380
LOW = (1 << 32) - 1


def parsed(text: str) -> Address:
    """Parse an address as a resolver or a socket reports it; the scope of a link-local one is dropped.

    Raises ValueError.
    """
    return ip_address(text.partition("%")[0])


def unwrapped(address: Address) -> tuple[Address, ...]:
    """The addresses that packets to this one may reach in the end: the IPv4 addresses that it carries, or itself."""
    if isinstance(address, IPv4Address):
        return (address,)
    bits = int(address)
    if address in MAPPED or address in COMPATIBLE or address in TRANSLATED:
        return (IPv4Address(bits & LOW),)
    if address in TRANSLATED_LOCALLY:
        return tuple(IPv4Address(one) for one in _by_prefix_lengths(bits)) or (IPv4Address(0),)
    if address in SIX_TO_FOUR:
        return (IPv4Address(bits >> 80 & LOW),)
    if address in TEREDO:  # its server, and the client behind it, whose bits are inverted
        return (IPv4Address(bits >> 64 & LOW), IPv4Address(~bits & LOW))
    return (address,)


def _by_prefix_lengths(bits: int) -> Iterator[int]:
    """The IPv4 address at each place where a prefix of 48, 56, 64 or 96 bits puts it (RFC 6052 section 2.2).

    Bits 64 to 71 are skipped. An empty place is none: the prefix is another one.
    """
    upper, lower = bits >> 64, bits & ((1 << 56) - 1)
    places = (
        (upper & 0xFFFF) << 16 | lower >> 40,
        (upper & 0xFF) << 24 | lower >> 32,
        lower >> 24,
        bits & LOW,
    )
    return (place for place in places if place)


def is_public(address: Address) -> bool:
    """Whether everything that the address stands for is global unicast."""
    return all(_is_global(one) for one in unwrapped(address))


def _is_global(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in SPECIAL_V4)
    return address in GLOBAL_UNICAST and not any(address in network for network in SPECIAL_V6)
