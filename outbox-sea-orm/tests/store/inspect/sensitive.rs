//! Errors of events that are marked as sensitive: they may quote the content.

use super::*;
use outbox_core::{
    admin::{ActStore, AdminStore, DeadLetterFilter, ListStore, OperatorNote, Page},
    event::{LetterId, SENSITIVE},
    failure::FailureClass,
    outbox::StoreError,
};

/// The number of a card, which errors quote.
const CANARY: &str = "canary-4111";
const ALL: Page = Page { after: None, limit: 100 };

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "card.added", topic = "cards", sensitive)]
struct CardAdded {
    #[outbox(key)]
    customer: i64,
    number: String,
}

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "card.shown", topic = "cards")]
struct CardShown {
    #[outbox(key)]
    customer: i64,
    number: String,
}

/// A destination that refuses everything and quotes it.
struct Quoting;

#[async_trait]
impl Publisher for Quoting {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let content = String::from_utf8_lossy(&message.payload);
        Err(PublishError::transient(format!("bad request: {content}")).responded())
    }
}

async fn quoting_relay(outbox: &Outbox, attempts: u32) -> Relay {
    let policy = RetryPolicy::attempts(attempts, Duration::from_secs(3));
    let route = Route::new("billing", topic("cards"), Quoting).retry(policy).park_when_dead();
    Relay::builder(outbox).add_route(route).poll(Duration::from_millis(50)).start().await.unwrap()
}

/// Defers a delivery after a failure that quotes the canary; gives its message.
async fn defer_quoting(outbox: &Outbox, key: &str, mark: Option<&str>) -> MessageId {
    let id = MessageId::generate();
    let mut headers = Headers::new();
    if let Some(mark) = mark {
        headers.insert(SENSITIVE, mark).unwrap();
    }
    let parts = MessageParts { headers, ..message(id, key).into_parts() };
    let error = AttemptError::new(1, FailureClass::Transient, CANARY);
    let history = History { attempts: 1, failures: 1, errors: vec![error], ..History::default() };
    let tx = Store::begin(outbox).await.unwrap();
    let delivery = DeferredDelivery {
        consumer: "mail",
        handler: "send",
        message: &Message::new(parts),
        due_in: Some(SOON),
        history,
    };
    assert!(outbox.defer(&tx, &delivery).await.unwrap());
    outbox.commit(tx).await.unwrap();
    id
}

/// Gives all that is told of subjects, of the groups and of the deferred deliveries, what relays
/// tell of themselves included.
async fn told(outbox: &Outbox, subjects: &[Subject]) -> String {
    let mut told = String::new();
    for subject in subjects {
        let facts = outbox.facts(subject).await.unwrap();
        told += &format!("{facts:#?} {:#?}", outbox.history(subject, 100).await.unwrap());
        told += &facts.map(|facts| explain(&facts).sentence).unwrap_or_default();
    }
    let groups = outbox.letter_groups(&DeadLetterFilter::all()).await.unwrap();
    told + &format!("{groups:#?} {:#?}", outbox.deferred(None, ALL).await.unwrap())
}

on_every_database! {
    async fn the_errors_of_a_marked_event_are_hidden_wherever_they_are_told(temp: &TempDatabase) {
        for is_marked in [true, false] {
            let outbox = installed(temp).await;
            let (customer, number) = (i64::from(is_marked), CANARY.to_owned());
            let tx = outbox.begin().await.unwrap();
            let mut ids = Vec::new();
            // The second one waits behind the first one of their key.
            for number in [number.clone(), number] {
                ids.push(match is_marked {
                    true => tx.emit(CardAdded { customer, number }).unwrap(),
                    false => tx.emit(CardShown { customer, number }).unwrap(),
                });
            }
            tx.commit().await.unwrap();
            let key = Subject::Key(customer.to_string());
            let subjects = [Subject::Message(ids[0]), Subject::Message(ids[1]), key];

            let relay = quoting_relay(&outbox, 2).await;
            let failed = format!("Event {} waits for route `billing`: 1 attempt failed", ids[0]);
            answers(&outbox, &subjects[0], &failed).await;
            let of_routes = told(&outbox, &subjects).await;
            assert_eq!(of_routes.contains(CANARY), !is_marked, "{of_routes}");
            assert_eq!(of_routes.contains("(hidden)"), is_marked, "{of_routes}");

            let letters = async || {
                outbox.dead_letters(&DeadLetterFilter::all(), None, 10).await.unwrap()
            };
            wait_until(SOON, "it is a dead letter", async || letters().await.len() == 1).await;
            relay.shutdown(SOON).await.unwrap();
            assert!(letters().await[0].errors[0].text.contains(CANARY), "it is stored as it is");
            let of_letters = told(&outbox, &subjects).await;
            assert_eq!(of_letters.contains(CANARY), !is_marked, "{of_letters}");
            assert!(of_letters.contains("Attempt 2 on route `billing` failed"), "{of_letters}");
            for table in ["outbox_dead_letters", "outbox_events", "outbox_retries"] {
                let delete = format!("DELETE FROM {table}");
                outbox.connection().execute_unprepared(&delete).await.unwrap();
            }
        }
    }

    async fn the_errors_of_a_marked_delivery_are_hidden_and_those_of_others_are_shown(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        for (key, mark, hidden) in [("a", Some("true"), true), ("b", Some("false"), false), ("c", None, false)] {
            let id = defer_quoting(&outbox, key, mark).await;
            let all = told(&outbox, &[Subject::Message(id), Subject::Key(key.to_owned())]).await;
            assert_eq!((all.contains(CANARY), all.contains("(hidden)")), (!hidden, hidden), "{mark:?} {all}");
            run(&outbox, "DELETE FROM outbox_deferred", Vec::new()).await;
        }
    }

    async fn a_content_is_given_with_a_row_of_the_audit_or_not_at_all(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let tx = outbox.begin().await.unwrap();
        tx.emit(CardAdded { customer: 7, number: CANARY.to_owned() }).unwrap();
        tx.commit().await.unwrap();
        let relay = quoting_relay(&outbox, 1).await;
        wait_until(SOON, "it is a dead letter", async || outbox.stats().await.unwrap().dead == 1).await;
        relay.shutdown(SOON).await.unwrap();
        let letter = outbox.newest_letter().await.unwrap().unwrap();
        let show = async |letter, why: &str| outbox.show_content(letter, &OperatorNote::new("ann", why)).await;
        let audit = async || outbox.audit(None, 10).await.unwrap();

        for why in ["", " ", "two\nlines", &"x".repeat(1_001)] {
            let refused = show(letter, why).await;
            assert!(matches!(refused, Err(StoreError::Refused(_))), "{why:?}: {refused:?}");
        }
        assert!(show(LetterId(letter.0 + 1), "the customer asks").await.unwrap().is_none());
        assert_eq!(audit().await, Vec::new(), "nobody was given anything");

        let shown = show(letter, "the customer asks").await.unwrap().unwrap();
        let message = shown.message.unwrap();
        assert!(String::from_utf8_lossy(&message.payload).contains(CANARY), "{message:?}");
        let rows = audit().await;
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        let target = format!("letter {letter}, message {} of type card.added", message.id);
        assert_eq!((row.act.as_str(), row.by.as_str(), row.reason.as_str(), row.done), ("show content", "ann", "the customer asks", 1));
        assert_eq!(row.target, target);
        outbox.connection().execute_unprepared("DROP TABLE outbox_audit").await.unwrap();
        show(letter, "the customer asks").await.unwrap_err();
    }
}
