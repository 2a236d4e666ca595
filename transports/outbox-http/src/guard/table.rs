//! The table of addresses that are not public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Every IPv4 block that is not public, with its prefix length.
const V4: &[([u8; 4], u32, &str)] = &[
    ([0, 0, 0, 0], 8, "unspecified"),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "shared by a carrier (CGNAT)"),
    ([127, 0, 0, 0], 8, "loopback"),
    ([169, 254, 0, 0], 16, "link-local"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 0, 0, 0], 24, "reserved for protocols"),
    ([192, 0, 2, 0], 24, "for documentation"),
    ([192, 88, 99, 0], 24, "a 6to4 relay"),
    ([192, 168, 0, 0], 16, "private"),
    ([198, 18, 0, 0], 15, "for benchmarks"),
    ([198, 51, 100, 0], 24, "for documentation"),
    ([203, 0, 113, 0], 24, "for documentation"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([240, 0, 0, 0], 4, "reserved"),
];

/// IPv6 blocks that are not public, with their prefix lengths; the first that matches gives the
/// kind. Addresses outside `2000::/3` are not public either.
const V6: &[([u16; 8], u32, &str)] = &[
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, "unspecified"),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback"),
    ([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, "IPv4-mapped"),
    ([0, 0, 0, 0, 0, 0, 0, 0], 96, "IPv4-compatible"),
    ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, "translated to IPv4 (NAT64)"),
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "translated to IPv4 (NAT64)"),
    ([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "for discarding"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "a Teredo tunnel"),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "for documentation"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "reserved for protocols"),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "a 6to4 tunnel"),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "for documentation"),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "private"),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local"),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "private (site-local)"),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast"),
];

/// Names the kind of an address that is not public, such as "private"; `None` for a public one.
///
/// An IPv4 address inside an IPv6 one (mapped, NAT64, 6to4, Teredo) counts as not public: no public
/// destination is named so.
///
/// ```
/// # use outbox_http::forbidden;
/// assert_eq!(forbidden("10.1.2.3".parse()?), Some("private"));
/// assert_eq!(forbidden("1.1.1.1".parse()?), None);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
///
/// # Source
/// IANA IPv4 and IPv6 Special-Purpose Address Registries; RFC 6890.
#[must_use]
pub fn forbidden(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => V4
            .iter()
            .find(|(block, length, _)| {
                let shift = 32 - length;
                address.to_bits() >> shift == Ipv4Addr::from(*block).to_bits() >> shift
            })
            .map(|(_, _, what)| *what),
        IpAddr::V6(address) => V6
            .iter()
            .find(|(block, length, _)| {
                let shift = 128 - length;
                address.to_bits() >> shift == Ipv6Addr::from(*block).to_bits() >> shift
            })
            .map(|(_, _, what)| *what)
            .or((address.segments()[0] >> 13 != 1).then_some("reserved")),
    }
}
