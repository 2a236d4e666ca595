//! Without a login: whether a request comes from this machine, from somebody who asks for it.

use super::origin::asked_host;
use axum::{
    extract::ConnectInfo,
    http::{request::Parts, uri::Authority},
};
use std::net::{IpAddr, SocketAddr};

/// Headers that a proxy adds: then the peer is the proxy, and who asks is unknown.
const OF_PROXIES: [&str; 5] =
    ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"];

/// Why a request has no access without a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotLocal {
    /// The router does not know the peer.
    PeerUnknown,
    /// The peer is another machine.
    Peer,
    /// A proxy has forwarded it.
    Proxied,
    /// It asks for a host that is not this machine: a name of a stranger that resolves to loopback.
    Host,
}

/// Checks that a request was made on this machine, for this machine.
///
/// The host has to be checked too. A page of a stranger whose name the stranger's server resolves to
/// 127.0.0.1 is of the same origin for the browser, and reads what it answers (DNS rebinding).
pub(super) fn check(parts: &Parts) -> Result<(), NotLocal> {
    let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() else {
        return Err(NotLocal::PeerUnknown);
    };
    if !is_loopback(peer.ip()) {
        return Err(NotLocal::Peer);
    }
    if OF_PROXIES.iter().any(|name| parts.headers.contains_key(*name)) {
        return Err(NotLocal::Proxied);
    }
    let host = asked_host(&parts.uri, &parts.headers).ok_or(NotLocal::Host)?;
    if is_this_machine(host) { Ok(()) } else { Err(NotLocal::Host) }
}

/// Tells whether an address is of this machine alone; `::ffff:127.0.0.1` is, where a socket takes
/// both families.
pub(super) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Tells whether a host and port are of this machine alone: an address, or a name that no server of
/// names resolves (RFC 6761).
fn is_this_machine(host: &str) -> bool {
    let Ok(host) = host.parse::<Authority>() else { return false };
    let name = host.host().trim_end_matches('.').to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.is_ok_and(is_loopback) || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn parts(peer: Option<&str>, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(peer) = peer {
            request = request.extension(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_this_machine_that_asks_for_this_machine_has_access() {
        let here = "127.0.0.1:5000";
        let host = |host| ("host", host);
        let local = host("127.0.0.1:8080");
        for (peer, headers, expected) in [
            (Some(here), vec![local], Ok(())),
            (Some("[::1]:5000"), vec![host("[::1]:8080")], Ok(())),
            (Some("[::ffff:127.0.0.1]:5000"), vec![host("localhost")], Ok(())),
            (Some(here), vec![host("shop.localhost:8080")], Ok(())),
            (Some(here), vec![host("LOCALHOST.:8080")], Ok(())),
            (None, vec![local], Err(NotLocal::PeerUnknown)),
            (Some("10.0.0.7:5000"), vec![local], Err(NotLocal::Peer)),
            (Some(here), vec![local, ("x-forwarded-for", "10.0.0.7")], Err(NotLocal::Proxied)),
            (Some(here), vec![host("rebound.example:8080")], Err(NotLocal::Host)),
            (Some(here), vec![host("notlocalhost")], Err(NotLocal::Host)),
            (Some(here), vec![host("127.0.0.1.example")], Err(NotLocal::Host)),
            (Some(here), vec![], Err(NotLocal::Host)),
        ] {
            assert_eq!(check(&parts(peer, &headers)), expected, "{peer:?} {headers:?}");
        }
    }
}
