//! `#[transactional_outbox]`: read the options, check the function into a model, print it anew.

mod expand;
mod model;
mod options;
mod retry;

use crate::{fallback::Faults, paths};
use model::Model;
use options::Options;
use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{ItemFn, TraitItemFn, parse::Parser};

/// Makes a function transactional, or gives its faults beside a stand-in for it.
pub(crate) fn attribute(options: TokenStream, item: TokenStream) -> TokenStream {
    let function: ItemFn = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(_) => return not_a_function(item),
    };
    let mut faults = Faults::default();
    let options = Options::read.parse2(options).map(|(options, read)| {
        faults = read;
        options
    });
    let options = faults.take(options).unwrap_or_default();
    let model = Model::check(&function, &options, &mut faults);
    let root = faults.take(paths::private(options.root.get(), paths::TRANSACTIONS));
    match (faults.into_errors(), model, root) {
        (None, Some(model), Some(root)) => expand::function(&function, &model, &root),
        (errors, _, root) => {
            let stand_in = expand::stand_in(function, root.as_ref());
            quote!(#errors #stand_in)
        }
    }
}

fn not_a_function(item: TokenStream) -> TokenStream {
    let message = match syn::parse2::<TraitItemFn>(item.clone()) {
        Ok(_) => {
            "a method without a body opens nothing: remove the attribute, write `tx: &dyn Transactional` here, and \
             put `#[transactional_outbox]` on the implementations"
        }
        Err(_) => "`#[transactional_outbox]` goes on an async function or method",
    };
    let at = item
        .clone()
        .into_iter()
        .next()
        .map_or_else(TokenStream::new, |token| token.into_token_stream());
    let fault = syn::Error::new_spanned(at, message).into_compile_error();
    quote!(#fault #item)
}
