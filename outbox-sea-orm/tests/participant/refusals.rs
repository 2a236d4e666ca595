//! Commands that become dead letters.

use crate::world::{World, charge};
use outbox_core::event::{MessageParts, SagaId};
use outbox_sea_orm::prelude::*;
use tests::{databases::TempDatabase, on_every_database};

on_every_database! {
    async fn a_command_whose_headers_are_not_whole_is_a_dead_letter_at_once(db: &TempDatabase) {
        let world = World::open(db).await;
        let (queue, handle) = world.serve(|consumer| consumer).await;
        let long = "x".repeat(256);
        let breaks = [
            ("sagaid", "7", "sagaid"),
            ("sagaround", "0", "sagaround"),
            ("sagaphase", "redo", "sagaphase"),
            ("sagastep", "", "sagastep"),
            ("replyto", "", "1 to 255 bytes"),
            ("replyto", &long, "1 to 255 bytes"),
        ];
        for (name, value, _) in breaks {
            let MessageParts { mut headers, .. } = charge(SagaId::generate(), "reply").into_parts();
            headers.insert(name, value).unwrap();
            let parts = MessageParts { headers, ..charge(SagaId::generate(), "reply").into_parts() };
            queue.send(Message::new(parts)).await;
        }
        let letters = world.letters().await;
        assert_eq!(letters.len(), breaks.len());
        for ((handler, reason, errors), (.., said)) in letters.iter().zip(breaks) {
            assert_eq!((handler.as_str(), reason.as_str()), ("payments/charge", "rejected"));
            assert!(errors.contains(said), "{errors}");
        }
        assert_eq!((world.sent().await.len(), handle.stats().borrow().retried), (0, 0));
    }

    async fn a_command_that_its_handler_gives_up_is_not_known_and_may_be_undone(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let (queue, _handle) = world.serve(|consumer| consumer).await;
        queue.send(charge(saga, "dead")).await;
        assert_eq!(world.letters().await.len(), 1);
        assert!(world.reply_types(saga).await.is_empty());
        queue.send(crate::world::refund(saga, "")).await;
        assert_eq!(world.reply_types(saga).await, ["outbox.saga.undone"]);
        assert!(world.effects(saga).await.is_empty());
    }
}
