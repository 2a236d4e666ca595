//! The resolver of every connection: it resolves a name to allowed addresses, or fails.

use super::Guard;
use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Resolves names to addresses; the system's resolver unless a publisher is given another.
///
/// ```
/// # use outbox_http::{HttpPublisher, Resolver};
/// # use std::net::IpAddr;
/// struct Pinned(IpAddr);
///
/// #[async_trait::async_trait]
/// impl Resolver for Pinned {
///     async fn resolve(&self, _host: &str) -> std::io::Result<Vec<IpAddr>> {
///         Ok(vec![self.0])
///     }
/// }
/// # fn example(publisher: HttpPublisher) -> HttpPublisher {
/// publisher.resolver(Pinned(IpAddr::from([203, 0, 113, 7])))
/// # }
/// ```
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// Gives all addresses of a host name.
    ///
    /// # Errors
    /// The resolver's error when there are none; the destination counts as unavailable then.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// A resolver whose addresses the guard checks.
#[derive(Clone)]
pub(crate) struct GuardedResolver {
    pub(crate) inner: Arc<dyn Resolver>,
    pub(crate) guard: Guard,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            let addresses = this.inner.resolve(name.as_str()).await?;
            if addresses.is_empty() {
                return Err(io::Error::other("the name has no address").into());
            }
            for &address in &addresses {
                this.guard.check(address)?;
            }
            // Port 0 stands for the URL's port.
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}
