//! Entry points.

mod attr;
mod event;
mod fallback;
mod handler;
mod paths;
mod saga;
mod transactional;

use proc_macro::TokenStream;

/// Makes a type an event: implements `OutboxEvent` and `EventContract`, and `DecodeEvent` where
/// serde can read the type.
///
/// ```
/// use outbox_core::{OutboxEvent, event::OutboxEvent as _};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, OutboxEvent)]
/// #[outbox(type = "order.placed", version = 2, topic = "orders", aggregate = "order", upcast(1 = v1_to_v2))]
/// pub struct OrderPlaced {
///     #[outbox(key)]
///     pub order_id: i64, // order is kept per key
///     #[outbox(header = "tenant")]
///     pub tenant: Option<String>, // left out when `None`
///     pub cents: i64,
/// }
///
/// #[derive(Deserialize)]
/// struct OrderPlacedV1 {
///     order_id: i64,
///     euros: i64,
/// }
///
/// fn v1_to_v2(old: OrderPlacedV1) -> Result<OrderPlaced, std::convert::Infallible> {
///     Ok(OrderPlaced { order_id: old.order_id, tenant: None, cents: old.euros * 100 })
/// }
///
/// #[derive(Serialize, Deserialize, OutboxEvent)]
/// #[outbox(topic = "payments", prefix = "payment", max_attempts = 12)]
/// pub enum PaymentEvent {
///     Charged { #[outbox(key)] order_id: i64, amount: i64 }, // payment.charged
///     #[outbox(type = "returned", ttl = "7d")]
///     Refunded(#[outbox(key)] i64), // payment.returned
///     #[outbox(no_key)]
///     Paused, // payment.paused
/// }
///
/// let event = PaymentEvent::Charged { order_id: 7, amount: 12 };
/// assert_eq!(event.meta().event_type, "payment.charged");
/// assert_eq!(event.meta().key.as_deref(), Some("7"));
/// assert_eq!(event.payload().unwrap(), r#"{"order_id":7,"amount":12}"#);
/// ```
///
/// The arguments of `#[outbox(..)]`; on an enum they apply to all variants, on a variant to that
/// one, which takes precedence:
///
/// | argument | on | what it sets |
/// | --- | --- | --- |
/// | `type = "order.placed"` | struct, variant | the type's name on the wire; a struct needs one, so that a rename in Rust changes nothing. A variant's is put behind the prefix, by default its own name in snake case |
/// | `prefix = "payment"` | enum | what the variants' types begin with; by default the enum's name in snake case |
/// | `version = 2` | struct, enum, variant | version of the payload's shape, from 1, the default |
/// | `topic = "orders"` | struct, enum, variant | what routes select by; by default the type |
/// | `aggregate = "order"` | struct, enum, variant | kind of aggregate |
/// | `header("origin" = "shop")` | struct, enum, variant | a header with a fixed value; several are allowed |
/// | `ttl = "7d"` | struct, enum, variant | how long after it was saved it is worth delivering: a number and `ms`, `s`, `m`, `h` or `d` |
/// | `retry(max_attempts = 3, backoff = "1s", factor = 2, max_backoff = "2s", give_up_after = "1h")` | struct, enum, variant | a retry policy in place of the route's; what is left out is the framework's default |
/// | `max_attempts = 12` | struct, enum, variant | short for `retry(max_attempts = 12)` |
/// | `upcast(1 = v1_to_v2, 2 = v2_to_v3)` | struct, variant | how older payloads are read: each function takes one version's shape and gives the next one's, `fn(Old) -> Result<New, E>`, where both are types of serde, `serde_json::Value` among them |
/// | `no_key` | struct, variant | says that there is no key; variants must when others have one |
/// | `encode_only` | struct, enum | no `DecodeEvent` |
/// | `tombstone` | struct, variant | the event has no content: the entity of its key is deleted. Kafka carries it as a record without a value, other transports with an empty body; a consumer hears of it with `on_tombstone`. A struct needs no `Serialize` then |
/// | `sensitive` | struct, enum, variant | operators are not shown the content: command line and web page hide the payload and the headers of its dead letters, and the texts of its errors everywhere. It travels and is stored as it is |
/// | `crate = path` | struct, enum | where the framework is, if the manifest does not say: by default `outbox-saga-sea-orm` or `outbox-saga-core` among the dependencies, by any name |
/// | `key` | field | the ordering key, a type that is `KeyPart` |
/// | `header = "tenant"` | field | a header with the field's value, a type that is `KeyPart` |
///
/// The payload of a struct is the JSON that serde makes of it. The payload of a variant is its
/// content alone, since the type is in the envelope: a named variant is an object, written and read
/// with its fields' `#[serde(..)]` attributes, a variant around one value is that value, a unit
/// variant is `{}`. How serde tags the enum elsewhere makes no difference. What converts the whole
/// enum (`into`, `from`, `try_from`, `remote`), and variants that serde is to skip, are refused:
/// the content would be sent, or taken, as it is. A `Serialize` of an enum that is written by hand
/// is not asked either: write `OutboxEvent` by hand too, or put it on the types of the variants'
/// contents. NaN, infinities, what is nested deeper than 127 levels, and a field that is there
/// twice are errors when the event is saved, with the field's name: no receiver could read them.
///
/// Types with lifetimes can be emitted without copying their content; they are never read, and nor
/// are types that serde cannot read.
#[proc_macro_derive(OutboxEvent, attributes(outbox))]
pub fn derive_outbox_event(input: TokenStream) -> TokenStream {
    event::derive(input.into()).into()
}

/// Runs an async function in a transaction of an outbox.
///
/// The function takes `tx: &OutboxTransaction`. Callers pass the outbox, of which a transaction is
/// opened, or the `tx` that they hold, which is joined. `Ok` commits what was opened, and writes
/// the events with the data; `Err`, a panic and a dropped future roll it back. When a function that
/// has joined fails, the whole transaction can only be rolled back.
///
/// ```ignore
/// #[transactional_outbox]
/// async fn place_order(tx: &OutboxTransaction, cmd: PlaceOrder) -> Result<order::Model, AppError> {
///     let order = order::ActiveModel { .. }.insert(tx).await?;
///     tx.emit(OrderPlaced::from(&order))?;
///     charge(tx, order.id).await?; // joins
///     Ok(order)
/// }
/// place_order(&outbox, cmd).await?;
/// ```
///
/// | option | what it does |
/// | --- | --- |
/// | `tx = self.outbox` | joins the transaction of that outbox that is open around the call, or opens one, and names it `tx`; no parameter then |
/// | `emit = \|order\| OrderPlaced::from(order)` | emits an event made of what the function returns |
/// | `nested` | joins by a savepoint: a failure undoes only this function, and its events |
/// | `mandatory` | keeps the parameter's type: callers must be in a transaction |
/// | `requires_new` | opens a transaction of its own in any case, on another connection; inside another one it is refused on SQLite, and waits 2 s at most for a connection elsewhere |
/// | `isolation = Serializable` | opens with it; joining a transaction that was opened with less is an error |
/// | `read_only` | opens a read-only transaction, which is cheaper: a statement or an event that writes is refused; it has no effect on a joined transaction |
/// | `retry = 3` | repeats the whole transaction up to so many times after a deadlock or a serialization failure. Each run works with the same parameters, so `mut` ones, `&mut` ones and `&mut self` are refused: the second run would find them as the first has left them. The macro cannot see data that is shared behind a lock |
/// | `outbox = self.outbox` | with `emit`, for a function that takes the caller's own `txn: &DatabaseTransaction` |
/// | `crate = path` | where `outbox_sea_orm` is, if its name in the manifest does not say so |
///
/// The transaction that is open around the call belongs to the task: one of another transactional
/// function, of `Outbox::transaction`, of a handler or a step of a saga. A call in a task that
/// holds a transaction from `Outbox::begin` is refused, since it cannot join that. A spawned task
/// joins nothing.
///
/// It goes on functions, on methods, and on methods of trait implementations (also under
/// `#[async_trait]`), where the trait says `tx: &dyn Transactional`.
#[proc_macro_attribute]
pub fn transactional_outbox(options: TokenStream, item: TokenStream) -> TokenStream {
    transactional::attribute(options.into(), item.into()).into()
}

/// Makes handlers of a type's methods, which a consumer takes all at once.
///
/// The type carries what the work needs. Each method with `#[on("..")]` is a handler under that
/// name, for the type of its event; the name is stored with each inbox row, so keep it when the
/// method is renamed. Other methods stay what they are.
///
/// ```ignore
/// struct Billing { rate: u64 }
///
/// #[event_handler]
/// impl Billing {
///     #[on("bill-order")]
///     async fn bill(&self, order: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
///         bill::ActiveModel { .. }.insert(&cx.tx).await?;
///         Ok(())
///     }
///
///     #[on("refund-order")]
///     async fn refund(&self, order: OrderCancelled, cx: &HandlerContext) -> Result<(), HandlerError> { .. }
/// }
///
/// Consumer::builder("billing", &outbox).handlers(Billing { rate: 3 })
/// ```
///
/// `#[on_command("..")]` in place of `#[on("..")]` marks the handler of commands of sagas of that
/// type.
///
/// Options of the handler follow its name, as in `#[on("bill-order", timeout = "30s")]`:
///
/// | option | what it sets |
/// | --- | --- |
/// | `timeout = "30s"` | after which a run is dropped, rolled back and counted as failed; the consumer's limit by default, 5 min |
/// | `no_timeout` | that a run may take as long as it takes |
/// | `deferred_lock` | that on SQLite the transaction takes the file's write lock with its first write, and not when it begins |
/// | `no_writes` | that it writes nothing through its transaction, of which it would be warned after a hundred runs |
/// | `alone` | that it shares its transaction with no other delivery: for one that waits, or has effects outside of the database |
/// | `no_try = "it charges the card"` | that an operator must not try it on a dead letter, and why: it does something that a rollback does not undo |
/// | `renamed_from = "old-name"` | the name that it had before: what is stored or was received under that is its own |
///
/// A method takes `&self`, the event by value, and `&HandlerContext`; it returns `Result<(), E>`,
/// where `E` is any error, a boxed one, or `HandlerError`. Several methods may take one type: each
/// has its own transaction, in their order. Write `#[event_handler(crate = path)]` where the
/// framework's name in the manifest does not say where it is.
#[proc_macro_attribute]
pub fn event_handler(options: TokenStream, item: TokenStream) -> TokenStream {
    handler::attribute(options.into(), item.into()).into()
}

/// Makes an impl block a saga: its methods with `#[step]` are the steps, in their order.
///
/// The type is the saga's data, saved after each step. The attribute implements `SagaData` for it,
/// by the builder of `Saga`, so that `PlaceOrder::saga()` is the definition to register.
///
/// ```ignore
/// #[saga(name = "place-order", version = 1, deadline = "1h")]
/// impl PlaceOrder {
///     #[step(compensate = release_stock, retries = 5)]
///     async fn reserve_stock(&mut self, cx: &StepContext) -> Result<Reservation, StepError> { .. }
///     #[step(parallel = "offers")]
///     async fn ask_north(&self, cx: &StepContext) -> Result<Offer, StepError> { .. }
///     #[step(parallel = "offers")]
///     async fn ask_south(&self, cx: &StepContext) -> Result<Offer, StepError> { .. }
///     #[step(merge)]
///     async fn choose(&mut self, offers: (Offer, Offer), cx: &StepContext) -> Result<(), StepError> { .. }
///     #[step(reply = PaymentCaptured, reject = PaymentDeclined, timeout = "30s", compensate = refund)]
///     async fn charge(&mut self, cx: &StepContext) -> Result<Charge, StepError> { .. }
///     #[step(pivot, timeout = "30s")]
///     async fn ship(&mut self, cx: &StepContext) -> Result<(), StepError> { .. }
///
///     async fn release_stock(&mut self, r: Reservation, cx: &StepContext) -> Result<(), StepError> { .. }
///     async fn refund(&mut self, p: Option<PaymentCaptured>, cx: &StepContext) -> Result<Refund, StepError> { .. }
///
///     #[on_compensated]
///     async fn cancelled(&self, cx: &StepContext) -> Result<(), StepError> { .. }
/// }
/// ```
///
/// `charge` is a remote step, which another service does: the method returns the command, an event
/// that is written to the outbox in the step's transaction. Its compensation is a command too, and
/// takes `None` where no reply came in time.
///
/// | option of `#[saga]` | what it sets |
/// | --- | --- |
/// | `name = "place-order"` | the stable name, stored with each saga |
/// | `version = 2` | the definition's version, 1 unless set |
/// | `deadline = "1h"` | the time from its start after which a saga compensates, unless it is past its pivot |
/// | `crate = path` | where `outbox_sea_orm` is, if its name in the manifest does not say so |
///
/// | option of `#[step]` | what it sets |
/// | --- | --- |
/// | `name = "reserve-stock"` | the step's stable name; by default the method's with hyphens |
/// | `compensate = release_stock` | the method of this block that undoes it: it takes the step's output, or only `cx` |
/// | `retries = 5` | how often it is retried, with a wait doubling from 1 s |
/// | `retry(max_attempts = 3, backoff = "1s", ..)` | the whole policy, as for events |
/// | `compensate_retry(..)` | the policy of its compensation |
/// | `timeout = "30s"` | the time limit of an attempt, which then counts as failed, 5 min by default; how long the reply to a remote step is awaited |
/// | `no_timeout` | that attempts have no time limit |
/// | `remote` | another service does it: the method returns the command |
/// | `remote = "payments"` | the same, and names the consumer that replies: replies of others are ignored |
/// | `source = "/payments"` | the same, and names the source of the replies |
/// | `reply = PaymentCaptured` | the same; this event is the reply of success, and the step's output |
/// | `reject = PaymentDeclined` | the same; this event is the reply that rejects the command, beside the standard one |
/// | `skip_if = \|order: &PlaceOrder\| !order.gift` | skips it where this holds for the data |
/// | `pivot` | after it the saga only goes forward |
/// | `parallel = "offers"` | it runs at the same time as its neighbours of that group, and takes `&self` |
/// | `merge` | the step after a group, which takes the tuple of the group's outputs |
///
/// | attribute of a method | when it runs, as `async fn(&self, cx: &StepContext) -> Result<(), StepError>` |
/// | --- | --- |
/// | `#[on_completed]` | in the transaction that records that the saga is completed; again every 5 s where it fails |
/// | `#[on_compensated]` | in the one that records that it is compensated, also where nothing had to be undone; `cx.reason()` says why |
/// | `#[on_stuck]` | in the one that records that it is stuck; where it fails, that is logged at ERROR |
#[proc_macro_attribute]
pub fn saga(options: TokenStream, item: TokenStream) -> TokenStream {
    saga::attribute(options.into(), item.into()).into()
}

/// The code of the README, which the doc tests compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
