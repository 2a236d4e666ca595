//! Accessibility, checked by axe-core in the page itself.

use crate::browser::Browser;
use serde_json::{Value, json};
use std::{env, fs, path::PathBuf, sync::LazyLock};

/// The version that `tests/run` fetches.
const FOLDER: &str = "outbox-tests/axe-core-4.14.1";

/// The script, injected by WebDriver: the page's own policy lets no page load it.
static AXE: LazyLock<String> = LazyLock::new(|| {
    let path = env::var_os("OUTBOX_TEST_AXE").map(PathBuf::from).unwrap_or_else(usual_path);
    fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("axe-core is not at {} ({error}): tests/run fetches it", path.display())
    })
});

fn usual_path() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache");
    cache.unwrap_or_else(home).join(FOLDER).join("axe.min.js")
}

/// Runs all rules, best practices too, and gives each violation: its rule, its help, and the
/// elements.
const CHECK: &str = "
    const done = arguments[arguments.length - 1];
    const told = violation => violation.id + ': ' + violation.help + '\\n' +
        violation.nodes.slice(0, 5).map(node => '    ' + node.html + '\\n      ' +
            node.failureSummary.replaceAll('\\n', ' ')).join('\\n');
    axe.run(document, { resultTypes: ['violations'] })
        .then(results => done(results.violations.map(told)), error => done([String(error)]));
";

impl Browser {
    /// Gives what is wrong with the page for people who do not see it, or see little of it.
    pub(crate) async fn violations(&self) -> Vec<String> {
        self.run(&AXE, Vec::new()).await;
        let found = self.run_async(CHECK, Vec::new()).await;
        let found = found.as_array().cloned().unwrap_or_else(|| vec![json!("axe-core ran not")]);
        found.iter().map(|violation| violation.as_str().unwrap_or("?").to_owned()).collect()
    }

    /// Shows the page as a screen of this width does, to people who prefer dark or light.
    pub(crate) async fn emulate(&self, width: u32, scheme: &str) {
        let size =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": scheme })).await;
    }

    /// Tells how many pixels of the page stand out to the right of the screen.
    pub(crate) async fn overflow(&self) -> i64 {
        let script = "return document.documentElement.scrollWidth - window.innerWidth";
        self.run(script, Vec::new()).await.as_i64().unwrap_or_default()
    }

    /// Writes a picture of the whole page to `screenshots` in cargo's target folder.
    pub(crate) async fn picture(&self, name: &str) {
        let parameters = json!({ "format": "png", "captureBeyondViewport": true });
        let shot = self.devtools("Page.captureScreenshot", parameters).await;
        let Value::String(data) = &shot["data"] else { panic!("no picture: {shot}") };
        let folder = folder();
        fs::create_dir_all(&folder).expect("the target folder can be written");
        let bytes = base64(data);
        fs::write(folder.join(format!("{name}.png")), bytes).expect("the picture can be written");
    }
}

/// Gives the folder of pictures: beside the folder of the profile that this test was built with.
fn folder() -> PathBuf {
    let this = env::current_exe().expect("the path of the running program is known");
    let target = this.ancestors().nth(3).expect("target/debug/deps/browser");
    target.join("screenshots")
}

fn base64(text: &str) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.decode(text).expect("DevTools encodes its pictures")
}
