//! The health of a process, from facts of its running parts. Pure.

use serde::Serialize;
use std::{sync::Arc, time::Duration};

/// Whether the parts of a process run, and whether they can do their work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// Whether the actors of all parts run. A process that is not live has to be restarted.
    pub live: bool,
    /// Whether all parts can do their work: their databases answer, and a relay has its lease or
    /// waits for its turn.
    pub ready: bool,
    /// Why it is not live or not ready.
    pub reasons: Vec<HealthReason>,
}

/// Why a part is not live or not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HealthReason {
    /// The part, such as ``consumer `mails` ``.
    pub part: String,
    /// What it lacks: `ended`, `database`, `lease` or `poll`.
    pub lacks: &'static str,
    /// The reason in words.
    pub text: String,
}

/// What is known of one running part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartFacts {
    /// The part, such as ``consumer `mails` ``.
    pub part: Arc<str>,
    /// Whether its actors run.
    pub running: bool,
    /// Its database.
    pub database: DatabaseFact,
    /// Its lease.
    pub lease: LeaseFact,
    /// For how long the poll of the database lasts that is under way; `None` between two.
    pub polling: Option<Duration>,
    /// How long its database may fail, and a poll may last.
    pub limit: Duration,
}

/// What is known of the database of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseFact {
    /// It has not answered yet.
    NotReached,
    /// It has answered the last poll.
    Answers,
    /// It has answered no poll for this time.
    FailsFor(Duration),
}

/// What is known of the lease of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseFact {
    /// The part needs none.
    NotNeeded,
    /// It has one.
    Held,
    /// It has none: a relay with other routes owns the partitions, and this one takes its turn when
    /// that has gone.
    WaitsForTurn,
    /// It has none, or has not renewed it in time.
    Missing,
}

/// Gives the health of a process that consists of these parts.
#[must_use]
pub fn health(parts: &[PartFacts]) -> Health {
    Health {
        live: parts.iter().all(|facts| facts.running),
        ready: parts.iter().all(|facts| lacks(facts).next().is_none()),
        reasons: parts.iter().flat_map(lacks).collect(),
    }
}

/// Lists what a part lacks: nothing else where it has ended, since the rest follows from that.
fn lacks(facts: &PartFacts) -> impl Iterator<Item = HealthReason> {
    let reason = |lacks, text| HealthReason { part: facts.part.to_string(), lacks, text };
    let runs = facts.running;
    let ended = (!runs).then(|| reason("ended", "its actors have ended".to_owned()));
    let database = match facts.database {
        DatabaseFact::NotReached => Some("its database has not answered yet".to_owned()),
        DatabaseFact::FailsFor(time) if time > facts.limit => {
            Some(format!("its database has not answered for {time:.0?}"))
        }
        DatabaseFact::Answers | DatabaseFact::FailsFor(_) => None,
    };
    let lease = match facts.lease {
        LeaseFact::NotNeeded | LeaseFact::Held | LeaseFact::WaitsForTurn => None,
        LeaseFact::Missing => Some("it has no lease, or has not renewed it in time".to_owned()),
    };
    let poll = facts.polling.filter(|time| *time > facts.limit);
    let poll = poll.map(|time| format!("a poll of its database has lasted for {time:.0?}"));
    let others = [("database", database), ("lease", lease), ("poll", poll)];
    let others = others.into_iter().filter_map(move |(lacks, text)| Some((lacks, text?)));
    ended
        .into_iter()
        .chain(others.filter(move |_| runs).map(move |(lacks, text)| reason(lacks, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(15);

    fn well() -> PartFacts {
        PartFacts {
            part: "relay".into(),
            running: true,
            database: DatabaseFact::Answers,
            lease: LeaseFact::Held,
            polling: None,
            limit: LIMIT,
        }
    }

    #[test]
    fn a_part_is_live_while_it_runs_and_ready_while_it_lacks_nothing() {
        let second = Duration::from_secs(1);
        let late = LIMIT + second;
        for (facts, live, lacks) in [
            (well(), true, &[][..]),
            (PartFacts { lease: LeaseFact::NotNeeded, ..well() }, true, &[]),
            (PartFacts { lease: LeaseFact::WaitsForTurn, ..well() }, true, &[]),
            (PartFacts { lease: LeaseFact::Missing, ..well() }, true, &["lease"]),
            (PartFacts { database: DatabaseFact::NotReached, ..well() }, true, &["database"]),
            (PartFacts { database: DatabaseFact::FailsFor(LIMIT), ..well() }, true, &[]),
            (PartFacts { database: DatabaseFact::FailsFor(late), ..well() }, true, &["database"]),
            (PartFacts { polling: Some(LIMIT), ..well() }, true, &[]),
            (PartFacts { polling: Some(late), ..well() }, true, &["poll"]),
            (
                PartFacts {
                    database: DatabaseFact::NotReached,
                    lease: LeaseFact::Missing,
                    polling: Some(late),
                    ..well()
                },
                true,
                &["database", "lease", "poll"],
            ),
            (PartFacts { running: false, lease: LeaseFact::Missing, ..well() }, false, &["ended"]),
        ] {
            let health = health(&[well(), facts.clone()]);
            let found: Vec<&str> = health.reasons.iter().map(|reason| reason.lacks).collect();
            assert_eq!(
                (health.live, health.ready, &found[..]),
                (live, lacks.is_empty(), lacks),
                "{facts:?}"
            );
        }
        let nothing = Health { live: true, ready: true, reasons: Vec::new() };
        assert_eq!(health(&[]), nothing, "a process without parts is well");
    }

    #[test]
    fn health_is_shown_as_json_with_its_reasons() {
        let late = PartFacts { database: DatabaseFact::FailsFor(4 * LIMIT), ..well() };
        let json = serde_json::to_string(&health(&[late])).unwrap();
        assert_eq!(
            json,
            r#"{"live":true,"ready":false,"reasons":[{"part":"relay","lacks":"database","text":"its database has not answered for 60s"}]}"#
        );
    }
}
