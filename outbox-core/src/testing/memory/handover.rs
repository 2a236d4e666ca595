//! Deliveries that wait for an instance that knows them, and handlers' former names.

use super::{MemoryStore, MemoryTx, deliveries::Row};
use crate::{
    outbox::{
        Awaited, AwaitedBy, ClaimQuery, Deferral, DeferredDelivery, DeliveryClaim,
        HandlerNameStore, HandoverStore, StoreError, StoredDelivery,
    },
    runtime::{later, now},
};
use async_trait::async_trait;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

#[async_trait]
impl HandoverStore for MemoryStore {
    async fn hand_over(
        &self,
        tx: &MemoryTx,
        delivery: &DeferredDelivery<'_>,
        awaited: Option<&Awaited>,
    ) -> Result<(), StoreError> {
        let mut row = Row::of(delivery);
        if self.0.up()?.refused_delivery.as_ref() == Some(&row.message.source) {
            return Err(StoreError::Refused("a packet that is too large".into()));
        }
        row.due_at.get_or_insert_with(now);
        row.awaits = Some((awaited.cloned(), now()));
        tx.staged().deferred.push(row);
        Ok(())
    }

    async fn hand_over_claimed(
        &self,
        claim: &DeliveryClaim,
        deferral: Deferral<'_>,
        awaited: Option<&Awaited>,
    ) -> Result<bool, StoreError> {
        self.0.change(claim, |row| {
            row.history = deferral.history.clone();
            row.due_at = Some(later(now(), deferral.due_in));
            row.started = row.history.attempts;
            row.claimed = None;
            let since = row.awaits.as_ref().map_or_else(now, |(_, since)| *since);
            row.awaits = Some((awaited.cloned(), since));
        })
    }

    async fn awaited(&self, consumer: &str) -> Result<Vec<AwaitedBy>, StoreError> {
        let state = self.0.up()?;
        let mut awaited: Vec<AwaitedBy> = Vec::new();
        for row in state.deliveries.values().filter(|row| row.queue.0 == consumer) {
            let Some((what, _)) = &row.awaits else { continue };
            let by = AwaitedBy { handler: row.queue.1.as_str().into(), awaited: what.clone() };
            if !awaited.contains(&by) {
                awaited.push(by);
            }
        }
        Ok(awaited)
    }

    async fn claim_awaited(
        &self,
        query: &ClaimQuery<'_>,
        known: &[AwaitedBy],
    ) -> Result<Vec<StoredDelivery>, StoreError> {
        let is_known = |row: &Row| {
            let waits_for = |by: &AwaitedBy| {
                *by.handler == *row.queue.1
                    && row.awaits.as_ref().is_some_and(|(awaited, _)| *awaited == by.awaited)
            };
            known.iter().any(waits_for)
        };
        let mut state = self.0.up()?;
        let (now, mut heads, mut claimed) = (now(), Vec::new(), Vec::new());
        for (id, row) in &mut state.deliveries {
            let is_head = row.queue.2.is_none() || !heads.contains(&row.queue);
            heads.push(row.queue.clone());
            let is_free = row.claimed.as_ref().is_none_or(|(_, until)| *until <= now);
            let is_it = row.queue.0 == query.consumer && is_known(row);
            if is_head && is_free && is_it && claimed.len() < query.limit as usize {
                (row.awaits, row.due_at) = (None, Some(now));
                claimed.push(row.claim(*id, query, now));
            }
        }
        Ok(claimed)
    }
}

#[async_trait]
impl HandlerNameStore for MemoryStore {
    async fn under_other_names(
        &self,
        consumer: &str,
        handlers: &[Arc<str>],
    ) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        let state = self.0.up()?;
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for row in state.deliveries.values() {
            let name = row.queue.1.as_str();
            if row.queue.0 == consumer
                && !name.is_empty()
                && handlers.iter().all(|known| **known != *name)
            {
                *counts.entry(name).or_default() += 1;
            }
        }
        Ok(counts.into_iter().map(|(name, n)| (name.into(), n)).collect())
    }

    async fn hand_over_all(
        &self,
        consumer: &str,
        handler: &str,
        due_in: Duration,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let (mut state, now) = (self.0.up()?, now());
        let is_free = |row: &Row| row.claimed.as_ref().is_none_or(|(_, until)| *until <= now);
        let of_handler =
            |row: &&mut Row| (row.queue.0.as_str(), row.queue.1.as_str()) == (consumer, handler);
        let rows = state.deliveries.values_mut().filter(of_handler);
        let mut left = 0;
        for row in rows.filter(|row| row.awaits.is_none() && is_free(row)).take(limit as usize) {
            (row.awaits, row.due_at) = (Some((None, now)), Some(later(now, due_in)));
            left += 1;
        }
        Ok(left)
    }

    async fn rename_handler(
        &self,
        consumer: &str,
        from: &str,
        to: &str,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let mut state = self.0.up()?;
        let is_twin = |row: &Row, other: &Row| {
            (other.queue.0.as_str(), other.queue.1.as_str()) == (consumer, to)
                && (&other.message.source, other.message.id)
                    == (&row.message.source, row.message.id)
        };
        let all = state.deliveries.iter();
        let moved: Vec<i64> = all
            .filter(|(_, row)| (row.queue.0.as_str(), row.queue.1.as_str()) == (consumer, from))
            .filter(|(_, row)| !state.deliveries.values().any(|other| is_twin(row, other)))
            .map(|(id, _)| *id)
            .take(limit as usize)
            .collect();
        for id in &moved {
            if let Some(row) = state.deliveries.get_mut(id) {
                row.queue.1 = to.to_owned();
            }
        }
        Ok(moved.len() as u64)
    }
}
