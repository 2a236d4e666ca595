//! The outbox's web page: what stands still, why, and what a click will do, over the databases of
//! several services at once.
//!
//! It has no rule of its own: it asks the [operator's interface](outbox_core::admin) of each database,
//! as the command line `outbox` does, and draws the answers.
//!
//! ```no_run
//! # async fn example(orders: impl outbox_dashboard::DashboardStore) -> Result<(), Box<dyn std::error::Error>> {
//! use outbox_dashboard::{Colour, Dashboard};
//!
//! let dashboard = Dashboard::builder()
//!     .database("orders", orders)
//!     .environment("staging", Colour::Amber)
//!     .build()?;
//! let app: axum::Router = axum::Router::new().nest("/outbox", dashboard.router());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! dashboard.serve(listener).await?; // by itself, at the root
//! # drop(app);
//! # Ok(()) }
//! ```

mod builder;
mod store;
mod sensitive;
mod routes;
mod access;
mod visit;
mod page;
mod draw;
mod live;
mod act;
mod api;

pub use access::{Access, Grant, Permission, Role};
pub use builder::{Colour, Dashboard, DashboardBuilder, DashboardError};
pub use store::DashboardStore;

/// The code of the README, which the doc tests compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
