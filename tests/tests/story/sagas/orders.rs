//! The saga of the stories: each step books an amount, each compensation books it back, and random
//! steps fail.

use crate::event::Sample;
use outbox_sea_orm::prelude::*;
use sea_orm::{ConnectionTrait, DbErr};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Of so many orders the one with this remainder has a compensation that always fails.
pub(crate) const STUBBORN: (i64, i64) = (50, 7);

/// Orders whose process crashes each time: in a step, in a step of a group, in a compensation.
pub(crate) const CRASHING: std::ops::RangeInclusive<i64> = -3..=-1;

/// An order: the saga's data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) number: i64,
    pub(crate) steps: u32,
    /// How many entities there are, where orders lock them.
    #[serde(default)]
    pub(crate) locked_entities: Option<i64>,
}

impl Order {
    /// Ledger an amount, and fails at times; what was booked must go with the failure.
    async fn book(&self, entry: &str, amount: i64, cx: &StepContext) -> Result<(), StepError> {
        let order = cx.correlation();
        let sql = format!(
            "INSERT INTO story_ledger (of_order, entry, amount) VALUES ('{order}', '{entry}', {amount})"
        );
        cx.tx.execute_unprepared(&sql).await?;
        let undoes = amount < 0;
        match fastrand::u8(..100) {
            _ if CRASHING.contains(&self.number) => Ok(()),
            0..3 if !undoes && entry != "tell" => Err(StepError::abort("it will never be")),
            3..15 => Err(StepError::retry("not this time")),
            15..17 => panic!("a bug"),
            _ => Ok(()),
        }
    }

    /// Crashes the process in the step of a crashing order.
    fn crash(&self, number: i64) {
        if self.number == number {
            std::process::abort();
        }
    }

    /// Locks an entity, at the beginning and again half-way: in no fixed order, so that some orders
    /// get into deadlocks. Orders that may be stuck lock none, or others would wait for ever.
    async fn lock_entity(&self, nth: i64, cx: &StepContext) -> Result<(), StepError> {
        match self.locked_entities {
            Some(count) if self.number % STUBBORN.0 != STUBBORN.1 => {
                cx.lock(format!("entity/{}", (self.number * (2 * nth + 1) + nth) % count)).await
            }
            _ => Ok(()),
        }
    }

    async fn reserve(&mut self, cx: &StepContext) -> Result<i64, StepError> {
        self.lock_entity(0, cx).await?;
        self.steps += 1;
        self.book("reserve", 10, cx).await?;
        Ok(10)
    }

    async fn release(&mut self, amount: i64, cx: &StepContext) -> Result<(), StepError> {
        self.book("release", -amount, cx).await
    }

    async fn insure(&self, cx: &StepContext) -> Result<i64, StepError> {
        self.book("insure", 3, cx).await?;
        Ok(3)
    }

    async fn pack(&self, cx: &StepContext) -> Result<i64, StepError> {
        self.book("pack", 2, cx).await?;
        self.crash(-2);
        Ok(2)
    }

    async fn unpack(&mut self, amount: i64, cx: &StepContext) -> Result<(), StepError> {
        let step = cx.step().to_owned();
        self.book(&format!("undo {step}"), -amount, cx).await
    }

    async fn charge(&mut self, parts: (i64, i64), cx: &StepContext) -> Result<i64, StepError> {
        assert_eq!((self.steps, parts), (1, (3, 2)), "what the steps before have left");
        self.steps += 1;
        self.lock_entity(1, cx).await?;
        self.book("charge", 100, cx).await?;
        self.crash(-1);
        Ok(100)
    }

    async fn refund(&mut self, amount: i64, cx: &StepContext) -> Result<(), StepError> {
        if self.number % STUBBORN.0 == STUBBORN.1 {
            return Err(StepError::retry("the bank is closed"));
        }
        self.crash(-3);
        self.book("refund", -amount, cx).await
    }

    async fn ship(&mut self, cx: &StepContext) -> Result<(), StepError> {
        if self.number == -3 {
            return Err(StepError::abort("so that the charge is refunded"));
        }
        self.book("ship", 1, cx).await?;
        cx.tx.emit(Sample::new(cx.correlation(), 1))?;
        Ok(())
    }

    async fn tell(&mut self, cx: &StepContext) -> Result<(), StepError> {
        self.book("tell", 0, cx).await
    }

    async fn note(&mut self, cx: &StepContext) -> Result<(), DbErr> {
        cx.tx.execute_unprepared("SELECT 1").await.map(drop)
    }
}

/// The definition, with waits that a test can wait for.
pub(crate) fn place_order() -> Saga<Order> {
    let quick = |attempts| {
        RetryPolicy::attempts(attempts, Duration::from_millis(5))
            .max_backoff(Duration::from_millis(40))
    };
    Saga::builder("story-order", 1)
        .step("reserve", Order::reserve)
        .compensate(Order::release)
        .retry(quick(4))
        .compensate_retry(quick(12))
        .parallel("parts")
        .branch("insure", Order::insure)
        .compensate(Order::unpack)
        .retry(quick(4))
        .compensate_retry(quick(12))
        .branch("pack", Order::pack)
        .compensate(Order::unpack)
        .retry(quick(4))
        .compensate_retry(quick(12))
        .merge("charge", Order::charge)
        .compensate(Order::refund)
        .retry(quick(4))
        .compensate_retry(quick(12))
        .step("ship", Order::ship)
        .pivot()
        .retry(quick(4))
        .step("tell", Order::tell)
        .retry(quick(4).endless())
        .step("note", Order::note)
        .build()
}

/// The settings of a coordinator process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Coordinating {
    pub(crate) url: String,
    pub(crate) lease_ms: u64,
    /// The fault point to stop at for ever, and at which reach of it, from 1.
    pub(crate) stops_at: Option<(String, u64)>,
}
