//! Printing the function.

use super::model::{Body, Model, Parameter, Source};
use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    Block, Expr, FnArg, ItemFn, Lifetime, LocalInit, Pat, Stmt, Type, parse_quote, spanned::Spanned,
};

/// Prints a valid function.
pub(super) fn function(function: &ItemFn, model: &Model<'_>, root: &TokenStream) -> TokenStream {
    let mut function = function.clone();
    let mut origin = None;
    if let Source::Parameter(parameter) = &model.source {
        origin = Some(take(&mut function.sig.inputs[parameter.at], parameter, root));
    }
    let block = match &model.body {
        Body::Plain => {
            wrap(&function.block, &TokenStream::new(), origin.as_ref(), None, model, root)
        }
        Body::Returned(block) => {
            let (before, body) = parts(&block.block);
            let this = before.iter().find_map(receiver);
            let wrapped = wrap(body, &quote!(#(#before)*), origin.as_ref(), this, model, root);
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
    // One that returns its future, as `#[async_trait]` leaves it, gives what callers expect already.
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

/// Widens the parameter, and gives the expression of what the caller passed.
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
    quote!(#root::Transactional::__origin(#name))
}

/// Prints the statements that enter, run the body and end.
fn wrap(
    body: &Block,
    before: &TokenStream,
    origin: Option<&TokenStream>,
    this: Option<&Ident>,
    model: &Model<'_>,
    root: &TokenStream,
) -> TokenStream {
    let scope = internal("scope");
    let answer = internal("answer");
    let repeats = internal("repeats");
    let typed = model.answer.as_ref().map(|ty| quote!(: #ty));
    // At the answer's type: there it is told when it is no `Result`, or its error has no place for ours.
    let span = model
        .answer_span
        .clone()
        .into_iter()
        .next()
        .map_or_else(Span::call_site, |token| token.span());
    let named = model.answer.as_ref().map_or_else(|| quote!(_), ToTokens::to_token_stream);
    let (source, origin, tx) = match &model.source {
        Source::Parameter(parameter) => (None, origin.cloned(), binding(parameter, &scope)),
        Source::Expression(name, expr) => {
            let source = internal("source");
            let expr = in_place(expr.to_token_stream(), this);
            // A method that only calls others needs no name for it.
            let tx = quote!(#[allow(unused_variables)] let #name: &#root::OutboxTransaction = #scope.tx(););
            let origin = quote!(#root::Transactional::__origin(#source).here());
            (Some(quote!(let #source = &(#expr);)), Some(origin), tx)
        }
        Source::Foreign { txn, outbox } => {
            let outbox = in_place(outbox.to_token_stream(), this);
            let run = run(body, &TokenStream::new(), model);
            let emit = model.emit.map(event_of);
            let new = quote_spanned!(span=> #root::Foreign::<#named>::new);
            return quote!({
                #before
                let #scope = #new(&(#outbox));
                let #answer #typed = #run.await;
                #scope.emit(#txn, #answer, #emit).await
            });
        }
    };
    let run = run(body, &tx, model);
    let run = quote!(#scope.within(#run).await);
    let entry = entry(model, root);
    let emit =
        model.emit.map(event_of).map(|emit| quote!(let #answer = #scope.emit(#answer, #emit);));
    let once = |enter: TokenStream, end: TokenStream| {
        quote! {
            let #scope = match #enter.await {
                ::core::result::Result::Ok(#scope) => #scope,
                ::core::result::Result::Err(#answer) => return #answer,
            };
            let #answer #typed = #run;
            #emit
            #end
        }
    };
    let Some(times) = model.retry else {
        let enter = quote_spanned!(span=> #root::enter::<#named>);
        let once = once(quote!(#enter(#origin, #entry)), quote!(#scope.finish(#answer).await));
        return quote!({ #before #source #once });
    };
    let enter = quote_spanned!(span=> #root::enter_or_repeat::<#named>);
    let end = quote! {
        if let ::core::ops::ControlFlow::Break(#answer) = #scope.finish_or_repeat(#answer, &mut #repeats).await {
            break #answer;
        }
    };
    let once = once(quote!(#enter(#origin, #entry, &mut #repeats)), end);
    quote!({
        #before
        #source
        let mut #repeats = #root::Repeats::new(#times);
        loop { #once }
    })
}

/// Names the transaction for the body: with the user's own tokens, so that names and imports count as used.
fn binding(parameter: &Parameter, scope: &Ident) -> TokenStream {
    let narrow = &parameter.narrow;
    let name = parameter.name.as_ref().map_or_else(|| quote!(_), ToTokens::to_token_stream);
    quote!(let #name: #narrow = #scope.tx();)
}

/// Makes the body a future, so that `return` and `?` end it and nothing else.
fn run(body: &Block, tx: &TokenStream, model: &Model<'_>) -> TokenStream {
    // Says the type first, so that a wrong value is told where it stands.
    let hint = model.answer.as_ref().map(|ty| {
        let answer = internal("answer");
        quote!(if let ::core::option::Option::Some(#answer) = ::core::option::Option::None::<#ty> {
            return #answer;
        })
    });
    let stmts = &body.stmts;
    let span = body.brace_token.span.join();
    let block = quote_spanned!(span=> { #hint #tx #(#stmts)* });
    quote!(async #block)
}

/// Prints the function that makes the event. A path such as `OrderPlaced::from` names a function for one lifetime; inside
/// a closure it is one for all of them.
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

/// Splits what `#[async_trait]` made into the statements before the user's own, and these; other blocks are the user's.
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

/// The name under which `#[async_trait]` holds `self`.
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

/// Writes an expression of the attribute for the place where it goes: there `self` may have another name.
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

/// Puts another async block in the place of the one that a function returns.
fn replace_async(block: &Block, inside: &TokenStream) -> TokenStream {
    match block.stmts.as_slice() {
        [Stmt::Expr(Expr::Call(call), None)] => {
            let pin = &call.func;
            quote!({ #pin(#inside) })
        }
        _ => quote!({ #inside }),
    }
}
