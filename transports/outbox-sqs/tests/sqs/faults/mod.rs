//! The network is cut, the service forgets, a process is killed.

mod cut;
mod killed;
mod relay;
