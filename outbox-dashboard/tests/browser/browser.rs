//! A Chromium of its own for each test, driven by WebDriver.

use fantoccini::{
    Client, ClientBuilder, Locator,
    error::CmdError,
    wd::{Capabilities, WebDriverCompatibleCommand},
};
use http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::{env, fs, path::PathBuf, process::Command, time::Duration};
use tempfile::TempDir;
use tests::{processes::Process, wait_until};
use url::{ParseError, Url};

/// Long enough for a busy machine; nothing waits that long when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// How it is started: without a screen, and without any request of its own to another host.
const ARGUMENTS: [&str; 12] = [
    "--headless=new",
    // Tests run as root in containers, where Chromium's sandbox does not start.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // Containers have little of it, and a tab that is out of it crashes.
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    // A name that is not this machine's, as operators reach a page over plain HTTP.
    "--host-resolver-rules=MAP outbox.test 127.0.0.1",
    "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable",
];

/// The key Enter, as WebDriver sends it.
pub(crate) const ENTER: &str = "\u{e007}";

/// A browser with one window. Dropped, it is killed with its driver, and its folder removed.
pub(crate) struct Browser {
    client: Client,
    /// Declared before the folder, so that it ends first.
    _driver: Process,
    _home: TempDir,
}

impl Browser {
    /// Starts a driver on a free port, and a browser with a profile of its own.
    pub(crate) async fn open() -> Self {
        let home = tempfile::Builder::new().prefix("outbox-browser-").tempdir();
        let home = home.expect("a folder can be made where temporary files go");
        let log = home.path().join("driver.log");
        let mut command = Command::new(driver());
        command.arg("--port=0");
        for variable in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
            command.env(variable, home.path());
        }
        // Into a file: no process of the browser keeps a handle of the test's.
        let driver = Process::start_logged(&mut command, &log);
        let mut port = None;
        wait_until(SOON, "the driver listens", async || {
            port = port_of(&fs::read_to_string(&log).unwrap_or_default());
            port.is_some()
        })
        .await;
        let url = format!("http://127.0.0.1:{}", port.expect("it was waited for"));
        let mut client = ClientBuilder::new(HttpConnector::new());
        let client = client.capabilities(capabilities(&home)).connect(&url).await;
        let client = client.unwrap_or_else(|error| {
            let log = fs::read_to_string(&log).unwrap_or_default();
            panic!("the browser does not start: {error}\n{log}")
        });
        Self { client, _driver: driver, _home: home }
    }

    /// Opens a page.
    #[track_caller]
    pub(crate) fn goto(&self, url: &str) -> impl Future<Output = ()> {
        let (client, url) = (self.client.clone(), url.to_owned());
        async move { client.goto(&url).await.unwrap_or_else(|error| panic!("{url}: {error}")) }
    }

    /// Gives the address of the page.
    pub(crate) async fn url(&self) -> Url {
        self.client.current_url().await.unwrap()
    }

    /// Clicks what a path finds, as soon as it can be clicked: live updates replace elements.
    async fn click_path(&self, path: &str) {
        wait_until(SOON, &format!("{path} is clicked"), async || {
            let clicked = async { self.client.find(Locator::XPath(path)).await?.click().await };
            match clicked.await {
                Ok(()) => Ok(()),
                Err(error) => Err(self.told(&error).await),
            }
        })
        .await;
    }

    /// Gives the first line of an error, and what stands on the page.
    async fn told(&self, error: &CmdError) -> String {
        let text = self.client.execute("return document.body.innerText", Vec::new()).await;
        let text = text.ok().and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default();
        format!("{}\n{text}", error.to_string().lines().next().unwrap_or_default())
    }

    /// Counts the elements.
    pub(crate) async fn count(&self, css: &str) -> usize {
        self.client.find_all(Locator::Css(css)).await.unwrap().len()
    }

    /// Gives the text of the page, as people see it.
    pub(crate) async fn text(&self) -> String {
        self.text_of("body").await
    }

    /// Gives the text of the first such element, as people see it; nothing where there is none.
    pub(crate) async fn text_of(&self, css: &str) -> String {
        let script = "const e = document.querySelector(arguments[0]); return e ? e.innerText : ''";
        self.run(script, vec![json!(css)]).await.as_str().unwrap_or_default().to_owned()
    }

    /// Clicks the link or button of this text.
    pub(crate) async fn press(&self, text: &str) {
        let is = format!("[normalize-space(.)='{text}'][not(ancestor::details[not(@open)])]");
        self.click_path(&format!("//*[self::a or self::button]{is}")).await;
    }

    /// Opens the first row in which a text stands.
    pub(crate) async fn open_row(&self, text: &str) {
        let row = format!("//*[@data-row][contains(., '{text}')]");
        self.click_path(&format!("{row}//a[@data-go]")).await;
    }

    /// Clicks the first such element.
    pub(crate) async fn click(&self, css: &str) {
        wait_until(SOON, &format!("{css} is clicked"), async || {
            let clicked = async { self.client.find(Locator::Css(css)).await?.click().await };
            match clicked.await {
                Ok(()) => Ok(()),
                Err(error) => Err(self.told(&error).await),
            }
        })
        .await;
    }

    /// Replaces the text of a field. A live part may be another one as long as nobody works in it,
    /// which is so until the field has the focus.
    pub(crate) async fn fill(&self, css: &str, text: &str) {
        wait_until(SOON, &format!("{css} is filled"), async || {
            let filled = async {
                let field = self.client.find(Locator::Css(css)).await?;
                field.clear().await?;
                field.send_keys(text).await
            };
            match filled.await {
                Ok(()) => Ok(()),
                Err(error) => Err(self.told(&error).await),
            }
        })
        .await;
    }

    /// Gives the texts of all drawings.
    pub(crate) async fn text_of_svg(&self) -> String {
        let script =
            "return [...document.querySelectorAll('svg')].map(e => e.textContent).join(' ')";
        self.run(script, Vec::new()).await.as_str().unwrap_or_default().to_owned()
    }

    /// Opens what is folded around the first form with such a field, and fills fields of it.
    pub(crate) async fn fill_form(&self, with: &str, fields: &[(&str, &str)]) {
        let script = "const form = document.querySelector(arguments[0]).closest('form');
            for (let e = form; e; e = e.parentElement) if (e.tagName === 'DETAILS') e.open = true;
            for (const [name, value] of arguments[1]) form.elements[name].value = value";
        self.run(script, vec![json!(with), json!(fields)]).await;
    }

    /// Types on the keyboard, wherever the focus is.
    pub(crate) async fn type_keys(&self, keys: &str) {
        self.client.active_element().await.unwrap().send_keys(keys).await.unwrap();
    }

    /// Waits until a text stands on the page.
    pub(crate) async fn wait_for_text(&self, text: &str) {
        self.wait_for_text_in("body", text).await;
    }

    /// Waits until a text stands in an element.
    pub(crate) async fn wait_for_text_in(&self, css: &str, text: &str) {
        wait_until(SOON, &format!("{text:?} stands in {css}"), async || {
            // While a page loads there is no document to ask.
            let script =
                "const e = document.querySelector(arguments[0]); return e ? e.innerText : ''";
            match self.client.execute(script, vec![json!(css)]).await {
                Ok(Value::String(seen)) if seen.contains(text) => Ok(()),
                Ok(seen) => Err(seen.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// Runs a script in the page and gives what it returns.
    pub(crate) async fn run(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.client.execute(script, arguments).await.unwrap()
    }

    /// Runs a script in the page that calls its last argument when it has ended.
    pub(crate) async fn run_async(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.client.execute_async(script, arguments).await.unwrap()
    }

    /// Opens a second tab, and gives both: the first one's handle, and that of the new one.
    pub(crate) async fn tabs(&self) -> [fantoccini::wd::WindowHandle; 2] {
        let first = self.client.window().await.unwrap();
        let second = self.client.new_window(true).await.unwrap().handle;
        [first, second]
    }

    /// Goes on in a tab.
    pub(crate) async fn switch_to(&self, tab: &fantoccini::wd::WindowHandle) {
        self.client.switch_to_window(tab.clone()).await.unwrap();
    }

    /// Sends a command of the DevTools protocol, and gives its result.
    pub(crate) async fn devtools(&self, method: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": method, "params": parameters });
        self.extension("goog/cdp/execute", body).await.unwrap_or_else(|error| {
            panic!("{method}: {error}");
        })
    }

    /// Gives what the browser has written on the console since the last call: errors of scripts,
    /// and what the page's security policy has refused.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.extension("se/log", json!({ "type": "browser" })).await.unwrap();
        let entries = log.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["message"].to_string()).collect()
    }

    async fn extension(&self, path: &'static str, body: Value) -> Result<Value, CmdError> {
        self.client.issue_cmd(Extension { path, body }).await
    }
}

/// A command of chromedriver's own.
#[derive(Debug)]
struct Extension {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Extension {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

/// Gives the driver's program.
fn driver() -> PathBuf {
    if let Some(given) = env::var_os("OUTBOX_TEST_CHROMEDRIVER") {
        return given.into();
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).map(|folder| folder.join("chromedriver"));
    found.into_iter().find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("chromedriver is not installed: apt-get install chromium-driver, or tests/run")
    })
}

/// Reads the port from what the driver writes when it listens.
fn port_of(log: &str) -> Option<u16> {
    let (_, rest) = log.split_once("started successfully on port ")?;
    let (port, _) = rest.split_once('.')?;
    port.parse().ok()
}

fn capabilities(home: &TempDir) -> Capabilities {
    let profile = format!("--user-data-dir={}", home.path().join("profile").display());
    let arguments: Vec<&str> = ARGUMENTS.into_iter().chain([profile.as_str()]).collect();
    let Value::Object(capabilities) = json!({
        "browserName": "chrome",
        "goog:chromeOptions": { "args": arguments },
        "goog:loggingPrefs": { "browser": "ALL" },
        // A dialog is a failure of its test: no page of ours has one.
        "unhandledPromptBehavior": "accept and notify",
    }) else {
        unreachable!("it is an object");
    };
    capabilities
}
