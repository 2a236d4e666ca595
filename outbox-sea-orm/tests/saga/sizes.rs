//! The size of a saga is limited, and a large one is read and pruned in parts.

use crate::{
    order::quickly,
    world::{SOON, World},
};
use outbox_core::saga::{Record, SagaAdmin, SagaFilter, SagaSource, SagaState, SagasError};
use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

/// Most bytes of data or of an output, as JSON.
const MOST: usize = 960 * 1024;

/// A saga whose first step returns, and whose second step writes, as much as its data say.
#[derive(Debug, Serialize, Deserialize)]
struct Book {
    returns: usize,
    writes: usize,
    text: String,
}

impl Book {
    /// Data of so many bytes.
    fn of(bytes: usize) -> Self {
        let mut book = Self { returns: 0, writes: 0, text: String::new() };
        book.fill(bytes);
        book
    }

    fn fill(&mut self, bytes: usize) {
        self.text.clear();
        let empty = serde_json::to_string(self).unwrap().len();
        self.text = "x".repeat(bytes.saturating_sub(empty));
    }

    async fn read(&mut self, _: &StepContext) -> Result<String, StepError> {
        // Two quotes stand around it.
        Ok("y".repeat(self.returns.saturating_sub(2)))
    }

    async fn write(&mut self, _: &StepContext) -> Result<(), StepError> {
        self.fill(self.writes);
        Ok(())
    }
}

fn book() -> Saga<Book> {
    Saga::builder("book", 1).step("read", Book::read).step("write", Book::write).build()
}

on_every_database! {
    async fn data_and_outputs_at_the_limit_are_kept_and_one_byte_more_stops_the_saga_by_name(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = Sagas::builder(&world.outbox).register(book()).poll(Duration::from_millis(50)).start().await.unwrap();
        let tx = world.outbox.begin().await.unwrap();
        let refused = sagas.start(&tx, Book::of(MOST + 1)).correlation("too much").await.unwrap_err();
        assert!(matches!(refused, SagasError::TooLong { actual, limit: MOST } if actual == MOST + 1), "{refused}");
        tx.rollback().await.unwrap();

        let of = |returns, writes| Book { returns, writes, ..Book::of(0) };
        let mut started = Vec::new();
        for (order, data) in [Book::of(MOST), of(MOST, MOST), of(MOST + 1, 0), of(0, MOST + 1)].into_iter().enumerate() {
            let tx = world.outbox.begin().await.unwrap();
            started.push(sagas.start(&tx, data).correlation(order.to_string()).await.unwrap().id());
            tx.commit().await.unwrap();
        }
        world.reaches(started[0], SagaState::Completed).await;
        world.reaches(started[1], SagaState::Completed).await;
        for (saga, expected) in [
            (started[2], "983041 bytes as JSON; at most 983040 are stored"),
            (started[3], "983041 bytes as JSON; at most 983040 are stored"),
        ] {
            let instance = world.reaches(saga, SagaState::Stuck).await;
            assert!(instance.reason.as_deref().is_some_and(|reason| reason.contains(expected)), "{:?}", instance.reason);
        }
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_step_whose_output_would_make_the_progress_too_large_fails(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let first = Saga::builder("book", 1).step("a", Book::read).step("b", Book::read).step("c", Book::read);
        let more = first.step("d", Book::read).step("e", Book::read).step("f", Book::read);
        let most = more.step("g", Book::read).step("h", Book::read);
        let all = most.step("i", Book::read).retry(quickly(1)).build();
        let sagas = Sagas::builder(&world.outbox).register(all).poll(Duration::from_millis(50)).start().await.unwrap();
        let tx = world.outbox.begin().await.unwrap();
        let data = Book { returns: MOST, ..Book::of(0) };
        let saga = sagas.start(&tx, data).correlation("all").await.unwrap().id();
        tx.commit().await.unwrap();
        let instance = world.reaches(saga, SagaState::Compensated).await;
        assert!(instance.reason.as_deref().is_some_and(|reason| reason.contains("together")), "{:?}", instance.reason);
        assert!(instance.step("h").is_some() && instance.step("i").is_none_or(|step| step.output.is_none()), "the ninth fails");
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn pages_of_sagas_and_their_deletion_are_cut_by_bytes(temp: &TempDatabase) {
        const SAGAS: usize = 10;
        let world = World::open(temp).await;
        let sagas = Sagas::builder(&world.outbox).register(book()).poll(Duration::from_millis(50)).start().await.unwrap();
        let mut started = Vec::new();
        for order in 0..SAGAS {
            let tx = world.outbox.begin().await.unwrap();
            let data = Book { returns: MOST, ..Book::of(0) };
            started.push(sagas.start(&tx, data).correlation(order.to_string()).await.unwrap().id());
            tx.commit().await.unwrap();
        }
        for saga in &started {
            world.reaches(*saga, SagaState::Completed).await;
        }
        sagas.shutdown(SOON).await.unwrap();

        let (mut after, mut seen, mut pages) = (None, Vec::new(), 0);
        loop {
            let page = world.outbox.sagas(&SagaFilter::default(), after, 100).await.unwrap();
            let Some(last) = page.last().map(|view| view.id) else { break };
            assert!(page.len() <= 4, "{} large sagas in one page", page.len());
            (after, pages) = (Some(last), pages + 1);
            seen.extend(page.into_iter().map(|view| view.id));
        }
        started.sort_unstable();
        assert!(seen == started && pages >= 3, "{pages} pages");

        let returned = |record: &Record| matches!(record, Record::Done { .. });
        let log = world.log(started[0]).await;
        assert_eq!(log.iter().filter(|entry| returned(&entry.record)).count(), 2, "{log:?}");
        let mut batches = Vec::new();
        while batches.iter().sum::<u64>() < SAGAS as u64 {
            let deleted = world.outbox.prune(Duration::ZERO, 500).await.unwrap();
            assert!((1..=4).contains(&deleted), "{deleted} large sagas are deleted at once");
            batches.push(deleted);
        }
        assert!(world.outbox.saga_log(started[0]).await.unwrap().is_empty());
    }
}
