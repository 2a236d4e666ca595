//! What all pages have: head, navigation, the environment, notices.

use crate::{
    builder::App,
    visit::{Root, Visit},
};
use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use http::StatusCode;

/// A part of the dashboard, as the navigation has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tab {
    Follow,
    Overview,
    Routes,
    Letters,
    Sagas,
    Waiting,
    Audit,
    Doctor,
    None,
}

/// Something to say above a page, such as a database that is away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) text: String,
    /// Whether it is an error.
    pub(crate) bad: bool,
}

/// What all pages have; templates that extend `layout.html` have it as their field `layout`.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) title: String,
    pub(crate) active: Tab,
    /// The way to the dashboard's root; links begin with it.
    pub(crate) root: String,
    /// The environment's name, and its class in the style sheet.
    pub(crate) environment: Option<(String, &'static str)>,
    /// The names of all databases.
    pub(crate) databases: Vec<String>,
    /// The database that is selected; `None` for all.
    pub(crate) db: Option<String>,
    /// Who is logged in.
    pub(crate) who: String,
    pub(crate) notices: Vec<Notice>,
}

impl Layout {
    pub(crate) fn new(app: &App, visit: &Visit, active: Tab, title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            active,
            root: visit.root.clone(),
            environment: app.environment.as_ref().map(|e| (e.name.clone(), e.colour.class())),
            databases: app.databases.iter().map(|database| database.name.to_string()).collect(),
            db: None,
            who: visit.grant.who.clone(),
            notices: Vec::new(),
        }
    }
}

/// Renders a page.
pub(crate) fn html(template: &impl Template) -> Response {
    match template.render() {
        Ok(page) => Html(page).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page of the dashboard cannot be drawn");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The page of a path that nothing has.
pub(crate) async fn not_found(_: Root) -> Response {
    StatusCode::NOT_FOUND.into_response()
}
