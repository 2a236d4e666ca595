//! The HTTP client of one destination with its connection pool, built once from the configuration.

use crate::{
    config::{ConfigError, ConfigFault},
    guard::GuardedResolver,
    publisher::Config,
};
use outbox_core::transport::is_loopback;
use reqwest::{Client, redirect};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// How long the pool keeps an idle connection: less than most servers keep theirs, so that few are
/// found closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the client waits for a response body after it has the status.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// The client of one destination.
pub(crate) struct HttpClient {
    pub(crate) inner: Client,
    /// One for each request under way.
    pub(crate) permits: Semaphore,
}

impl HttpClient {
    /// Checks the configuration and builds the client.
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let mut faults = config.faults.clone();
        let host = config.url.host_str().unwrap_or_default();
        // The resolver never sees a literal address. The URL parser has normalised its decimal,
        // octal and hexadecimal forms.
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>()
            && let Err(forbidden) = config.guard.check(address)
        {
            faults.push(ConfigFault::Address { address, what: forbidden.what });
        }
        let connect_timeout = config.connect_timeout();
        for (wrong, what, rule) in [
            (config.timeout.is_zero(), "the timeout", "must be longer than zero"),
            (connect_timeout.is_zero(), "the connect timeout", "must be longer than zero"),
            (
                connect_timeout >= config.timeout,
                "the connect timeout",
                "must be shorter than the timeout",
            ),
            (config.max_connections == 0, "the number of connections", "must be at least 1"),
            (
                config.max_connections > Semaphore::MAX_PERMITS,
                "the number of connections",
                "is too large",
            ),
        ] {
            if wrong {
                faults.push(ConfigFault::Range { what, rule });
            }
        }
        let tls = match tls(config) {
            Ok(tls) if faults.is_empty() => tls,
            other => {
                faults.extend(other.err());
                return Err(ConfigError::new(faults));
            }
        };
        let inner = Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(GuardedResolver {
                inner: config.resolver.clone(),
                guard: config.guard.clone(),
            })
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(config.timeout)
            .connect_timeout(connect_timeout)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .user_agent(concat!("outbox-http/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ConfigFault::Tls(error.without_url().to_string()))?;
        if config.url.scheme() == "http" && !is_loopback(host) {
            tracing::warn!(
                host,
                "events go out unencrypted: the URL is http and the host is not loopback"
            );
        }
        Ok(Self { inner, permits: Semaphore::new(config.max_connections) })
    }

    /// Reads a response body up to `max` bytes, so that its connection can be used again. The body
    /// decides nothing; an error may quote it.
    pub(crate) async fn read_body(&self, response: &mut reqwest::Response, max: usize) -> Vec<u8> {
        let mut body = Vec::new();
        let read = async {
            while let Ok(Some(chunk)) = response.chunk().await {
                let room = max.saturating_sub(body.len());
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    break;
                }
            }
        };
        // The status is known; a body that comes too slowly is cut off.
        let _ = tokio::time::timeout(BODY_TIMEOUT, read).await;
        body
    }
}

/// Sets TLS up with this crate's own crypto provider, whatever the process has installed.
fn tls(config: &Config) -> Result<ClientConfig, ConfigFault> {
    let fault = |error: &dyn std::fmt::Display| ConfigFault::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| fault(&e))?;
    if config.url.scheme() == "http" {
        // Small containers have no system certificates, and plain HTTP needs none.
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    }
    let mut roots = Vec::new();
    for pem in &config.roots {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match found {
            Ok(found) if !found.is_empty() => roots.extend(found),
            _ => {
                return Err(ConfigFault::Tls(
                    "a certificate given to trust() is no PEM certificate".into(),
                ));
            }
        }
    }
    let verifier = Verifier::new_with_extra_roots(roots, provider).map_err(|e| fault(&e))?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}
