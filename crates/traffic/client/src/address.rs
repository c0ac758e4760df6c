//! What kind of network an address belongs to (IANA special-purpose registries, RFC 6890 and successors).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of network an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressClass {
    /// The public internet.
    Public,
    /// This machine: 127.0.0.0/8, `::1`.
    Loopback,
    /// A private network: RFC 1918, unique local (RFC 4193), the old site-local, local NAT64 (RFC 8215).
    Private,
    /// This link: 169.254.0.0/16, `fe80::/10`. Clouds serve credentials here (169.254.169.254).
    LinkLocal,
    /// Shared by a carrier's customers: 100.64.0.0/10 (RFC 6598).
    CarrierNat,
    /// A cloud's metadata service that stands on a public address: 168.63.129.16.
    Metadata,
    /// Many at once: 224.0.0.0/4, `ff00::/8`, and broadcast.
    Multicast,
    /// No address: 0.0.0.0/8, `::`. Reaches this machine on many systems.
    Unspecified,
    /// For examples and benchmarks only (RFC 5737, 3849, 9637, 2544).
    Documentation,
    /// Anything else that is not for general use.
    Reserved,
}

impl AddressClass {
    /// Classes an address. Addresses that stand for an IPv4 address (mapped, compatible, NAT64, 6to4, ISATAP) are
    /// classed by that one, so that no spelling of a private address passes for a public one.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => of_v4(v4),
            IpAddr::V6(v6) => of_v6(v6),
        }
    }

    /// The class in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::CarrierNat => "carrier NAT",
            Self::Metadata => "cloud metadata",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified",
            Self::Documentation => "documentation",
            Self::Reserved => "reserved",
        }
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn of_v4(address: Ipv4Addr) -> AddressClass {
    match address.octets() {
        [0, ..] => AddressClass::Unspecified,
        [127, ..] => AddressClass::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => AddressClass::Private,
        [169, 254, ..] => AddressClass::LinkLocal,
        [100, 64..=127, ..] => AddressClass::CarrierNat,
        [168, 63, 129, 16] => AddressClass::Metadata,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [198, 18..=19, ..] => {
            AddressClass::Documentation
        }
        [224..=239, ..] | [255, 255, 255, 255] => AddressClass::Multicast,
        // 192.0.0.0/24: protocol assignments. 192.88.99.0/24: the 6to4 relays that were. 240/4: never given out.
        [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => AddressClass::Reserved,
        _ => AddressClass::Public,
    }
}

#[expect(clippy::match_same_arms, reason = "the order of the arms decides, and each has its own source")]
fn of_v6(address: Ipv6Addr) -> AddressClass {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        of_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => AddressClass::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => AddressClass::Loopback,
        // Compatible (RFC 4291 §2.5.5.1), mapped (§2.5.5.2), translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x64, 0xff9b, 1, ..] => AddressClass::Private,
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => embedded(high, low),
        [0x2001, 0xdb8, ..] => AddressClass::Documentation,
        [0x3fff, second, ..] if second < 0x1000 => AddressClass::Documentation,
        // Protocol assignments, Teredo and ORCHID among them.
        [0x2001, second, ..] if second < 0x200 => AddressClass::Reserved,
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => AddressClass::Private,
        [0xfe80..=0xfebf, ..] => AddressClass::LinkLocal,
        [0xff00..=0xffff, ..] => AddressClass::Multicast,
        // ISATAP (RFC 5214): an interface id that is an IPv4 address.
        [0x2000..=0x3fff, _, _, _, 0 | 0x200, 0x5efe, high, low] => embedded(high, low),
        [0x2000..=0x3fff, ..] => AddressClass::Public,
        _ => AddressClass::Reserved,
    }
}
