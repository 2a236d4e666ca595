//! Prints the definition: a call of the builder, as it can be written by hand.

use super::model::{Hook, Model, Step};
use crate::event::argument::Retry;
use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use std::time::Duration;
use syn::{ItemImpl, spanned::Spanned};

/// Prints the definition of a valid block.
pub(super) fn definition(block: &ItemImpl, model: &Model, root: &TokenStream) -> TokenStream {
    let (name, version) = (&model.name, model.version);
    let mut built = quote!(#root::Saga::builder(#name, #version));
    if let Some(deadline) = model.deadline {
        let deadline = duration(deadline, root);
        built.extend(quote!(.deadline(#deadline)));
    }
    for Hook { attribute, method } in &model.hooks {
        built.extend(quote_spanned!(method.span()=> .#attribute(Self::#method)));
    }
    let mut group = None;
    for step in &model.steps {
        built.extend(call(step, &mut group));
        built.extend(settings(step, root));
    }
    within(block, root, &quote!(#built.build()))
}

/// Prints a definition that never runs, for a block with faults.
pub(super) fn stand_in(block: &ItemImpl, root: &TokenStream) -> TokenStream {
    within(block, root, &quote!(::core::unimplemented!("the attribute failed")))
}

fn within(block: &ItemImpl, root: &TokenStream, body: &TokenStream) -> TokenStream {
    let (generics, _, bounds) = block.generics.split_for_impl();
    let data = &block.self_ty;
    quote! {
        impl #generics #root::SagaData<#root::OutboxTransaction> for #data #bounds {
            fn saga() -> #root::Saga<Self, #root::OutboxTransaction> {
                #body
            }
        }
    }
}

/// Prints the call that adds a step.
fn call(step: &Step, group: &mut Option<String>) -> TokenStream {
    let (name, method) = (&step.name, &step.method);
    // With the method's span, so that errors of the builder about its type point at the method.
    let function = quote_spanned!(method.span()=> Self::#method);
    let parallel = step.options.parallel.get();
    let before = std::mem::replace(group, parallel.map(syn::LitStr::value));
    let (at, remote) = (method.span(), step.options.is_remote());
    let mut call = match parallel {
        Some(parallel) if before.as_ref() != Some(&parallel.value()) => {
            quote_spanned!(at=> .parallel(#parallel))
        }
        _ => TokenStream::new(),
    };
    call.extend(match parallel {
        Some(_) if remote => quote_spanned!(at=> .remote_branch(#name, #function)),
        Some(_) => quote_spanned!(at=> .branch(#name, #function)),
        None if remote => quote_spanned!(at=> .remote_step(#name, #function)),
        None if step.options.merge.is_given() => quote_spanned!(at=> .merge(#name, #function)),
        None => quote_spanned!(at=> .step(#name, #function)),
    });
    if let Some(reply) = step.options.reply.get() {
        call.extend(quote_spanned!(reply.span()=> .reply::<#reply>()));
    }
    if let Some(reject) = step.options.reject.get() {
        call.extend(quote_spanned!(reject.span()=> .reject::<#reject>()));
    }
    if let Some(Some(consumer)) = step.options.remote.get() {
        call.extend(quote_spanned!(consumer.span()=> .of(#consumer)));
    }
    if let Some(source) = step.options.source.get() {
        call.extend(quote_spanned!(source.span()=> .from_source(#source)));
    }
    call
}

/// Prints the calls that set a step's options.
fn settings(step: &Step, root: &TokenStream) -> TokenStream {
    let options = &step.options;
    let mut printed = TokenStream::new();
    if let Some(undo) = options.compensate.get() {
        let function = quote_spanned!(undo.span()=> Self::#undo);
        let at = undo.span();
        printed.extend(match (options.is_remote(), step.undo_takes_output) {
            (false, true) => quote_spanned!(at=> .compensate(#function)),
            (false, false) => quote_spanned!(at=> .compensate_without_output(#function)),
            (true, true) => quote_spanned!(at=> .compensate_remote(#function)),
            (true, false) => quote_spanned!(at=> .compensate_remote_without_output(#function)),
        });
    }
    if let Some((times, _)) = options.retries.get() {
        printed.extend(quote!(.retries(#times)));
    }
    if let Some((retry, _)) = options.retry.get() {
        let policy = policy(retry, root);
        printed.extend(quote!(.retry(#policy)));
    }
    if let Some((retry, _)) = options.compensate_retry.get() {
        let policy = policy(retry, root);
        printed.extend(quote!(.compensate_retry(#policy)));
    }
    if let Some((timeout, _)) = options.timeout.get() {
        let timeout = duration(*timeout, root);
        printed.extend(quote!(.timeout(#timeout)));
    }
    if options.no_timeout.is_given() {
        printed.extend(quote!(.no_timeout()));
    }
    if let Some((condition, _)) = options.skip_if.get() {
        printed.extend(quote!(.skip_if(#condition)));
    }
    if options.pivot.is_given() {
        printed.extend(quote!(.pivot()));
    }
    printed
}

fn policy(retry: &Retry, root: &TokenStream) -> TokenStream {
    let mut policy = quote!(<#root::RetryPolicy as #root::core::default::Default>::default());
    if let Some(max_attempts) = retry.max_attempts {
        policy.extend(quote!(.max_attempts(#max_attempts)));
    }
    if let Some(factor) = retry.factor {
        policy.extend(quote!(.factor(#factor)));
    }
    let times = [
        ("backoff", retry.backoff),
        ("max_backoff", retry.max_backoff),
        ("give_up_after", retry.give_up_after),
    ];
    for (setter, time) in times.into_iter().filter_map(|(setter, time)| Some((setter, time?))) {
        let (setter, time) = (Ident::new(setter, Span::call_site()), duration(time, root));
        policy.extend(quote!(.#setter(#time)));
    }
    policy
}

fn duration(time: Duration, root: &TokenStream) -> TokenStream {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    quote!(#root::core::time::Duration::from_millis(#millis))
}
