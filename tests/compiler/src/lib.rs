//! Tells a crate how it is being compiled.
//!
//! A test that compiles programs has to find the libraries that it is linked with itself: which of the builds of a crate in
//! the target folder that is depends on features and profile, and only cargo knows. A procedural macro runs inside the
//! compiler, and so sees the command line that cargo made. The alternative is another cargo, which builds all libraries once
//! more for its own choice of features.

use proc_macro::{Literal, TokenStream};
use std::env;

/// Expands to a `&'static [&'static str]`: the path of the compiler, and the arguments that it was started with.
#[proc_macro]
pub fn compiler_arguments(_: TokenStream) -> TokenStream {
    let program = env::current_exe().unwrap_or_default().to_string_lossy().into_owned();
    let arguments = env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    let texts =
        std::iter::once(program).chain(arguments).map(|text| Literal::string(&text).to_string());
    let texts: Vec<String> = texts.collect();
    format!("&[{}]", texts.join(", ")).parse().unwrap_or_default()
}
