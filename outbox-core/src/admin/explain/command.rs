//! Where the command of a saga is, and the reply to it, over the databases of several services.
//!
//! What is furthest on its way decides: a reply that waits, then a command that waits at a consumer,
//! then a reply that has left the participant, then a command that waits in the saga's own outbox.

use super::{
    Answer, CommandFacts, Facts, HandledCommand, InstanceFacts, SagaFacts,
    route::resume,
    waiting,
    words::{because, clock, control, name},
};
use crate::{
    admin::{Control, ControlScope},
    saga::CommandId,
};

/// What one database knows of a command: the saga's own, or another one by its name.
type Place<'a> = (Option<&'a str>, &'a CommandFacts);

/// Explains where a command or its reply is, and what moves it; `None` where no database tells more
/// than the saga itself.
pub(super) fn standing(facts: &Facts, saga: &SagaFacts, command: &CommandId) -> Option<Answer> {
    let own = facts.commands.iter().find(|known| known.command == *command);
    let others = facts.elsewhere.iter().filter(|(_, known)| known.command == *command);
    let others: Vec<Place<'_>> = others.map(|(db, known)| (Some(db.as_str()), known)).collect();
    let places: Vec<Place<'_>> =
        own.map(|own| (None, own)).into_iter().chain(others.iter().copied()).collect();
    places
        .iter()
        .find_map(|place| reply(*place, facts))
        .or_else(|| at_consumer(&places, facts))
        .or_else(|| left(&places, facts, saga))
        .or_else(|| own.and_then(sent))
        .or_else(|| nowhere(own?, &others))
}

/// Writes in which database something is; nothing for the saga's own.
fn within(database: Option<&str>) -> String {
    database.map_or_else(String::new, |database| format!(" in database `{}`", name(database)))
}

/// Writes who has handled a command, when, and what came of it.
fn handled_by(handled: &HandledCommand, database: Option<&str>, facts: &Facts) -> String {
    format!(
        "Consumer `{}`{} has handled the command at {} ({})",
        name(&handled.consumer),
        within(database),
        clock(handled.at, facts.now),
        handled.outcome.as_str()
    )
}

/// Says that an answer is about a place.
fn at(database: Option<&str>, start: &str, answer: Answer) -> Answer {
    let sentence = format!("{start}: {}", answer.sentence);
    let database = database.filter(|_| !answer.commands.is_empty()).map(str::to_owned);
    Answer { sentence, database, ..answer }
}

/// The reply waits: in the outbox of the participant, at the consumer that takes it, or as a letter of
/// either.
fn reply((database, known): Place<'_>, facts: &Facts) -> Option<Answer> {
    let answer = waiting(&known.reply)?;
    let start = match &known.handled {
        Some(handled) => format!("{}. Its reply there", handled_by(handled, database, facts)),
        None => format!("Its reply{}", within(database)),
    };
    Some(at(database, &start, answer))
}

/// The command waits at a consumer, or is a letter of one. Where it was handled, only that consumer
/// counts: others may take the same topic, and their letters hold the saga up no longer.
fn at_consumer(places: &[Place<'_>], facts: &Facts) -> Option<Answer> {
    let handled = places.iter().find_map(|place| Some((place.0, place.1.handled.as_ref()?)));
    let counts = |place: Option<&str>, consumer: &str| {
        handled.is_none_or(|(at, by)| at == place && by.consumer == consumer)
    };
    places.iter().find_map(|(database, known)| {
        let mut of_consumers = Facts { event: None, scheduled: None, ..known.sent.clone() };
        of_consumers.letters.retain(|letter| {
            letter.consumer.as_ref().is_some_and(|by| counts(*database, &by.consumer))
        });
        of_consumers.deferred.retain(|delivery| counts(*database, &delivery.view.consumer));
        let answer = waiting(&of_consumers)?;
        let start = match handled {
            Some((_, by)) => {
                format!("{}. A repeat of it there", handled_by(by, *database, facts))
            }
            None => format!("Its command{}", within(*database)),
        };
        Some(at(*database, &start, answer))
    })
}

/// The command was handled, and nothing of the reply waits there any more.
fn left(places: &[Place<'_>], facts: &Facts, saga: &SagaFacts) -> Option<Answer> {
    let (database, handled) =
        places.iter().find_map(|place| Some((place.0, place.1.handled.as_ref()?)))?;
    let (moves, command) = way_back(facts, saga);
    let start = handled_by(handled, database, facts);
    let answer = Answer::new(format!("{start}, and its reply has left that outbox. {moves}."));
    Some(command.into_iter().fold(answer, Answer::command))
}

/// What a reply waits for that is between the participant and the service of the saga, and the
/// command that moves it.
fn way_back(facts: &Facts, saga: &SagaFacts) -> (String, Option<String>) {
    let definition = &*saga.definition.0;
    let takes = |instance: &&InstanceFacts| {
        let mut sagas = instance.handlers.iter().flat_map(|handler| &handler.sagas);
        instance.live && sagas.any(|known| known.name == definition)
    };
    let Some(taker) = facts.instances.iter().find(takes) else {
        let text = format!(
            "No running consumer here takes the replies to sagas of `{}`: start the service that has it",
            name(definition)
        );
        return (text, None);
    };
    let consumer = name(&taker.consumer);
    match facts.controls.pause(ControlScope::Consumer, &taker.consumer) {
        Some(pause) => {
            let by = control(pause, facts.now);
            let text = format!("Consumer `{consumer}`, which takes it here, is paused: {by}");
            (text, Some(resume(ControlScope::Consumer, &taker.consumer)))
        }
        None => (format!("It goes on when consumer `{consumer}` here receives it"), None),
    }
}

/// The command waits in the outbox of the saga's own database, or is a letter of one of its routes.
fn sent(own: &CommandFacts) -> Option<Answer> {
    waiting(&own.sent).map(|answer| at(None, "Its command", answer))
}

/// No database has the command or its reply: it is on its way, or with a service that was not asked.
fn nowhere(own: &CommandFacts, others: &[Place<'_>]) -> Option<Answer> {
    let gone = match own.sent.not_searched.is_empty() {
        true => "Its command has left this outbox",
        false => "Its command was not found in this outbox",
    };
    let [(Some(database), known)] = others else {
        return (!others.is_empty()).then(|| {
            Answer::new(format!(
                "{gone}, and none of the other {} databases has received it: it is with the broker, or \
                 with a service whose database was not asked. It goes on when its consumer receives it.",
                others.len()
            ))
        });
    };
    let shown = name(database);
    let start = format!("{gone}, and database `{shown}` has not received it");
    let there = &known.sent;
    if let Some(pause) = paused_consumer(there) {
        let text = format!(
            "{start}: consumer `{}` there is paused: {}.",
            name(&pause.name),
            control(pause, there.now)
        );
        let command = resume(ControlScope::Consumer, &pause.name);
        let answer = Answer::new(text).command(command);
        return Some(Answer { database: Some((*database).to_owned()), ..answer });
    }
    let mut live = there.instances.iter().filter(|instance| instance.live).peekable();
    if live.peek().is_none() {
        let text =
            format!("{start}: no consumer is running there. Start the service that takes it.");
        return Some(Answer::new(text));
    }
    let failed = live.find_map(|instance| {
        let failure = instance.state.as_ref()?.last_failure.as_ref()?;
        Some(format!(
            " Consumer `{}` there has failed last{}.",
            name(&instance.consumer),
            because(Some(&failure.text))
        ))
    });
    Some(Answer::new(format!(
        "{start}: it is with the broker, or with a service whose database was not asked.{} It goes on \
         when its consumer receives it.",
        failed.unwrap_or_default()
    )))
}

/// Gives the pause of a consumer of a database.
fn paused_consumer(facts: &Facts) -> Option<&Control> {
    facts.controls.0.iter().find(|control| control.scope == ControlScope::Consumer)
}
