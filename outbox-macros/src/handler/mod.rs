//! `#[event_handler]`: read the options, check the impl block into a model, print it with the
//! registration of its handlers.

mod expand;
mod model;
mod options;

use crate::{
    attr::{self, Slot},
    fallback::Faults,
    paths,
};
use model::Model;
use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{ItemImpl, Path, parse::Parser};

const KNOWN: &[&str] = &["crate"];

/// Makes handlers of the methods of an impl block, or gives its faults beside a stand-in for it.
pub(crate) fn attribute(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut block: ItemImpl = match syn::parse2(item.clone()) {
        Ok(block) => block,
        Err(_) => return not_a_block(item),
    };
    let mut faults = Faults::default();
    let mut root: Slot<Path> = Slot::default();
    let read = |input: syn::parse::ParseStream<'_>| {
        attr::each(input, &mut faults, |name, input, _| match name.to_string().as_str() {
            "crate" => {
                let example =
                    "`crate` says where the framework is: write `crate = my_crate::outbox_sea_orm`";
                root.fill(name, attr::value(name, input, example))
            }
            _ => Err(attr::unknown(name, "`#[event_handler]`", KNOWN)),
        });
        Ok(())
    };
    let read = read.parse2(options);
    faults.take(read);
    let model = Model::check(&mut block, &mut faults);
    let root = faults.take(paths::private(root.get(), paths::EVENTS));
    match (faults.into_errors(), model, root) {
        (None, Some(model), Some(root)) => expand::block(&block, &model, &root),
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
    let message = "`#[event_handler]` goes on an impl block: `impl Billing { #[on(\"bill-order\")] async fn .. }`";
    let fault = syn::Error::new_spanned(at, message).into_compile_error();
    quote!(#fault #item)
}
