//! The shop, in this release.

use shop::Release;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    shop::main(Release::This).await
}
