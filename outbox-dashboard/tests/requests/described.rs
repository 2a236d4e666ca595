//! The documents for programs against their description, by requests that another program makes up
//! from it.

use crate::world::World;
use outbox_dashboard::{Access, Dashboard};
use std::{env, path::PathBuf};
use tests::databases::{Database, TempDatabase};
use tokio::{net::TcpListener, process::Command};

/// Where `tests/run` installs the program.
const FOLDER: &str = "schemathesis-4.32.5";
/// What it checks of each answer. Not that every strange value is refused: where a text is asked
/// for, every text is one.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,unsupported_method";

fn program() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .unwrap_or_default();
    let path = cache.join("outbox-tests").join(FOLDER).join("bin/schemathesis");
    assert!(path.is_file(), "{FOLDER} is not installed: ./tests/run does it, with python3 and pip");
    path
}

/// Requests for each operation: some, or, where the long form is asked for by `OUTBOX_LONG=1`, many.
fn requests() -> &'static str {
    if env::var_os("OUTBOX_LONG").is_some_and(|value| value == "1") { "300" } else { "15" }
}

#[tokio::test]
async fn whatever_is_asked_is_answered_as_the_description_says() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let world = World::with_letters(&temp, 3).await;
    let dashboard = Dashboard::builder()
        .database("orders", world.outbox.clone())
        .access(Access::loopback())
        .build()
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move { dashboard.serve(listener).await });

    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(program());
    command.arg("run").arg(format!("http://{address}/api/openapi.json"));
    command.args(["--max-examples", requests(), "--seed", "7", "--checks", CHECKS]);
    command.args(["--no-color", "--suppress-health-check", "all", "--warnings", "off"]);
    command.current_dir(home.path()).kill_on_drop(true);
    let said = command.output().await.unwrap();
    let report = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{report}{}", String::from_utf8_lossy(&said.stderr));
    assert!(report.contains("No issues found"), "it has asked: {report}");
    served.abort();
}
