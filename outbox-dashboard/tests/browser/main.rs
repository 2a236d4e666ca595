//! The page in a real browser.

#[cfg(test)]
mod browser;
#[cfg(test)]
mod accessibility;
#[cfg(test)]
mod service;
#[cfg(test)]
mod ship;
#[cfg(test)]
mod served;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod strangers;
#[cfg(test)]
mod watching;
#[cfg(test)]
mod acting;
#[cfg(test)]
mod roles;
#[cfg(test)]
mod shop;
