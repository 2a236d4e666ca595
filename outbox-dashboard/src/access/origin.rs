//! Forged requests: a page of another site makes the browser of an operator post here, with the
//! operator's login.

use axum::http::{HeaderMap, Method, Uri, header};

/// What the browser says about the page that makes a request.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Tells whether a page of another site may have made a request that changes something.
///
/// Browsers set `Sec-Fetch-Site` on secure origins and on loopback, and no page can change it. On
/// plain HTTP they set `Origin` alone, whose host must be the one that was asked: the pages' policy of
/// referrers lets them send it, and `null` is of no page of ours. Programs set neither, and no browser
/// gives them its login.
///
/// # Source
/// F. Valsorda, "Cross-Site Request Forgery", 2025, and `CrossOriginProtection` of Go 1.25.
pub(super) fn is_forged(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    if method.is_safe() {
        return false;
    }
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let Some(origin) = origin.to_str().ok().and_then(host_of_origin) else { return true };
    !asked_host(uri, headers).is_some_and(|host| host.eq_ignore_ascii_case(&origin))
}

/// Gives host and port of an origin, as `Host` has them; `None` for `null` and what is no origin.
pub(super) fn host_of_origin(origin: &str) -> Option<String> {
    let origin: Uri = origin.parse().ok()?;
    origin.scheme()?;
    origin.authority().map(|authority| authority.as_str().to_owned())
}

/// Gives the host and port that were asked: of HTTP/2 from the target, else from `Host`.
pub(super) fn asked_host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let of_target = uri.authority().map(axum::http::uri::Authority::as_str);
    of_target.or_else(|| headers.get(header::HOST)?.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_post_of_another_site_is_refused_and_a_program_is_not() {
        for (site, origin, forged) in [
            ("same-origin", "", false),
            ("none", "", false),
            ("same-site", "", true),
            ("cross-site", "", true),
            // What the browser says of the page counts more than the origin, which a proxy's host
            // may differ from.
            ("same-origin", "https://outbox.example", false),
            ("cross-site", "http://127.0.0.1:8080", true),
            ("", "http://127.0.0.1:8080", false),
            ("", "http://127.0.0.1:8081", true),
            ("", "http://127.0.0.1", true),
            ("", "https://evil.example", true),
            ("", "null", true),
            ("", "127.0.0.1:8080", true),
            ("", "", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:8080"));
            if !site.is_empty() {
                headers.insert(SEC_FETCH_SITE, HeaderValue::from_static(site));
            }
            if !origin.is_empty() {
                headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            }
            let uri = Uri::from_static("/letters/plan");
            let seen = is_forged(&Method::POST, &uri, &headers);
            assert_eq!(seen, forged, "site {site:?}, origin {origin:?}");
            assert!(!is_forged(&Method::GET, &uri, &headers), "a read changes nothing");
        }
    }

    #[test]
    fn an_origin_without_a_host_to_compare_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_static("http://a.example"));
        assert!(is_forged(&Method::POST, &Uri::from_static("/x"), &headers));
        let uri = Uri::from_static("http://a.example/x");
        assert!(!is_forged(&Method::POST, &uri, &headers), "HTTP/2 has the host in its target");
    }
}
