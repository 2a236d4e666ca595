//! What runs the actors.

mod clock;
mod connections;
pub mod fault;
pub(crate) mod full_text;
mod mailbox;
mod process;
pub(crate) mod retry;
mod shutdown;
mod supervisor;
mod tasks;
mod wake;
mod watch;

pub(crate) use clock::later;
pub use clock::{now, wall_clock};
pub use connections::Connections;
pub(crate) use connections::{ConnectionGrant, ConnectionUse, reserve_connections};
pub use mailbox::{Closed, Mailbox, MailboxReceiver, MailboxSender, TrySendError, mailbox};
pub use process::{ProcessError, Running, run_until_signal};
pub use shutdown::Shutdown;
pub use supervisor::{ExitCounts, Restarts, Supervisor, SupervisorError};
pub use tasks::{Exit, Task, Tasks, catch_unwind, spawn, thread};
pub use wake::Wake;
pub(crate) use watch::{TIME_LIMIT, Watch, watched};
