//! Topics from code: declared before the first record, and again when the brokers say that one is missing.

use crate::{
    config::{ConfigFault, topic_fault},
    verdict::{Refused, class, plain},
};
use outbox_core::failure::FailureClass;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    types::RDKafkaErrorCode as Code,
};
use std::{collections::BTreeSet, time::Duration};

/// A topic: where records are kept, in the order of its partitions.
///
/// One that exists already is left as it is, with whatever settings it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    name: String,
    partitions: u16,
    replication: Option<u16>,
    settings: Vec<(String, String)>,
}

impl Topic {
    /// Names a topic. It has one partition and as many copies as the brokers usually make, unless set.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), partitions: 1, replication: None, settings: Vec::new() }
    }

    /// Sets the number of partitions, from 1: how many members of a group can share it. Records of a key keep their partition
    /// only as long as this number stays the same.
    #[must_use]
    pub fn partitions(mut self, partitions: u16) -> Self {
        self.partitions = partitions;
        self
    }

    /// Sets the number of brokers that have a copy, from 1.
    #[must_use]
    pub fn replication(mut self, copies: u16) -> Self {
        self.replication = Some(copies);
        self
    }

    /// Sets one of Kafka's settings of topics, such as `retention.ms` or `min.insync.replicas`.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    fn wanted(&self) -> NewTopic<'_> {
        // A number of copies that is not said is the brokers' own.
        let copies = self.replication.map_or(-1, i32::from);
        let topic =
            NewTopic::new(&self.name, i32::from(self.partitions), TopicReplication::Fixed(copies));
        self.settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
    }
}

/// Says what is wrong with declared topics.
pub(crate) fn faults(topics: &[Topic]) -> Vec<ConfigFault> {
    let mut faults: Vec<ConfigFault> =
        topics.iter().filter_map(|topic| topic_fault(&topic.name)).collect();
    let mut names = BTreeSet::new();
    for topic in topics {
        if !names.insert(&topic.name) {
            faults.push(ConfigFault::Twice(crate::config::shown(&topic.name)));
        }
        if topic.partitions == 0 || topic.replication == Some(0) {
            faults.push(ConfigFault::Range {
                what: "the number of partitions and of copies",
                rule: "must be at least 1",
            });
        }
    }
    faults
}

/// Declares topics. What is there already stays as it is.
pub(crate) async fn declare(
    client: &ClientConfig,
    topics: &[Topic],
    timeout: Duration,
) -> Result<(), Refused> {
    if topics.is_empty() {
        return Ok(());
    }
    let refused =
        |what: &str| Refused::unavailable(format!("topics could not be declared: {}", plain(what)));
    let admin: AdminClient<DefaultClientContext> =
        client.create().map_err(|error| refused(&error.to_string()))?;
    let wanted: Vec<NewTopic<'_>> = topics.iter().map(Topic::wanted).collect();
    let options =
        AdminOptions::new().operation_timeout(Some(timeout)).request_timeout(Some(timeout));
    let created = admin.create_topics(&wanted, &options).await;
    for verdict in created.map_err(|error| refused(&error.to_string()))? {
        match verdict {
            Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                let text = format!(
                    "the topic `{}` could not be declared: {code}",
                    crate::config::shown(&name)
                );
                // Settings that a broker refuses are a matter for whoever wrote them, not for the message.
                return Err(match class(code) {
                    FailureClass::Transient => Refused::transient(text),
                    FailureClass::Permanent | FailureClass::Unavailable => {
                        Refused::unavailable(text)
                    }
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_declaration_is_told() {
        let topics =
            [Topic::new("orders").partitions(0), Topic::new("orders"), Topic::new("no spaces")];
        let faults: Vec<String> = faults(&topics).iter().map(ToString::to_string).collect();
        assert_eq!(faults.len(), 3, "{faults:?}");
        for said in ["`no spaces` must have 1 to 249", "at least 1", "`orders` is declared twice"] {
            assert!(faults.iter().any(|fault| fault.contains(said)), "{said}: {faults:?}");
        }
        assert_eq!(
            super::faults(&[Topic::new("a")
                .partitions(3)
                .replication(1)
                .set("retention.ms", "1000")]),
            []
        );
    }
}
