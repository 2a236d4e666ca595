//! A destination of events: it records what it confirmed, in order, over TCP or from this process.

use super::wire::{Answer, Sent};
use async_trait::async_trait;
use outbox_sea_orm::{
    event::Message,
    transport::{Limits, PublishError, Publisher, Receipt},
};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

/// Chooses the answer to a message at its attempt, from 1.
type Script = Box<dyn FnMut(&Sent, u32) -> Answer + Send>;

/// A destination. Clones share it.
#[derive(Clone)]
pub(crate) struct Destination(Arc<Inner>);

struct Inner {
    log: Mutex<Log>,
    confirmed: watch::Sender<usize>,
    /// Whether messages of other processes wait unanswered, and how many do.
    gate: watch::Sender<(bool, usize)>,
}

struct Log {
    confirmed: Vec<Sent>,
    attempts: HashMap<(String, String), u32>,
    script: Script,
}

impl Destination {
    /// Makes one that confirms everything.
    pub(crate) fn new() -> Self {
        Self::scripted(|_, _| Answer::Confirmed)
    }

    /// Makes one that answers by a script.
    pub(crate) fn scripted(script: impl FnMut(&Sent, u32) -> Answer + Send + 'static) -> Self {
        let log = Log { confirmed: Vec::new(), attempts: HashMap::new(), script: Box::new(script) };
        Self(Arc::new(Inner {
            log: Mutex::new(log),
            confirmed: watch::Sender::new(0),
            gate: watch::Sender::default(),
        }))
    }

    /// Answers by another script from now on.
    pub(crate) fn answer_by(&self, script: impl FnMut(&Sent, u32) -> Answer + Send + 'static) {
        self.log().script = Box::new(script);
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receive(&self, sent: Sent) -> Answer {
        let (answer, count) = {
            let log = &mut *self.log();
            let attempt = log.attempts.entry((sent.route.clone(), sent.id.clone())).or_default();
            *attempt += 1;
            let answer = (log.script)(&sent, *attempt);
            if answer == Answer::Confirmed {
                log.confirmed.push(sent);
            }
            (answer, log.confirmed.len())
        };
        self.0.confirmed.send_if_modified(|n| std::mem::replace(n, count.max(*n)) < count);
        answer
    }

    /// Gives everything that was confirmed, in order, repeats included.
    pub(crate) fn confirmed(&self) -> Vec<Sent> {
        self.log().confirmed.clone()
    }

    /// Gives what was confirmed of one route.
    pub(crate) fn of_route(&self, route: &str) -> Vec<Sent> {
        self.log().confirmed.iter().filter(|sent| sent.route == route).cloned().collect()
    }

    /// Tells how much was confirmed, repeats included.
    pub(crate) fn count(&self) -> usize {
        *self.0.confirmed.borrow()
    }

    /// Waits until so many were confirmed, repeats included.
    pub(crate) async fn wait_for(&self, n: usize, within: Duration) {
        let mut confirmed = self.0.confirmed.subscribe();
        let came = timeout(within, confirmed.wait_for(|count| *count >= n)).await.is_ok();
        assert!(came, "{} of {n} were confirmed within {within:?}", self.count());
    }

    /// Leaves messages of other processes unanswered until `release`.
    pub(crate) fn hold(&self) {
        self.0.gate.send_modify(|(held, _)| *held = true);
    }

    /// Waits until so many connections of other processes wait.
    pub(crate) async fn wait_for_held(&self, n: usize, within: Duration) {
        let mut gate = self.0.gate.subscribe();
        let came = timeout(within, gate.wait_for(|(_, waiting)| *waiting >= n)).await.is_ok();
        assert!(came, "{} of {n} connections wait after {within:?}", self.0.gate.borrow().1);
    }

    /// Answers the messages that wait.
    pub(crate) fn release(&self) {
        self.0.gate.send_modify(|(held, _)| *held = false);
    }

    /// Gives a publisher of this process.
    pub(crate) fn publisher(&self, route: &str) -> LocalPublisher {
        LocalPublisher { destination: self.clone(), route: route.to_owned() }
    }

    /// Receives messages of other processes from now on; gives the address.
    pub(crate) async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let destination = self.clone();
        tokio::spawn(async move {
            while let Ok((link, _)) = listener.accept().await {
                tokio::spawn(destination.clone().serve(link));
            }
        });
        address
    }

    async fn serve(self, link: TcpStream) {
        let (read, mut write) = link.into_split();
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let sent: Sent = serde_json::from_str(&line).unwrap();
            if self.0.gate.borrow().0 {
                self.0.gate.send_modify(|(_, waiting)| *waiting += 1);
                // The sender lives as long as the destination.
                let _ = self.0.gate.subscribe().wait_for(|(held, _)| !held).await;
                self.0.gate.send_modify(|(_, waiting)| *waiting -= 1);
            }
            let answer = serde_json::to_string(&self.receive(sent)).unwrap() + "\n";
            if write.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// Publishes to a destination of the same process.
pub(crate) struct LocalPublisher {
    destination: Destination,
    route: String,
}

/// The name of a sender that is the test itself.
pub(crate) const HERE: &str = "here";

#[async_trait]
impl Publisher for LocalPublisher {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        self.destination.receive(Sent::new(HERE, &self.route, message)).into_outcome()
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }
}
