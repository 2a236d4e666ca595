//! The log of a saga without its content, as an erasure leaves it.

use super::{
    json::Json,
    record::{Operator, Record},
};

/// What stands for a text that was erased.
const ERASED: &str = "erased";

impl Record {
    /// Removes the user's values and texts: data, outputs, reasons, errors, entities. The saga's
    /// course stays, so that [`rebuild`](super::rebuild) gives the same states from a log whose
    /// records are all redacted.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let mut record = self.clone();
        match &mut record {
            Self::Started { data } => *data = Json::empty_object(),
            Self::Done { output, data, .. } => {
                *output = Json::null();
                empty(data);
            }
            Self::CommandSent { data, command_hash, .. } => {
                empty(data);
                *command_hash = None;
            }
            Self::Undone { data, .. } => empty(data),
            Self::LateReply { output, .. } => *output = output.as_ref().map(|_| Json::null()),
            Self::Locked { entities, .. } => entities.iter_mut().for_each(erase),
            Self::BlockedOnLock { entity, .. } => erase(entity),
            Self::Rejected { reason, .. } | Self::Stuck { reason, .. } => erase(reason),
            Self::Failed { error, .. } => erase(error),
            Self::CompensationStarted { reason, by } => {
                erase(reason);
                by.iter_mut().for_each(without_reason);
            }
            Self::Resumed { by }
            | Self::RetriedFrom { by, .. }
            | Self::SkippedByOperator { by, .. } => without_reason(by),
            Self::TimedOut { .. }
            | Self::SkippedByCondition { .. }
            | Self::AttemptStarted { .. }
            | Self::Completed
            | Self::Compensated => {}
        }
        record
    }
}

fn empty(data: &mut Option<Json>) {
    if let Some(data) = data {
        *data = Json::empty_object();
    }
}

fn erase(text: &mut String) {
    ERASED.clone_into(text);
}

fn without_reason(by: &mut Operator) {
    erase(&mut by.reason);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::{SagaState, StepState, rebuild};

    const SECRET: &str = "Ann Smith, 7 Elm Street";

    fn secret() -> Json {
        Json::of(SECRET).unwrap()
    }

    fn operator() -> Operator {
        Operator { name: "bob".into(), reason: SECRET.into() }
    }

    /// Every kind of record, in an order that a saga can take.
    fn log() -> Vec<Record> {
        let step = || "charge".to_owned();
        let sent = |sends, reply_due_us| Record::CommandSent {
            step: step(),
            data: Some(secret()),
            pivot: false,
            compensates: true,
            sends,
            reply_due_us,
            command_hash: Some(SECRET.into()),
        };
        let done = |name: &str| Record::Done {
            step: name.into(),
            output: secret(),
            data: Some(secret()),
            pivot: false,
            compensates: true,
            attempt: 1,
        };
        let stuck = || Record::Stuck { step: Some(step()), reason: SECRET.into(), pivot: false };
        let entity = SECRET.to_owned();
        vec![
            Record::Started { data: secret() },
            Record::SkippedByCondition { step: "greet".into(), pivot: false },
            Record::Locked { step: "reserve".into(), entities: vec![entity.clone()] },
            done("reserve"),
            Record::BlockedOnLock { step: step(), entity, holder: "s".into(), since_us: 1 },
            Record::Failed {
                step: step(),
                attempt: 1,
                error: SECRET.into(),
                wait_us: 1,
                retry_at_us: 2,
            },
            Record::AttemptStarted { step: step(), unfinished_attempts: 1 },
            sent(1, 3),
            Record::Rejected { step: step(), reason: SECRET.into() },
            stuck(),
            Record::RetriedFrom { step: step(), by: operator() },
            sent(1, 4),
            Record::TimedOut { step: step() },
            Record::CompensationStarted { reason: SECRET.into(), by: Some(operator()) },
            Record::LateReply { step: step(), reply: "done".into(), output: Some(secret()) },
            sent(1, 5),
            stuck(),
            Record::Resumed { by: operator() },
            stuck(),
            Record::SkippedByOperator { step: step(), by: operator() },
            Record::Undone { step: "reserve".into(), data: Some(secret()), attempt: 1 },
            Record::Compensated,
        ]
    }

    #[test]
    fn a_redacted_log_has_no_content_and_gives_the_same_states() {
        let (log, mut kinds) = (log(), std::collections::BTreeSet::new());
        for length in 1..=log.len() {
            let redacted: Vec<Record> = log[..length].iter().map(Record::redacted).collect();
            let text = serde_json::to_string(&redacted).unwrap();
            assert!(!text.contains("Elm"), "{text}");
            let [before, after] = [&log[..length], &redacted].map(|log| rebuild(log).unwrap());
            let states = |instance: &crate::saga::Instance| -> (SagaState, Vec<StepState>) {
                (instance.state, instance.steps.iter().map(|known| known.state).collect())
            };
            assert_eq!(states(&before.0), states(&after.0), "after {:?}", log[length - 1]);
            assert!(!serde_json::to_string(&after.0).unwrap().contains("Elm"));
            assert_eq!(after.1.unwrap().as_str(), "{}");
            kinds.insert(log[length - 1].kind());
        }
        assert_eq!(kinds.len(), 18, "all but `completed`: {kinds:?}");
        assert_eq!(Record::Completed.redacted(), Record::Completed);
    }
}
