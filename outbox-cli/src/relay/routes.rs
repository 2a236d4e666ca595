//! The routes of a relay's file.

use super::file::{File, RetryPart, RoutePart};
use crate::error::CliError;
use outbox_core::transport::Publisher;
use outbox_http::HttpPublisher;
use outbox_sea_orm::{
    failure::RetryPolicy,
    transport::{Route, everything},
};
use std::sync::Arc;

/// Makes the routes of a file, and reports all faults at once.
pub(super) fn build(file: &File) -> Result<Vec<Route>, CliError> {
    let (routes, faults): (Vec<_>, Vec<_>) = file
        .route
        .iter()
        .map(|part| route(part).map_err(|why| format!("route `{}`: {why}", part.name)))
        .partition(Result::is_ok);
    if faults.is_empty() {
        return Ok(routes.into_iter().flatten().collect());
    }
    let faults: Vec<String> = faults.into_iter().filter_map(Result::err).collect();
    Err(CliError::Usage(faults.join("; ")))
}

fn route(part: &RoutePart) -> Result<Route, String> {
    let mut selector = everything();
    for topic in &part.topics {
        selector = selector.or_topic(topic);
    }
    for event_type in &part.types {
        selector = selector.of_type(event_type);
    }
    let mut route = Route::shared(&*part.name, selector, publisher(part)?);
    if let Some(retry) = &part.retry {
        route = route.retry(policy(retry));
    }
    if part.at_most_once {
        route = route.at_most_once();
    }
    if part.park_when_dead {
        route = route.park_when_dead();
    }
    if let Some(timeout) = part.timeout {
        route = route.deadline(timeout.0);
    }
    Ok(route)
}

fn policy(part: &RetryPart) -> RetryPolicy {
    let mut policy = RetryPolicy::default();
    if let Some(attempts) = part.max_attempts {
        policy = policy.max_attempts(attempts);
    }
    if let Some(backoff) = part.backoff {
        policy = policy.backoff(backoff.0);
    }
    if let Some(factor) = part.factor {
        policy = policy.factor(factor);
    }
    if let Some(longest) = part.max_backoff {
        policy = policy.max_backoff(longest.0);
    }
    if let Some(after) = part.give_up_after {
        policy = policy.give_up_after(after.0);
    }
    if part.endless { policy.endless() } else { policy }
}

/// Makes the publisher for a URL, by its scheme.
fn publisher(part: &RoutePart) -> Result<Arc<dyn Publisher>, String> {
    let scheme = scheme_of(&part.url)
        .ok_or_else(|| format!("the URL has no scheme: it is one of {}", SCHEMES.join(", ")))?;
    refuse_foreign_settings(part, scheme)?;
    match scheme {
        "http" | "https" => http(part),
        #[cfg(feature = "amqp")]
        "amqp" | "amqps" => amqp(part),
        #[cfg(feature = "kafka")]
        "kafka" => kafka(part),
        #[cfg(feature = "mqtt")]
        "mqtt" | "mqtts" => mqtt(part),
        #[cfg(feature = "nats")]
        "nats" | "tls" => nats(part),
        #[cfg(feature = "redis")]
        "redis" | "rediss" => redis(part),
        #[cfg(feature = "sqs")]
        "sqs" | "sqs+http" | "sqs+https" => sqs(part),
        #[cfg(feature = "sqs")]
        "sns" | "sns+http" | "sns+https" => sns(part),
        _ => Err(format!(
            "no transport of this program takes {scheme}://..: it has {}",
            SCHEMES.join(", ")
        )),
    }
}

/// Gives the scheme of a URL. Errors show nothing else of it: user names of brokers may be tokens.
fn scheme_of(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once("://")?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    (!scheme.is_empty() && scheme.chars().all(is_part)).then_some(scheme)
}

const SCHEMES: &[&str] = &[
    "http",
    "https",
    #[cfg(feature = "amqp")]
    "amqp",
    #[cfg(feature = "amqp")]
    "amqps",
    #[cfg(feature = "kafka")]
    "kafka",
    #[cfg(feature = "mqtt")]
    "mqtt",
    #[cfg(feature = "mqtt")]
    "mqtts",
    #[cfg(feature = "nats")]
    "nats",
    #[cfg(feature = "redis")]
    "redis",
    #[cfg(feature = "redis")]
    "rediss",
    #[cfg(feature = "sqs")]
    "sqs",
    #[cfg(feature = "sqs")]
    "sqs+http",
    #[cfg(feature = "sqs")]
    "sqs+https",
    #[cfg(feature = "sqs")]
    "sns",
    #[cfg(feature = "sqs")]
    "sns+http",
    #[cfg(feature = "sqs")]
    "sns+https",
];

/// Refuses settings that the transport of the URL does not have: a signature that is never made
/// should not look as if it were.
fn refuse_foreign_settings(part: &RoutePart, scheme: &str) -> Result<(), String> {
    let is_http = matches!(scheme, "http" | "https");
    let is_amqp = matches!(scheme, "amqp" | "amqps");
    let has_queue = is_amqp || scheme.starts_with("sqs");
    let has_topic = scheme == "kafka" || scheme.starts_with("sns");
    let foreign = [
        ("signed", !part.signed.is_empty() && !is_http),
        ("headers", !part.headers.is_empty() && !is_http),
        ("allow_loopback", part.allow_loopback && !is_http),
        ("allow_subnets", !part.allow_subnets.is_empty() && !is_http),
        ("exchange", part.exchange.is_some() && !is_amqp),
        ("queue", part.queue.is_some() && !has_queue),
        ("topic", part.topic.is_some() && !has_topic),
    ];
    match foreign.iter().find(|(_, set)| *set) {
        Some((name, _)) => Err(format!("`{name}` is no setting of {scheme}")),
        None => Ok(()),
    }
}

fn http(part: &RoutePart) -> Result<Arc<dyn Publisher>, String> {
    let mut publisher = HttpPublisher::new(&part.url).map_err(|error| error.to_string())?;
    for secret in &part.signed {
        publisher = publisher.signed(&secret.0);
    }
    for (name, value) in &part.headers {
        publisher = publisher.header(name, &value.0);
    }
    for subnet in &part.allow_subnets {
        publisher = publisher.allow_subnet(subnet);
    }
    if part.structured {
        publisher = publisher.structured();
    }
    if part.allow_loopback {
        publisher = publisher.allow_loopback();
    }
    if let Some(timeout) = part.timeout {
        publisher = publisher.timeout(timeout.0);
    }
    publisher.build().map(|built| Arc::new(built) as Arc<dyn Publisher>).map_err(|e| e.to_string())
}

#[cfg(feature = "amqp")]
fn amqp(part: &RoutePart) -> Result<Arc<dyn Publisher>, String> {
    let mut publisher =
        outbox_amqp::AmqpPublisher::new(&part.url).map_err(|error| error.to_string())?;
    if let Some(exchange) = &part.exchange {
        publisher = publisher.exchange(exchange);
    }
    if let Some(queue) = &part.queue {
        publisher = publisher.queue(queue);
    }
    if part.structured {
        publisher = publisher.structured();
    }
    if let Some(timeout) = part.timeout {
        publisher = publisher.timeout(timeout.0);
    }
    publisher.build().map(|built| Arc::new(built) as Arc<dyn Publisher>).map_err(|e| e.to_string())
}

#[cfg(feature = "kafka")]
fn kafka(part: &RoutePart) -> Result<Arc<dyn Publisher>, String> {
    let mut publisher =
        outbox_kafka::KafkaPublisher::new(&part.url).map_err(|error| error.to_string())?;
    if let Some(topic) = &part.topic {
        publisher = publisher.topic(topic);
    }
    if part.structured {
        publisher = publisher.structured();
    }
    publisher.build().map(|built| Arc::new(built) as Arc<dyn Publisher>).map_err(|e| e.to_string())
}

#[cfg(feature = "mqtt")]
fn mqtt(part: &RoutePart) -> Result<Arc<dyn Publisher>, String> {
    let mut publisher =
        outbox_mqtt::MqttPublisher::new(&part.url).map_err(|error| error.to_string())?;
    if part.structured {
        publisher = publisher.structured();
    }
    if let Some(timeout) = part.timeout {
        publisher = publisher.timeout(timeout.0);
    }
    publisher.build().map(|built| Arc::new(built) as Arc<dyn Publisher>).map_err(|e| e.to_string())
}

#[cfg(feature = "nats")]
fn nats(part: &RoutePart) -> Result<Arc<dyn Publisher>, String> {
    let mut publisher =
        outbox_nats::NatsPublisher::new(&part.url).map_err(|error| error.to_string())?;
    if part.structured {
        publisher = publisher.structured();
    }
    if let Some(timeout) = part.timeout {
        publisher = publisher.timeout(timeout.0);
    }
    publisher.build().map(|built| Arc::new(built) as Arc<dyn Publisher>).map_err(|e| e.to_string())
}

#[cfg(feature = "redis")]
fn redis(part: &RoutePart) -> Result<Arc<dyn Publisher>, String> {
    let mut publisher =
        outbox_redis::RedisPublisher::new(&part.url).map_err(|error| error.to_string())?;
    if part.structured {
        publisher = publisher.structured();
    }
    if let Some(timeout) = part.timeout {
        publisher = publisher.timeout(timeout.0);
    }
    publisher.build().map(|built| Arc::new(built) as Arc<dyn Publisher>).map_err(|e| e.to_string())
}

#[cfg(feature = "sqs")]
fn sqs(part: &RoutePart) -> Result<Arc<dyn Publisher>, String> {
    let mut publisher =
        outbox_sqs::SqsPublisher::new(&part.url).map_err(|error| error.to_string())?;
    if let Some(queue) = &part.queue {
        publisher = publisher.queue(queue);
    }
    // The body is the event's JSON object, whatever `structured` says.
    if let Some(timeout) = part.timeout {
        publisher = publisher.timeout(timeout.0);
    }
    publisher.build().map(|built| Arc::new(built) as Arc<dyn Publisher>).map_err(|e| e.to_string())
}

#[cfg(feature = "sqs")]
fn sns(part: &RoutePart) -> Result<Arc<dyn Publisher>, String> {
    let mut publisher =
        outbox_sqs::SnsPublisher::new(&part.url).map_err(|error| error.to_string())?;
    if let Some(topic) = &part.topic {
        publisher = publisher.topic(topic);
    }
    if let Some(timeout) = part.timeout {
        publisher = publisher.timeout(timeout.0);
    }
    publisher.build().map(|built| Arc::new(built) as Arc<dyn Publisher>).map_err(|e| e.to_string())
}
