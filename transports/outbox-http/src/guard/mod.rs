//! Which addresses a publisher may reach: public ones, and the subnets that the configuration
//! allows.
//!
//! A customer chooses the URL and may point it, or its name, at a host that only this one can
//! reach. So the guard checks every address after resolution, for the connection that uses it, and
//! refuses a name with one forbidden address among several.

mod resolver;
mod table;

pub use resolver::{Resolver, SystemResolver};
pub use table::forbidden;

pub(crate) use resolver::GuardedResolver;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that may be reached: all public ones and the allowed subnets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guard {
    allowed: Vec<IpNet>,
}

/// An address that may not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the address {address} is {what}, which is refused unless its subnet is allowed")]
pub(crate) struct ForbiddenAddress {
    pub(crate) address: IpAddr,
    pub(crate) what: &'static str,
}

impl Guard {
    pub(crate) fn allow(&mut self, subnet: IpNet) {
        self.allowed.push(subnet);
    }

    pub(crate) fn allow_loopback(&mut self) {
        self.allow(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into());
        self.allow(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128).into());
    }

    /// Checks one address.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), ForbiddenAddress> {
        let inner = address.to_canonical();
        if self.allowed.iter().any(|subnet| subnet.contains(&address) || subnet.contains(&inner)) {
            return Ok(());
        }
        forbidden(address).map_or(Ok(()), |what| Err(ForbiddenAddress { address, what }))
    }
}
