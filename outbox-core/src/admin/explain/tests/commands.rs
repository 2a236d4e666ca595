//! Commands of sagas and their replies, over several databases.

use super::{
    sagas::{command, coordinator, step},
    *,
};
use crate::{
    failure::ConsumerOrigin,
    outbox::{CommandOutcome, DeclaredSaga},
    saga::{CommandId, CommandPhase, StepProgress, StepState},
};
use std::num::NonZeroU32;

/// What a saga says by itself, before it says where its command is.
const WAITS: &str = "Saga 00000000-0000-0000-0000-000000000009 (`place-order` version 2) waits for the reply to step \
    `charge` since 14:03 UTC (2 commands sent), and at 14:20 UTC it gives up and compensates.";

fn id(step: &str) -> CommandId {
    let saga = SagaId::from_uuid(uuid::Uuid::from_u128(9));
    CommandId { saga, step: step.to_owned(), round: NonZeroU32::MIN, phase: CommandPhase::Do }
}

fn nothing() -> Facts {
    Facts::nothing(Subject::Saga(id("charge").saga), now())
}

/// What a database without anything of the command knows, with one running consumer.
fn known(change: impl FnOnce(&mut CommandFacts)) -> CommandFacts {
    let (sent, reply) = (nothing(), nothing());
    let mut known = CommandFacts { command: id("charge"), sent, handled: None, reply };
    known.sent.instances = vec![an_instance("charge")];
    known.reply.instances = known.sent.instances.clone();
    change(&mut known);
    known
}

fn handled(known: &mut CommandFacts) {
    let (consumer, outcome) = ("mail".to_owned(), CommandOutcome::Done);
    known.handled = Some(HandledCommand { consumer, outcome, at: at("14:05:00") });
}

/// An open letter of the handler `charge`.
fn letter_of(consumer: &str) -> LetterFacts {
    let consumer =
        Some(ConsumerOrigin { consumer: consumer.to_owned(), handler: "charge".to_owned() });
    LetterFacts { route: String::new(), consumer, ..a_letter() }
}

/// An event that waits for its breaker.
fn stopped(part: &mut Facts) {
    part.relays = vec![relay("a", vec![open_route("answers")])];
    part.event = Some(an_event());
}

/// An event that no route takes.
fn unrouted(part: &mut Facts) {
    part.relays = vec![relay("a", vec![route("other")])];
    let due_at = Some(at("14:11:00"));
    let routes = vec![RouteFacts { due_at, ..row("", RouteState::Waiting) }];
    part.event = Some(EventFacts { topic: "replies".to_owned(), routes, ..an_event() });
}

/// A saga that waits for the reply to `charge`, at a service whose consumer `trips` takes it; it and
/// the database `payments` know this.
fn saga(own: CommandFacts, payments: Option<CommandFacts>) -> Facts {
    let reply_due = at("14:20:00").as_micros();
    let waits = |name| StepProgress {
        command: Some(command(2, reply_due)),
        ..step(name, StepState::Waiting)
    };
    let steps = vec![waits("charge")];
    let mut facts = nothing();
    facts.saga = Some(a_saga(Instance { steps, ..Instance::default() }));
    facts.coordinators = vec![coordinator(2)];
    facts.instances = vec![takes_replies()];
    facts.commands = vec![own];
    facts.add_elsewhere("payments", payments.as_slice());
    facts
}

fn takes_replies() -> InstanceFacts {
    let mut instance = InstanceFacts { consumer: "trips".to_owned(), ..an_instance("replies") };
    let sagas = vec![DeclaredSaga { name: "place-order".to_owned(), version: 2 }];
    instance.handlers[0].sagas = sagas;
    instance
}

/// Checks what follows the saga's own sentence, and the commands with their database.
fn tells(facts: &Facts, there: &str, commands: &[&str], database: Option<&str>) {
    let explanation = explain(facts);
    let sentence = match there {
        "" => WAITS.to_owned(),
        there => format!("{WAITS} {there}"),
    };
    assert_eq!(explanation.sentence, sentence, "{facts:#?}");
    assert_eq!(explanation.commands, commands, "{}", explanation.sentence);
    assert_eq!(explanation.database.as_deref(), database, "{}", explanation.sentence);
}

const DONE: &str =
    "Consumer `mail` in database `payments` has handled the command at 14:05 UTC (done)";
const RESOLVE: [&str; 2] = ["outbox dead-letters redrive 17", "outbox dead-letters discard 17"];

#[test]
fn a_command_that_waits_at_its_participant() {
    let payments = |change: fn(&mut CommandFacts)| saga(known(|_| ()), Some(known(change)));
    tells(
        &payments(|there| there.sent.letters = vec![letter_of("mail")]),
        &format!(
            "Its command in database `payments`: Message {X} is a dead letter of handler `charge` of consumer `mail` \
             since 14:03 UTC (letter 17, exhausted after 10 attempts: 503), and waits until somebody redrives or \
             discards it."
        ),
        &RESOLVE,
        Some("payments"),
    );
    tells(
        &payments(|there| {
            there.sent.instances = vec![an_instance("send")];
            let mut delivery = a_delivery();
            (delivery.view.failures, delivery.view.last_error) = (3, Some("503".to_owned()));
            there.sent.deferred = vec![delivery];
        }),
        &format!(
            "Its command in database `payments`: Message {X} is deferred for handler `send` of consumer `mail`: \
             3 attempts failed (503), and the next one is due in 60 s."
        ),
        &[],
        None,
    );
}

#[test]
fn a_command_that_its_participant_has_not_received() {
    let payments = |change: fn(&mut CommandFacts)| saga(known(|_| ()), Some(known(change)));
    tells(
        &payments(|there| there.sent.instances.clear()),
        "Its command has left this outbox, and database `payments` has not received it: no consumer is running there. \
         Start the service that takes it.",
        &[],
        None,
    );
    tells(
        &payments(|there| {
            there.sent.controls = Controls(vec![pause(ControlScope::Consumer, "mail")]);
        }),
        "Its command has left this outbox, and database `payments` has not received it: consumer `mail` there is \
         paused: ann paused it at 14:05 UTC (broker upgrade), until 15:00 UTC.",
        &["outbox resume consumer mail"],
        Some("payments"),
    );
    let on_its_way = "Its command has left this outbox, and database `payments` has not received it: it is with the \
        broker, or with a service whose database was not asked.";
    tells(
        &payments(|_| ()),
        &format!("{on_its_way} It goes on when its consumer receives it."),
        &[],
        None,
    );
    tells(
        &payments(|there| {
            let (text, class) = ("503".to_owned(), "transient".to_owned());
            let last_failure = Some(LastFailure { text, class, ago_ms: 9 });
            there.sent.instances[0].state =
                Some(crate::admin::ConsumerLive { last_failure, ..Default::default() });
        }),
        &format!(
            "{on_its_way} Consumer `mail` there has failed last (503). It goes on when its consumer receives it."
        ),
        &[],
        None,
    );
}

#[test]
fn a_reply_that_waits_in_the_outbox_of_its_participant() {
    let payments = |change: fn(&mut CommandFacts)| saga(known(|_| ()), Some(known(change)));
    tells(
        &payments(|there| {
            handled(there);
            stopped(&mut there.reply);
        }),
        &format!(
            "{DONE}. Its reply there: Event {X} waits for route `answers`: its breaker is open since 14:03 UTC \
             (connection refused), next probe in 12 s."
        ),
        &[],
        None,
    );
    tells(
        &payments(|there| {
            handled(there);
            unrouted(&mut there.reply);
        }),
        &format!(
            "{DONE}. Its reply there: Event {X} waits: no route takes topic `replies` and type `order.placed`; start \
             one with such a route, or it becomes a dead letter at 14:11 UTC."
        ),
        &[],
        None,
    );
    tells(
        &payments(|there| {
            handled(there);
            there.reply.event = Some(an_event());
        }),
        &format!(
            "{DONE}. Its reply there: Event {X} waits: its partition 3 is still owned by relay a, which has no row any \
             more, and no relay is live: start one."
        ),
        &[],
        None,
    );
    tells(
        &payments(|there| {
            handled(there);
            stopped(&mut there.reply);
            there.reply.controls = Controls(vec![pause(ControlScope::Route, "answers")]);
        }),
        &format!(
            "{DONE}. Its reply there: Event {X} waits for route `answers`: it is paused: ann paused it at 14:05 UTC \
             (broker upgrade), until 15:00 UTC."
        ),
        &["outbox resume route answers"],
        Some("payments"),
    );
}

#[test]
fn a_reply_that_was_given_up_or_has_left_its_participant() {
    let payments = |change: fn(&mut CommandFacts)| saga(known(|_| ()), Some(known(change)));
    tells(
        &payments(|there| {
            there.reply.letters = vec![LetterFacts { route: "answers".to_owned(), ..a_letter() }];
        }),
        &format!(
            "Its reply in database `payments`: Event {X} is a dead letter of route `answers` since 14:03 UTC (letter 17, \
             exhausted after 10 attempts: 503), and waits until somebody redrives or discards it."
        ),
        &RESOLVE,
        Some("payments"),
    );
    let left = format!("{DONE}, and its reply has left that outbox.");
    let taken = format!("{left} It goes on when consumer `trips` here receives it.");
    tells(&payments(handled), &taken, &[], None);
    let mut alone = payments(handled);
    alone.instances.clear();
    let nobody = format!(
        "{left} No running consumer here takes the replies to sagas of `place-order`: start the service that has it."
    );
    tells(&alone, &nobody, &[], None);
    let mut paused = payments(handled);
    paused.controls = Controls(vec![pause(ControlScope::Consumer, "trips")]);
    let pause = "Consumer `trips`, which takes it here, is paused: ann paused it at 14:05 UTC (broker upgrade), until \
        15:00 UTC.";
    tells(&paused, &format!("{left} {pause}"), &["outbox resume consumer trips"], None);
}

#[test]
fn a_command_or_a_reply_in_the_database_of_the_saga() {
    tells(
        &saga(known(|own| stopped(&mut own.sent)), Some(known(|_| ()))),
        &format!(
            "Its command: Event {X} waits for route `answers`: its breaker is open since 14:03 UTC (connection refused), \
             next probe in 12 s."
        ),
        &[],
        None,
    );
    tells(
        &saga(known(|own| own.reply.letters = vec![letter_of("trips")]), Some(known(handled))),
        &format!(
            "Its reply: Message {X} is a dead letter of handler `charge` of consumer `trips` since 14:03 UTC (letter 17, \
             exhausted after 10 attempts: 503), and waits until somebody redrives or discards it."
        ),
        &RESOLVE,
        None,
    );
    // Only its own database is asked.
    tells(&saga(known(|_| ()), None), "", &[], None);
}

#[test]
fn the_furthest_part_of_the_way_decides() {
    let sent = |own: &mut CommandFacts| stopped(&mut own.sent);
    let letters = |there: &mut CommandFacts| there.sent.letters = vec![letter_of("mail")];
    // A repeat waits here, and the first command is a letter there.
    let facts = saga(known(sent), Some(known(letters)));
    let sentence = explain(&facts).sentence;
    assert!(sentence.contains("Its command in database `payments`: Message"), "{sentence}");
    // It was handled: what another consumer of the topic made of it holds up nothing.
    let facts = saga(
        known(|_| ()),
        Some(known(|there| {
            handled(there);
            there.sent.letters = vec![letter_of("audit")];
        })),
    );
    let sentence = explain(&facts).sentence;
    assert!(sentence.contains("its reply has left that outbox"), "{sentence}");
    // The reply was lost, and a repeat fails.
    let facts = saga(
        known(|_| ()),
        Some(known(|there| {
            handled(there);
            there.sent.letters = vec![letter_of("mail")];
        })),
    );
    let sentence = explain(&facts).sentence;
    assert!(sentence.contains(&format!("{DONE}. A repeat of it there: Message {X}")), "{sentence}");
}

#[test]
fn of_several_databases_and_steps_those_decide_that_somebody_has_to_do_something_about() {
    let mut facts = saga(known(|_| ()), Some(known(|_| ())));
    facts.add_elsewhere("stock", &[known(|_| ())]);
    tells(
        &facts,
        "Its command has left this outbox, and none of the other 2 databases has received it: it is with the broker, \
         or with a service whose database was not asked. It goes on when its consumer receives it.",
        &[],
        None,
    );
    facts.add_elsewhere("mail", &[known(|there| there.sent.letters = vec![letter_of("mail")])]);
    assert_eq!(explain(&facts).database.as_deref(), Some("mail"));

    // Two steps at the same time: the second one's command is a letter.
    let mut facts = saga(known(|_| ()), Some(known(handled)));
    let saga = facts.saga.as_mut().unwrap();
    let mut pack = saga.instance.steps[0].clone();
    pack.step = "pack".to_owned();
    saga.instance.steps.push(pack);
    facts.commands.push(CommandFacts { command: id("pack"), ..known(|_| ()) });
    let there = known(|there| there.sent.letters = vec![letter_of("mail")]);
    facts.add_elsewhere("stock", &[CommandFacts { command: id("pack"), ..there }]);
    let explanation = explain(&facts);
    assert!(explanation.sentence.contains("the reply to step `pack`"), "{}", explanation.sentence);
    assert_eq!(explanation.database.as_deref(), Some("stock"));
    // What is of no step that waits is not taken.
    let strange = CommandFacts { command: id("ship"), ..known(|_| ()) };
    let before = facts.elsewhere.len();
    facts.add_elsewhere("stock", &[strange]);
    assert_eq!(facts.elsewhere.len(), before);
}

#[test]
fn the_facts_of_other_databases_are_listed_under_their_names() {
    let there = known(|there| {
        handled(there);
        there.sent.letters = vec![letter_of("mail")];
        stopped(&mut there.reply);
    });
    let facts = explain(&saga(known(|_| ()), Some(there))).facts;
    for fact in [
        "payments: dead letter 17",
        "payments: event",
        "payments: command of step charge handled by",
    ] {
        assert!(facts.iter().any(|(name, _)| name == fact), "{fact}: {facts:?}");
    }
}

/// Every place of a command and of a reply, in each of two databases, with every state of theirs.
#[test]
fn every_way_of_a_command_has_an_explanation() {
    let parts: [fn(&mut Facts); 6] = [
        |_| (),
        stopped,
        unrouted,
        |part| part.event = Some(an_event()),
        |part| part.letters = vec![letter_of("mail"), a_letter()],
        |part| part.deferred = vec![a_delivery()],
    ];
    let instances = [Vec::new(), vec![an_instance("send")], vec![takes_replies()]];
    let mut seen = 0;
    let mut places = Vec::new();
    for sent in parts {
        for reply in parts {
            for is_handled in [false, true] {
                for instances in &instances {
                    places.push(known(|known| {
                        known.sent.instances.clone_from(instances);
                        known.reply.instances.clone_from(instances);
                        sent(&mut known.sent);
                        reply(&mut known.reply);
                        if is_handled {
                            handled(known);
                        }
                    }));
                }
            }
        }
    }
    for own in &places {
        for there in places.iter().map(Some).chain([None]) {
            let facts = saga(own.clone(), there.cloned());
            super::walk::explained(&facts);
            seen += 1;
        }
    }
    assert!(seen > 10_000, "{seen}");
}
