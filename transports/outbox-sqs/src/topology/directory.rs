//! Where queues and topics are, and the requests that declare them.

use super::{PlaceKind, SqsQueue, Topology, policy};
use crate::{
    classify::{Failure, Kind},
    config::is_fifo,
    connection::{Clients, ServiceUrl},
};
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::sync::Mutex;

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
    places: Places,
    failure: Option<Failure>,
}

/// URLs of queues and ARNs of topics, by name.
#[derive(Default)]
struct Places {
    queues: HashMap<String, String>,
    topics: HashMap<String, String>,
}

impl Places {
    const fn of(&self, kind: PlaceKind) -> &HashMap<String, String> {
        match kind {
            PlaceKind::Queue => &self.queues,
            PlaceKind::Topic => &self.topics,
        }
    }

    const fn of_mut(&mut self, kind: PlaceKind) -> &mut HashMap<String, String> {
        match kind {
            PlaceKind::Queue => &mut self.queues,
            PlaceKind::Topic => &mut self.topics,
        }
    }
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
        self.find(PlaceKind::Queue, name, self.url_of(name)).await
    }

    /// Gives the ARN of a topic that is declared.
    pub(crate) async fn topic(&self, name: &str) -> Result<String, Failure> {
        let undeclared = async { Err(Failure::unavailable("the topic is not declared")) };
        self.find(PlaceKind::Topic, name, undeclared).await
    }

    /// Declares what is not declared yet, and finds a place. What fails here is said of the place
    /// and of no message.
    ///
    /// # Cancel safety
    /// The next caller that gets the lock begins again where a dropped call stopped.
    async fn find(
        &self,
        kind: PlaceKind,
        name: &str,
        look_up: impl Future<Output = Result<String, Failure>>,
    ) -> Result<String, Failure> {
        let seen = self.failures.load(Ordering::Acquire);
        let mut known = self.known.lock().await;
        if let Some(place) = known.places.of(kind).get(name) {
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
            match known.places.of(kind).get(name) {
                Some(place) => Ok(place.clone()),
                None => look_up.await,
            }
        };
        match found.await.map_err(Failure::of_place) {
            Ok(place) => {
                known.failure = None;
                known.places.of_mut(kind).insert(name.to_owned(), place.clone());
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

    /// Forgets everything, after a failure that says that a place is missing which was found
    /// before. One that was never there is no reason to look for the others again.
    pub(crate) async fn forget(&self, kind: PlaceKind, name: &str) {
        let mut known = self.known.lock().await;
        if known.places.of(kind).contains_key(name) {
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

    /// Declares everything. Topics are known only when all of it is done: one whose queue does not
    /// let it send yet would take messages, and discard them.
    async fn declare(&self, places: &mut Places) -> Result<(), Failure> {
        for queue in self.topology.creation_order() {
            let created = self.create_declared(&queue, &places.queues).await;
            let url = created.map_err(|failure| failure.at("queue", &queue.name))?;
            places.queues.insert(queue.name, url);
        }
        let mut topics = HashMap::new();
        for topic in &self.topology.topics {
            let created = self.create_topic(&topic.name).await;
            let arn = created.map_err(|failure| failure.at("topic", &topic.name))?;
            topics.insert(topic.name.clone(), arn);
        }
        let mut changed = Vec::new();
        for (queue, senders) in self.topology.receivers() {
            let arns = arns_of(&senders, &topics);
            let url = self.create_receiver(queue, places).await?;
            let deliver = self.deliver(&arns, &url).await;
            if deliver.map_err(|failure| failure.at("queue", queue))? {
                changed.push((queue, url, arns));
            }
        }
        // The last thing: another program that declares the same queue at the same moment has
        // written its own policy by now.
        for (queue, url, arns) in changed {
            let checked = self.check_policy(&url, &arns).await;
            checked.map_err(|failure| failure.at("queue", queue))?;
        }
        places.topics.extend(topics);
        Ok(())
    }

    async fn create_declared(
        &self,
        queue: &SqsQueue,
        urls: &HashMap<String, String>,
    ) -> Result<String, Failure> {
        let mut settings = Vec::new();
        if let Some((dead, after)) = &queue.dead_letters {
            let url = urls.get(dead);
            let url =
                url.ok_or_else(|| Failure::unavailable("its dead-letter queue is missing"))?;
            let arn = self.attribute(url, QueueAttributeName::QueueArn).await?;
            let arn =
                arn.ok_or_else(|| Failure::unavailable("the dead-letter queue has no ARN"))?;
            let policy =
                json!({ "deadLetterTargetArn": arn, "maxReceiveCount": after.to_string() });
            settings.push((QueueAttributeName::RedrivePolicy, policy.to_string()));
        }
        if let Some(time) = queue.retention {
            let seconds = time.as_secs().to_string();
            settings.push((QueueAttributeName::MessageRetentionPeriod, seconds));
        }
        self.create(&queue.name, settings).await
    }

    /// Creates a queue that topics deliver to, unless it is there by its own declaration.
    async fn create_receiver(&self, queue: &str, places: &mut Places) -> Result<String, Failure> {
        if let Some(url) = places.queues.get(queue) {
            return Ok(url.clone());
        }
        let created = self.create(queue, Vec::new()).await;
        let url = created.map_err(|failure| failure.at("queue", queue))?;
        places.queues.insert(queue.to_owned(), url.clone());
        Ok(url)
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

    async fn create_topic(&self, name: &str) -> Result<String, Failure> {
        let mut request = self.clients.sns.create_topic().name(name);
        if is_fifo(name) {
            request = request.attributes("FifoTopic", "true");
        }
        let created = self.clients.request("did not create the topic", request.send()).await?;
        created.topic_arn.ok_or_else(|| Failure::unavailable("the service gave no ARN"))
    }

    /// Lets topics send to a queue and subscribes it to them, with raw delivery. Tells whether the
    /// queue's policy was set. The service keeps one subscription of a queue to a topic.
    async fn deliver(&self, topics: &[String], url: &str) -> Result<bool, Failure> {
        let arn = self.attribute(url, QueueAttributeName::QueueArn).await?;
        let arn = arn.ok_or_else(|| Failure::unavailable("the queue has no ARN"))?;
        let is_set = self.set_policy(&arn, topics, url).await?;
        for topic in topics {
            let request = self.clients.sns.subscribe().topic_arn(topic).protocol("sqs");
            let request = request.endpoint(&arn).attributes("RawMessageDelivery", "true").send();
            self.clients.request("did not subscribe the queue", request).await?;
        }
        Ok(is_set)
    }

    /// Lets topics send to a queue that has no policy, and tells whether it had none.
    async fn set_policy(&self, queue: &str, topics: &[String], url: &str) -> Result<bool, Failure> {
        let known = self.attribute(url, QueueAttributeName::Policy).await?;
        if let Some(known) = known.filter(|known| !known.is_empty()) {
            let refused = topics.iter().find(|topic| !policy::allows(&known, topic));
            return refused.map_or(Ok(false), |topic| Err(not_named(topic, "")));
        }
        let request = self.clients.sqs.set_queue_attributes().queue_url(url);
        let written = policy::policy_for(queue, topics);
        let request = request.attributes(QueueAttributeName::Policy, written).send();
        self.clients.request("did not set the queue's policy", request).await?;
        Ok(true)
    }

    /// Reads a policy back that was set.
    async fn check_policy(&self, url: &str, topics: &[String]) -> Result<(), Failure> {
        let known = self.attribute(url, QueueAttributeName::Policy).await?.unwrap_or_default();
        let refused = topics.iter().find(|topic| !policy::allows(&known, topic));
        let after = "though it was just set: either the service does not show it yet, or another \
                     program has set its own; ";
        refused.map_or(Ok(()), |topic| Err(not_named(topic, after)))
    }
}

fn not_named(topic: &str, after: &str) -> Failure {
    let before = if after.is_empty() { ": " } else { ", " };
    Failure::unavailable(format!(
        "its policy does not name the topic{before}{after}allow sqs:SendMessage to \
         sns.amazonaws.com with {topic} as aws:SourceArn"
    ))
}

fn arns_of(topics: &BTreeSet<&str>, arns: &HashMap<String, String>) -> Vec<String> {
    topics.iter().filter_map(|topic| arns.get(*topic).cloned()).collect()
}
