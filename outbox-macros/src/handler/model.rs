//! The handlers of an impl block, checked.

use super::options::OnOptions;
use crate::fallback::Faults;
use proc_macro2::Ident;
use std::collections::HashSet;
use syn::{
    Attribute, FnArg, ImplItem, ImplItemFn, ItemImpl, LitStr, ReceiverKind, ReturnType, Signature,
    Type,
};

/// Marks a handler.
const ON: &str = "on";
/// Marks a handler of commands of sagas.
const ON_COMMAND: &str = "on_command";
const EXAMPLE: &str =
    "write `async fn bill(&self, event: OrderPlaced, cx: &HandlerContext) -> Result<(), Error>`";

/// The model that is printed beside the block.
pub(super) struct Model {
    pub(super) handlers: Vec<Handler>,
}

/// One method that is a handler.
pub(super) struct Handler {
    /// The stable name.
    pub(super) name: LitStr,
    pub(super) options: OnOptions,
    /// Whether it handles commands of sagas.
    pub(super) answers: bool,
    pub(super) method: Ident,
    pub(super) event: Type,
    /// The context, without its reference.
    pub(super) context: Type,
}

impl Model {
    /// Checks a block, and takes `#[on(..)]` and `#[on_command(..)]` off its methods; `None` with a
    /// fault where something is missing.
    pub(super) fn check(block: &mut ItemImpl, faults: &mut Faults) -> Option<Self> {
        if let Some((path, _)) = &block.trait_ {
            faults
                .at(path, "handlers are a type's own methods: put `#[event_handler]` on an impl block without a trait");
        }
        let (mut handlers, mut names, mut marked) = (Vec::new(), HashSet::new(), 0);
        for item in &mut block.items {
            let ImplItem::Fn(method) = item else { continue };
            let marks = marks(method);
            let Some((first, others)) = marks.split_first() else { continue };
            marked += 1;
            let answers = first.path().is_ident(ON_COMMAND);
            for other in others {
                let message = if other.path().is_ident(ON_COMMAND) == answers {
                    format!(
                        "`#[{}(..)]` is given twice; keep one of them, and one name",
                        mark_of(first)
                    )
                } else {
                    "a handler handles commands of sagas, `#[on_command(..)]`, or takes them as events, `#[on(..)]`: keep one of \
                     them; events run it in either case"
                        .to_owned()
                };
                faults.at(other, message);
            }
            let mark = faults.take(OnOptions::read(first, mark_of(first)));
            let mark = mark.and_then(|(name, options, found)| {
                if let Some(fault) = found.into_fault() {
                    faults.add(fault);
                }
                Some((name?, options))
            });
            if let Some((name, _)) = &mark
                && !names.insert(name.value())
            {
                let message = format!(
                    "two handlers are called \"{}\": each has a name of its own",
                    name.value()
                );
                faults.at(name, message);
            }
            let shape = shape(&method.sig, faults);
            if let (Some((name, options)), Some((event, context))) = (mark, shape) {
                let method = method.sig.ident.clone();
                handlers.push(Handler { name, options, answers, method, event, context });
            }
        }
        for before in
            handlers.iter().filter_map(|handler: &Handler| handler.options.renamed_from.get())
        {
            if names.contains(&before.value()) {
                let message = format!(
                    "`renamed_from` names what the handler was called before, and \"{}\" is a handler's name now: leave it out, \
                     or give that one another name",
                    before.value()
                );
                faults.at(before, message);
            }
        }
        if marked == 0 && block.trait_.is_none() {
            faults.at(
                &block.self_ty,
                "no handler here: write `#[on(\"a-stable-name\")]` above each method that is one",
            );
        }
        (marked > 0 && handlers.len() == marked).then_some(Self { handlers })
    }
}

/// Takes every `#[on(..)]` and `#[on_command(..)]` off a method.
fn marks(method: &mut ImplItemFn) -> Vec<Attribute> {
    let is_mark = |a: &Attribute| a.path().is_ident(ON) || a.path().is_ident(ON_COMMAND);
    let (marks, others) = std::mem::take(&mut method.attrs).into_iter().partition(is_mark);
    method.attrs = others;
    marks
}

fn mark_of(mark: &Attribute) -> &'static str {
    if mark.path().is_ident(ON_COMMAND) { ON_COMMAND } else { ON }
}

/// Checks a method, and gives its parameters.
fn shape(sig: &Signature, faults: &mut Faults) -> Option<(Type, Type)> {
    let before = faults.count();
    if sig.asyncness.is_none() {
        faults.at(sig.fn_token, format!("a handler is async: write `async fn {}`", sig.ident));
    }
    if let Some(parameter) = sig.generics.params.first() {
        faults.at(
            parameter,
            "a handler takes one type of event: it has no parameters of types or lifetimes",
        );
    }
    match sig.inputs.first() {
        Some(FnArg::Receiver(receiver))
            if matches!(receiver.kind, ReceiverKind::Reference(_, _, None)) => {}
        Some(FnArg::Receiver(receiver)) => {
            faults.at(receiver, "many run at once: a handler takes `&self`")
        }
        _ => faults.at(&sig.ident, format!("a handler takes `&self`: {EXAMPLE}")),
    }
    if matches!(sig.output, ReturnType::Default) {
        let message = "a handler returns a `Result`: `Ok` commits and `Err` rolls back; write `-> Result<(), Error>`";
        faults.at(&sig.ident, message);
    }
    let typed: Vec<&Type> = sig
        .inputs
        .iter()
        .filter_map(|input| if let FnArg::Typed(input) = input { Some(&*input.ty) } else { None })
        .collect();
    let taken = match typed.as_slice() {
        [event, context] => taken(event, context, faults),
        _ => {
            faults.at(&sig.ident, format!("a handler takes an event and its context: {EXAMPLE}"));
            None
        }
    };
    taken.filter(|_| faults.count() == before)
}

fn taken(event: &Type, context: &Type, faults: &mut Faults) -> Option<(Type, Type)> {
    if matches!(event, Type::Reference(_)) {
        faults.at(event, "the event is the handler's own: take it by value");
    }
    match context {
        Type::Reference(reference) if reference.mutability.is_none() => {
            Some((event.clone(), (*reference.elem).clone()))
        }
        other => {
            faults.at(other, "the context is borrowed: write `cx: &HandlerContext`");
            None
        }
    }
}
