//! What runs the actors.

mod clock;
pub mod fault;
mod mailbox;
mod shutdown;
mod supervisor;
mod tasks;
mod wake;

pub use clock::{now, wall_clock};
pub use mailbox::{Address, Mailbox, NotSent, OpenMailbox, Stopped, mailbox};
pub use shutdown::Shutdown;
pub use supervisor::{ExitCounts, Restarts, Supervisor, SupervisorError};
pub use tasks::{Exit, Task, Tasks, caught, spawn, thread};
pub use wake::Wake;
