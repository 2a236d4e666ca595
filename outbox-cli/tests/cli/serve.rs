//! `outbox serve`: the page over the databases of the command line.

use crate::{
    program::{command, command_at_hang_up, run},
    world::{SOON, World},
};
use rustix::process::Signal;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::Duration,
};
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
    processes::Process,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Writes a file that nobody else reads.
fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Starts the page, and gives its process and its address.
async fn serve(arguments: &[&str]) -> (Process, String) {
    let mut all = arguments.to_vec();
    all.extend(["serve", "--listen", "127.0.0.1:0"]);
    let page = Process::start(&mut command(&all));
    served(page).await
}

/// Waits until a process serves the page, and gives it and its address.
async fn served(mut page: Process) -> (Process, String) {
    let line = page.wait_for_line(SOON, "the page is at http://").await;
    let address = line.split("http://").nth(1).unwrap().trim_end_matches('/').to_owned();
    (page, address)
}

/// Asks for a page, and gives the whole response.
async fn get(address: &str, path: &str, header: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

on_every_database! {
    async fn the_page_shows_the_database_until_a_signal_stops_it(temp: &TempDatabase) {
        let world = World::open(temp).await;
        world.place("order-1", "a chair").await;
        world.bury(1, "503 from billing").await;
        let (mut page, address) = serve(&["--database", &world.url]).await;
        let response = get(&address, "/letters?route=billing", "").await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        assert!(response.contains("503 from billing"), "{response}");
        page.signal(Signal::TERM);
        let status = page.wait(SOON).await;
        assert!(status.success(), "{status}");
    }

    async fn logins_of_a_file_get_in_and_nobody_else(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.toml");
        write(&config, &format!(
            "[serve]\nlogins = 'logins.toml'\n[contexts.live]\nproduction = true\n\
             databases = [{{ name = 'orders', url = '{}' }}]\n", world.url
        ));
        write(&folder.path().join("logins.toml"), "\
            [[user]]\nname = 'ann'\npassword = 'correct horse battery'\nrole = 'operator'\n\
            [[token]]\nname = 'monitor'\ntoken = '7d3f0c6b1f5e4b0f9a41'\nrole = ['redrive', 'control']\n");
        let (_page, address) = serve(&["--config", config.to_str().unwrap()]).await;
        assert!(get(&address, "/", "").await.starts_with("HTTP/1.1 401"));
        let wrong = "Authorization: Bearer 7d3f0c6b1f5e4b0f9a42\r\n";
        assert!(get(&address, "/", wrong).await.starts_with("HTTP/1.1 401"));
        let right = "Authorization: Bearer 7d3f0c6b1f5e4b0f9a41\r\n";
        let response = get(&address, "/", right).await;
        assert!(response.starts_with("HTTP/1.1 200") && response.contains("live"), "{response}");
    }
}

#[tokio::test]
async fn the_page_ends_with_its_terminal_unless_it_was_started_to_outlive_it() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::open(&temp).await;
    let start = |is_ignored| {
        let arguments = ["--database", world.url.as_str(), "serve", "--listen", "127.0.0.1:0"];
        Process::start(&mut command_at_hang_up(is_ignored, &arguments))
    };
    let (mut page, _) = served(start(false)).await;
    page.signal(Signal::HUP);
    assert!(page.wait(SOON).await.success());
    let (mut page, address) = served(start(true)).await;
    page.signal(Signal::HUP);
    // Time enough to end.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(get(&address, "/", "").await.starts_with("HTTP/1.1 200"));
    assert!(page.terminate(SOON).await.success());
}

#[test]
fn an_address_that_others_reach_is_not_served_without_a_login() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("a.db").display());
    run(command(&["--database", &url, "--yes", "migrate", "up"])).exits(0);
    let ran = run(command(&["--database", &url, "serve", "--listen", "0.0.0.0:0"])).exits(2);
    assert!(ran.err.contains("can be reached from other machines"), "{}", ran.err);
    assert!(ran.err.contains("[serve] logins = "), "{}", ran.err);
}

/// Makes something in the place of a file.
type Make = fn(&Path);

#[test]
fn the_page_is_not_served_where_the_file_that_may_name_logins_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("a.db").display());
    run(command(&["--database", &url, "--yes", "migrate", "up"])).exits(0);
    let config = folder.path().join("outbox").join("config.toml");
    let make: [(&str, Make); 3] = [
        ("a folder", |path| fs::create_dir_all(path).unwrap()),
        ("no UTF-8", |path| fs::write(path, [0xff, 0xfe]).unwrap()),
        ("a link to nowhere", |path| symlink("/nowhere/at/all", path).unwrap()),
    ];
    for (what, make) in make {
        fs::create_dir_all(config.parent().unwrap()).unwrap();
        make(&config);
        let mut serve = command(&["--database", &url, "serve", "--listen", "127.0.0.1:0"]);
        serve.env("XDG_CONFIG_HOME", folder.path());
        let ran = run(serve).exits(2);
        assert!(ran.err.contains("outbox/config.toml: "), "{what}: {}", ran.err);
        fs::remove_dir_all(config.parent().unwrap()).unwrap();
    }
}

#[test]
fn mistakes_in_the_logins_are_told_without_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("a.db").display());
    run(command(&["--database", &url, "--yes", "migrate", "up"])).exits(0);
    let (config, logins) = (folder.path().join("config.toml"), folder.path().join("logins.toml"));
    write(&config, "[serve]\nlogins = 'logins.toml'\n");
    let serve =
        || run(command(&["--config", config.to_str().unwrap(), "--database", &url, "serve"]));
    assert!(serve().exits(2).err.contains("logins.toml"), "a file that is missing");
    for (text, told) in [
        ("[[user]]\nname = 'ann'\npassword = 'secret'\nrole = 'admin'", "`admin` is no role"),
        ("[[user]]\nname = 'ann'\npassword = 'secret'\nrole = ['fly']", "`fly` is no act: redrive"),
        (
            "[[user]]\nname = 'ann'\npasswort = 'secret'\nrole = 'reader'",
            "unknown field `passwort`",
        ),
        ("[[user]]\nname = 'ann'\npassword = 'secret", "logins.toml"),
        (
            "[[user]]\nname = 'ann'\npassword = ['secret']\nrole = 'reader'",
            "line 3: invalid type: sequence, expected a string",
        ),
        ("user = 'secret'", "line 1: invalid type: string, expected a sequence"),
    ] {
        write(&logins, text);
        let ran = serve().exits(2);
        assert!(ran.err.contains(told) && !ran.err.contains("secret"), "{told}: {}", ran.err);
    }
    write(&logins, "[[user]]\nname = 'ann'\npassword = 'secret'\nrole = 'reader'");
    let ran = serve().exits(2);
    assert!(ran.err.contains("fewer than") && !ran.err.contains("'secret'"), "{}", ran.err);
    fs::set_permissions(&logins, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = serve().exits(2);
    assert!(ran.err.contains("chmod 600"), "{}", ran.err);
}
