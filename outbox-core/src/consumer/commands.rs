//! Whether a message with the headers of a saga is a command to a handler: pure.
//!
//! Any sender can write these headers. So a consumer handles commands only with handlers that were added for
//! them, only those of services that it names, and replies only on the topics that it names for them. To any
//! other handler the same message is an event.

use super::barrier::Command;
use crate::{
    event::{Message, TextRule},
    saga::is_reply,
};

/// The services whose commands the consumer takes, and the topics on which each receives its replies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CommandSources(Vec<(String, String)>);

/// The role of a message for a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MessageRole {
    /// An event: the handler runs, and no reply is sent.
    Event,
    /// A command: the handler runs behind the barrier, and the consumer sends its reply.
    Command(Command),
    /// A command that the consumer does not take, and why.
    Rejected(String),
}

impl CommandSources {
    /// Takes commands from one more source, with replies on a topic.
    pub(super) fn add(&mut self, source: String, topic: String) {
        self.0.push((source, topic));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lists sources and topics that no message has.
    pub(super) fn faults(&self) -> impl Iterator<Item = &(String, String)> {
        let rule = TextRule::ATTRIBUTE;
        self.0.iter().filter(move |(source, topic)| !rule.allows(source) || !rule.allows(topic))
    }

    /// Gives the role of a message for a handler that handles commands, or does not.
    pub(super) fn role(&self, handles_commands: bool, message: &Message) -> MessageRole {
        if !handles_commands {
            return MessageRole::Event;
        }
        match Command::read(message) {
            Err(fault) => MessageRole::Rejected(fault),
            Ok(None) if is_reply(&message.headers) => MessageRole::Rejected(
                "it has the headers of a saga's command, and no topic for the reply".to_owned(),
            ),
            Ok(None) => MessageRole::Event,
            Ok(Some(command)) => match self.rejection(&message.source, command.reply_to()) {
                Some(rejection) => MessageRole::Rejected(rejection),
                None => MessageRole::Command(command),
            },
        }
    }

    /// Says why the consumer does not take a command from a source with replies on a topic; `None` where it does.
    fn rejection(&self, source: &str, topic: &str) -> Option<String> {
        let allowed: Vec<&str> =
            self.0.iter().filter(|(from, _)| from == source).map(|(_, topic)| &**topic).collect();
        if allowed.contains(&topic) {
            return None;
        }
        Some(if allowed.is_empty() {
            format!(
                "this consumer takes no commands of sagas from `{source}`; `commands_from(\"{source}\", \"{topic}\")` takes them"
            )
        } else {
            format!(
                "commands from `{source}` get their replies on `{}`, not on `{topic}`; `commands_from` names the topics",
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
        let unanswerable = "no topic for the reply";
        for (source, headers, expected) in [
            ("/orders", command("orders.replies"), "command"),
            ("/orders", command("orders.more"), "command"),
            ("/returns", command("returns"), "command"),
            (
                "/orders",
                command("returns"),
                "get their replies on `orders.replies`, `orders.more`, not on `returns`",
            ),
            ("/orders", command("Orders.replies"), "not on `Orders.replies`"),
            ("/stranger", command("orders.replies"), "takes no commands of sagas from `/stranger`"),
            ("/orders/", command("orders.replies"), "takes no commands of sagas from `/orders/`"),
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
            assert_eq!(sources.role(false, &message), MessageRole::Event, "{source} {headers:?}");
            match sources.role(true, &message) {
                MessageRole::Event => assert_eq!(expected, "event", "{source} {headers:?}"),
                MessageRole::Command(command) => {
                    assert_eq!(expected, "command", "{source} {headers:?}");
                    assert_eq!(Some(command.reply_to()), message.headers.get("replyto"));
                }
                MessageRole::Rejected(reason) => {
                    assert!(reason.contains(expected), "{source} {headers:?}: {reason}")
                }
            }
            let by_default = CommandSources::default().role(true, &message);
            let is_rejected = matches!(by_default, MessageRole::Rejected(_));
            assert_eq!(
                is_rejected,
                expected != "event",
                "no commands are taken by default: {source} {headers:?}"
            );
        }
    }

    #[test]
    fn sources_and_topics_that_no_message_has_are_faults() {
        let long = "x".repeat(256);
        for (source, topic, is_right) in [
            ("/orders", "orders.replies", true),
            ("größe, \"quoted\"", "*", true),
            (&"x".repeat(255), "a", true),
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
