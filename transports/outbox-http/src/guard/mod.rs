//! Which addresses a publisher may reach: none inside, unless the configuration allows the subnet.
//!
//! A URL is chosen by people outside, who may point it, or its name, at what only this host can reach. So every address is
//! judged after resolution, on the very connection that is used, and one forbidden address among several refuses the name.

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
pub(crate) struct Refused {
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

    /// Judges one address.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), Refused> {
        let inner = address.to_canonical();
        if self.allowed.iter().any(|subnet| subnet.contains(&address) || subnet.contains(&inner)) {
            return Ok(());
        }
        forbidden(address).map_or(Ok(()), |what| Err(Refused { address, what }))
    }
}
