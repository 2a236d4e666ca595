//! Queues and topics that publishers and subscribers declare from code, and where those are that
//! others have made.

mod directory;
mod policy;

pub(crate) use directory::Directory;

use crate::config::{ConfigFault, is_fifo, queue_fault, topic_fault};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

/// Shortest and longest time that a queue keeps a message.
const RETENTION: [Duration; 2] = [Duration::from_mins(1), Duration::from_hours(14 * 24)];
/// Most deliveries before a redrive policy moves a message.
const MOST_RECEIVES: u32 = 1_000;

/// A queue to be created where it does not exist. One whose name ends in `.fifo` is FIFO.
///
/// ```
/// use outbox_sqs::SqsQueue;
/// let orders = SqsQueue::new("orders.fifo").dead_letters("orders-dead.fifo", 10);
/// # let _ = orders;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqsQueue {
    pub(crate) name: String,
    dead_letters: Option<(String, u32)>,
    retention: Option<Duration>,
}

impl SqsQueue {
    /// Declares a queue with the service's own settings: messages are kept for four days.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), dead_letters: None, retention: None }
    }

    /// Declares a dead-letter queue too, to which the service moves a message that was delivered so
    /// many times (1 to 1,000) without being acknowledged. It has to be FIFO where this one is.
    #[must_use]
    pub fn dead_letters(mut self, queue: impl Into<String>, after_deliveries: u32) -> Self {
        self.dead_letters = Some((queue.into(), after_deliveries));
        self
    }

    /// Sets how long the queue keeps a message: a minute to 14 days.
    #[must_use]
    pub fn retention(mut self, time: Duration) -> Self {
        self.retention = Some(time);
        self
    }

    fn faults(&self, faults: &mut Vec<ConfigFault>) {
        faults.extend(queue_fault(&self.name));
        let mut declared = |problem| {
            let name = self.name.clone();
            faults.push(ConfigFault::Declared { what: "queue", name, problem });
        };
        if let Some((dead, after)) = &self.dead_letters {
            if is_fifo(dead) != is_fifo(&self.name) {
                declared("its dead-letter queue has to be FIFO as well, or neither of them");
            }
            if !(1..=MOST_RECEIVES).contains(after) {
                declared("messages become dead letters after 1 to 1000 deliveries");
            }
        }
        if self.retention.is_some_and(|time| !(RETENTION[0]..=RETENTION[1]).contains(&time)) {
            declared("messages are kept for a minute to 14 days");
        }
        faults.extend(self.dead_letters.iter().filter_map(|(dead, _)| queue_fault(dead)));
    }
}

/// A topic to be created where it does not exist, with queues that receive its messages.
///
/// ```
/// use outbox_sqs::SnsTopic;
/// let orders = SnsTopic::new("orders.fifo").deliver_to("billing.fifo").deliver_to("audit.fifo");
/// # let _ = orders;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnsTopic {
    name: String,
    queues: Vec<String>,
}

impl SnsTopic {
    /// Declares a topic. One whose name ends in `.fifo` is FIFO.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), queues: Vec::new() }
    }

    /// Subscribes a queue, with raw delivery; creates the queue where it does not exist. A queue
    /// without a policy gets one that lets all declared topics that deliver to it send. One with
    /// another policy stays as it is, and unless a statement of it allows `sqs:SendMessage` to SNS
    /// under a condition with exactly the topic's ARN as `aws:SourceArn`, publishing fails as
    /// unavailable: SNS would discard what it cannot deliver.
    #[must_use]
    pub fn deliver_to(mut self, queue: impl Into<String>) -> Self {
        self.queues.push(queue.into());
        self
    }

    fn faults(&self, faults: &mut Vec<ConfigFault>) {
        faults.extend(topic_fault(&self.name));
        if self.name.starts_with("arn:") {
            let problem = "a topic is declared by its name, not by its ARN";
            let name = self.name.clone();
            faults.push(ConfigFault::Declared { what: "topic", name, problem });
        }
        faults.extend(self.queues.iter().filter_map(|queue| queue_fault(queue)));
    }
}

/// What is declared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Topology {
    pub(crate) queues: Vec<SqsQueue>,
    pub(crate) topics: Vec<SnsTopic>,
}

/// What a name is the name of: a queue and a topic may have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlaceKind {
    Queue,
    Topic,
}

impl PlaceKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Topic => "topic",
        }
    }
}

impl Topology {
    pub(crate) fn faults(&self, faults: &mut Vec<ConfigFault>) {
        self.queues.iter().for_each(|queue| queue.faults(faults));
        self.topics.iter().for_each(|topic| topic.faults(faults));
        let declared = self.by_name();
        let mut declared_as = |queue: &SqsQueue, problem| {
            let (what, name) = (PlaceKind::Queue.as_str(), queue.name.clone());
            faults.push(ConfigFault::Declared { what, name, problem });
        };
        for queue in &self.queues {
            if declared.get(queue.name.as_str()).is_some_and(|first| *first != queue) {
                declared_as(queue, "it is declared twice, with other settings");
            }
            if self.is_its_own_dead_letter_queue(queue, &declared) {
                declared_as(queue, "its dead letters come back to it");
            }
        }
    }

    /// Gives the first declaration of each queue.
    fn by_name(&self) -> HashMap<&str, &SqsQueue> {
        self.queues.iter().rev().map(|queue| (queue.name.as_str(), queue)).collect()
    }

    fn is_its_own_dead_letter_queue(
        &self,
        queue: &SqsQueue,
        declared: &HashMap<&str, &SqsQueue>,
    ) -> bool {
        let mut next = Some(queue);
        // No way without a cycle is longer than there are declarations.
        for _ in 0..self.queues.len() {
            let dead = next.and_then(|queue| queue.dead_letters.as_ref());
            let Some((dead, _)) = dead else { return false };
            if *dead == queue.name {
                return true;
            }
            next = declared.get(dead.as_str()).copied();
        }
        false
    }

    /// Gives the queues in an order in which they can be created: a queue's settings name its
    /// dead-letter queue by the ARN that this one has once it is there. One that is declared itself
    /// has its own settings.
    fn creation_order(&self) -> Vec<SqsQueue> {
        let declared = self.by_name();
        let (mut seen, mut order) = (HashSet::new(), Vec::new());
        for queue in &self.queues {
            let (mut way, mut next) = (Vec::new(), Some(queue.clone()));
            while let Some(queue) = next.take().filter(|queue| seen.insert(queue.name.clone())) {
                next = queue.dead_letters.as_ref().map(|(dead, _)| {
                    let own = declared.get(dead.as_str()).copied().cloned();
                    own.unwrap_or_else(|| SqsQueue::new(dead))
                });
                way.push(queue);
            }
            order.extend(way.into_iter().rev());
        }
        order
    }

    /// Gives the queues that topics deliver to, each with all topics that do: its one policy names
    /// them all.
    fn receivers(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut receivers = BTreeMap::<&str, BTreeSet<&str>>::new();
        for topic in &self.topics {
            for queue in &topic.queues {
                receivers.entry(queue).or_default().insert(&topic.name);
            }
        }
        receivers
    }

    /// Tells whether a topic is declared.
    pub(crate) fn has_topic(&self, name: &str) -> bool {
        self.topics.iter().any(|topic| topic.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_and_its_dead_letters_are_of_one_kind_and_their_settings_in_range() {
        let faults = |queue: SqsQueue| {
            let mut faults = Vec::new();
            queue.faults(&mut faults);
            faults.len()
        };
        let orders = || SqsQueue::new("orders");
        assert_eq!(faults(orders().dead_letters("dead", 5).retention(Duration::from_hours(1))), 0);
        assert_eq!(faults(orders().dead_letters("dead.fifo", 5)), 1);
        assert_eq!(faults(orders().dead_letters("dead", 0)), 1);
        assert_eq!(faults(orders().dead_letters("no name", 1_001)), 2);
        assert_eq!(faults(orders().retention(Duration::from_secs(59))), 1);
        assert_eq!(faults(SqsQueue::new("")), 1);
    }

    #[test]
    fn a_topic_is_declared_by_its_name() {
        let mut faults = Vec::new();
        SnsTopic::new("orders").deliver_to("billing").faults(&mut faults);
        assert_eq!(faults, []);
        SnsTopic::new("arn:aws:sns:r:1:orders").deliver_to("a b").faults(&mut faults);
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    fn queues(queues: impl IntoIterator<Item = SqsQueue>) -> Topology {
        Topology { queues: queues.into_iter().collect(), topics: Vec::new() }
    }

    #[test]
    fn a_dead_letter_queue_is_created_before_its_queue_and_with_its_own_settings() {
        let day = Duration::from_hours(24);
        let orders = || SqsQueue::new("orders").dead_letters("dead", 5);
        let dead = || SqsQueue::new("dead").dead_letters("very-dead", 9).retention(day);
        for declared in [[orders(), dead()], [dead(), orders()]] {
            let order = queues(declared.clone()).creation_order();
            assert_eq!(order, [SqsQueue::new("very-dead"), dead(), orders()], "{declared:?}");
        }
        let undeclared = queues([orders(), orders()]).creation_order();
        assert_eq!(undeclared, [SqsQueue::new("dead"), orders()]);
        assert_eq!(queues([]).creation_order(), []);
    }

    #[test]
    fn what_no_order_can_create_is_a_fault_and_a_repeated_declaration_is_none() {
        let faults = |topology: Topology| {
            let mut faults = Vec::new();
            topology.faults(&mut faults);
            // A cycle has an end here too.
            topology.creation_order();
            faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let with_dead = |name: &str, dead: &str| SqsQueue::new(name).dead_letters(dead, 5);
        assert_eq!(faults(queues([SqsQueue::new("a"), SqsQueue::new("a")])), "");
        assert_eq!(faults(queues([with_dead("a", "c"), with_dead("b", "c")])), "");
        let twice = faults(queues([SqsQueue::new("a"), with_dead("a", "b")]));
        assert_eq!(twice, "the queue `a`: it is declared twice, with other settings");
        let own = faults(queues([with_dead("a", "a")]));
        assert_eq!(own, "the queue `a`: its dead letters come back to it");
        let cycle = [with_dead("a", "b"), with_dead("b", "c"), with_dead("c", "b")];
        let cycle = faults(queues(cycle));
        for name in ["b", "c"] {
            assert!(cycle.contains(&format!("`{name}`: its dead letters come back")), "{cycle}");
        }
        assert!(!cycle.contains("`a`"), "{cycle}");
    }

    #[test]
    fn a_queue_has_all_its_topics_whichever_declares_it() {
        let topics = vec![
            SnsTopic::new("placed").deliver_to("billing").deliver_to("audit"),
            SnsTopic::new("paid").deliver_to("billing"),
            SnsTopic::new("billing"),
        ];
        let topology = Topology { queues: Vec::new(), topics };
        let receivers = topology.receivers();
        assert_eq!(receivers["billing"], BTreeSet::from(["paid", "placed"]));
        assert_eq!(receivers["audit"], BTreeSet::from(["placed"]));
        assert_eq!(receivers.len(), 2);
    }
}
