//! What all pages have: head, navigation, the environment, notices; and the body of a page, which
//! its live updates draw in the same way.

use super::{
    assets,
    text::{Markup, cell, query},
};
use crate::{
    access::{Permission, Refusal, Role},
    builder::App,
    visit::Visit,
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

/// The navigation: the path below the root, and the word.
const TABS: [(Tab, &str, &str); 8] = [
    (Tab::Follow, "follow", "Follow"),
    (Tab::Overview, "overview", "Overview"),
    (Tab::Routes, "routes", "Routes"),
    (Tab::Letters, "letters", "Dead letters"),
    (Tab::Sagas, "sagas", "Sagas"),
    (Tab::Waiting, "waiting", "Waiting"),
    (Tab::Audit, "audit", "Audit"),
    (Tab::Doctor, "doctor", "Doctor"),
];

/// Something to say above a page, such as a database that is away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) text: Markup,
    /// The same as it is, not for HTML.
    pub(crate) plain: String,
    /// Whether it is an error.
    pub(crate) bad: bool,
}

impl Notice {
    /// Something that is wrong.
    pub(crate) fn bad(text: impl AsRef<str>) -> Self {
        Self::new(text.as_ref(), true)
    }

    /// Something worth knowing.
    pub(crate) fn info(text: impl AsRef<str>) -> Self {
        Self::new(text.as_ref(), false)
    }

    fn new(plain: &str, bad: bool) -> Self {
        Self { text: super::text::text(plain), plain: plain.to_owned(), bad }
    }
}

/// For whom a page is drawn: what it depends on beside its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// The way to the dashboard's root; links begin with it.
    pub(crate) root: String,
    pub(crate) may: Role,
}

impl View {
    pub(crate) fn of(visit: &Visit) -> Self {
        Self { root: visit.root.clone(), may: visit.grant.may.clone() }
    }

    /// Tells whether the visitor may do something; without that a page has no form for it.
    pub(crate) fn allows(&self, permission: Permission) -> bool {
        self.may.allows(permission)
    }
}

/// What a page shows below its head. Its parts with `data-live` are swapped by live updates.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    pub(crate) title: String,
    pub(crate) html: Markup,
    pub(crate) status: StatusCode,
}

impl Body {
    /// Draws a body.
    pub(crate) fn draw(title: impl Into<String>, template: &impl Template) -> Self {
        let (html, status) = match template.render() {
            Ok(html) => (Markup::escaped(html), StatusCode::OK),
            Err(error) => {
                tracing::error!(%error, "a page of the dashboard cannot be drawn");
                (Markup::default(), StatusCode::INTERNAL_SERVER_ERROR)
            }
        };
        Self { title: title.into(), html, status }
    }

    /// Sets the status of the response.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

/// A link of the head.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) href: String,
    pub(crate) text: String,
    pub(crate) current: bool,
}

/// What all pages have; templates that extend `layout.html` have it as their field `layout`.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) title: String,
    /// The way to the dashboard's root; links begin with it.
    pub(crate) root: String,
    /// The hash of style sheet and script.
    pub(crate) version: &'static str,
    /// The environment's name, and its class in the style sheet.
    pub(crate) environment: Option<(Markup, &'static str)>,
    pub(crate) tabs: Vec<Link>,
    /// All databases, and each; empty where there is one.
    pub(crate) databases: Vec<Link>,
    /// The name of the databases that are shown.
    pub(crate) shown: String,
    /// Who is logged in.
    pub(crate) who: Markup,
    stranger: bool,
    /// What is searched.
    pub(crate) q: String,
    /// Where live updates of the page come from.
    pub(crate) live: Option<String>,
    pub(crate) notices: Vec<Notice>,
}

impl Layout {
    pub(crate) fn new(app: &App, visit: &Visit, active: Tab, title: impl Into<String>) -> Self {
        let root = &visit.root;
        let tab = |(tab, path, word): (Tab, &str, &str)| Link {
            href: format!("{root}{path}"),
            text: word.to_owned(),
            current: tab == active,
        };
        Self {
            title: title.into(),
            root: root.clone(),
            version: assets::version(),
            environment: app
                .environment
                .as_ref()
                .map(|environment| (cell(&environment.name, 60), environment.colour.class())),
            tabs: TABS.into_iter().map(tab).collect(),
            databases: Vec::new(),
            shown: String::new(),
            who: cell(&visit.grant.who, 40),
            stranger: visit.grant.who.is_empty(),
            q: String::new(),
            live: None,
            notices: Vec::new(),
        }
    }

    /// Tells whether nobody is logged in.
    pub(crate) fn is_stranger(&self) -> bool {
        self.stranger
    }

    /// Adds the links by which the page is shown for one database or for all, with these other
    /// parts of its query.
    #[must_use]
    pub(crate) fn choose_db(
        mut self,
        app: &App,
        db: Option<&str>,
        rest: &[(&str, Option<&str>)],
    ) -> Self {
        if app.databases.len() < 2 {
            return self;
        }
        let link = |name: Option<&str>| {
            let mut parts = vec![("db", name)];
            parts.extend_from_slice(rest);
            let href = query(&parts);
            Link {
                // A link to nothing is one to the page with its query.
                href: if href.is_empty() { "?".to_owned() } else { href },
                text: name.unwrap_or("all databases").to_owned(),
                current: name == db,
            }
        };
        self.databases.push(link(None));
        self.databases.extend(app.databases.iter().map(|database| link(Some(&database.name))));
        self.shown = db.unwrap_or("all databases").to_owned();
        self
    }

    /// Sets where live updates come from: a page of [`live`](crate::live), and its query.
    #[must_use]
    pub(crate) fn live(mut self, page: &str, parts: &[(&str, Option<&str>)]) -> Self {
        let mut parts = parts.to_vec();
        let root = self.root.clone();
        parts.push(("root", Some(&root)));
        self.live = Some(format!("{}live/{page}{}", self.root, query(&parts)));
        self
    }
}

/// A page around its body.
#[derive(Template)]
#[template(path = "page.html")]
struct PageTemplate<'a> {
    layout: &'a Layout,
    body: &'a Markup,
}

/// Puts a body into its page.
pub(crate) fn shell(layout: &Layout, body: &Body) -> Response {
    let mut response = html(&PageTemplate { layout, body: &body.html });
    if response.status().is_success() {
        *response.status_mut() = body.status;
    }
    response
}

/// Renders a template that extends `layout.html`.
pub(crate) fn html(template: &impl Template) -> Response {
    match template.render() {
        Ok(page) => Html(page).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page of the dashboard cannot be drawn");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The answer for a path that nothing has.
pub(crate) async fn not_found() -> Refusal {
    Refusal::not_found("There is no such page")
        .advising("Look for it from the start: an id, a key or a saga's correlation id finds it.")
        .link("follow", "Start")
}
