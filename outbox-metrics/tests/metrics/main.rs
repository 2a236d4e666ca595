//! Metrics and health of relays, consumers and sagas on SQLite, over HTTP; and what is written of
//! them: `docs/metrics.md` and `deploy/`.

#[cfg(test)]
mod deploy;
#[cfg(test)]
mod emitted;
#[cfg(test)]
mod endpoints;
#[cfg(test)]
mod page;
#[cfg(test)]
mod spans;
#[cfg(test)]
mod world;
