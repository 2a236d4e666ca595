//! Instances of both releases, and customers who order at any instance that answers.

use crate::support::SOON;
use std::{
    io,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tests::processes::{Process, program};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

/// A release of the shop, by the name of its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Release {
    This,
    Next,
}

/// An act of a rehearsal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Start(Release),
    /// The oldest instance of a release is asked to end.
    Stop(Release),
    /// The oldest instance of a release is killed.
    Kill(Release),
}

/// Orders that are placed after each act, before the next one.
const ORDERS: u64 = 10;
/// Between two orders of one customer.
const PACE: Duration = Duration::from_millis(150);
/// Customers who order at the same time.
const CUSTOMERS: usize = 2;
/// The products: orders for one product wait for each other at its stock row.
const PRODUCTS: [&str; 4] = ["chair", "desk", "lamp", "shelf"];

struct Instance {
    release: Release,
    address: String,
    process: Process,
}

/// The instances that accept orders, and the number of accepted orders.
#[derive(Default)]
struct Street {
    open: Mutex<Vec<String>>,
    accepted: watch::Sender<u64>,
}

/// All instances and customers of a rehearsal.
pub(super) struct Bench {
    database: String,
    broker: String,
    instances: Vec<Instance>,
    street: Arc<Street>,
    customers: Vec<JoinHandle<()>>,
}

impl Bench {
    /// Begins without an instance; orders of customers fail.
    pub(super) fn new(database: &str, broker: &str) -> Self {
        let street = Arc::new(Street::default());
        let customers =
            (0..CUSTOMERS).map(|n| tokio::spawn(order_on(Arc::clone(&street), n))).collect();
        Self {
            database: database.to_owned(),
            broker: broker.to_owned(),
            instances: Vec::new(),
            street,
            customers,
        }
    }

    /// Performs an act, and waits for some more orders.
    pub(super) async fn act(&mut self, act: Act) {
        match act {
            Act::Start(release) => self.start(release).await,
            Act::Stop(release) => {
                // An instance that ends in the middle of its work exits with an error; it only has
                // to end in time.
                let _: ExitStatus = self.take(release).process.terminate(SOON).await;
            }
            Act::Kill(release) => self.take(release).process.kill().await,
        }
        let mut accepted = self.street.accepted.subscribe();
        let wanted = *accepted.borrow() + ORDERS;
        let placed = timeout(SOON, accepted.wait_for(|n| *n >= wanted)).await;
        assert!(placed.is_ok_and(|placed| placed.is_ok()), "orders are placed after {act:?}");
    }

    /// Stops the customers; gives the number of accepted orders.
    pub(super) async fn close(&mut self) -> u64 {
        for customer in self.customers.drain(..) {
            customer.abort();
            // It may be in the middle of an order, which another instance finishes.
            let _ = customer.await;
        }
        *self.street.accepted.borrow()
    }

    /// Ends all remaining instances.
    pub(super) async fn stop_all(mut self) {
        for mut instance in self.instances.drain(..) {
            instance.process.terminate(SOON).await;
        }
    }

    async fn start(&mut self, release: Release) {
        let name = if release == Release::This { "shop" } else { "shop-next" };
        let arguments = ["--serve", "--database", &self.database, "--broker", &self.broker];
        let mut process = Process::start(program(name).args(arguments));
        let line = process.wait_for_line(SOON, "orders at ").await;
        let url = line.split([' ', ',']).nth(2).expect("the line names the address");
        let address = url.trim_start_matches("http://").to_owned();
        process.wait_for_line(SOON, "Place an order").await;
        self.street.lock().push(address.clone());
        self.instances.push(Instance { release, address, process });
    }

    fn take(&mut self, release: Release) -> Instance {
        let at = self.instances.iter().position(|instance| instance.release == release);
        let instance = self.instances.remove(at.expect("an instance of the release runs"));
        self.street.lock().retain(|address| *address != instance.address);
        instance
    }
}

impl Street {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Orders repeatedly, at any instance: of eight orders one is too expensive, and one is for an
/// unknown product.
async fn order_on(street: Arc<Street>, customer: usize) {
    let mut pace = tokio::time::interval(PACE);
    for n in customer.. {
        pace.tick().await;
        let address = {
            let open = street.lock();
            n.checked_rem(open.len()).map(|at| open[at].clone())
        };
        let Some(address) = address else { continue };
        let (product, total) = match n % 8 {
            3 => ("unicorn", 1_000),
            6 => (PRODUCTS[customer % 4], 10_000),
            _ => (PRODUCTS[n % 4], 1_000),
        };
        let order =
            format!(r#"{{"customer":"c{customer}","product":"{product}","total":{total}}}"#);
        if matches!(timeout(SOON, is_created(&address, &order)).await, Ok(Ok(true))) {
            street.accepted.send_modify(|n| *n += 1);
        }
    }
}

/// Posts an order; tells whether it was accepted.
async fn is_created(address: &str, order: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "POST /orders HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json"
    );
    let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{order}", order.len());
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 201"))
}
