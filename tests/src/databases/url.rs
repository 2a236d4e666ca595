//! Changes to the URL of a database.

/// Splits a URL before and after its path: scheme, user and host; path and what follows it.
fn split(url: &str) -> (&str, &str) {
    let host_at = url.find("://").map_or(0, |at| at + 3);
    let path_at = url[host_at..].find(['/', '?']).map_or(url.len(), |at| host_at + at);
    url.split_at(path_at)
}

/// Names another database of the same server, with the same parameters.
pub(super) fn with_database(url: &str, database: &str) -> String {
    let (server, rest) = split(url);
    let parameters = rest.find('?').map_or("", |at| &rest[at..]);
    format!("{server}/{database}{parameters}")
}

/// Names another user, without a password.
pub(super) fn with_user(url: &str, user: &str) -> String {
    let (server, rest) = split(url);
    let (scheme, host) = server.split_once("://").unwrap_or(("", server));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{user}@{host}{rest}")
}

/// Tells whether the host is this machine, by an address of its own.
pub(super) fn is_loopback(url: &str) -> bool {
    let (server, _) = split(url);
    let after_scheme = server.rsplit_once("://").map_or(server, |(_, rest)| rest);
    let host = after_scheme.rsplit_once('@').map_or(after_scheme, |(_, host)| host);
    let host = host.strip_prefix('[').and_then(|host| host.split_once(']')).map_or_else(
        || host.rsplit_once(':').map_or(host, |(name, _)| name),
        |(address, _)| address,
    );
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_keeps_server_and_parameters() {
        assert_eq!(
            with_database("postgres://u:p@h:1/a?sslmode=disable", "b"),
            "postgres://u:p@h:1/b?sslmode=disable"
        );
        assert_eq!(
            with_database("mysql://root@127.0.0.1:3306/test", "b"),
            "mysql://root@127.0.0.1:3306/b"
        );
        assert_eq!(with_database("mysql://root@127.0.0.1", "b"), "mysql://root@127.0.0.1/b");
        assert_eq!(
            with_database("mysql://h?ssl-mode=disabled", "b"),
            "mysql://h/b?ssl-mode=disabled"
        );
    }

    #[test]
    fn another_user_keeps_all_but_the_password() {
        assert_eq!(
            with_user("postgres://u:p@h:1/a?sslmode=disable", "b"),
            "postgres://b@h:1/a?sslmode=disable"
        );
        assert_eq!(with_user("mysql://127.0.0.1:3306/test", "b"), "mysql://b@127.0.0.1:3306/test");
    }

    #[test]
    fn only_addresses_of_this_machine_are_loopback() {
        for url in [
            "postgres://u@127.0.0.1:5432/x",
            "mysql://localhost",
            "mysql://u:p@[::1]:3306/x",
            "x://127.9.9.9",
        ] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "postgres://u@10.0.0.1/x",
            "mysql://db.example:3306/localhost",
            "mysql://localhost@db.example/x",
            "mysql://127.0.0.1.db.example/x",
            "postgres:///x",
            "mysql://0.0.0.0/x",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
