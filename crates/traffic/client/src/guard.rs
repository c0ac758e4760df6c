//! Decides which targets may be called: the defence against server-side request forgery.

use std::net::IpAddr;

use url::{Host, Url};

use crate::address::AddressClass;
use crate::config::GuardMode;

/// Decides which targets may be called.
///
/// Names are judged by the addresses they resolve to at the moment of connecting, and only those addresses are
/// connected to, so a name that answers with a public address first and a private one later (DNS rebinding) gains
/// nothing. Every redirect is judged anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    mode: GuardMode,
    allowed: Vec<Rule>,
    ports: Option<Vec<u16>>,
}

/// Why a target is refused. Names the host and the class of its address, never the address a name resolved to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The address, or every address of the name, is of a kind that may not be called.
    #[error("`{host}` is refused: its address is {class}, and the operator's allow-list does not name it")]
    Address {
        /// The host as asked for.
        host: String,
        /// What its address is.
        class: AddressClass,
    },
    /// The port is not on the list.
    #[error("port {0} is refused")]
    Port(u16),
    /// Neither `http` nor `https`.
    #[error("only http and https can be called")]
    Scheme,
}

/// An allow-list entry nobody can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address, a network such as `10.0.0.0/8`, a host or `host:port`")]
pub struct AllowError(String);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Network { base: IpAddr, bits: u8, port: Option<u16> },
    Host { name: String, port: Option<u16> },
}

impl Guard {
    /// The public internet only.
    pub fn public_only() -> Self {
        Self::new(GuardMode::Public)
    }

    /// The public internet and this machine, for development.
    pub fn local() -> Self {
        Self::new(GuardMode::Local)
    }

    /// Everything. For clients whose targets no stranger chooses.
    pub fn open() -> Self {
        Self::new(GuardMode::Open)
    }

    /// A guard of that mode.
    pub fn new(mode: GuardMode) -> Self {
        Self { mode, allowed: Vec::new(), ports: None }
    }

    /// Lets more targets pass: networks (`10.0.0.0/8`, `fd00::/8`), addresses, hosts, each with a port or without
    /// (`db.internal:8080`, `[::1]:9000`). A host named here may resolve to any address.
    ///
    /// # Errors
    /// [`AllowError`] quotes the entry that cannot be read.
    pub fn allow<S: AsRef<str>>(mut self, entries: impl IntoIterator<Item = S>) -> Result<Self, AllowError> {
        for entry in entries {
            self.allowed
                .push(Rule::parse(entry.as_ref()).ok_or_else(|| AllowError(entry.as_ref().to_owned()))?);
        }
        Ok(self)
    }

    /// Only these ports, but for targets on the allow-list.
    #[must_use]
    pub fn ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.ports = Some(ports.into_iter().collect());
        self
    }

    /// Judges what can be judged from the URL alone: scheme, port, and a literal address in any spelling.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub fn check_url(&self, url: &Url) -> Result<(), Refusal> {
        Self::check_scheme(url)?;
        let port = url.port_or_known_default().unwrap_or(0);
        let literal = match url.host() {
            Some(Host::Ipv4(v4)) => Some(IpAddr::V4(v4)),
            Some(Host::Ipv6(v6)) => Some(IpAddr::V6(v6)),
            _ => None,
        };
        let host = url.host_str().unwrap_or_default();
        let named = self.names_host(host, port)
            || literal.is_some_and(|address| self.names_address(address, Some(port)));
        if named {
            return Ok(());
        }
        if self.ports.as_ref().is_some_and(|ports| !ports.contains(&port)) {
            return Err(Refusal::Port(port));
        }
        literal.map_or(Ok(()), |address| self.check_address(host, address))
    }

    /// All that is judged of hosts the operator has put endpoints behind.
    pub(crate) fn check_scheme(url: &Url) -> Result<(), Refusal> {
        if matches!(url.scheme(), "http" | "https") { Ok(()) } else { Err(Refusal::Scheme) }
    }

    /// Whether this host and port are on the allow-list by name, so that its addresses are not judged.
    pub(crate) fn names_host(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.');
        self.allowed.iter().any(|rule| {
            matches!(rule, Rule::Host { name, port: at } if name.eq_ignore_ascii_case(host) && at.is_none_or(|at| at == port))
        })
    }

    /// Judges an address a name resolved to, or a literal one.
    ///
    /// # Errors
    /// [`Refusal::Address`].
    pub fn check_address(&self, host: &str, address: IpAddr) -> Result<(), Refusal> {
        let class = AddressClass::of(address);
        let passes = match self.mode {
            GuardMode::Open => true,
            GuardMode::Local => matches!(class, AddressClass::Public | AddressClass::Loopback),
            GuardMode::Public => class == AddressClass::Public,
        };
        if passes || self.names_address(address, None) {
            return Ok(());
        }
        Err(Refusal::Address { host: host.to_owned(), class })
    }

    /// Without a port (behind a name, where the resolver knows none) only networks allowed for every port count.
    fn names_address(&self, address: IpAddr, port: Option<u16>) -> bool {
        let address = address.to_canonical();
        self.allowed.iter().any(|rule| match rule {
            Rule::Network { base, bits, port: at } => {
                at.is_none_or(|at| port == Some(at)) && within(*base, *bits, address)
            }
            Rule::Host { .. } => false,
        })
    }
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        if let Some((base, bits)) = text.split_once('/') {
            let base: IpAddr = base.parse().ok()?;
            let bits: u8 = bits.parse().ok()?;
            let width = if base.is_ipv4() { 32 } else { 128 };
            return (bits <= width).then_some(Self::Network { base, bits, port: None });
        }
        if let Ok(base) = text.parse::<IpAddr>() {
            return Some(Self::Network { base, bits: if base.is_ipv4() { 32 } else { 128 }, port: None });
        }
        if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
            let bits = if socket.is_ipv4() { 32 } else { 128 };
            return Some(Self::Network { base: socket.ip(), bits, port: Some(socket.port()) });
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (text, None),
        };
        let name = name.trim_end_matches('.');
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let fits = !name.is_empty() && name.len() <= 253 && name.bytes().all(fits);
        fits.then(|| Self::Host { name: name.to_ascii_lowercase(), port })
    }
}

fn within(base: IpAddr, bits: u8, address: IpAddr) -> bool {
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            base.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            base.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}
