//! URLs of databases: which are taken, what they are called, and what is shown of them.

use url::Url;

/// What stands in place of a secret.
const HIDDEN: &str = "***";
/// The URLs that are taken.
const FORMS: &str = "postgres://USER:PASSWORD@HOST/DATABASE, mysql://.. (MariaDB too) or \
    sqlite://FILE";

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
