//! The arguments of the command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use outbox_core::{
    admin::{ControlScope, DeadLetterFilter},
    failure::DeadReason,
    saga::SagaState,
};
use outbox_sea_orm::Dialect;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

const EXIT_CODES: &str = "Exit codes: 0 done; 1 nothing found, or something is wrong (doctor, \
    migrate check); 2 wrong arguments or configuration; 3 a database could not be asked; 4 refused \
    or not confirmed; 5 cancelled, or stopped by the canary.";

/// Shortest pause between two looks.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// The command line `outbox`.
#[derive(Debug, Parser)]
#[command(
    name = "outbox",
    version,
    about = "Shows what stands still in an outbox, why, and moves it"
)]
#[command(after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which databases, and how the answer is written.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// URL of a database; may be given several times. Without it the context counts, then the
    /// variable DATABASE_URL.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) database: Vec<String>,
    /// Prefix of the outbox's tables, with --database or DATABASE_URL.
    #[arg(long, global = true, value_name = "PREFIX")]
    pub(crate) namespace: Option<String>,
    /// A context of the configuration file.
    #[arg(long, global = true, value_name = "NAME", env = "OUTBOX_CONTEXT")]
    pub(crate) context: Option<String>,
    /// One database of the context, by its name; acts need it where the context has several.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) on: Option<String>,
    /// The configuration file; ~/.config/outbox/config.toml unless given.
    #[arg(long, global = true, value_name = "FILE", env = "OUTBOX_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Writes JSON for programs, as `outbox schema` says.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Does not ask before an act.
    #[arg(long, short, global = true)]
    pub(crate) yes: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows each database at a glance.
    Overview,
    /// Shows the overview again and again.
    Top(Top),
    /// Finds what an id, a key or a correlation id is.
    Find(Text),
    /// Shows the whole life of one message, as far as it is stored.
    Life(Text),
    /// Shows everything about an event, a key or a saga over all databases, in order of time.
    Follow(Text),
    /// Says in a sentence why something stands still, and what moves it.
    Explain(Text),
    /// Dead letters.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Lists deferred deliveries.
    Deferred(Deferred),
    /// Lists scheduled events.
    Scheduled(Paging),
    /// Shows in which handlers a message was received.
    Inbox(Text),
    /// Sagas.
    #[command(subcommand)]
    Sagas(Sagas),
    /// Pauses a route, topic, key, consumer or saga.
    Pause(Pause),
    /// Ends the pause and the rate of a route, topic, key, consumer or saga.
    Resume(Scoped),
    /// Limits a route to so many events a second.
    Rate(Rate),
    /// Runs a relay from a TOML file until it is stopped.
    Relay(Relay),
    /// Serves the web page of the operators until it is stopped.
    Serve(Serve),
    /// Examines the outbox, its database and its surroundings.
    Doctor,
    /// Lists the acts of operators, the newest first.
    Audit(Paging),
    /// Tables of the outbox.
    #[command(subcommand)]
    Migrate(Migrate),
    /// Writes a new service that builds and passes its tests: events, relay, consumer and saga.
    New(New),
    /// Writes the completions of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Follows events over all databases as they are created, confirmed or given up.
    Tail(Tail),
    /// Erases what is stored under a key, such as a person's.
    Erase(Erase),
    /// Measures this database by tables of its own, which it drops at the end.
    Bench(Bench),
    /// Writes the JSON schema of what a command writes with --json.
    Schema {
        /// The words of the command, such as `dead-letters list`; without them all are named.
        command: Vec<String>,
    },
}

/// A new service.
#[derive(Debug, Args)]
pub(crate) struct New {
    /// Its name, and that of its folder: small letters, digits and `-`.
    pub(crate) name: String,
    /// The folder of the framework's source, on which the service depends: its packages are in no
    /// registry yet.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) source: Option<PathBuf>,
}

/// What is asked about.
#[derive(Debug, Args)]
pub(crate) struct Text {
    /// An id of a message or saga, a key, or a saga's correlation id.
    #[arg(allow_hyphen_values = true)]
    pub(crate) text: String,
}

/// How often `top` asks.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Pause between two looks, at least 50ms.
    #[arg(long, default_value = "1s", value_parser = pause)]
    pub(crate) every: Duration,
    /// Ends after so many looks.
    #[arg(long)]
    pub(crate) times: Option<u64>,
}

/// A part of a list.
#[derive(Debug, Args)]
pub(crate) struct Paging {
    /// From the row after this one, which the list before has named.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) after: Option<i64>,
    /// At most so many rows, 1 to 10,000.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

/// Deferred deliveries.
#[derive(Debug, Args)]
pub(crate) struct Deferred {
    /// Only of this consumer.
    #[arg(long)]
    pub(crate) consumer: Option<String>,
    #[command(flatten)]
    pub(crate) paging: Paging,
}

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// Lists them by number.
    List {
        #[command(flatten)]
        filter: LetterFilter,
        #[command(flatten)]
        paging: Paging,
    },
    /// Groups them by route or handler, reason and error.
    Groups {
        #[command(flatten)]
        filter: LetterFilter,
    },
    /// Shows one, with its content and history.
    Show {
        /// The letter's number.
        letter: i64,
        /// Shows also a content that is hidden, as its type is sensitive; needs --why, and the audit
        /// says first who saw it.
        #[arg(long)]
        show_content: bool,
        #[command(flatten)]
        note: Note,
    },
    /// Publishes their events again, or hands their messages to the handler again.
    Redrive(LetterAct),
    /// Discards them: keys that wait behind them go on.
    Discard(LetterAct),
    /// Discards them and deletes their content.
    Purge(LetterAct),
    /// Sends one again with other content, as a new event.
    Resend {
        /// The letter's number.
        letter: i64,
        /// The file with the content; `-` reads the standard input.
        #[arg(long, value_name = "FILE")]
        payload: PathBuf,
        #[command(flatten)]
        note: Note,
    },
}

/// Which dead letters.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LetterFilter {
    /// On this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Of this event type.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Of this key.
    #[arg(long)]
    key: Option<String>,
    /// Given up by this route.
    #[arg(long)]
    route: Option<String>,
    /// Given up by this consumer.
    #[arg(long)]
    consumer: Option<String>,
    /// Given up by this handler of the consumer.
    #[arg(long, requires = "consumer")]
    handler: Option<String>,
    /// For this reason: rejected, exhausted, expired, unroutable, crashed, undecodable, not_retried
    /// or unknown_type.
    #[arg(long, value_parser = reason)]
    reason: Option<DeadReason>,
    /// Given up at least so long ago, such as 2h or 3days.
    #[arg(long, value_parser = duration)]
    older_than: Option<Duration>,
    /// Also those that were resolved; only of use in lists.
    #[arg(long)]
    resolved: bool,
}

impl LetterFilter {
    /// Gives the filter of the operator's interface.
    pub(crate) fn to_filter(&self) -> DeadLetterFilter {
        let Self { topic, event_type, key, route, consumer, handler, .. } = self.clone();
        DeadLetterFilter {
            topic,
            event_type,
            key,
            route,
            consumer,
            handler,
            reason: self.reason,
            older_than: self.older_than,
            include_resolved: self.resolved,
            ..DeadLetterFilter::default()
        }
    }
}

/// An act on dead letters.
#[derive(Debug, Args)]
pub(crate) struct LetterAct {
    /// Numbers of letters; without them the filter selects.
    #[arg(conflicts_with_all = ["LetterFilter", "all", "canary"])]
    pub(crate) letters: Vec<i64>,
    #[command(flatten)]
    pub(crate) filter: LetterFilter,
    /// All open letters, where the filter has no condition.
    #[arg(long)]
    pub(crate) all: bool,
    /// Only writes the plan.
    #[arg(long)]
    pub(crate) plan: bool,
    /// Does 1, 10, 100, then the rest, and stops when one fails again within this time of a step.
    #[arg(long, value_name = "TIME", value_parser = duration, num_args = 0..=1, default_missing_value = "10s")]
    pub(crate) canary: Option<Duration>,
    /// Does also what is refused otherwise, such as letters older than the inbox remembers.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) note: Note,
}

/// Who acts, and why.
#[derive(Debug, Clone, Args)]
pub(crate) struct Note {
    /// Why; kept in the audit.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) why: String,
    /// Who; the user's name unless given.
    #[arg(long, env = "OUTBOX_OPERATOR")]
    pub(crate) by: Option<String>,
}

/// What can be done with sagas.
#[derive(Debug, Subcommand)]
pub(crate) enum Sagas {
    /// Lists them, the oldest first.
    List {
        /// Of this name.
        #[arg(long)]
        name: Option<String>,
        /// In this state: running, compensating, stuck, completed or compensated.
        #[arg(long, value_parser = saga_state)]
        state: Option<SagaState>,
        /// Under this correlation id.
        #[arg(long)]
        correlation: Option<String>,
        /// From the saga after this one, which the list before has named.
        #[arg(long, value_name = "ID")]
        after: Option<outbox_core::event::SagaId>,
        /// At most so many rows, 1 to 10,000.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Shows one with its steps and log.
    Show {
        /// Its id or correlation id.
        saga: String,
        /// How it is drawn.
        #[arg(long, value_enum, default_value_t = Drawing::Timeline)]
        r#as: Drawing,
        /// As a Mermaid flowchart; short for `--as mermaid`.
        #[arg(long)]
        mermaid: bool,
    },
    /// Goes on where it is stuck, with all failures reset.
    Resume(SagaAct),
    /// Goes on from a step.
    RetryFrom {
        /// The saga's id or correlation id.
        saga: String,
        /// The step.
        #[arg(allow_hyphen_values = true)]
        step: String,
        #[command(flatten)]
        note: Note,
    },
    /// Skips the step at which it is stuck.
    Skip {
        /// The saga's id or correlation id.
        saga: String,
        /// The step.
        #[arg(allow_hyphen_values = true)]
        step: String,
        #[command(flatten)]
        note: Note,
    },
    /// Compensates it; not past its pivot.
    Cancel(SagaAct),
}

/// How a saga is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Drawing {
    /// Its log in order of time.
    Timeline,
    /// A Mermaid flowchart.
    Mermaid,
}

/// An act on a saga.
#[derive(Debug, Args)]
pub(crate) struct SagaAct {
    /// Its id or correlation id.
    pub(crate) saga: String,
    #[command(flatten)]
    pub(crate) note: Note,
}

/// A pause.
#[derive(Debug, Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    pub(crate) what: Scoped,
    /// Ends by itself after this time.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(crate) lasts: Option<Duration>,
}

/// What a control applies to.
#[derive(Debug, Args)]
pub(crate) struct Scoped {
    /// route, topic, key, consumer or saga.
    #[arg(value_parser = scope)]
    pub(crate) scope: ControlScope,
    /// Its name, or the key.
    #[arg(allow_hyphen_values = true)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) note: Note,
}

/// A rate.
#[derive(Debug, Args)]
pub(crate) struct Rate {
    /// The route.
    pub(crate) route: String,
    /// Events a second, in each relay process.
    pub(crate) per_second: f64,
    /// Ends by itself after this time.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(crate) lasts: Option<Duration>,
    #[command(flatten)]
    pub(crate) note: Note,
}

/// A relay process.
#[derive(Debug, Args)]
pub(crate) struct Relay {
    /// The file with the database, the routes and the policies; see docs/cli.md.
    pub(crate) file: PathBuf,
    /// Only checks the file.
    #[arg(long)]
    pub(crate) check: bool,
}

/// The web page.
#[derive(Debug, Args)]
#[command(after_help = LOGINS)]
pub(crate) struct Serve {
    /// Where it listens. Without logins only an address of this machine is served.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8899")]
    pub(crate) listen: SocketAddr,
}

const LOGINS: &str = "Logins: without them the page is for this machine alone, and whoever is on it \
    may do everything. The configuration file names a file of logins that nobody else may read \
    ([serve] logins = \"logins.toml\"): [[user]] with name, password and role, for people, and \
    [[token]] with name, token and role, for programs. A role is \"reader\", \"operator\" or a list of \
    acts. Passwords and tokens travel as they are: put a proxy with TLS before it.";

/// What can be done with the tables.
#[derive(Debug, Subcommand)]
pub(crate) enum Migrate {
    /// Creates the tables or brings them up to date.
    Up {
        /// Number of partitions of new tables, 1 to 128.
        #[arg(long, default_value_t = 16)]
        partitions: u16,
    },
    /// Shows the version of the tables.
    Status,
    /// Fails unless the tables have the version of this program; needs no right but to read them.
    Check,
    /// Writes the SQL that a database administrator runs.
    Sql {
        /// The database: postgres, mysql, mariadb or sqlite.
        #[arg(long, value_parser = dialect)]
        dialect: Dialect,
        /// Version of the present tables; 0 for none.
        #[arg(long, default_value_t = 0)]
        from: i32,
        /// Version to reach; the newest unless given.
        #[arg(long)]
        to: Option<i32>,
        /// Number of partitions of new tables, 1 to 128.
        #[arg(long, default_value_t = 16)]
        partitions: u16,
    },
}

/// What `tail` follows.
#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// Only of this topic.
    #[arg(long)]
    pub(crate) topic: Option<String>,
    /// Only of this key.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Pause between two looks, at least 50ms.
    #[arg(long, default_value = "250ms", value_parser = pause)]
    pub(crate) every: Duration,
    /// Ends after so long; without it Ctrl-C ends it.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(crate) lasts: Option<Duration>,
    /// Ends after so many lines.
    #[arg(long)]
    pub(crate) lines: Option<u64>,
}

/// An erasure.
#[derive(Debug, Args)]
pub(crate) struct Erase {
    /// The key: of events, of requests (their dedup key) and of sagas (their correlation id).
    #[arg(allow_hyphen_values = true)]
    pub(crate) key: String,
    /// Only writes the plan.
    #[arg(long)]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) note: Note,
}

/// A measurement.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Events to write, 100 to 100,000.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    pub(crate) events: u32,
    /// Transactions at once, 1 to 64.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) writers: u32,
    /// Bytes of each event's content, 16 to 65,536.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(16..=65_536))]
    pub(crate) bytes: u32,
    /// Longest time of each stage; what is not done by then counts as far as it is done.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(crate) limit: Duration,
    /// Drops the tables that a measurement has left which was killed.
    #[arg(long)]
    pub(crate) replace: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 90s, 5m or 2h"))
}

/// Reads a pause between two looks: without one, the looks would keep a database busy.
fn pause(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        pause if pause < SHORTEST_PAUSE => Err("write at least 50ms".to_owned()),
        pause => Ok(pause),
    }
}

fn reason(text: &str) -> Result<DeadReason, String> {
    text.parse().map_err(|()| {
        "no reason: rejected, exhausted, expired, unroutable, crashed, undecodable, not_retried or \
         unknown_type"
            .to_owned()
    })
}

fn saga_state(text: &str) -> Result<SagaState, String> {
    text.parse()
        .map_err(|()| "no state: running, compensating, stuck, completed or compensated".to_owned())
}

fn dialect(text: &str) -> Result<Dialect, String> {
    text.parse().map_err(|()| "no dialect: postgres, mysql, mariadb or sqlite".to_owned())
}

fn scope(text: &str) -> Result<ControlScope, String> {
    text.parse().map_err(|()| "no scope: route, topic, key, consumer or saga".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn looks_have_a_pause() {
        for (every, is_taken) in [("0s", false), ("49ms", false), ("50ms", true), ("1m", true)] {
            for command in ["top", "tail"] {
                let line = ["outbox", command, "--every", every];
                assert_eq!(Cli::try_parse_from(line).is_ok(), is_taken, "{command} {every}");
            }
        }
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
