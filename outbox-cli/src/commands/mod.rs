//! The commands. Each asks every database of the command line, and writes the answers.

mod overview;
mod top;
mod lookup;
mod letters;
mod act;
mod lists;
mod sagas;
mod controls;
mod migrate;
mod new;
mod tail;
mod erase;
mod bench;
mod schema;

use crate::{
    args::{Cli, Command, Global, Note},
    config::{self, Target},
    database,
    error::CliError,
    output::{Answer, Output, report},
    relay, serve,
};
use clap::CommandFactory;
use outbox_core::{admin::OperatorNote, outbox::StoreError};
use outbox_sea_orm::Outbox;
use serde::Serialize;
use std::{pin::Pin, process::ExitCode};

/// The work of a command. It has no type of its own: the compiler gives up on a future that has those
/// of all commands inside of it.
type Work<'w> = Pin<Box<dyn Future<Output = Result<ExitCode, CliError>> + 'w>>;

/// Runs a command.
pub(crate) async fn run(cli: Cli, output: &mut Output) -> Result<ExitCode, CliError> {
    let Cli { global, command } = cli;
    if global.json
        && let Some(name) = schema::without_document(&command)
    {
        return Err(CliError::Usage(format!("`{name}` writes no document: leave --json out")));
    }
    work(&global, command, output).await
}

fn work<'w>(global: &'w Global, command: Command, output: &'w mut Output) -> Work<'w> {
    match command {
        Command::Overview => Box::pin(overview::overview(global, output)),
        Command::Top(top) => Box::pin(async move { top::top(global, &top, output).await }),
        Command::Find(text) => {
            Box::pin(async move { lookup::find(global, &text.text, output).await })
        }
        Command::Life(text) => {
            Box::pin(async move { lookup::life(global, &text.text, output).await })
        }
        Command::Follow(text) => {
            Box::pin(async move { lookup::follow(global, &text.text, output).await })
        }
        Command::Explain(text) => {
            Box::pin(async move { lookup::explain(global, &text.text, output).await })
        }
        Command::DeadLetters(command) => Box::pin(letters::run(global, command, output)),
        Command::Deferred(deferred) => {
            Box::pin(async move { lists::deferred(global, &deferred, output).await })
        }
        Command::Scheduled(paging) => {
            Box::pin(async move { lists::scheduled(global, &paging, output).await })
        }
        Command::Inbox(text) => {
            Box::pin(async move { lists::inbox(global, &text.text, output).await })
        }
        Command::Sagas(command) => Box::pin(sagas::run(global, command, output)),
        Command::Pause(pause) => {
            Box::pin(async move { controls::pause(global, &pause, output).await })
        }
        Command::Resume(scoped) => {
            Box::pin(async move { controls::resume(global, &scoped, output).await })
        }
        Command::Rate(rate) => Box::pin(async move { controls::rate(global, &rate, output).await }),
        Command::Relay(relay) => Box::pin(async move { relay::run(&relay, output).await }),
        Command::Serve(arguments) => {
            Box::pin(async move { serve::run(global, &arguments, output).await })
        }
        Command::Doctor => Box::pin(lists::doctor(global, output)),
        Command::Audit(paging) => {
            Box::pin(async move { lists::audit(global, &paging, output).await })
        }
        Command::Migrate(command) => Box::pin(migrate::run(global, command, output)),
        Command::New(new) => Box::pin(async move { new::new(&new, output) }),
        Command::Completions { shell } => Box::pin(async move {
            clap_complete::generate(shell, &mut Cli::command(), "outbox", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }),
        Command::Tail(tail) => Box::pin(async move { tail::tail(global, &tail, output).await }),
        Command::Erase(erase) => {
            Box::pin(async move { erase::erase(global, &erase, output).await })
        }
        Command::Bench(bench) => {
            Box::pin(async move { bench::bench(global, &bench, output).await })
        }
        Command::Schema { command } => Box::pin(async move { schema::schema(&command, output) }),
    }
}

/// The answers of all databases, in the order of the command line.
struct Answers<T> {
    list: Vec<(Target, T)>,
    /// The databases that could not be asked, and why.
    failures: Vec<(Target, CliError)>,
}

impl<T: Serialize> Answers<T> {
    /// Writes the answers: all in one document, or each by `text`, under the database's name where
    /// there are several.
    fn write(
        &self,
        output: &mut Output,
        mut text: impl FnMut(&mut Output, &Target, &T) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        if output.json {
            let answers: Vec<Answer<'_, &T>> = self
                .list
                .iter()
                .map(|(target, result)| Answer { database: &target.name, result })
                .collect();
            return output.document(&answers);
        }
        for (target, result) in &self.list {
            if self.list.len() > 1 {
                output.line(format!("== {target}"))?;
            }
            text(output, target, result)?;
        }
        Ok(())
    }

    /// Gives the exit code of a read that found something or not.
    fn exit_code(&self, found: bool) -> ExitCode {
        match (!self.failures.is_empty(), found) {
            (true, _) => ExitCode::from(3),
            (false, true) => ExitCode::SUCCESS,
            (false, false) => ExitCode::from(1),
        }
    }
}

/// Asks every database. One that cannot be asked is reported, and the others are asked all the same;
/// it is an error where it is the only one.
async fn ask_all<T>(
    global: &Global,
    ask: impl AsyncFn(&Outbox) -> Result<T, StoreError>,
) -> Result<Answers<T>, CliError> {
    ask_each(config::targets(global)?, ask).await
}

/// Asks these databases, as [`ask_all`] asks all of them.
async fn ask_each<T>(
    targets: Vec<Target>,
    ask: impl AsyncFn(&Outbox) -> Result<T, StoreError>,
) -> Result<Answers<T>, CliError> {
    let is_only = targets.len() == 1;
    let mut answers = Answers { list: Vec::new(), failures: Vec::new() };
    for target in targets {
        let answer = async { Ok::<T, CliError>(ask(&database::open(&target).await?).await?) };
        match answer.await {
            Ok(answer) => answers.list.push((target, answer)),
            Err(error) if is_only => return Err(error),
            Err(error) => {
                report(&error);
                answers.failures.push((target, error));
            }
        }
    }
    Ok(answers)
}

/// Makes the note of an act.
fn note(note: &Note, force: bool) -> OperatorNote {
    let user = || std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let by = note.by.clone().or_else(|| user().ok()).unwrap_or_else(|| "unknown".to_owned());
    OperatorNote { force, ..OperatorNote::new(by, &note.why) }
}
