//! Prints the function.

use super::model::{Body, Model, Parameter, Source};
use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    Block, Expr, FnArg, ItemFn, Lifetime, LocalInit, Pat, Stmt, Type, parse_quote, spanned::Spanned,
};

/// Prints a valid function.
pub(super) fn function(function: &ItemFn, model: &Model<'_>, root: &TokenStream) -> TokenStream {
    let mut function = function.clone();
    let mut tx_source = None;
    if let Source::Parameter(parameter) = &model.source {
        tx_source = Some(take(&mut function.sig.inputs[parameter.at], parameter, root));
    }
    let block = match &model.body {
        Body::Plain => {
            wrap(&function.block, &TokenStream::new(), tx_source.as_ref(), None, model, root)
        }
        Body::Returned(block) => {
            let (before, body) = parts(&block.block);
            let this = before.iter().find_map(receiver);
            let wrapped = wrap(body, &quote!(#(#before)*), tx_source.as_ref(), this, model, root);
            let (asyncness, capture) = (&block.async_token, &block.capture);
            replace_async(&function.block, &quote!(#asyncness #capture #wrapped))
        }
    };
    let ItemFn { attrs, vis, sig, .. } = &function;
    quote!(#(#attrs)* #vis #sig #block)
}

/// Prints a function with faults: it takes and gives what callers expect, and does nothing.
pub(super) fn stand_in(mut function: ItemFn, root: Option<&TokenStream>) -> TokenStream {
    if let Some(root) = root {
        for input in &mut function.sig.inputs {
            if let FnArg::Typed(input) = input
                && let Type::Reference(reference) = &mut *input.ty
                && reference.elem.to_token_stream().to_string().ends_with("OutboxTransaction")
            {
                reference.mutability = None;
                *reference.elem = parse_quote!(dyn #root::Transactional);
            }
        }
    }
    // A function that returns its future, as `#[async_trait]` leaves it, has the type that callers
    // expect.
    if super::model::returned(&function).is_none() {
        function.sig.asyncness.get_or_insert_with(|| parse_quote!(async));
    }
    let ItemFn { attrs, vis, sig, .. } = &function;
    quote! {
        #(#attrs)*
        #[allow(unused_variables, unused_mut, clippy::unused_async)]
        #vis #sig {
            ::core::unimplemented!("the attribute failed")
        }
    }
}

/// Widens the parameter, and gives the expression of the caller's argument.
fn take(input: &mut FnArg, parameter: &Parameter, root: &TokenStream) -> TokenStream {
    let FnArg::Typed(input) = input else { return TokenStream::new() };
    let name = parameter.name.clone().unwrap_or_else(|| internal("tx"));
    // Without `mut`: it is the inner one that the body sees.
    *input.pat = Pat::Verbatim(name.to_token_stream());
    if parameter.widens
        && let Type::Reference(reference) = &mut *input.ty
    {
        let lifetime =
            reference.lifetime.clone().unwrap_or_else(|| Lifetime::new("'_", reference.span()));
        *reference.elem = parse_quote!((dyn #root::Transactional + #lifetime));
    }
    quote!(#root::Transactional::__source(#name))
}

/// Prints the statements that enter the transaction, run the body and end it.
fn wrap(
    body: &Block,
    before: &TokenStream,
    tx_source: Option<&TokenStream>,
    this: Option<&Ident>,
    model: &Model<'_>,
    root: &TokenStream,
) -> TokenStream {
    let scope = internal("scope");
    let result = internal("result");
    let retries = internal("retries");
    let typed = model.result.as_ref().map(|ty| quote!(: #ty));
    // Errors about the type, such as one that is no `Result`, stand at the type.
    let span = model
        .result_span
        .clone()
        .into_iter()
        .next()
        .map_or_else(Span::call_site, |token| token.span());
    let named = model.result.as_ref().map_or_else(|| quote!(_), ToTokens::to_token_stream);
    let (source, tx_source, tx) = match &model.source {
        Source::Parameter(parameter) => (None, tx_source.cloned(), binding(parameter, &scope)),
        Source::Expression(name, expr) => {
            let source = internal("source");
            let expr = in_place(expr.to_token_stream(), this);
            // The body may not use the name.
            let tx = quote!(#[allow(unused_variables)] let #name: &#root::OutboxTransaction = #scope.tx(););
            let tx_source = quote!(#root::Transactional::__source(#source).or_current());
            (Some(quote!(let #source = &(#expr);)), Some(tx_source), tx)
        }
        Source::ForeignTx { txn, outbox } => {
            let outbox = in_place(outbox.to_token_stream(), this);
            let run = run(body, &TokenStream::new(), model);
            let emit = model.emit.map(event_of);
            let new = quote_spanned!(span=> #root::ForeignTx::<#named>::new);
            return quote!({
                #before
                let #scope = #new(&(#outbox));
                let #result #typed = #run.await;
                #scope.emit(#txn, #result, #emit).await
            });
        }
    };
    let run = run(body, &tx, model);
    let run = quote!(#scope.within(#run).await);
    let entry = entry(model, root);
    let emit =
        model.emit.map(event_of).map(|emit| quote!(let #result = #scope.emit(#result, #emit);));
    let attempt = |enter: TokenStream, end: TokenStream| {
        quote! {
            let #scope = match #enter.await {
                ::core::result::Result::Ok(#scope) => #scope,
                ::core::result::Result::Err(#result) => return #result,
            };
            let #result #typed = #run;
            #emit
            #end
        }
    };
    let Some(times) = model.retry else {
        let enter = quote_spanned!(span=> #root::enter::<#named>);
        let attempt =
            attempt(quote!(#enter(#tx_source, #entry)), quote!(#scope.finish(#result).await));
        return quote!({ #before #source #attempt });
    };
    let enter = quote_spanned!(span=> #root::enter_with_retry::<#named>);
    let end = quote! {
        if let ::core::ops::ControlFlow::Break(#result) = #scope.finish_or_retry(#result, &mut #retries).await {
            break #result;
        }
    };
    let attempt = attempt(quote!(#enter(#tx_source, #entry, &mut #retries)), end);
    quote!({
        #before
        #source
        let mut #retries = #root::RetryBudget::new(#times);
        loop { #attempt }
    })
}

/// Names the transaction for the body, with the user's own tokens: so the compiler counts names and
/// imports as used.
fn binding(parameter: &Parameter, scope: &Ident) -> TokenStream {
    let narrow = &parameter.narrow;
    let name = parameter.name.as_ref().map_or_else(|| quote!(_), ToTokens::to_token_stream);
    quote!(let #name: #narrow = #scope.tx();)
}

/// Makes the body a future, so that `return` and `?` end it and nothing else.
fn run(body: &Block, tx: &TokenStream, model: &Model<'_>) -> TokenStream {
    // Names the type first, so that the compiler reports a wrong value where it stands.
    let hint = model.result.as_ref().map(|ty| {
        let result = internal("result");
        quote!(if let ::core::option::Option::Some(#result) = ::core::option::Option::None::<#ty> {
            return #result;
        })
    });
    let stmts = &body.stmts;
    let span = body.brace_token.span.join();
    let block = quote_spanned!(span=> { #hint #tx #(#stmts)* });
    quote!(async #block)
}

/// Prints the function that makes the event. A path such as `OrderPlaced::from` names a function
/// for one lifetime; inside a closure it is one for all of them.
fn event_of(emit: &Expr) -> TokenStream {
    let Expr::Path(path) = emit else { return emit.to_token_stream() };
    let value = internal("value");
    let span = path.span();
    quote_spanned!(span=> |#value| #path(#value))
}

fn entry(model: &Model<'_>, root: &TokenStream) -> TokenStream {
    let propagation = Ident::new(model.propagation, Span::call_site());
    let isolation = match &model.isolation {
        Some(level) => quote!(::core::option::Option::Some(#root::IsolationLevel::#level)),
        None => quote!(::core::option::Option::None),
    };
    let (function, read_only) = (model.function.to_string(), model.read_only);
    quote! {
        #root::Entry {
            function: #function,
            propagation: #root::Propagation::#propagation,
            isolation: #isolation,
            read_only: #read_only,
        }
    }
}

/// A name that the user's code cannot see.
fn internal(name: &str) -> Ident {
    Ident::new(&format!("__{name}"), Span::mixed_site())
}

/// Splits a block of `#[async_trait]` into its own statements and the user's block; any other block
/// is the user's.
pub(super) fn parts(block: &Block) -> (&[Stmt], &Block) {
    let [before @ .., Stmt::Local(local), Stmt::Expr(..)] = block.stmts.as_slice() else {
        return (&[], block);
    };
    match &local.init {
        Some(LocalInit { expr, diverge: None, .. })
            if bound(&local.pat).is_some_and(|name| name == "__ret") =>
        {
            match &**expr {
                Expr::Block(body) => (before, &body.block),
                _ => (&[], block),
            }
        }
        _ => (&[], block),
    }
}

/// The name that `#[async_trait]` binds `self` to.
fn receiver(stmt: &Stmt) -> Option<&Ident> {
    match stmt {
        Stmt::Local(local) => bound(&local.pat).filter(|name| *name == "__self"),
        _ => None,
    }
}

fn bound(pat: &Pat) -> Option<&Ident> {
    match pat {
        Pat::Ident(name) => Some(&name.ident),
        Pat::Type(typed) => bound(&typed.pat),
        _ => None,
    }
}

/// Renames `self` in an expression of the attribute where the body has another name for it.
fn in_place(expr: TokenStream, this: Option<&Ident>) -> TokenStream {
    let Some(this) = this else { return expr };
    expr.into_iter()
        .map(|token| match token {
            TokenTree::Ident(name) if name == "self" => {
                TokenTree::Ident(Ident::new(&this.to_string(), this.span()))
            }
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), in_place(group.stream(), Some(this)));
                inner.set_span(group.span());
                TokenTree::Group(inner)
            }
            other => other,
        })
        .collect()
}

/// Replaces the async block that a function returns.
fn replace_async(block: &Block, inside: &TokenStream) -> TokenStream {
    match block.stmts.as_slice() {
        [Stmt::Expr(Expr::Call(call), None)] => {
            let pin = &call.func;
            quote!({ #pin(#inside) })
        }
        _ => quote!({ #inside }),
    }
}
