//! Checks of the databases at the end.

use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

const SERVICES: [&str; 4] = ["orders", "payments", "stock", "shipping"];

/// The tables of all services, in one database.
pub(super) struct Books(pub(super) DatabaseConnection);

impl Books {
    pub(super) async fn number(&self, sql: &str) -> i64 {
        let asked = Statement::from_string(self.0.get_database_backend(), sql);
        let row =
            self.0.query_one_raw(asked).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        row.map_or(0, |row| row.try_get_by_index(0).unwrap())
    }

    async fn of_all(&self, table: &str, condition: &str) -> i64 {
        let mut sum = 0;
        for service in SERVICES {
            sum +=
                self.number(&format!("SELECT COUNT(*) FROM {service}_{table} {condition}")).await;
        }
        sum
    }

    /// Tells whether all work has ended.
    pub(super) async fn are_settled(&self) -> bool {
        let open = "SELECT COUNT(*) FROM shop_orders WHERE status NOT IN ('shipped', 'cancelled')";
        let untold =
            "SELECT (SELECT COUNT(*) FROM shop_orders) - (SELECT COUNT(*) FROM shop_notices)";
        self.number(open).await == 0
            && self.of_all("outbox_events", "").await + self.of_all("outbox_deferred", "").await
                == 0
            && self.number("SELECT COUNT(*) FROM orders_outbox_sagas WHERE ended_at IS NULL").await
                == 0
            && self.number(untold).await <= 0
    }

    /// Fails unless every promise was kept: no dead letter, no needless compensation, each effect
    /// once.
    pub(super) async fn balance(&self) {
        assert_eq!(self.of_all("outbox_dead_letters", "").await, 0, "nothing is buried");
        assert_eq!(
            self.number("SELECT COUNT(*) FROM orders_outbox_sagas WHERE state = 'stuck'").await,
            0
        );
        let cannot_be = "total > 9000 OR product = 'unicorn'";
        for (what, wrong) in [
            ("an order that can be is sent", format!("NOT ({cannot_be}) AND status <> 'shipped'")),
            ("an order that cannot be is cancelled", format!("({cannot_be}) AND status <> 'cancelled'")),
            (
                "an order that was sent is paid, once",
                "status = 'shipped' AND ((SELECT COUNT(*) FROM shop_payments p WHERE p.order_id = o.id) <> 1 \
                 OR (SELECT SUM(amount) FROM shop_payments p WHERE p.order_id = o.id) <> o.total)"
                    .to_owned(),
            ),
            (
                "an order that was cancelled is paid back",
                "status = 'cancelled' AND COALESCE((SELECT SUM(amount) FROM shop_payments p WHERE p.order_id = o.id), 0) <> 0"
                    .to_owned(),
            ),
            (
                "an order takes one piece, or none",
                "COALESCE((SELECT SUM(pieces) FROM shop_stock_movements m WHERE m.order_id = o.id), 0) \
                 <> CASE WHEN status = 'shipped' THEN -1 ELSE 0 END"
                    .to_owned(),
            ),
            (
                "an order has one parcel, or none",
                "(SELECT COUNT(*) FROM shop_parcels p WHERE p.order_id = o.id) \
                 <> CASE WHEN status = 'shipped' THEN 1 ELSE 0 END"
                    .to_owned(),
            ),
            (
                "a customer is told once",
                "(SELECT COUNT(*) FROM shop_notices n WHERE n.order_id = o.id) <> 1".to_owned(),
            ),
            (
                "a gift goes with each order that was sent under the next release, and with no other",
                "(SELECT COUNT(*) FROM shop_gifts g WHERE g.order_id = o.id) <> (SELECT COUNT(*) FROM orders_outbox_sagas s \
                 WHERE s.correlation_id = CONCAT('order-', o.id) AND s.version = 2 AND s.state = 'completed')"
                    .to_owned(),
            ),
        ] {
            let sql = format!("SELECT COUNT(*) FROM shop_orders o WHERE {wrong}");
            assert_eq!(self.number(&sql).await, 0, "{what}: orders of which that is not so");
        }
    }
}
