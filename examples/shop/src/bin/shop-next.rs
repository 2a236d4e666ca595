//! The shop, in the next release: `cargo run -p shop --bin shop-next`, with the options of `shop`.

use shop::Release;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    shop::main(Release::Next).await
}
