//! URLs of databases: which are taken, what they are called, and what is shown of them.

use std::borrow::Cow;
use url::{Url, form_urlencoded};

/// What stands in place of a secret.
const HIDDEN: &str = "***";
/// The URLs that are taken.
const FORMS: &str = "postgres://USER:PASSWORD@HOST/DATABASE, mysql://.. (MariaDB too) or \
    sqlite://FILE";
/// The parameters that the driver of PostgreSQL takes, beside `options[..]`.
///
/// # Source
/// sqlx-postgres 0.9, `src/options/parse.rs`.
const OF_POSTGRES: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
/// Longest name of a parameter that is shown, in bytes.
const LONGEST_NAME: usize = 40;

/// Checks the URL of a database before SeaORM does, whose errors quote all of it. The fault has
/// nothing of the URL but its scheme.
pub(crate) fn check_database(url: &str) -> Result<(), String> {
    let parsed = Url::parse(url).map_err(|error| {
        format!("{error}; write {FORMS}, in the password %40 for an @, %2F for a /, %23 for a #")
    })?;
    match (parsed.scheme(), url.contains("://")) {
        ("sqlite", _) | ("postgres" | "postgresql" | "mysql", true) => Ok(()),
        ("mariadb", true) => Err("MariaDB has the scheme mysql://".to_owned()),
        (scheme, true) => Err(format!("`{scheme}` is no scheme of a database; write {FORMS}")),
        (_, false) => Err(format!("it has no scheme; write {FORMS}")),
    }
}

/// Gives a URL without the parameters that the driver of PostgreSQL does not know, and how to call
/// each of them. The driver ignores them too, but logs them with their values, and one may be a
/// password. The driver of MySQL ignores others without a word, and that of SQLite refuses them
/// without their values.
pub(crate) fn without_unknown(url: &str) -> (String, Vec<String>) {
    let as_it_is = (url.to_owned(), Vec::new());
    let Ok(mut parsed) = Url::parse(url) else { return as_it_is };
    let Some(query) = parsed.query().filter(|_| parsed.scheme().starts_with("postgres")) else {
        return as_it_is;
    };
    let is_known = |pair: &&str| {
        name_in(pair).is_none_or(|name| {
            OF_POSTGRES.iter().any(|known| *known == name) || name.starts_with("options[")
        })
    };
    let (known, unknown): (Vec<&str>, Vec<&str>) = query.split('&').partition(is_known);
    if unknown.is_empty() {
        return as_it_is;
    }
    // A name may be a part of the password, where that is cut short.
    let is_whole = !is_cut_short(&parsed);
    let call = |pair: &&str| match name_in(pair) {
        Some(name) if is_whole && pair.contains('=') && is_plain(&name) => format!("`{name}`"),
        _ => "without a name that can be shown".to_owned(),
    };
    let (kept, names) = (known.join("&"), unknown.iter().map(call).collect());
    parsed.set_query(Some(&*kept).filter(|kept| !kept.is_empty()));
    (parsed.to_string(), names)
}

/// Gives the name in a part of a query; nothing where the part is empty.
fn name_in(pair: &str) -> Option<Cow<'_, str>> {
    form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name)
}

/// Whether a name of a parameter can be shown as it is.
fn is_plain(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.[]".contains(c);
    name.len() <= LONGEST_NAME && name.chars().all(is_plain)
}

/// Gives the last part of a URL's path, without the ending of a file; its host where it has no
/// path. Never a part that may have a password.
pub(crate) fn name_of(url: &str) -> String {
    let parsed = Url::parse(url).ok().filter(|parsed| url.contains("://") && !is_cut_short(parsed));
    let name = parsed.as_ref().and_then(|url| {
        let last = url.path().rsplit('/').find(|part| !part.is_empty());
        last.map(|last| last.rsplit_once('.').map_or(last, |(stem, _)| stem)).or(url.host_str())
    });
    name.filter(|name| !name.is_empty()).unwrap_or("database").to_owned()
}

/// Gives a URL without its password and without its query, which may have one too. Of a URL whose
/// password cannot be told from the rest it gives the scheme at most.
pub(crate) fn without_password(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else { return HIDDEN.to_owned() };
    if parsed.scheme() != "sqlite" && !url.contains("://") {
        return HIDDEN.to_owned();
    }
    if is_cut_short(&parsed) {
        return format!("{}://{HIDDEN}", parsed.scheme());
    }
    if parsed.password().is_some() {
        // A URL without a host cannot have one, and has none here.
        let _ = parsed.set_password(Some(HIDDEN));
    }
    parsed.set_query(None);
    parsed.set_fragment(None);
    parsed.to_string()
}

/// Whether the password may go on behind the host, as one with a `/`, `?` or `#` does that is not
/// encoded: then an `@` stands there. SQLite has no password, and its files may have such names.
fn is_cut_short(url: &Url) -> bool {
    let behind = [Some(url.path()), url.query(), url.fragment()];
    url.scheme() != "sqlite" && behind.into_iter().flatten().any(|part| part.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("postgres://me:secret@db:5432/orders", "postgres://me:***@db:5432/orders"),
            ("postgres://me@db/orders?password=secret", "postgres://me@db/orders"),
            ("mysql://db/orders", "mysql://db/orders"),
            ("sqlite:///tmp/orders.db?mode=rw", "sqlite:///tmp/orders.db"),
            ("sqlite:///tmp/ann@shop.db", "sqlite:///tmp/ann@shop.db"),
            ("sqlite::memory:", "sqlite::memory:"),
            // A password with a `/`, `?` or `#`: what is before it looks like a port.
            ("postgres://me:12/secret@db/orders", "postgres://***"),
            ("postgres://me:12?secret@db/orders", "postgres://***"),
            ("postgres://me:12#secret@db/orders", "postgres://***"),
            ("postgres://me:secret/12@db/orders", "***"),
            ("postgres://me:secret", "***"),
            ("host=db password=secret", "***"),
            ("me:secret@db", "***"),
            ("postgres:me:secret@db", "***"),
        ] {
            assert_eq!(without_password(url), shown, "{url}");
        }
    }

    #[test]
    fn a_database_has_the_last_part_of_its_url_as_its_name() {
        for (url, name) in [
            ("postgres://me:secret@db:5432/orders?sslmode=require", "orders"),
            ("sqlite:///var/lib/shop/stock.db?mode=rw", "stock"),
            ("sqlite::memory:", "database"),
            ("postgres://me:secret@db", "db"),
            ("postgres://me:secret@db:5432/", "db"),
            ("postgres://me:se?cret@db/orders", "database"),
            ("postgres://me:12/secret@db", "database"),
            ("postgres://me:12/secret?@db", "database"),
        ] {
            assert_eq!(name_of(url), name, "{url}");
        }
    }

    #[test]
    fn what_the_driver_would_log_with_its_value_is_taken_out_and_named_without_it() {
        let unnamed = "without a name that can be shown";
        for (url, kept, names) in [
            (
                "postgres://me:pw@db/orders?sslmode=require&passwrod=secret",
                "postgres://me:pw@db/orders?sslmode=require",
                vec!["`passwrod`"],
            ),
            (
                "postgresql://db/orders?channel_binding=require&target_session_attrs=any",
                "postgresql://db/orders",
                vec!["`channel_binding`", "`target_session_attrs`"],
            ),
            (
                "postgres://db/orders?options=-c%20a%3Db&x%1B=secret&options[search_path]=shop",
                "postgres://db/orders?options=-c%20a%3Db&options[search_path]=shop",
                vec![unnamed],
            ),
            // What the driver would take for parameters is the password.
            ("postgres://me:12?sec&r=et@db/orders", "postgres://me:12", vec![unnamed, unnamed]),
            ("postgres://db/orders?secret", "postgres://db/orders", vec![unnamed]),
        ] {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            assert_eq!(without_unknown(url), (kept.to_owned(), names), "{url}");
        }
        for url in [
            "postgres://me:pw@db/orders?password=secret&ssl-mode=disable&&user=me%40db",
            "postgres://DB/orders",
            "mysql://me:pw@db/orders?passwrod=secret",
            "sqlite:///tmp/orders.db?passwrod=secret",
            "no url",
        ] {
            assert_eq!(without_unknown(url), (url.to_owned(), Vec::new()), "{url}");
        }
    }

    #[test]
    fn a_url_that_is_not_taken_is_refused_without_its_text_and_says_what_to_write() {
        for (url, told) in [
            ("postgres://me:s/ecret@db/orders", "invalid port number; write postgres://"),
            ("host=db password=secret", "relative URL without a base; write postgres://"),
            ("me:secret@db", "it has no scheme; write postgres://"),
            ("postgres:me:secret@db", "it has no scheme"),
            ("mariadb://me:secret@db/orders", "MariaDB has the scheme mysql://"),
            ("oracle://me:secret@db/orders", "`oracle` is no scheme of a database; write"),
        ] {
            let fault = check_database(url).unwrap_err();
            assert!(fault.starts_with(told), "{url}: {fault}");
            assert!(!fault.contains("ecret"), "{url}: {fault}");
        }
        for url in [
            "postgres://me:secret@db/orders",
            "postgresql://db/orders",
            "mysql://db/orders",
            "sqlite:///tmp/orders.db?mode=rwc",
            "sqlite::memory:",
        ] {
            assert_eq!(check_database(url), Ok(()), "{url}");
        }
    }
}
