//! `#[saga]`: read the attributes, check the impl block into a model, print the block and its
//! definition.

mod expand;
mod model;
mod options;

use crate::{fallback::Faults, paths};
use model::Model;
use options::Options;
use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{ItemImpl, parse::Parser};

/// Makes an impl block a saga, or gives its faults beside a stand-in for the definition.
pub(crate) fn attribute(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut block: ItemImpl = match syn::parse2(item.clone()) {
        Ok(block) => block,
        Err(_) => return not_a_block(item),
    };
    let mut faults = Faults::default();
    let options = Options::read.parse2(options).map(|(options, read)| {
        faults = read;
        options
    });
    let options = faults.take(options).unwrap_or_default();
    let model = Model::take(&mut block, &options, &mut faults);
    let root = faults.take(paths::private(options.root.get(), paths::TRANSACTIONS));
    match (faults.into_errors(), model, root) {
        (None, Some(model), Some(root)) => {
            let definition = expand::definition(&block, &model, &root);
            quote!(#block #definition)
        }
        (errors, _, root) => {
            let stand_in = root.map(|root| expand::stand_in(&block, &root));
            quote!(#errors #block #stand_in)
        }
    }
}

fn not_a_block(item: TokenStream) -> TokenStream {
    let at = item
        .clone()
        .into_iter()
        .next()
        .map_or_else(TokenStream::new, |token| token.into_token_stream());
    let message =
        "`#[saga]` goes on the impl block whose methods are the steps: `impl PlaceOrder { .. }`";
    let fault = syn::Error::new_spanned(at, message).into_compile_error();
    quote!(#fault #item)
}
