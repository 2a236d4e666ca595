//! What the query of a page gives: bounded, with an empty field of a form as nothing.

use crate::{access::Refusal, builder::App, store::Database};
use axum::extract::{FromRequestParts, Query};
use http::{Uri, request::Parts};
use std::str::FromStr;

/// Longest text of a query, in bytes: the longest key, in an encoding of four bytes a character.
const LONGEST: usize = 1_024;

/// The query of a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked(Vec<(String, String)>);

impl Asked {
    /// Reads a query.
    pub(crate) fn of(uri: &Uri) -> Result<Self, Refusal> {
        let Query(all) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Refusal::bad(error.body_text()))?;
        for (name, value) in &all {
            if value.len() > LONGEST {
                return Err(Refusal::bad(format!("`{name}` has more than {LONGEST} bytes")));
            }
            if value.contains('\0') {
                return Err(Refusal::bad(format!("`{name}` has a NUL, which no database has")));
            }
        }
        Ok(Self(all))
    }

    /// Gives a part of the query that is not empty, without the spaces around it.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(part, _)| part == name).map(|(_, v)| v.trim());
        values.find(|value| !value.is_empty())
    }

    /// Reads a part as what it must be; `what` says what that is.
    pub(crate) fn read<T: FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, Refusal> {
        let wrong = |_| Refusal::bad(format!("`{name}` in the address is not {what}"));
        self.get(name).map(|text| text.parse().map_err(wrong)).transpose()
    }

    /// Gives the databases that the page shows: the one that `db` names, or all.
    pub(crate) fn databases(&self, app: &App) -> Result<Vec<Database>, Refusal> {
        let Some(name) = self.get("db") else { return Ok(app.databases.clone()) };
        let unknown = || {
            Refusal::not_found("There is no such database")
                .because("the dashboard has no database of that name")
                .link("overview", "All databases")
        };
        app.database(name).cloned().map(|database| vec![database]).ok_or_else(unknown)
    }

    /// Gives parts of the query for a link that keeps them.
    pub(crate) fn parts<'a>(
        &'a self,
        names: &[&'static str],
    ) -> Vec<(&'static str, Option<&'a str>)> {
        names.iter().map(|name| (*name, self.get(name))).collect()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Self::of(&parts.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<Asked, Refusal> {
        Asked::of(&format!("/letters?{query}").parse().unwrap())
    }

    #[test]
    fn a_query_is_bounded_and_an_empty_part_is_none() {
        let all = asked("key=&route=+billing+&after=7&bad=x").unwrap();
        assert_eq!(
            (all.get("key"), all.get("route"), all.get("none")),
            (None, Some("billing"), None)
        );
        assert_eq!(all.read::<i64>("after", "a number").unwrap(), Some(7));
        assert!(all.read::<i64>("bad", "a number").is_err());
        assert!(
            asked("key=a%00b").is_err() && asked(&format!("key={}", "x".repeat(1_025))).is_err()
        );
    }
}
