//! The result of a run: every figure is read from a database or a counter.

use super::{
    Shop,
    queries::{self, Entry},
};
use crate::{notices::notice::News, orders::order::Status, stock::stocked};
use outbox_sea_orm::saga::{SagaState, SagaView};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

/// The figures of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub orders: usize,
    /// Sagas whose steps are all done.
    pub completed: usize,
    /// Compensated sagas, by their reasons.
    pub compensated: BTreeMap<String, usize>,
    /// Sagas that wait for an operator.
    pub stuck: usize,
    /// Running sagas.
    pub under_way: usize,
    /// Paid orders, and the sum of their payments.
    pub payments: usize,
    pub paid: i64,
    /// Payments beyond the first of an order.
    pub doubled: usize,
    /// Parcels that were sent.
    pub parcels: usize,
    /// Notices to customers.
    pub notices: usize,
    /// Orders whose customer has no notice, more than one, or a wrong one.
    pub misled: usize,
    /// Pieces that have left the shelf.
    pub pieces: i64,
    /// Orders with wrong entries.
    pub unbalanced: usize,
    /// Pieces that the shelf lacks without an entry in the ledger.
    pub missing: i64,
    /// Publishes that were confirmed.
    pub delivered: u64,
    /// The sender of the confirmations.
    pub confirmed_by: &'static str,
    /// Publishes that failed and were repeated.
    pub retried: u64,
    /// Duplicates that an inbox suppressed.
    pub duplicates: u64,
    pub dead: i64,
    /// Events in an outbox, which the next start will deliver.
    pub waiting: usize,
    /// Open orders without a saga or an event that could still end them.
    pub lost: usize,
}

/// The input of the figures.
#[derive(Clone, Copy, Default)]
struct Read<'a> {
    /// Number, total and state of each order.
    orders: &'a [(i64, i64, Status)],
    /// State of each order's saga, and the reason of its compensation.
    sagas: &'a [(i64, SagaState, Option<String>)],
    payments: &'a [Entry],
    movements: &'a [Entry],
    parcels: &'a [Entry],
    notices: &'a [(i64, News)],
    /// The keys of events that wait: orders and sagas.
    waiting: &'a [String],
}

impl Figures {
    /// Reads them.
    pub async fn read(shop: &Shop) -> anyhow::Result<Self> {
        let since = shop.since;
        let orders = queries::orders(&shop.orders.database, since).await?;
        let state =
            |(order, saga): (i64, SagaView)| (order, saga.instance.state, saga.instance.reason);
        let sagas: Vec<_> =
            queries::sagas(&shop.orders.outbox, since).await?.into_iter().map(state).collect();
        let payments = queries::payments(&shop.payments.database, since).await?;
        let movements = queries::movements(&shop.stock.database, since).await?;
        let parcels = queries::parcels(&shop.shipping.database, since).await?;
        let notices = queries::notices(&shop.shipping.database, since).await?;
        let mut waiting = Vec::new();
        for service in shop.services() {
            waiting.extend(queries::waiting(&service.database).await?);
        }
        let mut figures = Self::of(&Read {
            orders: &orders,
            sagas: &sagas,
            payments: &payments,
            movements: &movements,
            parcels: &parcels,
            notices: &notices,
            waiting: &waiting,
        });
        // Of all runs: the stock does not record when a piece has left it.
        let moved: i64 = queries::movements(&shop.stock.database, 0)
            .await?
            .iter()
            .map(|(_, pieces)| pieces)
            .sum();
        figures.missing = stocked() + moved - queries::on_shelf(&shop.stock.database).await?;
        figures.confirmed_by = shop.link.wire.confirms();
        for service in shop.services() {
            figures.delivered += service.sent.borrow().delivered;
            figures.retried += *service.failed.borrow();
            figures.duplicates += service.received.borrow().duplicates;
            figures.dead += queries::dead(&service.database).await?;
        }
        Ok(figures)
    }

    /// Compares the databases.
    fn of(read: &Read<'_>) -> Self {
        let [payments, movements, parcels] =
            [read.payments, read.movements, read.parcels].map(Ledger::of);
        let mut figures =
            Self { orders: read.orders.len(), waiting: read.waiting.len(), ..Self::default() };
        let mut on_the_way: HashSet<&str> = read.waiting.iter().map(String::as_str).collect();
        let not_ended: Vec<String> =
            read.sagas.iter().filter(|s| !s.1.is_final()).map(|s| s.0.to_string()).collect();
        on_the_way.extend(not_ended.iter().map(String::as_str));
        for (_, state, reason) in read.sagas {
            match state {
                SagaState::Completed => figures.completed += 1,
                SagaState::Compensated => {
                    *figures.compensated.entry(reason.clone().unwrap_or_default()).or_default() +=
                        1;
                }
                SagaState::Stuck => figures.stuck += 1,
                SagaState::Running | SagaState::Compensating => figures.under_way += 1,
            }
        }
        let mut notified: HashMap<i64, Vec<News>> = HashMap::new();
        for (id, news) in read.notices {
            notified.entry(*id).or_default().push(*news);
        }
        for (id, total, status) in read.orders {
            if on_the_way.contains(id.to_string().as_str()) {
                continue;
            }
            let (booked, news) = match status {
                Status::Confirmed | Status::Shipped => ([*total, -1, 1], News::Confirmed),
                Status::Placed | Status::Accepted | Status::Cancelled => ([0; 3], News::Cancelled),
            };
            figures.unbalanced += usize::from(
                [&payments, &movements, &parcels].map(|ledger| ledger.sum(*id)) != booked,
            );
            figures.misled += usize::from(notified.get(id).map(Vec::as_slice) != Some(&[news]));
            figures.lost += usize::from(!matches!(status, Status::Shipped | Status::Cancelled));
        }
        figures.payments = read.orders.iter().filter(|(id, ..)| payments.sum(*id) > 0).count();
        figures.paid = read.payments.iter().map(|(_, amount)| amount).sum();
        figures.pieces = -read.movements.iter().map(|(_, pieces)| pieces).sum::<i64>();
        figures.doubled = payments.doubled;
        (figures.parcels, figures.notices) = (read.parcels.len(), read.notices.len());
        figures
    }

    /// Tells whether every promise was kept.
    pub fn is_well(&self) -> bool {
        [self.lost, self.doubled, self.stuck, self.misled] == [0; 4]
            && self.dead == 0
            && self.is_balanced()
    }

    fn is_balanced(&self) -> bool {
        self.unbalanced == 0 && self.missing == 0
    }
}

/// The entries of each order in a ledger.
struct Ledger {
    sums: HashMap<i64, i64>,
    /// Positive entries beyond the first of an order.
    doubled: usize,
}

impl Ledger {
    fn of(entries: &[Entry]) -> Self {
        let (mut sums, mut taken) = (HashMap::new(), HashMap::new());
        for (order, amount) in entries {
            *sums.entry(*order).or_default() += amount;
            *taken.entry(order).or_insert(0_usize) += usize::from(*amount > 0);
        }
        Self { sums, doubled: taken.values().map(|taken| taken.saturating_sub(1)).sum() }
    }

    fn sum(&self, order: i64) -> i64 {
        self.sums.get(&order).copied().unwrap_or(0)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, n: u64, words: &str| {
            writeln!(f, "  {:<18}{words}", format!("{name}: {n}"))
        };
        let size = |n: usize| n as u64;
        let money = super::money(self.paid);
        let each = match self.doubled {
            0 => "one an order".to_owned(),
            doubled => format!("{doubled} TOO MANY"),
        };
        let why: Vec<String> =
            self.compensated.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        let why =
            if why.is_empty() { "orders that could not be".to_owned() } else { why.join(", ") };
        line("orders", size(self.orders), "a saga each")?;
        line(
            "completed",
            size(self.completed),
            "stock reserved, payment taken, order confirmed and sent",
        )?;
        line("compensated", size(self.compensated.values().sum()), &why)?;
        line("stuck", size(self.stuck), "sagas that wait for an operator")?;
        line("payments", size(self.payments), &format!("{money} in all; {each}"))?;
        line("parcels", size(self.parcels), "asked of shipping when the order was confirmed")?;
        let notified = match self.misled {
            0 => "one an order, by a subscription; no command asks for them".to_owned(),
            misled => format!("{misled} CUSTOMERS WERE MISLED"),
        };
        line("notices", size(self.notices), &notified)?;
        line(
            "delivered",
            self.delivered,
            &format!("commands, replies and events that {} has confirmed", self.confirmed_by),
        )?;
        line("retried", self.retried, "publishes that failed and were made again")?;
        line(
            "duplicates",
            self.duplicates,
            "messages that came again and were suppressed by an inbox",
        )?;
        line("dead", self.dead.unsigned_abs(), "dead letters")?;
        if self.waiting > 0 {
            line(
                "waiting",
                size(self.waiting),
                "messages in an outbox, which the next start will deliver",
            )?;
        }
        if self.under_way > 0 {
            line("under way", size(self.under_way), "sagas, which the next start will carry on")?;
        }
        line("lost", size(self.lost), "orders that will have no end")?;
        match self.is_balanced() {
            true => writeln!(
                f,
                "  books balanced:   orders, payments, stock and shipping agree on {money} and {} pieces",
                self.pieces
            ),
            false => writeln!(
                f,
                "  BOOKS DO NOT BALANCE: {} orders, {} pieces",
                self.unbalanced, self.missing
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Status::{Accepted, Cancelled, Confirmed, Shipped};

    const DONE: (i64, SagaState, Option<String>) = (1, SagaState::Completed, None);

    #[test]
    fn an_order_that_was_sent_is_paid_once_and_takes_one_piece() {
        let well = Read {
            orders: &[(1, 500, Shipped), (2, 900, Cancelled)],
            sagas: &[DONE, (2, SagaState::Compensated, Some("sold out".to_owned()))],
            payments: &[(1, 500), (2, 900), (2, -900)],
            movements: &[(2, -1), (1, -1), (2, 1)],
            parcels: &[(1, 1)],
            notices: &[(2, News::Cancelled), (1, News::Confirmed)],
            waiting: &[],
        };
        let figures = Figures::of(&well);
        assert!(figures.is_well(), "{figures:?}");
        assert_eq!(
            (figures.completed, figures.compensated["sold out"], figures.payments),
            (1, 1, 1)
        );
        assert_eq!((figures.paid, figures.pieces), (500, 1));
        let doubled =
            Figures::of(&Read { payments: &[(1, 500), (1, 500), (2, 900), (2, -900)], ..well });
        assert_eq!((doubled.doubled, doubled.unbalanced, doubled.is_well()), (1, 1, false));
        let unpaid = Figures::of(&Read { payments: &[], ..well });
        assert_eq!((unpaid.unbalanced, unpaid.is_well()), (1, false));
        let unsent = Figures::of(&Read { parcels: &[], ..well });
        assert_eq!((unsent.unbalanced, unsent.is_well()), (1, false));
        let sent_twice = Figures::of(&Read { parcels: &[(1, 1), (1, 1)], ..well });
        assert_eq!((sent_twice.unbalanced, sent_twice.is_well()), (1, false));
        for notified in [&[(1, News::Confirmed)][..], &[(1, News::Cancelled), (2, News::Cancelled)]]
        {
            let misled = Figures::of(&Read { notices: notified, ..well });
            assert_eq!((misled.misled, misled.is_well()), (1, false), "{notified:?}");
        }
        let not_given_back = Figures::of(&Read { movements: &[(1, -1), (2, -1)], ..well });
        assert_eq!((not_given_back.unbalanced, not_given_back.is_well()), (1, false));
    }

    #[test]
    fn an_order_without_an_end_is_lost_unless_an_event_or_its_saga_is_on_the_way() {
        let booked = Read {
            payments: &[(1, 500)],
            movements: &[(1, -1)],
            sagas: &[DONE],
            ..Read::default()
        };
        let lost = Read { orders: &[(1, 500, Confirmed)], ..booked };
        assert_eq!(Figures::of(&lost).lost, 1);
        assert_eq!(Figures::of(&Read { waiting: &["1".to_owned()], ..lost }).lost, 0);
        let running =
            Read { orders: &[(1, 500, Accepted)], sagas: &[(1, SagaState::Running, None)], ..lost };
        let figures = Figures::of(&running);
        assert_eq!((figures.under_way, figures.lost, figures.unbalanced), (1, 0, 0));
    }
}
