//! Topics from code, declared before the first record and again when the brokers report one
//! missing.

use crate::{
    classify::Failure,
    config::{ConfigFault, topic_fault},
};
use outbox_core::transport::{one_line, printable};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    types::RDKafkaErrorCode as Code,
};
use std::{collections::BTreeSet, time::Duration};

/// A topic, which keeps records in the order of each partition.
///
/// A topic that exists already keeps its settings.
///
/// ```
/// # use outbox_kafka::Topic;
/// let orders = Topic::new("orders").partitions(12).replication(3).set("retention.ms", "604800000");
/// let customers = Topic::new("customers").partitions(12).set("cleanup.policy", "compact");
/// # let _ = (orders, customers);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    name: String,
    partitions: u16,
    replication: Option<u16>,
    settings: Vec<(String, String)>,
}

impl Topic {
    /// Names a topic. It has one partition and the brokers' default number of replicas, unless set.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), partitions: 1, replication: None, settings: Vec::new() }
    }

    /// Sets the number of partitions, from 1: how many members of a group can share it. Records of
    /// a key keep their partition only as long as this number stays the same.
    #[must_use]
    pub fn partitions(mut self, partitions: u16) -> Self {
        self.partitions = partitions;
        self
    }

    /// Sets the number of replicas, from 1.
    #[must_use]
    pub fn replication(mut self, replicas: u16) -> Self {
        self.replication = Some(replicas);
        self
    }

    /// Sets one of Kafka's settings of topics, such as `retention.ms` or `min.insync.replicas`.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    fn definition(&self) -> NewTopic<'_> {
        // -1 stands for the brokers' default number of replicas.
        let replicas = self.replication.map_or(-1, i32::from);
        let topic = NewTopic::new(
            &self.name,
            i32::from(self.partitions),
            TopicReplication::Fixed(replicas),
        );
        self.settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
    }
}

/// Lists the faults of declared topics.
pub(crate) fn faults(topics: &[Topic]) -> Vec<ConfigFault> {
    let mut faults: Vec<ConfigFault> =
        topics.iter().filter_map(|topic| topic_fault(&topic.name)).collect();
    let mut names = BTreeSet::new();
    for topic in topics {
        if !names.insert(&topic.name) {
            faults.push(ConfigFault::Twice(printable(&topic.name)));
        }
        if topic.partitions == 0 || topic.replication == Some(0) {
            faults.push(ConfigFault::Range {
                what: "the number of partitions and of replicas",
                rule: "must be at least 1",
            });
        }
    }
    faults
}

/// Declares topics. A topic that exists already stays as it is.
pub(crate) async fn declare(
    client: &ClientConfig,
    topics: &[Topic],
    timeout: Duration,
) -> Result<(), Failure> {
    if topics.is_empty() {
        return Ok(());
    }
    let failure = |reason: &str| {
        Failure::unavailable(format!("topics could not be declared: {}", one_line(reason)))
    };
    let admin: AdminClient<DefaultClientContext> =
        client.create().map_err(|error| failure(&error.to_string()))?;
    let definitions: Vec<NewTopic<'_>> = topics.iter().map(Topic::definition).collect();
    let options =
        AdminOptions::new().operation_timeout(Some(timeout)).request_timeout(Some(timeout));
    let created = admin.create_topics(&definitions, &options).await;
    for result in created.map_err(|error| failure(&error.to_string()))? {
        match result {
            Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
            Err((name, code)) => return Err(not_declared(&name, code)),
        }
    }
    Ok(())
}

/// Makes the failure of a topic that the brokers did not create. Whatever the code is, it is about
/// the topic or the brokers: a message would lose its attempts over more replicas than there are
/// brokers.
fn not_declared(name: &str, code: Code) -> Failure {
    Failure::unavailable(format!("the topic `{}` could not be declared: {code}", printable(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_core::failure::FailureClass;

    #[test]
    fn a_topic_that_the_brokers_do_not_create_is_no_failure_of_a_message() {
        for code in [
            Code::InvalidReplicationFactor,
            Code::InvalidPartitions,
            Code::InvalidConfig,
            Code::PolicyViolation,
            Code::NotController,
            Code::RequestTimedOut,
            Code::ClusterAuthorizationFailed,
        ] {
            let failure = not_declared("orders", code);
            assert_eq!(failure.class, FailureClass::Unavailable, "{failure:?}");
            assert!(failure.text.contains("`orders` could not be declared"), "{failure:?}");
        }
    }

    #[test]
    fn every_fault_of_a_declaration_is_reported() {
        let topics =
            [Topic::new("orders").partitions(0), Topic::new("orders"), Topic::new("no spaces")];
        let faults: Vec<String> = faults(&topics).iter().map(ToString::to_string).collect();
        assert_eq!(faults.len(), 3, "{faults:?}");
        for part in ["`no spaces` must have 1 to 249", "at least 1", "`orders` is declared twice"] {
            assert!(faults.iter().any(|fault| fault.contains(part)), "{part}: {faults:?}");
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
