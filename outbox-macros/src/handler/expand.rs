//! Prints the block, and the registration of its handlers.

use super::model::{Handler, Model};
use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use std::collections::BTreeSet;
use syn::{Generics, ItemImpl, WherePredicate, parse_quote};

/// Prints a valid block.
pub(super) fn block(block: &ItemImpl, model: &Model, root: &TokenStream) -> TokenStream {
    let (this, generics) = (&block.self_ty, &block.generics);
    let adapters: Vec<Ident> = model
        .handlers
        .iter()
        .map(|handler| format_ident!("__Handler_{}", handler.method))
        .collect();
    let printed = model
        .handlers
        .iter()
        .zip(&adapters)
        .map(|(handler, name)| adapter(block, handler, name, root));
    let with_store = with_store(generics, model.handlers.iter(), block, root);
    let (impl_generics, _, conditions) = with_store.split_for_impl();
    let (_, ty_generics, _) = generics.split_for_impl();
    let fish = ty_generics.as_turbofish();
    let added = model.handlers.iter().zip(&adapters).map(|(each, adapter)| {
        let (name, event) = (&each.name, &each.event);
        let handler = quote!(#adapter #fish(#root::Arc::clone(&this)));
        let (plain, with) =
            if each.answers { ("on_command", "on_command_with") } else { ("on", "on_with") };
        let (plain, with) = (format_ident!("{plain}"), format_ident!("{with}"));
        if !each.options.is_given() {
            return quote!(set.#plain::<#event, _>(#name, #handler););
        }
        let options = options(each, root);
        quote!(set.#with::<#event, _>(#name, #options, #handler);)
    });
    quote! {
        #block
        const _: () = {
            #(#printed)*
            #[automatically_derived]
            impl #impl_generics #root::EventHandlers<__Store> for #this #conditions {
                fn add_to(self, set: &mut #root::HandlerSet<__Store>) {
                    let this = #root::Arc::new(self);
                    #(#added)*
                }
            }
        };
    }
}

/// Prints the settings of a handler.
fn options(handler: &Handler, root: &TokenStream) -> TokenStream {
    let mut printed = quote!(#root::HandlerOptions::new());
    if let Some((timeout, _)) = handler.options.timeout.get() {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        printed.extend(quote!(.timeout(#root::core::time::Duration::from_millis(#millis))));
    }
    if handler.options.no_timeout.is_given() {
        printed.extend(quote!(.no_timeout()));
    }
    if handler.options.deferred_lock.is_given() {
        printed.extend(quote!(.deferred_lock()));
    }
    if handler.options.no_writes.is_given() {
        printed.extend(quote!(.no_writes()));
    }
    if let Some(reason) = handler.options.no_try.get() {
        printed.extend(quote!(.no_try(#reason)));
    }
    if let Some(before) = handler.options.renamed_from.get() {
        printed.extend(quote!(.renamed_from(#before)));
    }
    printed
}

/// Prints a type that is a handler by calling one method.
fn adapter(block: &ItemImpl, handler: &Handler, name: &Ident, root: &TokenStream) -> TokenStream {
    let (this, generics) = (&block.self_ty, &block.generics);
    let (own, ty_generics, own_conditions) = generics.split_for_impl();
    let with_store = with_store(generics, std::iter::once(handler), block, root);
    let (impl_generics, _, conditions) = with_store.split_for_impl();
    let (method, event) = (&handler.method, &handler.event);
    // With the method's span, so that errors about its result or its future point there.
    let call = quote_spanned! { method.span() =>
        <#this>::#method(&self.0, event, cx).await.map_err(::core::convert::Into::into)
    };
    quote! {
        #[allow(non_camel_case_types)]
        struct #name #own (#root::Arc<#this>) #own_conditions;
        // A method may return `HandlerError` itself.
        #[allow(clippy::useless_conversion)]
        #[automatically_derived]
        impl #impl_generics #root::EventHandler<#event, __Store> for #name #ty_generics #conditions {
            async fn handle(
                &self,
                event: #event,
                cx: &#root::HandlerContext<<__Store as #root::Store>::Tx>,
            ) -> ::core::result::Result<(), #root::HandlerError> {
                #call
            }
        }
    }
}

/// Adds the store, whose transaction is that of the handlers' contexts.
fn with_store<'h>(
    generics: &Generics,
    handlers: impl Iterator<Item = &'h Handler>,
    block: &ItemImpl,
    root: &TokenStream,
) -> Generics {
    let (mut generics, this) = (generics.clone(), &block.self_ty);
    let bounded = !generics.params.is_empty();
    generics.params.push(parse_quote!(__Store));
    let conditions = &mut generics.make_where_clause().predicates;
    let mut seen = BTreeSet::new();
    for context in handlers.map(|handler| &handler.context) {
        if !seen.insert(context.to_token_stream().to_string()) {
            continue;
        }
        let same: WherePredicate =
            parse_quote!(__Store: #root::Store<Tx = <#context as #root::ContextTx>::Tx>);
        conditions.push(same);
    }
    if bounded {
        conditions.push(parse_quote!(#this: ::core::marker::Send + ::core::marker::Sync + 'static));
    }
    generics
}

/// Prints a stand-in for a block with faults, so that code which uses it does not fail as well.
pub(super) fn stand_in(block: &ItemImpl, root: &TokenStream) -> TokenStream {
    let (this, mut generics) = (&block.self_ty, block.generics.clone());
    generics.params.push(parse_quote!(__Store: #root::Store));
    generics
        .make_where_clause()
        .predicates
        .push(parse_quote!(#this: ::core::marker::Send + ::core::marker::Sync + 'static));
    let (impl_generics, _, conditions) = generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #impl_generics #root::EventHandlers<__Store> for #this #conditions {
            fn add_to(self, _: &mut #root::HandlerSet<__Store>) {}
        }
    }
}
