//! Queues and topics that publishers and subscribers declare from code, and where those are that
//! others have made.

use crate::{
    classify::{Failure, Kind},
    config::{ConfigFault, is_fifo, queue_fault, topic_fault},
    connection::{Clients, ServiceUrl},
};
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::json;
use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::sync::Mutex;

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
    /// without a policy gets one that lets the topic send; one with another policy stays as it is,
    /// and publishing fails with what is missing in it.
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

impl Topology {
    pub(crate) fn faults(&self, faults: &mut Vec<ConfigFault>) {
        self.queues.iter().for_each(|queue| queue.faults(faults));
        self.topics.iter().for_each(|topic| topic.faults(faults));
    }

    /// Tells whether a topic is declared.
    pub(crate) fn has_topic(&self, name: &str) -> bool {
        self.topics.iter().any(|topic| topic.name == name)
    }
}

/// Finds queues and topics, and declares what is to be declared before the first is found. After a
/// failure about a missing one it begins anew: a service that has lost its queues gets them again.
pub(crate) struct Directory {
    pub(crate) clients: Clients,
    account: Option<String>,
    topology: Topology,
    /// How often looking up has failed: callers that waited for one attempt share its failure.
    failures: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    is_declared: bool,
    /// URLs of queues and ARNs of topics, by name.
    places: HashMap<String, String>,
    failure: Option<Failure>,
}

impl Directory {
    pub(crate) fn new(clients: Clients, url: &ServiceUrl, topology: Topology) -> Self {
        Self {
            clients,
            account: url.account.clone(),
            topology,
            failures: AtomicU64::new(0),
            known: Mutex::default(),
        }
    }

    /// Gives the URL of a queue.
    pub(crate) async fn queue(&self, name: &str) -> Result<String, Failure> {
        self.find(name, self.url_of(name)).await
    }

    /// Gives the ARN of a topic that is declared.
    pub(crate) async fn topic(&self, name: &str) -> Result<String, Failure> {
        let undeclared = async { Err(Failure::unavailable("the topic is not declared")) };
        self.find(name, undeclared).await
    }

    /// Declares what is not declared yet, and finds a place.
    ///
    /// # Cancel safety
    /// The next caller that gets the lock begins again where a dropped call stopped.
    async fn find(
        &self,
        name: &str,
        look_up: impl Future<Output = Result<String, Failure>>,
    ) -> Result<String, Failure> {
        let seen = self.failures.load(Ordering::Acquire);
        let mut known = self.known.lock().await;
        if let Some(place) = known.places.get(name) {
            return Ok(place.clone());
        }
        if let Some(failure) = &known.failure
            && self.failures.load(Ordering::Acquire) != seen
        {
            return Err(failure.clone());
        }
        let found = async {
            if !known.is_declared {
                self.declare(&mut known.places).await?;
                known.is_declared = true;
            }
            match known.places.get(name) {
                Some(place) => Ok(place.clone()),
                None => look_up.await,
            }
        };
        match found.await {
            Ok(place) => {
                known.failure = None;
                known.places.insert(name.to_owned(), place.clone());
                Ok(place)
            }
            Err(failure) => {
                // What concerns one name alone is not said of another one.
                if failure.kind != Kind::Missing {
                    known.failure = Some(failure.clone());
                    self.failures.fetch_add(1, Ordering::AcqRel);
                }
                Err(failure)
            }
        }
    }

    /// Forgets everything, after a failure that says that a place is missing which was found before.
    /// One that was never there is no reason to look for the others again.
    pub(crate) async fn forget(&self, name: &str) {
        let mut known = self.known.lock().await;
        if known.places.contains_key(name) {
            *known = Known::default();
        }
    }

    async fn url_of(&self, name: &str) -> Result<String, Failure> {
        let account = self.account.clone();
        let request = self
            .clients
            .sqs
            .get_queue_url()
            .queue_name(name)
            .set_queue_owner_aws_account_id(account);
        let found = self.clients.request("named no URL of the queue", request.send()).await;
        let found = found.map_err(|failure| failure.at("queue", name))?;
        found
            .queue_url
            .ok_or_else(|| Failure::unavailable("the service gave no URL").at("queue", name))
    }

    async fn declare(&self, places: &mut HashMap<String, String>) -> Result<(), Failure> {
        for queue in &self.topology.queues {
            self.declare_queue(queue, places).await.map_err(|f| f.at("queue", &queue.name))?;
        }
        for topic in &self.topology.topics {
            self.declare_topic(topic, places).await.map_err(|f| f.at("topic", &topic.name))?;
        }
        Ok(())
    }

    async fn declare_queue(
        &self,
        queue: &SqsQueue,
        places: &mut HashMap<String, String>,
    ) -> Result<(), Failure> {
        let mut settings = Vec::new();
        if let Some((dead, after)) = &queue.dead_letters {
            let url = self.create(dead, Vec::new()).await?;
            let arn = self.attribute(&url, QueueAttributeName::QueueArn).await?;
            let arn =
                arn.ok_or_else(|| Failure::unavailable("the dead-letter queue has no ARN"))?;
            let policy =
                json!({ "deadLetterTargetArn": arn, "maxReceiveCount": after.to_string() });
            settings.push((QueueAttributeName::RedrivePolicy, policy.to_string()));
            places.insert(dead.clone(), url);
        }
        if let Some(time) = queue.retention {
            let seconds = time.as_secs().to_string();
            settings.push((QueueAttributeName::MessageRetentionPeriod, seconds));
        }
        let url = self.create(&queue.name, settings).await?;
        places.insert(queue.name.clone(), url);
        Ok(())
    }

    /// Creates a queue; one that exists with the same settings is left as it is.
    async fn create(
        &self,
        name: &str,
        settings: Vec<(QueueAttributeName, String)>,
    ) -> Result<String, Failure> {
        let mut request = self.clients.sqs.create_queue().queue_name(name);
        if is_fifo(name) {
            request = request.attributes(QueueAttributeName::FifoQueue, "true");
        }
        for (setting, value) in settings {
            request = request.attributes(setting, value);
        }
        let created = self.clients.request("did not create the queue", request.send()).await?;
        created.queue_url.ok_or_else(|| Failure::unavailable("the service gave no URL"))
    }

    async fn attribute(
        &self,
        url: &str,
        name: QueueAttributeName,
    ) -> Result<Option<String>, Failure> {
        let request = self.clients.sqs.get_queue_attributes().queue_url(url);
        let request = request.attribute_names(name.clone()).send();
        let found = self.clients.request("did not describe the queue", request).await?;
        Ok(found.attributes.and_then(|mut attributes| attributes.remove(&name)))
    }

    async fn declare_topic(
        &self,
        topic: &SnsTopic,
        places: &mut HashMap<String, String>,
    ) -> Result<(), Failure> {
        let mut request = self.clients.sns.create_topic().name(&topic.name);
        if is_fifo(&topic.name) {
            request = request.attributes("FifoTopic", "true");
        }
        let created = self.clients.request("did not create the topic", request.send()).await?;
        let arn = created.topic_arn;
        let arn = arn.ok_or_else(|| Failure::unavailable("the service gave no ARN"))?;
        for queue in &topic.queues {
            let url = match places.get(queue) {
                Some(url) => url.clone(),
                None => self.create(queue, Vec::new()).await?,
            };
            self.subscribe(&arn, &url).await.map_err(|failure| failure.at("queue", queue))?;
            places.insert(queue.clone(), url);
        }
        places.insert(topic.name.clone(), arn);
        Ok(())
    }

    /// Subscribes a queue with raw delivery. The service keeps one subscription of a queue.
    async fn subscribe(&self, topic: &str, url: &str) -> Result<(), Failure> {
        let arn = self.attribute(url, QueueAttributeName::QueueArn).await?;
        let arn = arn.ok_or_else(|| Failure::unavailable("the queue has no ARN"))?;
        match self.attribute(url, QueueAttributeName::Policy).await? {
            Some(policy) if policy.contains(topic) => {}
            Some(policy) if !policy.is_empty() => {
                return Err(Failure::unavailable(format!(
                    "its policy does not name the topic: allow sqs:SendMessage to \
                     sns.amazonaws.com with the source {topic}"
                )));
            }
            _ => {
                let request = self.clients.sqs.set_queue_attributes().queue_url(url);
                let policy = policy_for(&arn, topic);
                let request = request.attributes(QueueAttributeName::Policy, policy).send();
                self.clients.request("did not set the queue's policy", request).await?;
            }
        }
        let request = self.clients.sns.subscribe().topic_arn(topic).protocol("sqs").endpoint(arn);
        let request = request.attributes("RawMessageDelivery", "true").send();
        self.clients.request("did not subscribe the queue", request).await.map(drop)
    }
}

/// Writes the policy of a queue that lets a topic send to it.
fn policy_for(queue: &str, topic: &str) -> String {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": { "Service": "sns.amazonaws.com" },
            "Action": "sqs:SendMessage",
            "Resource": queue,
            "Condition": { "ArnEquals": { "aws:SourceArn": topic } },
        }],
    })
    .to_string()
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
}
