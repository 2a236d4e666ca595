//! `#[derive(OutboxEvent)]`: read the attributes, check them into a model, print the impls.

pub(crate) mod argument;
mod attrs;
mod content;
mod expand;
mod model;
pub(crate) mod serde;
pub(crate) mod value;

use crate::{fallback::Faults, paths};
use model::Model;
use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

/// Makes the impls of a type, or the faults of its attributes beside stand-in impls.
pub(crate) fn derive(input: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(input) {
        Ok(input) => input,
        Err(fault) => return fault.into_compile_error(),
    };
    let mut faults = Faults::default();
    let model = Model::read(&input, &mut faults);
    let root = faults.take(paths::private(model.root.as_ref(), paths::EVENTS));
    let impls = match faults.into_errors() {
        None => expand::impls(&input, &model),
        Some(errors) => {
            let stand_in =
                root.as_ref().map(|root| within(root, &expand::stand_in(&input, &model)));
            return quote!(#errors #stand_in);
        }
    };
    root.map(|root| within(&root, &impls)).unwrap_or_default()
}

/// Puts impls where the framework's private module has a short name; a wrong path is one fault
/// then, not one at each use.
fn within(root: &TokenStream, impls: &TokenStream) -> TokenStream {
    quote! {
        const _: () = {
            use #root as __outbox;
            #impls
        };
    }
}
