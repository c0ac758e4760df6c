//! What axum knows and the layer does not: the connection's address, the route.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath};
use http::Extensions;
use http::request::Parts;

use crate::layer::Lookup;

impl Lookup {
    /// As axum says: [`ConnectInfo`] and [`MatchedPath`] in the extensions. Add the layer with `Router::layer`, so that
    /// the route is known when it is asked.
    pub const AXUM: Self = Self { peer, route };
}

fn peer(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip())
}

fn route(extensions: &Extensions) -> Option<&str> {
    extensions.get::<MatchedPath>().map(MatchedPath::as_str)
}

/// The client's address behind `PROXIES` of our own proxies (see [`client_ip`](crate::client_ip)); nothing when the
/// connection has none, as over a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientIp<const PROXIES: u8 = 0>(pub Option<IpAddr>);

impl<S: Sync, const PROXIES: u8> FromRequestParts<S> for ClientIp<PROXIES> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let peer = peer(&parts.extensions);
        Ok(Self(peer.map(|peer| crate::client_ip(&parts.headers, peer, PROXIES))))
    }
}
