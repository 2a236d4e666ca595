//! Without a login: whether a request comes from this machine, from somebody who asks for it.

use super::origin::{asked_host, host_of_origin};
use axum::{
    extract::ConnectInfo,
    http::{HeaderMap, Version, header, request::Parts, uri::Authority},
};
use std::net::{IpAddr, SocketAddr};

/// Headers that a proxy adds, beside those that begin with [`FORWARDED`]: then the peer is the proxy,
/// and who asks is unknown.
const OF_PROXIES: [&str; 5] =
    ["forwarded", "via", "x-real-ip", "x-client-ip", "x-original-forwarded-for"];
/// How the names of the other headers of proxies begin.
const FORWARDED: &str = "x-forwarded-";

/// Marks requests to a page that [`serve`](crate::Dashboard::serve) serves, at an address of this
/// machine alone: whoever started it has a login here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServedByItself;

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
    /// A page of another machine has made it.
    Origin,
}

/// Checks that a request was made on this machine, for this machine.
///
/// The host has to be checked too. A page of a stranger whose name the stranger's server resolves to
/// 127.0.0.1 is of the same origin for the browser, and reads what it answers (DNS rebinding).
///
/// A proxy need not say that it is one: nginx has asked its upstreams by HTTP/1.0 and for their own
/// address, with no header of its own, unless it is told otherwise. No browser speaks HTTP/1.0. A
/// proxy that is told to speak HTTP/1.1 and adds no header cannot be told from a visitor.
pub(super) fn check(parts: &Parts) -> Result<(), NotLocal> {
    let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() else {
        return Err(NotLocal::PeerUnknown);
    };
    if !is_loopback(peer.ip()) {
        return Err(NotLocal::Peer);
    }
    if parts.version < Version::HTTP_11 || is_proxied(&parts.headers) {
        return Err(NotLocal::Proxied);
    }
    let host = asked_host(&parts.uri, &parts.headers).ok_or(NotLocal::Host)?;
    if !is_this_machine(host) {
        return Err(NotLocal::Host);
    }
    let is_local = |origin: &str| host_of_origin(origin).is_some_and(|host| is_this_machine(&host));
    match parts.headers.get(header::ORIGIN) {
        Some(origin) if !origin.to_str().is_ok_and(is_local) => Err(NotLocal::Origin),
        Some(_) | None => Ok(()),
    }
}

/// Tells whether a proxy has added a header.
fn is_proxied(headers: &HeaderMap) -> bool {
    let of_proxy = |name: &str| OF_PROXIES.contains(&name) || name.starts_with(FORWARDED);
    headers.keys().any(|name| of_proxy(name.as_str()))
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
            (Some(here), vec![local, ("x-forwarded-proto", "https")], Err(NotLocal::Proxied)),
            (Some(here), vec![local, ("via", "1.1 cache")], Err(NotLocal::Proxied)),
            (Some(here), vec![local, ("origin", "http://127.0.0.1:8080")], Ok(())),
            (Some(here), vec![local, ("origin", "http://localhost:9999")], Ok(())),
            (Some(here), vec![local, ("origin", "http://shop.example")], Err(NotLocal::Origin)),
            (Some(here), vec![local, ("origin", "null")], Err(NotLocal::Origin)),
            (Some(here), vec![host("rebound.example:8080")], Err(NotLocal::Host)),
            (Some(here), vec![host("notlocalhost")], Err(NotLocal::Host)),
            (Some(here), vec![host("127.0.0.1.example")], Err(NotLocal::Host)),
            (Some(here), vec![], Err(NotLocal::Host)),
        ] {
            assert_eq!(check(&parts(peer, &headers)), expected, "{peer:?} {headers:?}");
        }
    }

    #[test]
    fn a_request_as_a_proxy_makes_it_by_default_has_no_access() {
        let local = [("host", "127.0.0.1:8080")];
        for (version, expected) in [
            (Version::HTTP_10, Err(NotLocal::Proxied)),
            (Version::HTTP_11, Ok(())),
            (Version::HTTP_2, Ok(())),
        ] {
            let mut asked = parts(Some("127.0.0.1:5000"), &local);
            asked.version = version;
            assert_eq!(check(&asked), expected, "{version:?}");
        }
    }
}
