//! Two small services, written from the README and the API documentation alone: bookings sends the
//! mailer commands over RabbitMQ, and an event of each booking over HTTP.

mod bookings;
mod mailer;

use bookings::{BookingService, State};
use mailer::Mailer;
use outbox_amqp::{AmqpPublisher, AmqpSubscriber, ConfigError, Exchange, Queue, Topology};
use outbox_http::HttpPublisher;
use outbox_sea_orm::{
    admin::{AdminStore, DeadLetterFilter},
    prelude::*,
    transport::Publisher,
};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, sync::mpsc, time::Duration};
use tests::{
    databases::{Database, TempDatabase},
    equals, in_time,
    servers::rabbitmq,
    wait_until,
};

/// The secret by which the mailer verifies requests of bookings.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The reply topic of bookings' sagas.
const ANSWERS: &str = "bookings.answers";

/// The broker deletes a queue that was unused for so long.
const UNUSED_FOR: Duration = Duration::from_mins(10);

/// How long all bookings together may take, on a machine that is busy with other tests.
const ENDED_WITHIN: Duration = Duration::from_mins(2);

/// How long each part of a service may take to stop.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// The event of a new booking.
#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "booking.placed", topic = "bookings")]
struct BookingPlaced {
    #[outbox(key)]
    booking_id: i64,
    customer: String,
}

/// The command to send a customer the confirmation.
#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "mail.send", topic = "mails")]
struct SendMail {
    #[outbox(key)]
    booking_id: i64,
    customer: String,
}

/// The command to withdraw the confirmation.
#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "mail.withdraw", topic = "mails")]
struct WithdrawMail {
    #[outbox(key)]
    booking_id: i64,
}

/// The mailer's reply that the mail is sent.
#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "mail.sent")]
struct MailSent {
    mail_id: i64,
}

/// The mailer's rejection: this customer gets no mail.
#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "mail.refused")]
struct MailRefused {
    reason: String,
}

/// The exchange and the queues of one test, on the broker that all tests share.
struct Broker {
    exchange: String,
    commands: String,
    answers: String,
}

impl Broker {
    fn of_this_test() -> Self {
        let name = format!("trial-{:016x}", fastrand::u64(..));
        Self {
            commands: format!("{name}.mailer"),
            answers: format!("{name}.bookings"),
            exchange: name,
        }
    }

    /// The topology that both services declare.
    fn topology(&self) -> Topology {
        let commands =
            Queue::quorum(&self.commands).bind(&self.exchange, "mail.*").expires(UNUSED_FOR);
        let answers =
            Queue::quorum(&self.answers).bind(&self.exchange, ANSWERS).expires(UNUSED_FOR);
        Topology::new().exchange(Exchange::topic(&self.exchange)).queue(commands).queue(answers)
    }

    fn publisher(&self) -> Result<AmqpPublisher, ConfigError> {
        Ok(AmqpPublisher::new(rabbitmq::shared_url())?
            .exchange(&self.exchange)
            .declare(self.topology()))
    }

    fn subscriber(&self, queue: &str) -> Result<AmqpSubscriber, ConfigError> {
        Ok(AmqpSubscriber::new(rabbitmq::shared_url(), queue)?.declare(self.topology()))
    }
}

/// Posts signed events to a mailer on this machine.
fn webhook(mailer: SocketAddr) -> HttpPublisher {
    let url = format!("http://{mailer}/events");
    HttpPublisher::new(url).expect("an address makes a URL").signed(SECRET).allow_loopback()
}

/// Asserts that the outbox is empty and has no dead letters.
async fn assert_all_delivered(outbox: &Outbox) {
    wait_until(ENDED_WITHIN, "every event is delivered", async || {
        equals(outbox.stats().await.expect("the database answers").pending, 0)
    })
    .await;
    let letters = outbox
        .dead_letters(&DeadLetterFilter::all(), None, 10)
        .await
        .expect("the database answers");
    assert!(letters.is_empty(), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_written_from_the_readme_alone_do_their_work() {
    let bookings_db = TempDatabase::create(Database::Postgres).await;
    let mailer_db = TempDatabase::create(Database::MariaDb).await;
    let broker = Broker::of_this_test();
    let (delivered, deliveries) = mpsc::channel();

    let mailer =
        Mailer::start(mailer_db.connect().await, &broker).await.expect("the mailer starts");
    let service = BookingService::start(
        bookings_db.connect().await,
        &broker,
        webhook(mailer.address),
        move |message: &Message| drop(delivered.send(message.clone())),
    )
    .await
    .expect("bookings starts");

    let mut placed = Vec::new();
    for customer in ["ann", mailer::UNREACHABLE, "bob", bookings::WITHOUT_MONEY] {
        placed.push(service.bookings.place(customer).await.expect("a booking is placed").id);
    }
    let states = [State::Confirmed, State::Cancelled, State::Confirmed, State::Cancelled];
    wait_until(ENDED_WITHIN, "each booking ends as it has to", async || {
        equals(service.bookings.states().await.expect("the database answers"), states)
    })
    .await;
    wait_until(ENDED_WITHIN, "the mailer hears of each booking", async || {
        equals(mailer.heard_of().await.expect("the database answers"), placed.clone())
    })
    .await;
    assert_all_delivered(&service.bookings.outbox).await;
    assert_all_delivered(&mailer.outbox).await;

    assert_eq!(
        mailer.mails().await.unwrap(),
        ["ann", "bob"],
        "the mail to whom the money lacked is withdrawn"
    );
    let history = service.bookings.history(placed[0]).await.unwrap();
    assert_eq!(history, ["placed", "room held", "confirmed"]);
    for (booking, why) in
        [(placed[1], "there is no such mailbox"), (placed[3], "the customer cannot pay")]
    {
        let history = service.bookings.history(booking).await.unwrap();
        assert_eq!(history[..3], ["placed", "room held", "room released"]);
        assert!(
            history.len() == 4
                && history[3].starts_with("cancelled: ")
                && history[3].ends_with(why),
            "{history:?}"
        );
    }

    let again = deliveries
        .try_iter()
        .find(|message| message.topic == "bookings")
        .expect("a booking was delivered");
    webhook(mailer.address).publish(&again).await.expect("a repeat is confirmed as well");
    assert_eq!(mailer.heard_of().await.unwrap(), placed, "a repeat has no effect");

    in_time(STOPPED_WITHIN * 3, "both services stop", async {
        service.shutdown(STOPPED_WITHIN).await.expect("bookings stops");
        mailer.shutdown(STOPPED_WITHIN).await.expect("the mailer stops");
    })
    .await;
}
