//! What a message with the headers of a saga is to a handler: pure.
//!
//! Whoever can send a message can write these headers. So a consumer answers commands only with handlers that say so, only
//! those of services that it names, and only on the topics that it names for them. To any other handler the same message is an
//! event.

use super::barrier::Command;
use crate::{event::Message, saga::is_answer};

/// Longest source and topic in bytes.
const MAX_TEXT: usize = 255;

/// From which services commands are taken, and on which topics each of them is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CommandSources(Vec<(String, String)>);

/// What a message is to a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// An event: the handler runs, and nobody is answered.
    Event,
    /// A command: it is behind the barrier, and is answered.
    Command(Command),
    /// A command that is not taken, and why.
    Refused(String),
}

impl CommandSources {
    /// Takes commands from one more source, to be answered on a topic.
    pub(super) fn add(&mut self, source: String, topic: String) {
        self.0.push((source, topic));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lists sources and topics that no message has.
    pub(super) fn faults(&self) -> impl Iterator<Item = &(String, String)> {
        let is_text = |text: &str| {
            (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control)
        };
        self.0.iter().filter(move |(source, topic)| !is_text(source) || !is_text(topic))
    }

    /// Says what a message is to a handler that answers commands, or does not.
    pub(super) fn meaning(&self, answers: bool, message: &Message) -> Meaning {
        if !answers {
            return Meaning::Event;
        }
        match Command::read(message) {
            Err(fault) => Meaning::Refused(fault),
            Ok(None) if is_answer(&message.headers) => Meaning::Refused(
                "it has the headers of a saga's command, and no topic for the answer".to_owned(),
            ),
            Ok(None) => Meaning::Event,
            Ok(Some(command)) => match self.refusal(&message.source, command.reply_to()) {
                Some(refusal) => Meaning::Refused(refusal),
                None => Meaning::Command(command),
            },
        }
    }

    /// Says why a command from a source is not answered on a topic; `None` where it is.
    fn refusal(&self, source: &str, topic: &str) -> Option<String> {
        let allowed: Vec<&str> =
            self.0.iter().filter(|(from, _)| from == source).map(|(_, topic)| &**topic).collect();
        if allowed.contains(&topic) {
            return None;
        }
        Some(if allowed.is_empty() {
            format!(
                "no commands of sagas are taken from `{source}`; `commands_from(\"{source}\", \"{topic}\")` takes them"
            )
        } else {
            format!(
                "commands from `{source}` are answered on `{}`, not on `{topic}`; `commands_from` names the topics",
                allowed.join("`, `")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Headers, MessageId, MessageParts, SagaId, Timestamp};

    fn message(source: &str, headers: &[(&str, &str)]) -> Message {
        let saga = SagaId::generate().to_string();
        let mut all = Headers::new();
        for (name, value) in headers {
            let value = if *value == "SAGA" { saga.as_str() } else { *value };
            all.insert(*name, value).expect("legal");
        }
        Message::new(MessageParts {
            id: MessageId::generate(),
            sequence: None,
            source: source.into(),
            event_type: "payment.charge".into(),
            event_version: 1,
            topic: "payments".into(),
            aggregate_type: None,
            key: None,
            content_type: "application/json".into(),
            payload: "{}".into(),
            headers: all,
            created_at: Timestamp::from_micros(0),
            expires_at: None,
            retry: None,
        })
    }

    const CALL: [(&str, &str); 4] =
        [("sagaid", "SAGA"), ("sagastep", "charge"), ("sagaround", "1"), ("sagaphase", "do")];

    #[test]
    fn a_message_is_a_command_where_handler_source_and_topic_say_so_and_an_event_to_every_other_handler()
     {
        let mut sources = CommandSources::default();
        for (source, topic) in
            [("/orders", "orders.replies"), ("/orders", "orders.more"), ("/returns", "returns")]
        {
            sources.add(source.into(), topic.into());
        }
        let command = |topic: &'static str| [&CALL[..], &[("replyto", topic)]].concat();
        let torn = [("sagaid", "SAGA"), ("replyto", "orders.replies")];
        let of_another = [("tenant", "acme")];
        let unanswerable = "no topic for the answer";
        for (source, headers, expected) in [
            ("/orders", command("orders.replies"), "command"),
            ("/orders", command("orders.more"), "command"),
            ("/returns", command("returns"), "command"),
            (
                "/orders",
                command("returns"),
                "answered on `orders.replies`, `orders.more`, not on `returns`",
            ),
            ("/orders", command("Orders.replies"), "not on `Orders.replies`"),
            (
                "/stranger",
                command("orders.replies"),
                "no commands of sagas are taken from `/stranger`",
            ),
            (
                "/orders/",
                command("orders.replies"),
                "no commands of sagas are taken from `/orders/`",
            ),
            ("/orders", command(""), "1 to 255 bytes"),
            ("/orders", torn.to_vec(), "sagaphase"),
            ("/stranger", torn.to_vec(), "sagaphase"),
            ("/orders", CALL.to_vec(), unanswerable),
            ("/stranger", CALL.to_vec(), unanswerable),
            ("/stranger", of_another.to_vec(), "event"),
            ("/orders", vec![("replyto", "orders.replies")], "event"),
            ("/orders", Vec::new(), "event"),
        ] {
            let message = message(source, &headers);
            assert_eq!(sources.meaning(false, &message), Meaning::Event, "{source} {headers:?}");
            match sources.meaning(true, &message) {
                Meaning::Event => assert_eq!(expected, "event", "{source} {headers:?}"),
                Meaning::Command(command) => {
                    assert_eq!(expected, "command", "{source} {headers:?}");
                    assert_eq!(Some(command.reply_to()), message.headers.get("replyto"));
                }
                Meaning::Refused(why) => {
                    assert!(why.contains(expected), "{source} {headers:?}: {why}")
                }
            }
            let unless_said = CommandSources::default().meaning(true, &message);
            let is_refused = matches!(unless_said, Meaning::Refused(_));
            assert_eq!(
                is_refused,
                expected != "event",
                "none are taken unless said: {source} {headers:?}"
            );
        }
    }

    #[test]
    fn sources_and_topics_that_no_message_has_are_faults() {
        let long = "x".repeat(MAX_TEXT + 1);
        for (source, topic, is_right) in [
            ("/orders", "orders.replies", true),
            ("größe, \"quoted\"", "*", true),
            (&"x".repeat(MAX_TEXT), "a", true),
            ("", "a", false),
            ("a", "", false),
            (&long, "a", false),
            ("a", &long, false),
            ("a\nb", "a", false),
            ("a", "\0", false),
        ] {
            let mut sources = CommandSources::default();
            sources.add(source.into(), topic.into());
            assert_eq!(sources.faults().next().is_none(), is_right, "{source:?} {topic:?}");
        }
    }
}
