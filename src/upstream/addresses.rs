//! Which addresses the data path never connects to: the agent's own listeners, link-local and metadata services.
//!
//! It judges resolved addresses, never names: what a name resolves to may change between a check and its use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, RwLock};

/// Where this agent itself listens: the data path never connects there. Shared by all upstreams; filled as sockets
/// are bound.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses(Arc<RwLock<Vec<SocketAddr>>>);

impl OwnAddresses {
    /// From now on, no upstream is connected to at `address`. An unspecified IP stands for every address of this
    /// machine.
    pub fn add(&self, address: SocketAddr) {
        self.0
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .push(address);
    }

    /// `here`: the address is known to be one of this machine's.
    pub(super) fn contains(&self, address: SocketAddr, here: bool) -> bool {
        let ip = address.ip().to_canonical();
        let here = here || ip.is_loopback() || ip.is_unspecified();
        self.0
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .iter()
            .any(|own| {
                let own_ip = own.ip().to_canonical();
                own.port() == address.port() && (own_ip == ip || (own_ip.is_unspecified() && here))
            })
    }
}

/// Metadata services of clouds outside the link-local ranges: AWS (IPv6), Alibaba, Azure's wire server, Oracle, Google
/// (IPv6).
const METADATA: [IpAddr; 5] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Why an address is never connected to, if so. An IPv4 address within an IPv6 one counts as itself.
pub(super) fn forbidden_address(address: IpAddr, loopback: bool) -> Option<&'static str> {
    let address = match address {
        IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    };
    let unspecified = match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    if link_local {
        Some("link-local address")
    } else if unspecified {
        Some("unspecified address")
    } else if address.is_multicast() {
        Some("multicast address")
    } else if METADATA.contains(&address) {
        Some("metadata address")
    } else if address.is_loopback() && !loopback {
        Some("loopback address")
    } else {
        None
    }
}

/// IPv4-mapped (RFC 4291), NAT64 (RFC 6052) and 6to4 (RFC 3056).
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, .., y, z] = v6.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    if let Some(mapped) = v6.to_ipv4_mapped() {
        return Some(mapped);
    }
    match (a, b) {
        (0x64, 0xff9b) => Some(v4(y, z)),
        (0x2002, _) => Some(v4(b, v6.segments()[2])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, expected: Option<&str>) {
        assert_eq!(
            forbidden_address(address.parse().expect("address"), false),
            expected,
            "{address}"
        );
    }

    #[test]
    fn addresses_that_are_never_connected_to() {
        for (address, why) in [
            ("169.254.169.254", "link-local address"),
            ("169.254.0.1", "link-local address"),
            ("fe80::1", "link-local address"),
            ("febf::1", "link-local address"),
            ("::ffff:169.254.169.254", "link-local address"),
            ("64:ff9b::a9fe:a9fe", "link-local address"),
            ("2002:a9fe:a9fe::1", "link-local address"),
            ("0.0.0.0", "unspecified address"),
            ("0.1.2.3", "unspecified address"),
            ("::", "unspecified address"),
            ("::ffff:0.0.0.0", "unspecified address"),
            ("255.255.255.255", "unspecified address"),
            ("224.0.0.1", "multicast address"),
            ("ff02::1", "multicast address"),
            ("fd00:ec2::254", "metadata address"),
            ("100.100.100.200", "metadata address"),
            ("168.63.129.16", "metadata address"),
            ("127.0.0.1", "loopback address"),
            ("127.9.9.9", "loopback address"),
            ("::1", "loopback address"),
            ("::ffff:127.0.0.1", "loopback address"),
        ] {
            check(address, Some(why));
        }
        for address in [
            "10.0.0.1",
            "192.0.2.1",
            "169.253.255.255",
            "169.255.0.0",
            "fec0::1",
            "2001:db8::1",
            "fd00::1",
        ] {
            check(address, None);
        }
        assert_eq!(
            forbidden_address("127.0.0.1".parse().expect("address"), true),
            None
        );
        assert_eq!(
            forbidden_address("::1".parse().expect("address"), true),
            None
        );
    }

    #[test]
    fn own_listeners_are_known_by_any_name() {
        let own = OwnAddresses::default();
        own.add("0.0.0.0:8080".parse().expect("address"));
        own.add("127.0.0.1:9901".parse().expect("address"));
        for (address, here, expected) in [
            ("127.0.0.1:8080", false, true),
            ("[::1]:8080", false, true),
            ("[::ffff:127.0.0.1]:9901", false, true),
            ("10.0.0.5:8080", false, false),
            ("10.0.0.5:8080", true, true),
            ("127.0.0.2:9901", false, false),
            ("127.0.0.1:9902", false, false),
        ] {
            assert_eq!(
                own.contains(address.parse().expect("address"), here),
                expected,
                "{address}"
            );
        }
    }
}
