//! Edit and resend: compared first, then sent as a new event.

use crate::world::World;
use outbox_core::admin::{AdminStore, letter_by_id};
use outbox_core::event::LetterId;
use outbox_core::testing::FlippingCodec;
use outbox_sea_orm::prelude::*;
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
};

on_every_database! {
    async fn a_letter_is_compared_with_its_new_content_and_sent_once(temp: &TempDatabase) {
        let world = World::with_letters(temp, 1).await;
        let client = world.client();
        let page = "/letters/1/resend?db=orders";
        client.get(page).await.says(200, &["two chairs", "Why (for the audit)"]);
        let form = [("payload", "{\"order\":\"order-0\",\"note\":\"one chair\"}"), ("why", "miscounted")];
        let compared = client.post(page, &form).await;
        compared.says(200, &["one chair", "two chairs", "removed:", "added:", "Send it as a new event"]);
        assert_eq!((world.dead_and_pending().await, world.audit().await), ((1, 0), Vec::new()), "nothing is sent yet");

        let confirmed = [form[0], form[1], ("confirm", "1")];
        let (to, _) = client.submit(page, &confirmed).await;
        assert!(to.starts_with("/letters/1?db=orders&sent="), "{to}");
        assert_eq!(world.dead_and_pending().await, (0, 1));
        let letter = letter_by_id(&world.outbox, LetterId(1)).await.unwrap().unwrap();
        assert_eq!(letter.resolution.unwrap().action, "resent");
        client.post(page, &confirmed).await.says(409, &["Letter 1 was resent by loopback"]);
        let audit = world.audit().await;
        let [row] = audit.as_slice() else { panic!("{audit:?}") };
        assert_eq!((row.act.as_str(), row.reason.as_str(), row.done), ("resend", "miscounted", 1));
    }
}

#[tokio::test]
async fn a_content_that_did_not_change_is_not_sent_and_lines_keep_their_ends() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::with_letters(&temp, 1).await;
    let client = world.client();
    let page = "/letters/1/resend";
    let letter = letter_by_id(&world.outbox, LetterId(1)).await.unwrap().unwrap();
    let old = String::from_utf8(letter.message.unwrap().payload.to_vec()).unwrap();
    client.post(page, &[("payload", &old), ("why", "x")]).await.says(409, &["Redrive it"]);

    // A browser sends the ends of lines as CRLF, and the event has them as they were.
    let form = [("payload", "{\r\n\"order\": \"order-0\"\r\n}"), ("why", "x"), ("confirm", "1")];
    client.submit(page, &form).await;
    world.bury(1).await;
    let letters = world
        .outbox
        .dead_letters(&outbox_core::admin::DeadLetterFilter::all(), None, 10)
        .await
        .unwrap();
    assert_eq!(letters[0].message.as_ref().unwrap().payload, "{\n\"order\": \"order-0\"\n}");
}

#[tokio::test]
async fn an_encoded_content_is_named_and_neither_shown_nor_edited() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let codec = FlippingCodec::new("flip", ["k1"]);
    let outbox = Outbox::builder(temp.connect().await).source("/shop").payload_codec(codec);
    let world = World { outbox: outbox.install().await.unwrap() };
    world.place("order-0", "two chairs").await;
    world.bury(1).await;
    let client = world.client();
    let page = client.get("/letters/1").await;
    page.says(200, &["It is encoded by the payload codec", "flip", "k1"]);
    assert!(!page.body.contains("class=\"payload\""), "no content: {}", page.body);
    assert!(!page.body.contains("letters/1/resend"), "no link: {}", page.body);
    let document = client.get("/api/dead-letters/1").await;
    document.says(200, &["data_base64", "payloadcodec", "payloadkey"]);

    let form = [("payload", "{}"), ("why", "x"), ("confirm", "1")];
    let path = "/letters/1/resend?db=orders";
    for answer in [client.get(path).await, client.post(path, &form).await] {
        answer.says(409, &["a payload codec has encoded it", "discard the letter"]);
    }
    assert_eq!((world.dead_and_pending().await, world.audit().await), ((1, 0), Vec::new()));
}
