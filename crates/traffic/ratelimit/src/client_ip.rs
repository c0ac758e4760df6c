//! Who is at the other end, behind proxies we trust.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderMap;

/// The client's address, found from the right of `X-Forwarded-For`.
///
/// Every proxy appends the address it was called from, so only the entries that our own proxies appended can be
/// believed: with `trusted` of them in front of us, the entry that many places from the right. A list that is shorter
/// did not pass all of them, and an entry that is no address tells nothing: the connection's own address counts then.
///
/// ```
/// use http::HeaderMap;
/// use runtime_ratelimit::client_ip;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("x-forwarded-for", "203.0.113.9, 198.51.100.7:4711".parse().unwrap());
/// let peer = "10.0.0.2".parse().unwrap();
/// assert_eq!(client_ip(&headers, peer, 0).to_string(), "10.0.0.2");
/// assert_eq!(client_ip(&headers, peer, 1).to_string(), "198.51.100.7");
/// assert_eq!(client_ip(&headers, peer, 2).to_string(), "203.0.113.9");
/// assert_eq!(client_ip(&headers, peer, 3).to_string(), "10.0.0.2");
/// ```
pub fn client_ip(headers: &HeaderMap, peer: IpAddr, trusted: u8) -> IpAddr {
    let Some(nth) = usize::from(trusted).checked_sub(1) else { return peer.to_canonical() };
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    let mut entries = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|b| *b == b','));
    let entry = entries.nth(nth).and_then(|entry| std::str::from_utf8(entry).ok());
    entry.and_then(parse).unwrap_or(peer).to_canonical()
}

/// An address as proxies write it: bare, with a port, in brackets, with a zone, in quotes.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare =
        text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(inside, _)| inside);
    let bare = bare.split_once('%').map_or(bare, |(address, _)| address);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// What counts as one caller: an IPv4 address, or the network of so many bits of an IPv6 one.
pub(crate) fn network(address: IpAddr, ipv6_prefix: u8) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(ipv6_prefix.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_proxies_write_them() {
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            (" 192.0.2.1:443 ", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:8080", Some("2001:db8::1")),
            ("\"[2001:db8::1]:8080\"", Some("2001:db8::1")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("::ffff:192.0.2.1", Some("::ffff:192.0.2.1")),
            ("unknown", None),
            ("_hidden", None),
            ("", None),
            ("192.0.2.256", None),
            ("[2001:db8::1", None),
        ] {
            assert_eq!(parse(text), expected.map(|text| text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn only_what_our_own_proxies_appended_is_believed() {
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        for (lines, trusted, expected) in [
            (&["1.1.1.1"] as &[&str], 0, "10.0.0.1"),
            (&["1.1.1.1"], 1, "1.1.1.1"),
            (&["6.6.6.6, 1.1.1.1"], 1, "1.1.1.1"),
            (&["6.6.6.6", "1.1.1.1"], 1, "1.1.1.1"),
            (&["6.6.6.6", "1.1.1.1, 10.9.9.9"], 2, "1.1.1.1"),
            (&["1.1.1.1"], 2, "10.0.0.1"),
            (&[], 1, "10.0.0.1"),
            (&["1.1.1.1, garbage"], 1, "10.0.0.1"),
            (&["::ffff:1.1.1.1"], 1, "1.1.1.1"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            assert_eq!(client_ip(&headers, peer, trusted).to_string(), expected, "{lines:?} {trusted}");
        }
    }

    #[test]
    fn one_subscriber_is_one_caller() {
        for (address, prefix, expected) in [
            ("192.0.2.1", 64, "192.0.2.1"),
            ("::ffff:192.0.2.1", 64, "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::"),
            ("2001:db8:1:2:3:4:5:6", 56, "2001:db8:1::"),
            ("2001:db8:1:2:3:4:5:6", 128, "2001:db8:1:2:3:4:5:6"),
        ] {
            assert_eq!(network(address.parse().unwrap(), prefix).to_string(), expected, "{address}/{prefix}");
        }
    }
}
