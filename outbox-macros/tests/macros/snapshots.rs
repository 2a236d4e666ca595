//! What the macros print, as a reader sees it.

use proc_macro2::TokenStream;
use quote::ToTokens;
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Expands each `snapshots/<macro>/<case>.rs` and compares with `<case>.expanded.rs` beside it.
#[test]
fn expansions_are_the_recorded_ones() {
    let overwrite = env::var_os("SNAPSHOTS").is_some_and(|v| v == "overwrite");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots");
    let mut cases = 0;
    let mut changed = Vec::new();
    for folder in entries(&root) {
        let name =
            folder.file_name().and_then(|n| n.to_str()).expect("a folder has a name").to_owned();
        for case in entries(&folder)
            .into_iter()
            .filter(|path| !path.to_string_lossy().ends_with(".expanded.rs"))
        {
            let input = fs::read_to_string(&case).expect("a case is text");
            let file =
                syn::parse_file(&input).unwrap_or_else(|e| panic!("{}: {e}", case.display()));
            let expanded: TokenStream =
                file.items.into_iter().map(|item| expand(&name, item)).collect();
            let printed =
                prettyplease::unparse(&syn::parse2(expanded).expect("expansions are items"));
            let recorded = case.with_extension("expanded.rs");
            if overwrite {
                fs::write(&recorded, &printed).expect("the snapshot is written");
            } else if fs::read_to_string(&recorded).ok().as_ref() != Some(&printed) {
                changed.push(format!("--- {}\n{printed}", recorded.display()));
            }
            cases += 1;
        }
    }
    assert!(cases > 0, "no cases in {}", root.display());
    assert!(
        changed.is_empty(),
        "not as recorded (SNAPSHOTS=overwrite accepts it):\n{}",
        changed.join("\n")
    );
}

/// Runs the macro of a folder on one item of a case.
fn expand(folder: &str, item: syn::Item) -> TokenStream {
    match folder {
        "event" => crate::event::derive(item.into_token_stream()),
        "handler" => match item {
            syn::Item::Impl(mut block) => match options(&mut block.attrs, "event_handler") {
                Some(options) => crate::handler::attribute(options, block.into_token_stream()),
                None => block.into_token_stream(),
            },
            other => other.into_token_stream(),
        },
        "saga" => saga(item),
        "transactional" => transactional(item),
        other => panic!("no macro for the folder `{other}`"),
    }
}

/// Takes the attribute off a function, or off each method of an implementation, and runs it.
fn transactional(item: syn::Item) -> TokenStream {
    match item {
        syn::Item::Fn(mut function) => match options(&mut function.attrs, "transactional_outbox") {
            Some(options) => crate::transactional::attribute(options, function.into_token_stream()),
            None => function.into_token_stream(),
        },
        syn::Item::Impl(mut block) => {
            for item in &mut block.items {
                if let syn::ImplItem::Fn(method) = item
                    && let Some(options) = options(&mut method.attrs, "transactional_outbox")
                {
                    *item = syn::ImplItem::Verbatim(crate::transactional::attribute(
                        options,
                        method.to_token_stream(),
                    ));
                }
            }
            block.into_token_stream()
        }
        other => other.into_token_stream(),
    }
}

/// Takes the attribute off an implementation and runs it.
fn saga(item: syn::Item) -> TokenStream {
    match item {
        syn::Item::Impl(mut block) => match options(&mut block.attrs, "saga") {
            Some(options) => crate::saga::attribute(options, block.into_token_stream()),
            None => block.into_token_stream(),
        },
        other => other.into_token_stream(),
    }
}

/// Removes an attribute and gives what was in it.
fn options(attributes: &mut Vec<syn::Attribute>, name: &str) -> Option<TokenStream> {
    let at = attributes.iter().position(|attribute| attribute.path().is_ident(name))?;
    match attributes.remove(at).meta {
        syn::Meta::List(list) => Some(list.tokens),
        _ => Some(TokenStream::new()),
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    paths.sort();
    paths
}
