//! Customers, who send orders over HTTP.

use crate::{
    options::Options,
    orders::{NewOrder, order},
};
use anyhow::{Context, ensure};
use axum::http::StatusCode;
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, Response};
use std::ops::Range;

/// Orders that are sent at once.
const AT_ONCE: usize = 8;
const NAMES: [&str; 8] = ["ada", "alan", "barbara", "edsger", "grace", "john", "leslie", "tony"];
/// The products that customers order.
const WISHES: [&str; 4] = ["lamp", "chair", "desk", "shelf"];
/// A product that the shop does not have.
const SOLD_OUT: &str = "unicorn";
/// More than every customer's credit, in cents.
const TOO_MUCH: i64 = 10_000;

/// All customers.
pub struct Customers {
    http: Client,
    url: String,
    wishes: Wishes,
}

/// Of so many orders, those that are to fail.
#[derive(Debug, Clone, Copy)]
pub struct Wishes {
    pub orders: u32,
    pub declines: u32,
    pub no_stock: u32,
}

impl Customers {
    /// Makes customers of the service at a URL.
    pub fn of(url: &str, options: &Options) -> anyhow::Result<Self> {
        let Options { orders, declines, no_stock, .. } = *options;
        let wishes = Wishes { orders, declines, no_stock };
        Ok(Self {
            http: Client::builder().no_proxy().build()?,
            url: format!("{url}/orders"),
            wishes,
        })
    }

    /// Places the orders with these numbers, several at once.
    pub async fn place(&self, numbers: Range<u32>) -> anyhow::Result<()> {
        let placing =
            stream::iter(numbers).map(|number| self.order(number)).buffer_unordered(AT_ONCE);
        placing.try_for_each(async |_| Ok(())).await
    }

    /// Gives the first order.
    pub fn first(&self) -> NewOrder {
        self.wishes.nth(0)
    }

    /// Places one order.
    pub async fn order(&self, number: u32) -> anyhow::Result<order::Model> {
        let answer = self.send(&self.wishes.nth(number)).await?;
        ensure!(
            answer.status() == StatusCode::CREATED,
            "order {number} was answered {}",
            answer.status()
        );
        Ok(answer.json().await?)
    }

    /// Sends an order and gives the response, whatever its status.
    pub async fn send(&self, new: &NewOrder) -> anyhow::Result<Response> {
        self.http
            .post(&self.url)
            .json(new)
            .send()
            .await
            .context("the orders service does not answer")
    }
}

impl Wishes {
    /// Gives the order with a number. Those that are to fail are spread evenly, and the first one
    /// succeeds.
    pub fn nth(&self, number: u32) -> NewOrder {
        let cannot_be = self.declines + self.no_stock;
        let declined = spread(number, cannot_be, self.orders)
            .map(|nth| spread(nth, self.declines, cannot_be).is_some());
        let at = number as usize;
        NewOrder {
            customer: NAMES[at % NAMES.len()].to_owned(),
            product: if declined == Some(false) { SOLD_OUT } else { WISHES[at % WISHES.len()] }
                .to_owned(),
            total: if declined == Some(true) {
                TOO_MUCH
            } else {
                1_000 * (1 + i64::from(number % 9))
            },
        }
    }
}

/// Spreads some among all: gives for one of all, by its number, which of the some it is, if it is
/// one.
fn spread(number: u32, some: u32, all: u32) -> Option<u32> {
    let until = |number: u32| u64::from(number) * u64::from(some) / u64::from(all);
    (until(number + 1) > until(number)).then(|| u32::try_from(until(number)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_orders_as_were_asked_for_cannot_be_and_the_first_one_can() {
        for (orders, declines, no_stock) in
            [(200, 20, 20), (40, 0, 0), (7, 3, 3), (10, 9, 0), (10, 0, 9), (1, 0, 0)]
        {
            let wishes = Wishes { orders, declines, no_stock };
            let all: Vec<NewOrder> = (0..orders).map(|number| wishes.nth(number)).collect();
            let count = |is: fn(&NewOrder) -> bool| all.iter().filter(|order| is(order)).count();
            let [too_much, sold_out] =
                [count(|o| o.total == TOO_MUCH), count(|o| o.product == SOLD_OUT)];
            assert_eq!((too_much, sold_out), (declines as usize, no_stock as usize), "{wishes:?}");
            assert!(all[0].total < TOO_MUCH && all[0].product != SOLD_OUT, "{wishes:?}");
        }
    }
}
