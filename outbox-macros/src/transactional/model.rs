//! A transactional function, checked.

use super::{options::Options, retry};
use crate::fallback::Faults;
use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::{
    Expr, ExprAsync, FnArg, GenericArgument, ItemFn, Pat, PathArguments, ReturnType, Stmt, Type,
    TypeParamBound, TypeReference,
};

/// The model that the expansion is printed from.
pub(super) struct Model<'f> {
    pub(super) function: &'f Ident,
    pub(super) body: Body<'f>,
    /// Type of the function's result; `None` where it cannot be named.
    pub(super) result: Option<Type>,
    /// The tokens of that type, for the spans of messages.
    pub(super) result_span: TokenStream,
    pub(super) source: Source<'f>,
    pub(super) propagation: &'static str,
    pub(super) isolation: Option<Ident>,
    pub(super) read_only: bool,
    pub(super) retry: Option<u32>,
    pub(super) emit: Option<&'f Expr>,
}

/// Where the statements of the function are.
pub(super) enum Body<'f> {
    /// In an `async fn`.
    Plain,
    /// In an async block that the function returns, as `#[async_trait]` leaves it.
    Returned(&'f ExprAsync),
}

/// Where the transaction comes from.
pub(super) enum Source<'f> {
    /// A parameter of the function.
    Parameter(Parameter),
    /// An expression of the attribute, and the name that the transaction gets.
    Expression(&'f Ident, &'f Expr),
    /// A parameter that is a transaction of SeaORM, and the outbox that saves the event.
    ForeignTx { txn: Ident, outbox: &'f Expr },
}

/// The parameter that takes the transaction.
pub(super) struct Parameter {
    /// Which one.
    pub(super) at: usize,
    /// Its name; `None` for `_`.
    pub(super) name: Option<Ident>,
    /// Its type as the user wrote it, without lifetime.
    pub(super) narrow: TokenStream,
    /// Whether callers may pass an outbox too.
    pub(super) widens: bool,
}

impl<'f> Model<'f> {
    /// Checks a function; `None` with a fault where something is missing.
    pub(super) fn check(
        function: &'f ItemFn,
        options: &'f Options,
        faults: &mut Faults,
    ) -> Option<Self> {
        let body = body(function, faults);
        let result = result_type(function, body.as_ref(), faults);
        let propagation = propagation(options, faults);
        combinations(options, faults);
        let source = source(function, options, faults);
        let nameless =
            |ty: &Type| ty.to_token_stream().into_iter().any(|token| token.to_string() == "impl");
        if options.retry.is_given() {
            let transaction = match &source {
                Some(Source::Parameter(parameter)) => Some(parameter.at),
                _ => None,
            };
            let before = match &body {
                Some(Body::Returned(block)) => super::expand::parts(&block.block).0,
                _ => &[],
            };
            retry::check(function, before, transaction, faults);
        }
        let result = result?;
        Some(Self {
            function: &function.sig.ident,
            body: body?,
            result_span: result.to_token_stream(),
            result: Some(result).filter(|ty| !nameless(ty)),
            source: source?,
            propagation,
            isolation: options.isolation.get().cloned(),
            read_only: options.read_only.is_given(),
            retry: options.retry.get().map(|(_, times)| *times),
            emit: options.emit.get(),
        })
    }
}

fn body<'f>(function: &'f ItemFn, faults: &mut Faults) -> Option<Body<'f>> {
    if function.sig.asyncness.is_some() {
        return Some(Body::Plain);
    }
    if let Some(block) = returned(function) {
        return Some(Body::Returned(block));
    }
    let name = &function.sig.ident;
    faults.at(function.sig.fn_token, format!("a transaction is async: write `async fn {name}`"));
    None
}

/// Finds the async block in `{ Box::pin(async move { .. }) }` or `{ async move { .. } }`.
pub(super) fn returned(function: &ItemFn) -> Option<&ExprAsync> {
    let [Stmt::Expr(tail, None)] = function.block.stmts.as_slice() else { return None };
    match tail {
        Expr::Async(block) => Some(block),
        Expr::Call(call) => {
            match (call.func.to_token_stream().to_string().ends_with("pin"), call.args.first()) {
                (true, Some(Expr::Async(block))) if call.args.len() == 1 => Some(block),
                _ => None,
            }
        }
        _ => None,
    }
}

fn result_type(function: &ItemFn, body: Option<&Body<'_>>, faults: &mut Faults) -> Option<Type> {
    let wrong = "a transactional function returns a `Result`: `Ok` commits and `Err` rolls back";
    let ReturnType::Type(_, returned) = &function.sig.output else {
        faults.at(&function.sig.ident, format!("{wrong}; write `-> Result<(), Error>`"));
        return None;
    };
    let result = match body {
        Some(Body::Returned(_)) => output(returned),
        _ => Some((**returned).clone()),
    };
    if result.is_none() {
        faults.at(
            returned,
            format!("{wrong}; write `async fn`, so that it can be seen what this one returns"),
        );
    }
    result
}

/// Finds `T` in `Pin<Box<dyn Future<Output = T> ..>>`, `impl Future<Output = T> ..` and
/// `BoxFuture<T>`.
fn output(ty: &Type) -> Option<Type> {
    let bounds = match ty {
        Type::TraitObject(object) => &object.bounds,
        Type::ImplTrait(opaque) => &opaque.bounds,
        Type::Path(path) => {
            let last = path.path.segments.last()?;
            let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
            let inner = arguments.args.iter().rev().find_map(|argument| match argument {
                GenericArgument::Type(inner) => Some(inner),
                _ => None,
            })?;
            return if last.ident == "BoxFuture" { Some(inner.clone()) } else { output(inner) };
        }
        _ => return None,
    };
    bounds.iter().find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else { return None };
        let last = bound.path.segments.last().filter(|last| last.ident == "Future")?;
        let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
        arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::AssocType(output) if output.ident == "Output" => {
                Some(output.ty.clone())
            }
            _ => None,
        })
    })
}

fn propagation(options: &Options, faults: &mut Faults) -> &'static str {
    let given: Vec<(&'static str, Span)> = [
        ("nested", "Nested", &options.nested),
        ("mandatory", "Mandatory", &options.mandatory),
        ("requires_new", "RequiresNew", &options.requires_new),
    ]
    .into_iter()
    .filter_map(|(_, variant, slot)| slot.get().map(|span| (variant, *span)))
    .collect();
    if let [_, (_, second), ..] = given.as_slice() {
        let message = "choose one of `nested`, `mandatory` and `requires_new`";
        faults.add(syn::Error::new(*second, message));
    }
    given.first().map_or("Required", |(variant, _)| variant)
}

/// Notes options that exclude each other.
fn combinations(options: &Options, faults: &mut Faults) {
    if let Some((retry, _)) = options.retry.get()
        && (options.nested.is_given() || options.mandatory.is_given())
    {
        let message =
            "only a whole transaction can be repeated: put `retry` on the function that opens it";
        faults.add(syn::Error::new(*retry, message));
    }
    if let (Some(read_only), true) = (options.read_only.get(), options.emit.is_given()) {
        faults.add(syn::Error::new(
            *read_only,
            "an event is written: without `emit`, or without `read_only`",
        ));
    }
    if let (Some(read_only), true) = (options.read_only.get(), options.nested.is_given()) {
        faults.add(syn::Error::new(
            *read_only,
            "a savepoint of a transaction that is written in is written in too: remove `read_only`",
        ));
    }
    let Some((outbox, _)) = options.outbox.get() else { return };
    let of_ours = "belongs to transactions of the outbox; with `outbox = ..` the transaction is the caller's own";
    let spans = [
        ("tx", options.tx.get().map(|(name, _)| name.span())),
        ("nested", options.nested.get().copied()),
        ("mandatory", options.mandatory.get().copied()),
        ("requires_new", options.requires_new.get().copied()),
        ("isolation", options.isolation.get().map(Ident::span)),
        ("read_only", options.read_only.get().copied()),
        ("retry", options.retry.get().map(|(span, _)| *span)),
    ];
    for (name, span) in spans {
        if let Some(span) = span {
            faults.add(syn::Error::new(span, format!("`{name}` {of_ours}")));
        }
    }
    if !options.emit.is_given() {
        let message = "`outbox = ..` alone does nothing: say what to save with `emit = |value| Event::from(value)`";
        faults.add(syn::Error::new(outbox.span(), message));
    }
}

fn source<'f>(
    function: &'f ItemFn,
    options: &'f Options,
    faults: &mut Faults,
) -> Option<Source<'f>> {
    let parameters = parameters(function, faults)?;
    if let Some((_, outbox)) = options.outbox.get() {
        return foreign_tx(function, faults).map(|txn| Source::ForeignTx { txn, outbox });
    }
    match (options.tx.get(), parameters.as_slice()) {
        (Some((name, expr)), []) => Some(Source::Expression(name, expr)),
        (Some((name, _)), [_, ..]) => {
            faults.at(
                name,
                "the transaction is a parameter already: remove `tx = ..`, or the parameter",
            );
            None
        }
        (None, [(at, reference)]) => {
            let widens = !options.mandatory.is_given();
            Some(Source::Parameter(parameter(function, *at, reference, widens)))
        }
        (None, [_, (at, _), ..]) => {
            faults.at(
                &function.sig.inputs[*at],
                "a function works in one transaction: keep one `&OutboxTransaction`",
            );
            None
        }
        (None, []) if options.tx.is_faulty() || options.outbox.is_faulty() => None,
        (None, []) => {
            no_transaction(function, faults);
            None
        }
    }
}

/// Finds the parameters that are `&OutboxTransaction`.
fn parameters<'f>(
    function: &'f ItemFn,
    faults: &mut Faults,
) -> Option<Vec<(usize, &'f TypeReference)>> {
    let mut found = Vec::new();
    for (at, input) in function.sig.inputs.iter().enumerate() {
        let FnArg::Typed(input) = input else { continue };
        match &*input.ty {
            Type::Reference(reference) if is(&reference.elem, "OutboxTransaction") => {
                match reference.mutability {
                    None => found.push((at, reference)),
                    Some(_) => {
                        faults.at(
                            reference,
                            "a shared reference is enough: write `&OutboxTransaction`",
                        );
                        return None;
                    }
                }
            }
            owned if is(owned, "OutboxTransaction") => {
                faults.at(
                    owned,
                    "the attribute commits, so take a reference: write `&OutboxTransaction`",
                );
                return None;
            }
            _ => {}
        }
    }
    Some(found)
}

fn is(ty: &Type, name: &str) -> bool {
    match ty {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == name),
        Type::Paren(inner) => is(&inner.elem, name),
        Type::Group(inner) => is(&inner.elem, name),
        _ => false,
    }
}

fn parameter(function: &ItemFn, at: usize, reference: &TypeReference, widens: bool) -> Parameter {
    let name = match &function.sig.inputs[at] {
        FnArg::Typed(input) => match &*input.pat {
            Pat::Ident(name) => Some(name.ident.clone()),
            _ => None,
        },
        FnArg::Receiver(_) => None,
    };
    let (and, elem) = (reference.and_token, &reference.elem);
    Parameter { at, name, narrow: quote!(#and #elem), widens }
}

/// Finds the parameter that is a transaction of SeaORM.
fn foreign_tx(function: &ItemFn, faults: &mut Faults) -> Option<Ident> {
    let mut found = function.sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(input) => match (&*input.ty, &*input.pat) {
            (Type::Reference(ty), Pat::Ident(name))
                if is(&ty.elem, "DatabaseTransaction") || name.ident == "txn" =>
            {
                Some(name.ident.clone())
            }
            _ => None,
        },
        FnArg::Receiver(_) => None,
    });
    match (found.next(), found.next()) {
        (Some(txn), None) => Some(txn),
        (Some(_), Some(second)) => {
            faults
                .at(second, "a function works in one transaction: keep one `&DatabaseTransaction`");
            None
        }
        (None, _) => {
            let message =
                "no transaction here: with `outbox = ..`, take one as `txn: &DatabaseTransaction`";
            faults.at(&function.sig.ident, message);
            None
        }
    }
}

/// Notes that no parameter is a transaction, and what to write instead.
fn no_transaction(function: &ItemFn, faults: &mut Faults) {
    for input in &function.sig.inputs {
        let FnArg::Typed(input) = input else { continue };
        let inner = match &*input.ty {
            Type::Reference(reference) => &reference.elem,
            other => other,
        };
        let text = inner.to_token_stream().to_string();
        let advice = if is(inner, "DatabaseTransaction") {
            "to save an event in the caller's own transaction, write `#[transactional_outbox(outbox = .., emit = ..)]`"
        } else if is(inner, "Outbox") || text.contains("Transactional") {
            "write `&OutboxTransaction` here; callers may still pass the outbox"
        } else if is(inner, "DatabaseConnection") || is(inner, "DbConn") {
            "write `&OutboxTransaction` here; callers pass the outbox or a transaction of it"
        } else {
            continue;
        };
        faults.at(&input.ty, advice);
        return;
    }
    let message = "no transaction here: add a parameter `tx: &OutboxTransaction`, or say where it comes from with \
                   `#[transactional_outbox(tx = self.outbox)]`";
    faults.at(&function.sig.ident, message);
}
