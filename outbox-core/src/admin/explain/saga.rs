//! Why a saga stands still.

use super::{
    Answer, Facts, SagaFacts, command, event, letter,
    route::resume,
    words::{argument, because, clock, control, count, due, error, name},
};
use crate::{
    admin::ControlScope,
    event::Timestamp,
    saga::{CommandId, SagaState, StepProgress, StepState},
};

/// Explains a saga. The first of the checks decides that has something to say: what an operator has
/// to decide comes first, then what no process does, then what a step waits for.
pub(super) fn saga(facts: &Facts, saga: &SagaFacts) -> Answer {
    let checks: [Check; 10] = [
        |facts, saga| ended(facts, saga).map(here),
        |facts, saga| stuck(facts, saga).map(here),
        |facts, saga| running(facts, saga).map(here),
        |facts, saga| paused(facts, saga).map(here),
        |facts, saga| no_coordinator(facts, saga).map(here),
        |facts, saga| blocked(facts, saga).map(here),
        waits_for_reply,
        |facts, saga| retrying(facts, saga).map(here),
        |facts, saga| claim_over(facts, saga).map(here),
        |facts, saga| next_due(facts, saga).map(here),
    ];
    let answer = checks
        .iter()
        .find_map(|check| check(facts, saga))
        .unwrap_or_else(|| Answer::new("waits for a coordinator to claim it"));
    let (definition, version) = (name(&saga.definition.0), saga.definition.1);
    let sentence =
        format!("Saga {} (`{definition}` version {version}) {}.", saga.id, answer.sentence);
    Answer { sentence, ..answer }
}

/// A check of a saga: says what the saga does or waits for, without the full stop.
type Check = fn(&Facts, &SagaFacts) -> Option<Answer>;

/// What the saga does or waits for, and the commands that move it.
type Clause = (String, Vec<String>);

/// Makes the answer of a clause, whose commands are for the saga's own database.
fn here((sentence, commands): Clause) -> Answer {
    Answer { commands, ..Answer::new(sentence) }
}

fn ended(facts: &Facts, saga: &SagaFacts) -> Option<Clause> {
    if !saga.instance.state.is_final() {
        return None;
    }
    let at = clock(saga.ended_at.unwrap_or(saga.changed_at), facts.now);
    let why =
        saga.instance.reason.as_deref().map(error).map_or_else(String::new, |r| format!(": {r}"));
    let text = match saga.instance.state {
        SagaState::Completed => format!("has ended: it completed at {at}"),
        _ => format!("has ended: everything it had done was undone by {at}{why}"),
    };
    Some((text, Vec::new()))
}

fn stuck(facts: &Facts, saga: &SagaFacts) -> Option<Clause> {
    if saga.instance.state != SagaState::Stuck {
        return None;
    }
    let reason = saga.instance.reason.as_deref().map_or("no reason is stored".to_owned(), error);
    let (id, since) = (saga.id, clock(saga.changed_at, facts.now));
    let step = saga.instance.stuck_at.as_deref();
    let at = step.map_or_else(String::new, |step| match saga.instance.backward {
        true => format!(" at the compensation of step `{}`", name(step)),
        false => format!(" at step `{}`", name(step)),
    });
    let mut commands = vec![format!("outbox sagas resume {id}")];
    if let Some(step) = step {
        commands.push(format!("outbox sagas retry-from {id} {}", argument(step)));
        commands.push(format!("outbox sagas skip {id} {}", argument(step)));
    }
    if !saga.instance.backward && !saga.instance.past_pivot() {
        commands.push(format!("outbox sagas cancel {id}"));
    }
    let text = format!(
        "is stuck{at} since {since} ({reason}), and waits until somebody resumes it, skips the step or cancels it"
    );
    Some((text, commands))
}

/// A coordinator drives it.
fn running(facts: &Facts, saga: &SagaFacts) -> Option<Clause> {
    let until = saga.due_at.filter(|at| saga.claimed && *at > facts.now)?;
    let text = format!(
        "is being driven: a coordinator {}, and its claim lasts until {}",
        doing(saga),
        clock(until, facts.now)
    );
    Some((text, Vec::new()))
}

fn paused(facts: &Facts, saga: &SagaFacts) -> Option<Clause> {
    let name = &*saga.definition.0;
    let pause = facts.controls.pause(ControlScope::Saga, name)?;
    let text =
        format!("waits, as sagas of its definition are paused: {}", control(pause, facts.now));
    Some((text, vec![resume(ControlScope::Saga, name)]))
}

fn no_coordinator(facts: &Facts, saga: &SagaFacts) -> Option<Clause> {
    let mut live = facts.coordinators.iter().filter(|coordinator| coordinator.live).peekable();
    let (name, version) = &saga.definition;
    if live.peek().is_none() {
        let text = "waits: no coordinator of sagas is running: start the service that has it";
        return Some((text.to_owned(), Vec::new()));
    }
    let may_have = live.any(|coordinator| {
        let state = &coordinator.state;
        state.omitted > 0 || state.definitions.iter().any(|(n, v)| **n == **name && v == version)
    });
    (!may_have).then(|| {
        let text =
            "waits: no running coordinator has this version of its definition: start one with it";
        (text.to_owned(), Vec::new())
    })
}

/// A step that is not done and not undone, for which something holds.
fn open<'a>(
    saga: &'a SagaFacts,
    holds: impl Fn(&StepProgress) -> bool + 'a,
) -> Option<&'a StepProgress> {
    saga.instance.steps.iter().find(move |step| {
        !matches!(step.state, StepState::Skipped | StepState::Undone) && holds(step)
    })
}

fn blocked(facts: &Facts, saga: &SagaFacts) -> Option<Clause> {
    let step = open(saga, |step| step.blocked_on.is_some())?;
    let blocked = step.blocked_on.as_ref()?;
    let next = saga
        .due_at
        .map_or_else(String::new, |at| format!(", and tries it again {}", due(at, facts.now)));
    let text = format!(
        "{}waits at step `{}` for the lock of `{}`, which saga {} has since {}{next}",
        direction(saga),
        name(&step.step),
        name(&blocked.entity),
        name(&blocked.holder),
        clock(Timestamp::from_micros(blocked.since_us), facts.now),
    );
    Some((text, Vec::new()))
}

/// A remote step waits for its reply. Of several, the first one decides for which somebody has to do
/// something.
fn waits_for_reply(facts: &Facts, saga: &SagaFacts) -> Option<Answer> {
    let first = open(saga, |step| step.state.awaits_reply())?;
    let known = |id: CommandId| {
        let step = saga.instance.steps.iter().find(|step| step.step == id.step)?;
        Some((step, command::standing(facts, saga, &id)?))
    };
    let known: Vec<(&StepProgress, Answer)> =
        saga.awaited_commands().into_iter().filter_map(known).collect();
    let urgent = known.iter().find(|(_, answer)| !answer.commands.is_empty());
    let Some((step, there)) = urgent.or_else(|| known.first()) else {
        return Some(without_command(facts, awaited(facts, saga, first)?));
    };
    let text = awaited(facts, saga, step)?;
    let sentence = format!("{text}. {}", there.sentence.trim_end_matches('.'));
    Some(Answer { sentence, ..there.clone() })
}

/// Writes for which reply a saga waits, since when, and what it does by itself.
fn awaited(facts: &Facts, saga: &SagaFacts, step: &StepProgress) -> Option<String> {
    let command = step.command.as_ref()?;
    let reply_due = Timestamp::from_micros(command.reply_due_us);
    let sends = count(command.sends, "command");
    let goes_on = saga.instance.backward || saga.instance.past_pivot();
    let then = match (reply_due > facts.now, goes_on) {
        (true, true) => format!("at {} it sends the command again", clock(reply_due, facts.now)),
        (true, false) => format!("at {} it gives up and compensates", clock(reply_due, facts.now)),
        (false, true) => "the command is sent again now".to_owned(),
        (false, false) => "its time is over, and it compensates now".to_owned(),
    };
    Some(format!(
        "{}waits for the reply to step `{}` since {} ({sends} sent), and {then}",
        direction(saga),
        name(&step.step),
        clock(saga.changed_at, facts.now),
    ))
}

/// Explains a wait for a reply whose command no database tells of: a store may give the event or the
/// letters of its key.
fn without_command(facts: &Facts, text: String) -> Answer {
    let waiting = facts.event.as_ref().map(|waiting| event::event(facts, waiting));
    let open = || facts.letters.iter().find(|letter| letter.resolution.is_none());
    match waiting.or_else(|| open().map(|open| letter::open(facts, open))) {
        None => Answer::new(text),
        Some(there) => {
            let sentence = format!("{text}. Its command: {}", there.sentence.trim_end_matches('.'));
            Answer { sentence, ..there }
        }
    }
}

fn retrying(facts: &Facts, saga: &SagaFacts) -> Option<Clause> {
    let step = open(saga, |step| step.failures > 0 || step.unfinished_attempts > 0)?;
    let at = match step.retry_at_us {
        0 => saga.due_at,
        at => Some(Timestamp::from_micros(at)),
    };
    let next = at.map_or_else(|| "now".to_owned(), |at| due(at, facts.now));
    let what = match saga.instance.backward {
        true => format!("the compensation of step `{}`", name(&step.step)),
        false => format!("step `{}`", name(&step.step)),
    };
    let tried = match step.failures {
        0 => format!("{} no end", count(step.unfinished_attempts, "attempt") + " had"),
        n => format!("{} failed{}", count(n, "attempt"), because(saga.last_error.as_deref())),
    };
    Some((
        format!("{}retries {what}: {tried}, and the next one is due {next}", direction(saga)),
        Vec::new(),
    ))
}

fn claim_over(facts: &Facts, saga: &SagaFacts) -> Option<Clause> {
    let until = saga.due_at.filter(|_| saga.claimed)?;
    let text = format!(
        "{}waits: the claim of its coordinator ran out at {}, and another one claims it next",
        direction(saga),
        clock(until, facts.now)
    );
    Some((text, Vec::new()))
}

fn next_due(facts: &Facts, saga: &SagaFacts) -> Option<Clause> {
    let next = due(saga.due_at?, facts.now);
    let text = format!("{}is due {next}, when a coordinator {}", direction(saga), doing(saga));
    Some((text, Vec::new()))
}

/// Writes why a saga goes backward, where it does.
fn direction(saga: &SagaFacts) -> String {
    if !saga.instance.backward {
        return String::new();
    }
    format!("compensates{} and ", because(saga.instance.reason.as_deref()))
}

/// Writes what a coordinator does with the saga.
fn doing(saga: &SagaFacts) -> String {
    let last = saga.instance.steps.last().map(|step| name(&step.step));
    match (saga.instance.backward, last) {
        (true, _) => "undoes its steps".to_owned(),
        (false, Some(step)) if !saga.instance.steps.iter().all(|s| s.state.is_settled()) => {
            format!("runs step `{step}`")
        }
        (false, Some(step)) => format!("runs the step after `{step}`"),
        (false, None) => "runs its first step".to_owned(),
    }
}
