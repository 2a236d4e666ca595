//! Letters of encoded messages, and what operators do with them.

use crate::world::{REJECTED, SOON, Seen, World, card, flipping, noting, received};
use outbox_core::{consumer::TrialResult, outbox::StoreError, transport::Publisher};
use outbox_sea_orm::{
    admin::{AdminStore, DeadLetterFilter, OperatorNote},
    prelude::*,
};
use tests::{databases::TempDatabase, on_every_database, wait_until};

on_every_database! {
    async fn a_letter_is_tried_and_redriven_as_it_came_and_not_sent_again_with_other_content(db: &TempDatabase) {
        let codec = flipping(["k1"]);
        let world = World::open(db, &codec).await;
        let (publisher, queue) = Memory::channel();
        let consumer = noting(&world.outbox, &Seen::default(), queue).start().await.unwrap();
        let message = received(&codec, &card(REJECTED));
        publisher.publish(&message).await.unwrap();
        let every = DeadLetterFilter::all();
        let letters = world.outbox.dead_letters(&every, None, 10).await.unwrap();
        let [letter] = letters.as_slice() else { panic!("{letters:?}") };
        let kept = letter.message.as_ref().expect("it was read");
        assert_eq!((&kept.payload, kept.encoding()), (&message.payload, message.encoding()));

        let trial = consumer.try_handle(letter).await.unwrap();
        assert_eq!((trial.result, trial.text.as_str()), (TrialResult::Rejected, "no such customer"));
        let note = OperatorNote::new("ann", "the customer is known now");
        match world.outbox.resend(letter.id, "{}".into(), &note).await {
            Err(StoreError::Refused(why)) => {
                let why = why.to_string();
                assert!(why.contains("the payload codec `flip` with the key `k1`"), "{why}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(world.outbox.redrive(&[letter.id], &note).await.unwrap(), [letter.id]);
        wait_until(SOON, "the handler has rejected it again", async || {
            let open = world.outbox.dead_letters(&every, None, 10).await.unwrap();
            let open: Vec<_> = open.iter().map(|letter| letter.previous).collect();
            tests::equals(open, vec![Some(letter.id)])
        }).await;

        codec.destroy("k1");
        let trial = consumer.try_handle(letter).await.unwrap();
        assert_eq!(trial.result, TrialResult::Unknown, "{trial:?}");
        assert!(trial.text.contains("the key `k1` of the payload codec `flip`"), "{trial:?}");
        consumer.shutdown(SOON).await.unwrap();
    }
}
