//! What runs the actors.

mod clock;
mod connections;
pub mod fault;
mod mailbox;
mod shutdown;
mod supervisor;
mod tasks;
mod wake;
mod watch;

pub use clock::{now, wall_clock};
pub use connections::Connections;
pub(crate) use connections::{Taken, Use, take};
pub use mailbox::{Address, Mailbox, NotSent, OpenMailbox, Stopped, mailbox};
pub use shutdown::Shutdown;
pub use supervisor::{ExitCounts, Restarts, Supervisor, SupervisorError};
pub use tasks::{Exit, Task, Tasks, caught, spawn, thread};
pub use wake::Wake;
pub(crate) use watch::{TIME_LIMIT, Watch, watched};
