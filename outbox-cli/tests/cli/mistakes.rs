//! Wrong arguments, wrong configurations, wrong databases: what is told, and the exit code.

use crate::{
    program::{command, on, run},
    world::World,
};
use std::{fs, os::unix::fs::PermissionsExt};
use tests::{databases::TempDatabase, on_every_database};

#[test]
fn without_a_database_the_three_ways_to_name_one_are_told() {
    let ran = run(command(&["overview"])).exits(2);
    for way in ["--database URL", "DATABASE_URL", "config.toml"] {
        assert!(ran.err.contains(way), "{way}: {}", ran.err);
    }
}

#[test]
fn a_database_that_does_not_answer_is_named_without_its_password() {
    // A port that nothing listens on.
    let url = "postgres://me:secret@127.0.0.1:1/orders?password=secret";
    let ran = on(url, &["overview"]).exits(3);
    assert!(ran.err.contains("orders (postgres://me:***@127.0.0.1:1/orders)"), "{}", ran.err);
    assert!(!ran.err.contains("secret"), "{}", ran.err);
}

#[test]
fn a_parameter_that_no_driver_knows_is_told_without_its_value() {
    let url = "postgres://me@127.0.0.1:1/orders?passwrod=secret&sslmode=disable";
    let ran = on(url, &["overview"]).exits(3);
    let told = "the URL of the database `orders` has a parameter `passwrod`: it is ignored";
    assert!(ran.err.contains(told) && !ran.err.contains("secret"), "{}", ran.err);
}

#[test]
fn a_url_that_is_not_taken_is_refused_before_anything_quotes_it() {
    for (url, told) in [
        ("postgres://me:s/ecret@db/orders", "`database`: invalid port number"),
        ("mariadb://me:secret@db/orders", "`orders`: MariaDB has the scheme mysql://"),
        ("oracle://me:secret@db/orders", "`orders`: `oracle` is no scheme of a database"),
        ("host=db password=secret", "`database`: relative URL without a base"),
    ] {
        for arguments in [&["overview"][..], &["migrate", "check"], &["top", "--times", "1"]] {
            let ran = on(url, arguments).exits(2);
            assert!(ran.err.contains(told), "{told}: {}", ran.err);
            assert!(!ran.err.contains("ecret"), "{}", ran.err);
        }
    }
}

#[test]
fn a_value_of_the_wrong_type_in_the_configuration_file_is_told_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, "[contexts.a]\ndatabases = 'postgres://me:secret@db/a'\n").unwrap();
    let ran = run(command(&["--config", path.to_str().unwrap(), "overview"])).exits(2);
    let told = "config.toml: line 2: invalid type: string, expected a sequence";
    assert!(ran.err.contains(told) && !ran.err.contains("secret"), "{}", ran.err);
}

#[test]
fn a_new_service_without_the_framework_s_source_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut new = command(&["new", "orders"]);
    new.current_dir(folder.path());
    let ran = run(new).exits(2);
    assert!(ran.err.contains("in no registry yet"), "{}", ran.err);
    assert!(ran.err.contains("--source FOLDER"), "{}", ran.err);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_context_that_others_can_read_is_warned_of_and_acts_need_its_name_among_several() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let text = "default = 'a'\n[contexts.a]\ndatabases = [{ url = 'sqlite:///nowhere/a.db?mode=ro' }]\n\
                [contexts.b]\nproduction = true\ndatabases = [{ url = 'sqlite:///nowhere/b.db?mode=ro' }]\n";
    fs::write(&path, text).unwrap();
    let config = path.to_str().unwrap();
    let with = |mode: u32, arguments: &[&str]| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let mut all = vec!["--config", config];
        all.extend(arguments);
        run(command(&all))
    };
    let ran = with(0o644, &["overview"]).exits(3);
    assert!(ran.err.contains("can be read by others"), "{}", ran.err);
    let ran = with(0o600, &["overview"]).exits(3);
    assert!(
        ran.err.contains("a (sqlite:///nowhere/a.db)") && !ran.err.contains("others"),
        "{}",
        ran.err
    );
    let ran = with(0o600, &["dead-letters", "redrive", "1"]).exits(2);
    assert!(ran.err.contains("--context: a, b"), "{}", ran.err);
    let ran = with(0o600, &["--context", "c", "overview"]).exits(2);
    assert!(ran.err.contains("no context is called `c`: a, b"), "{}", ran.err);
}

on_every_database! {
    async fn a_database_without_tables_says_how_to_get_them(temp: &TempDatabase) {
        let url = temp.url();
        // SQLite makes its file when somebody connects.
        temp.connect().await;
        let ran = on(url, &["overview"]).exits(3);
        assert!(ran.err.contains("its tables are missing"), "{}", ran.err);
        let ran = on(url, &["migrate", "check"]).exits(1);
        assert!(ran.err.contains("its tables are missing"), "{}", ran.err);
        on(url, &["migrate", "up"]).exits(4);
        on(url, &["--yes", "migrate", "up"]).exits(0);
        on(url, &["migrate", "check"]).exits(0);
        on(url, &["overview"]).exits(0);
    }

    async fn a_role_without_rights_to_make_tables_checks_that_all_is_well(temp: &TempDatabase) {
        World::open(temp).await;
        on(&temp.restricted_url().await, &["migrate", "check"]).exits(0);
    }

    async fn an_id_of_nothing_is_told_and_has_an_exit_code_of_its_own(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let nobody = "0195f3a0-0000-7000-8000-000000000000";
        for command in ["find", "follow", "explain", "life", "inbox"] {
            let ran = on(&world.url, &[command, nobody]).exits(1);
            assert!(!ran.out.is_empty(), "{command}");
        }
        let ran = on(&world.url, &["dead-letters", "show", "7"]).exits(1);
        assert!(ran.out.contains("there is no dead letter 7"), "{}", ran.out);
        on(&world.url, &["sagas", "show", "order-7"]).exits(1);
        on(&world.url, &["--yes", "sagas", "resume", "order-7"]).exits(1);
    }

    async fn terminal_escapes_of_strangers_are_shown_and_not_obeyed(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let evil = "\u{1b}]0;owned\u{7}\u{202e}";
        // No key has control characters, but it may turn the direction of text.
        let key = "order\u{202e}7";
        world.place(key, evil).await;
        world.bury(1, "no \u{1b}[2J").await;
        for arguments in [
            &["dead-letters", "list"][..],
            &["dead-letters", "groups"],
            &["dead-letters", "show", "1"],
            &["find", key],
            &["follow", key],
            &["explain", key],
            &["overview"],
        ] {
            let ran = on(&world.url, arguments);
            let bad = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
            assert!(!ran.out.contains(bad), "{arguments:?}: {:?}", ran.out);
            assert!(!ran.err.contains(bad), "{arguments:?}: {:?}", ran.err);
        }
    }
}
