//! Private servers. Each test starts one; the runner lets few of them run at once.

use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, Statement,
};
use std::{
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    time::Duration,
};
use tests::{
    processes::{Process, program},
    servers::{self, Server},
    wait_until,
};

const SOON: Duration = Duration::from_secs(20);

/// Stops, kills and freezes a server, and looks at each step from a client's side.
async fn starts_stops_and_restarts(server: &mut Server) {
    let port = server.port();
    assert!(server.answers().await);
    server.stop().await;
    assert!(!server.answers().await, "a stopped server does not answer");
    server.start().await;
    assert_eq!(server.port(), port, "a server comes back where it was");
    server.kill().await;
    assert!(!server.answers().await, "a killed server does not answer");
    server.start().await;
    server.pause();
    assert!(!server.answers().await, "a frozen server does not answer");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(), "its port is still open");
    server.resume();
    wait_until(SOON, "a resumed server answers", async || server.answers().await).await;
}

async fn connect(server: &Server) -> DatabaseConnection {
    let mut options = ConnectOptions::new(server.url());
    options.sqlx_logging(false).max_connections(2);
    Database::connect(options).await.unwrap()
}

async fn rows(connection: &DatabaseConnection, backend: DbBackend) -> usize {
    connection
        .query_all_raw(Statement::from_string(backend, "SELECT id FROM kept"))
        .await
        .unwrap()
        .len()
}

/// Lets a database live through everything with rows in it.
async fn keeps_what_was_committed(server: &mut Server, backend: DbBackend) {
    let connection = connect(server).await;
    connection.execute_unprepared("CREATE TABLE kept (id INTEGER)").await.unwrap();
    connection.execute_unprepared("INSERT INTO kept VALUES (1), (2)").await.unwrap();
    starts_stops_and_restarts(server).await;
    let connection = connect(server).await;
    assert_eq!(rows(&connection, backend).await, 2);

    // No checkpoint between this write and the kill.
    connection.execute_unprepared("INSERT INTO kept VALUES (3)").await.unwrap();
    server.kill().await;
    server.start().await;
    assert_eq!(rows(&connect(server).await, backend).await, 3);
}

#[tokio::test]
async fn a_private_postgresql_stops_dies_freezes_and_keeps_what_was_committed() {
    let mut server = servers::postgres::start_with(&["-c", "max_connections=20"]).await;
    let connection = connect(&server).await;
    let setting = Statement::from_string(DbBackend::Postgres, "SHOW max_connections");
    let value: String = connection
        .query_one_raw(setting)
        .await
        .unwrap()
        .unwrap()
        .try_get("", "max_connections")
        .unwrap();
    assert_eq!(value, "20");
    keeps_what_was_committed(&mut server, DbBackend::Postgres).await;
}

#[tokio::test]
async fn a_paused_postgresql_answers_no_session_that_is_open() {
    let mut server = servers::postgres::start().await;
    let connection = connect(&server).await;
    server.pause();
    let query = tokio::spawn(async move { connection.execute_unprepared("SELECT 1").await });
    let answered =
        tests::holds_within(Duration::from_millis(300), async || query.is_finished()).await;
    assert!(!answered, "backends are frozen with the server");
    server.resume();
    query.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_private_mariadb_stops_dies_freezes_and_keeps_what_was_committed() {
    let mut server = servers::mariadb::start().await;
    keeps_what_was_committed(&mut server, DbBackend::MySql).await;
}

#[tokio::test]
async fn a_private_redis_stops_dies_and_freezes() {
    starts_stops_and_restarts(&mut servers::redis::start().await).await;
}

#[tokio::test]
async fn a_private_rabbitmq_stops_dies_and_freezes() {
    starts_stops_and_restarts(&mut servers::rabbitmq::start().await).await;
}

#[tokio::test]
async fn a_private_nats_stops_dies_and_freezes() {
    starts_stops_and_restarts(&mut servers::nats::start().await).await;
}

#[tokio::test]
async fn the_private_emulators_of_sqs_stop_die_and_freeze() {
    starts_stops_and_restarts(&mut servers::aws::start().await).await;
    starts_stops_and_restarts(&mut servers::aws::start_moto().await).await;
}

#[tokio::test]
async fn a_private_mosquitto_stops_dies_and_freezes() {
    starts_stops_and_restarts(&mut servers::mosquitto::start().await).await;
}

#[tokio::test]
async fn a_dropped_server_leaves_neither_process_nor_folder() {
    let server = servers::postgres::start().await;
    let connection = connect(&server).await;
    let asked = Statement::from_string(DbBackend::Postgres, "SHOW data_directory");
    let folder: String = connection
        .query_one_raw(asked)
        .await
        .unwrap()
        .unwrap()
        .try_get("", "data_directory")
        .unwrap();
    assert!(std::path::Path::new(&folder).exists());
    let port = server.port();
    drop(server);
    assert!(!std::path::Path::new(&folder).exists());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[tokio::test]
async fn a_command_with_servers_finds_their_urls() {
    let script = "echo $OUTBOX_TEST_REDIS_URL; echo $OUTBOX_TEST_NATS_URL";
    let mut process =
        Process::start(program("with-servers").args(["redis", "nats", "--", "sh", "-c", script]));
    let (status, lines) = process.finish(SOON).await;
    assert!(status.success());
    assert!(lines[0].starts_with("redis://127.0.0.1:"), "{lines:?}");
    assert!(lines[1].starts_with("nats://127.0.0.1:"), "{lines:?}");
}

#[tokio::test]
async fn a_server_is_started_from_the_programs_of_the_variable_and_recorded_with_its_program() {
    let lists = ["OUTBOX_TEST_PROGRAMS", "PATH"].map(|name| env::var_os(name).unwrap_or_default());
    let mut programs = lists.iter().flat_map(env::split_paths).map(|bin| bin.join("redis-server"));
    let installed = programs.find(|program| program.is_file()).expect("it is installed");
    let folder = tempfile::tempdir().unwrap();
    // The user that the server runs as has to reach it.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (link, record) = (folder.path().join("redis-server"), folder.path().join("record"));
    symlink(installed, &link).unwrap();
    let mut command = program("with-servers");
    command.args(["redis", "--", "true"]);
    command.env("OUTBOX_TEST_PROGRAMS", folder.path()).env("OUTBOX_TEST_SERVERS", &record);
    let mut process = Process::start(&mut command);
    let (status, lines) = process.finish(SOON).await;
    assert!(status.success(), "{lines:?}");
    let recorded = fs::read_to_string(record).unwrap();
    assert_eq!(recorded, format!("Redis\t{}\n", link.display()));
}
