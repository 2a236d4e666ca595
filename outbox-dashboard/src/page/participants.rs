//! What other databases have of the commands whose replies sagas await: there an explanation goes on.

use super::ask_all;
use crate::{builder::App, page::frame::asking::Answers, store::Database};
use outbox_core::{
    admin::{CommandFacts, Facts, commands_of},
    saga::CommandId,
};

/// Gives the commands whose replies the sagas of these facts await.
pub(crate) fn awaited<'f>(facts: impl IntoIterator<Item = &'f Facts>) -> Vec<CommandId> {
    facts.into_iter().flat_map(Facts::awaited_commands).collect()
}

/// Asks databases what they have of commands, without what is not to be shown; nobody where there is
/// no command.
pub(crate) async fn ask(
    app: &App,
    databases: &[Database],
    commands: &[CommandId],
) -> Answers<Vec<CommandFacts>> {
    let databases: &[Database] = if commands.is_empty() { &[] } else { databases };
    ask_all(databases, |store| async move {
        Ok(app.sensitive.commands(commands_of(&*store, commands).await?))
    })
    .await
}

/// Adds to the facts of one database what the others have of the commands whose replies it awaits.
pub(crate) fn add(own: &Database, facts: &mut Facts, known: &Answers<Vec<CommandFacts>>) {
    for (database, commands) in known.list.iter().filter(|(other, _)| other.name != own.name) {
        facts.add_elsewhere(&database.name, commands);
    }
}
