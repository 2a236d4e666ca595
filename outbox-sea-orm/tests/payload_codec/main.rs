//! Payloads that a codec encodes: no table has the clear content, and handlers see nothing else.

#[cfg(test)]
mod world;
#[cfg(test)]
mod at_rest;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod letters;
#[cfg(test)]
mod sagas;
