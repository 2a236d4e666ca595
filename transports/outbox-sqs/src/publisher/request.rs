//! One request to a queue or a topic, and what its reply says of each entry.

use super::{Outcome, Outgoing, unanswered};
use crate::{classify::Failure, headers::STRING, topology::Directory};
use aws_sdk_sns::types::PublishBatchRequestEntry;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use outbox_core::transport::Receipt;

/// Says what the service did not do where it does not reply.
const NOT_CONFIRMED: &str = "did not confirm";

/// Makes the error of a request that the SDK does not build.
fn not_built(error: &dyn std::fmt::Display) -> Failure {
    Failure::transient(format!("the request cannot be built: {error}"))
}

/// Sends messages to a queue (`SendMessageBatch`).
pub(super) async fn send_to_queue(
    directory: &Directory,
    queue: &str,
    messages: &[&Outgoing],
) -> Result<Vec<Outcome>, Failure> {
    let url = directory.queue(queue).await?;
    let mut request = directory.clients.sqs.send_message_batch().queue_url(url);
    for (number, message) in messages.iter().enumerate() {
        request = request.entries(queue_entry(number, message)?);
    }
    let reply = directory.clients.request(NOT_CONFIRMED, request.send()).await;
    let reply = reply.map_err(|failure| failure.at("queue", queue))?;
    let mut outcomes = Outcomes::of(messages.len());
    for entry in reply.successful() {
        outcomes.set(Some(entry.id()), Ok(Receipt::new().to(queue)));
    }
    for entry in reply.failed() {
        let text = entry.message().unwrap_or_default();
        let failure = Failure::from_entry(entry.code(), text, entry.sender_fault());
        outcomes.set(Some(entry.id()), Err(failure.at("queue", queue)));
    }
    Ok(outcomes.finish())
}

fn queue_entry(number: usize, message: &Outgoing) -> Result<SendMessageBatchRequestEntry, Failure> {
    let mut entry = SendMessageBatchRequestEntry::builder()
        .id(number.to_string())
        .message_body(&message.encoded.body);
    for (name, value) in &message.encoded.attributes {
        let value = aws_sdk_sqs::types::MessageAttributeValue::builder()
            .data_type(STRING)
            .string_value(value)
            .build()
            .map_err(|error| not_built(&error))?;
        entry = entry.message_attributes(&**name, value);
    }
    if let Some((group, id)) = &message.fifo {
        entry = entry.message_group_id(group).message_deduplication_id(id);
    }
    entry.build().map_err(|error| not_built(&error))
}

/// Publishes messages to a topic (`PublishBatch`), whose ARN is known or is that of a declared one.
pub(super) async fn publish_to_topic(
    directory: &Directory,
    topic: &str,
    arn: Option<String>,
    messages: &[&Outgoing],
) -> Result<Vec<Outcome>, Failure> {
    let arn = match arn {
        Some(arn) => arn,
        None => directory.topic(topic).await.map_err(|failure| failure.at("topic", topic))?,
    };
    let mut request = directory.clients.sns.publish_batch().topic_arn(arn);
    for (number, message) in messages.iter().enumerate() {
        request = request.publish_batch_request_entries(topic_entry(number, message)?);
    }
    let reply = directory.clients.request(NOT_CONFIRMED, request.send()).await;
    let reply = reply.map_err(|failure| failure.at("topic", topic))?;
    let mut outcomes = Outcomes::of(messages.len());
    for entry in reply.successful() {
        outcomes.set(entry.id(), Ok(Receipt::new().to(topic)));
    }
    for entry in reply.failed() {
        let text = entry.message().unwrap_or_default();
        let failure = Failure::from_entry(entry.code(), text, entry.sender_fault());
        outcomes.set(Some(entry.id()), Err(failure.at("topic", topic)));
    }
    Ok(outcomes.finish())
}

fn topic_entry(number: usize, message: &Outgoing) -> Result<PublishBatchRequestEntry, Failure> {
    let mut entry =
        PublishBatchRequestEntry::builder().id(number.to_string()).message(&message.encoded.body);
    for (name, value) in &message.encoded.attributes {
        let value = aws_sdk_sns::types::MessageAttributeValue::builder()
            .data_type(STRING)
            .string_value(value)
            .build()
            .map_err(|error| not_built(&error))?;
        entry = entry.message_attributes(&**name, value);
    }
    if let Some((group, id)) = &message.fifo {
        entry = entry.message_group_id(group).message_deduplication_id(id);
    }
    entry.build().map_err(|error| not_built(&error))
}

/// The outcomes of a request's entries, by their numbers.
struct Outcomes(Vec<Option<Outcome>>);

impl Outcomes {
    fn of(entries: usize) -> Self {
        Self(std::iter::repeat_with(|| None).take(entries).collect())
    }

    /// Sets the outcome of an entry. A failure stands: where a reply says both of one, it counts as
    /// not confirmed.
    fn set(&mut self, id: Option<&str>, outcome: Outcome) {
        let place = id.and_then(|id| id.parse::<usize>().ok()).and_then(|at| self.0.get_mut(at));
        if let Some(place) = place
            && !matches!(place, Some(Err(_)))
        {
            *place = Some(outcome);
        }
    }

    fn finish(self) -> Vec<Outcome> {
        self.0.into_iter().map(|outcome| outcome.unwrap_or_else(unanswered)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_which_the_reply_says_nothing_or_both_is_not_confirmed() {
        let mut outcomes = Outcomes::of(4);
        outcomes.set(Some("0"), Ok(Receipt::new()));
        outcomes.set(Some("2"), Err(Failure::transient("no")));
        outcomes.set(Some("2"), Ok(Receipt::new()));
        outcomes.set(Some("9"), Ok(Receipt::new()));
        outcomes.set(Some("x"), Ok(Receipt::new()));
        outcomes.set(Some("3"), Ok(Receipt::new()));
        outcomes.set(Some("3"), Err(Failure::permanent("no")));
        let confirmed: Vec<bool> = outcomes.finish().iter().map(Result::is_ok).collect();
        assert_eq!(confirmed, [true, false, false, false]);
    }
}
