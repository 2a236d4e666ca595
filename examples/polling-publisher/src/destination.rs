//! The destination and its nights.

use crate::{EVENTS, ORDERS};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement};
use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// How long the destination is down: longer than a poller has attempts for.
const DOWN_FOR: Duration = Duration::from_secs(5);
/// The order of which something is lost or refused.
const UNLUCKY: i64 = 2;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Night {
    Down,
    AnswerLost,
    Refused,
}

impl Night {
    pub(crate) const ALL: [Self; 3] = [Self::Down, Self::AnswerLost, Self::Refused];
}

impl fmt::Display for Night {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "The destination is down for a while",
            Self::AnswerLost => "The answer to \"order 2 is placed\" is lost",
            Self::Refused => "\"Order 2 is placed\" is refused for ever",
        })
    }
}

/// How a request ends for its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    /// Done, and the sender does not hear of it.
    Lost,
    Down,
    Refused,
}

/// Decides how each request ends.
#[derive(Debug)]
pub(crate) struct Destination {
    night: Night,
    begun: OnceLock<Instant>,
    unlucky: AtomicU32,
}

impl Destination {
    pub(crate) fn new(night: Night) -> Self {
        Self { night, begun: OnceLock::new(), unlucky: AtomicU32::new(0) }
    }

    pub(crate) fn answer(&self, order_id: i64, what: &str) -> Answer {
        let begun = *self.begun.get_or_init(Instant::now);
        let is_unlucky = order_id == UNLUCKY && what == EVENTS[0];
        match self.night {
            Night::Down if begun.elapsed() < DOWN_FOR => Answer::Down,
            Night::AnswerLost
                if is_unlucky && self.unlucky.fetch_add(1, Ordering::Relaxed) == 0 =>
            {
                Answer::Lost
            }
            Night::Refused if is_unlucky => Answer::Refused,
            Night::Down | Night::AnswerLost | Night::Refused => Answer::Done,
        }
    }
}

/// Does what a request asks for.
pub(crate) async fn act<C: ConnectionTrait>(
    db: &C,
    order_id: i64,
    what: &str,
) -> Result<(), DbErr> {
    let sql = "INSERT INTO effects (order_id, what) VALUES (?, ?)";
    let backend = ConnectionTrait::get_database_backend(db);
    db.execute_raw(Statement::from_sql_and_values(backend, sql, [order_id.into(), what.into()]))
        .await?;
    Ok(())
}

/// Says what the destination has done.
pub(crate) async fn report(db: &DatabaseConnection) -> Result<String, DbErr> {
    let asked = Statement::from_string(
        ConnectionTrait::get_database_backend(db),
        "SELECT order_id, what FROM effects ORDER BY id",
    );
    let mut done: Vec<(i64, String)> = Vec::new();
    for row in db.query_all_raw(asked).await? {
        done.push((row.try_get_by_index(0)?, row.try_get_by_index(1)?));
    }
    let (mut once, mut twice, mut overtakes) = (0, 0, 0);
    for order_id in 1..=ORDERS {
        let of_order: Vec<&str> =
            done.iter().filter(|(id, _)| *id == order_id).map(|(_, what)| what.as_str()).collect();
        for what in EVENTS {
            match of_order.iter().filter(|done| **done == what).count() {
                0 => {}
                1 => once += 1,
                _ => twice += 1,
            }
        }
        overtakes += u32::from(of_order.first().is_some_and(|first| *first == EVENTS[1]));
    }
    let all = ORDERS.unsigned_abs() * EVENTS.len() as u64;
    Ok(format!("{once} of {all} done once, {twice} twice, {overtakes} paid before placed"))
}
