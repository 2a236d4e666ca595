//! The policy of a queue: which topics may send to it. Pure.
//!
//! SNS discards what a queue's policy does not let it deliver, and its publish is confirmed all the
//! same: whether a policy names a topic is read from its parts and not from its text, in which
//! `orders` stands where `orders-v2` does.
//!
//! # Source
//! IAM user guide, elements of a JSON policy; SNS developer guide, permissions of a queue.

use serde_json::{Value, json};

/// What a topic needs of a queue, and the wider names of it.
const ACTIONS: [&str; 3] = ["sqs:SendMessage", "sqs:*", "*"];
/// Operators of a condition that compare the source with ARNs.
const OPERATORS: [&str; 4] = ["ArnEquals", "ArnLike", "StringEquals", "StringLike"];
/// The key of a condition with the topic that sends.
const SOURCE: &str = "aws:SourceArn";

/// Tells whether a policy lets a topic send: it allows that to SNS under a condition with exactly
/// this ARN.
pub(super) fn allows(policy: &str, topic: &str) -> bool {
    let policy: Value = serde_json::from_str(policy).unwrap_or_default();
    values(policy.get("Statement")).iter().any(|statement| permits(statement, topic))
}

fn permits(statement: &Value, topic: &str) -> bool {
    let is_action = |name: &str| ACTIONS.iter().any(|action| action.eq_ignore_ascii_case(name));
    statement.get("Effect").and_then(Value::as_str) == Some("Allow")
        && texts(statement.get("Action")).any(is_action)
        && statement.get("Principal").is_some_and(is_sns)
        && statement.get("Condition").is_some_and(|condition| names(condition, topic))
}

/// Tells whether SNS is among those that a statement is for.
fn is_sns(principal: &Value) -> bool {
    principal == "*"
        || texts(principal.get("AWS")).any(|name| name == "*")
        || texts(principal.get("Service")).any(|name| name.starts_with("sns."))
}

/// Tells whether a condition has exactly this ARN as the source.
fn names(condition: &Value, topic: &str) -> bool {
    OPERATORS.iter().filter_map(|operator| condition.get(*operator)?.as_object()).any(|keys| {
        let mut sources = keys.iter().filter(|(key, _)| key.eq_ignore_ascii_case(SOURCE));
        sources.any(|(_, arns)| texts(Some(arns)).any(|arn| arn == topic))
    })
}

/// Gives what stands in a place of a policy, where one may stand without a list.
fn values(place: Option<&Value>) -> &[Value] {
    match place {
        Some(Value::Array(list)) => list,
        Some(one) => std::slice::from_ref(one),
        None => &[],
    }
}

fn texts(place: Option<&Value>) -> impl Iterator<Item = &str> {
    values(place).iter().filter_map(Value::as_str)
}

/// Writes the policy of a queue that lets topics send to it.
pub(super) fn policy_for(queue: &str, topics: &[String]) -> String {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": { "Service": "sns.amazonaws.com" },
            "Action": "sqs:SendMessage",
            "Resource": queue,
            "Condition": { "ArnEquals": { "aws:SourceArn": topics } },
        }],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: &str = "arn:aws:sqs:eu-central-1:123456789012:billing";
    const ORDERS: &str = "arn:aws:sns:eu-central-1:123456789012:orders";
    const OTHER: &str = "arn:aws:sns:eu-central-1:123456789012:orders-v2";

    fn policy(change: impl FnOnce(&mut Value)) -> String {
        let mut policy: Value =
            serde_json::from_str(&policy_for(QUEUE, &[ORDERS.to_owned()])).expect("JSON");
        change(&mut policy["Statement"][0]);
        policy.to_string()
    }

    #[test]
    fn a_policy_names_each_of_its_topics_and_none_whose_name_begins_alike() {
        let both = policy_for(QUEUE, &[ORDERS.to_owned(), OTHER.to_owned()]);
        assert!(allows(&both, ORDERS) && allows(&both, OTHER));
        let other = policy_for(QUEUE, &[OTHER.to_owned()]);
        assert!(other.contains(ORDERS), "as a text it does");
        assert!(!allows(&other, ORDERS));
        assert!(!allows(&policy(|_| {}), OTHER));
    }

    #[test]
    fn a_policy_lets_a_topic_send_only_where_a_statement_allows_just_that() {
        let condition = |operator: &str, arn: &Value| json!({ operator: { "AWS:SourceArn": arn } });
        for (what, expected, policy) in [
            ("as we write it", true, policy(|_| {})),
            ("a list of actions", true, policy(|s| s["Action"] = json!(["SQS:SendMessage"]))),
            ("every action", true, policy(|s| s["Action"] = json!("sqs:*"))),
            ("everybody", true, policy(|s| s["Principal"] = json!("*"))),
            ("every account", true, policy(|s| s["Principal"] = json!({ "AWS": ["*"] }))),
            (
                "another operator",
                true,
                policy(|s| s["Condition"] = condition("StringEquals", &json!([OTHER, ORDERS]))),
            ),
            ("one statement", true, json!({ "Statement": statement() }).to_string()),
            ("a denial", false, policy(|s| s["Effect"] = json!("Deny"))),
            ("another action", false, policy(|s| s["Action"] = json!("sqs:ReceiveMessage"))),
            ("another service", false, policy(|s| s["Principal"] = json!({ "Service": "s3." }))),
            (
                "the topic as the resource",
                false,
                policy(|s| {
                    s["Resource"] = json!(ORDERS);
                    s["Condition"] = condition("ArnEquals", &json!(OTHER));
                }),
            ),
            (
                "all but the topic",
                false,
                policy(|s| s["Condition"] = condition("ArnNotEquals", &json!(ORDERS))),
            ),
            ("no condition", false, policy(|s| s["Condition"] = Value::Null)),
            ("no statement", false, r#"{"Version":"2012-10-17","Statement":[]}"#.to_owned()),
            ("no policy", false, ORDERS.to_owned()),
        ] {
            assert_eq!(allows(&policy, ORDERS), expected, "{what}: {policy}");
        }
    }

    fn statement() -> Value {
        let policy: Value = serde_json::from_str(&policy(|_| {})).expect("JSON");
        policy["Statement"][0].clone()
    }
}
