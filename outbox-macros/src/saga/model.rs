//! A saga, checked.

use super::options::{Options, StepOptions};
use crate::fallback::Faults;
use proc_macro2::{Ident, Span};
use std::collections::BTreeMap;
use syn::{
    Attribute, FnArg, ImplItem, ImplItemFn, ItemImpl, LitStr, Meta, Receiver, ReceiverKind,
    ReturnType,
};

/// The model of a block, which is printed.
pub(super) struct Model {
    pub(super) name: LitStr,
    pub(super) version: u32,
    pub(super) deadline: Option<std::time::Duration>,
    pub(super) steps: Vec<Step>,
    pub(super) hooks: Vec<Hook>,
}

/// A method that runs when the saga has ended or is stuck: which attribute it has, and its name.
pub(super) struct Hook {
    pub(super) attribute: Ident,
    pub(super) method: Ident,
}

/// One step.
pub(super) struct Step {
    pub(super) method: Ident,
    pub(super) name: LitStr,
    pub(super) options: StepOptions,
    /// Whether its compensation takes its output.
    pub(super) undo_takes_output: bool,
}

impl Model {
    /// Takes the steps' attributes off an impl block and checks them; `None` where something is
    /// missing, which is a fault.
    pub(super) fn take(
        block: &mut ItemImpl,
        options: &Options,
        faults: &mut Faults,
    ) -> Option<Self> {
        if let Some((path, _)) = &block.trait_ {
            faults.at(path, "a saga's methods are its type's own: write `impl PlaceOrder { .. }`");
        }
        let (mut found, mut hooks) = (Vec::new(), Vec::new());
        for item in &mut block.items {
            let ImplItem::Fn(method) = item else { continue };
            let step = take_step(&mut method.attrs, faults);
            hooks.extend(take_hooks(method, step.is_some(), faults));
            if let Some(options) = step {
                found.push((method.clone(), options));
            }
        }
        duplicates(&hooks, faults);
        let methods: BTreeMap<String, &ImplItemFn> = block
            .items
            .iter()
            .filter_map(|item| match item {
                ImplItem::Fn(method) => Some((method.sig.ident.to_string(), method)),
                _ => None,
            })
            .collect();
        let steps: Vec<Step> = found
            .into_iter()
            .map(|(method, options)| step(&method, options, &methods, faults))
            .collect();
        if steps.is_empty() {
            faults.at(
                &block.self_ty,
                "no method of this block is a step: write `#[step]` before those that are",
            );
        }
        pivots(&steps, faults);
        names(&steps, faults);
        groups(&steps, faults);
        if !options.name.is_given() {
            let message = "the name is missing: write `#[saga(name = \"place-order\")]`; it is stored with each saga, so \
                           that a rename in Rust changes nothing";
            faults.add(syn::Error::new(Span::call_site(), message));
        }
        Some(Self {
            name: options.name.get()?.clone(),
            version: options.version.get().copied().unwrap_or(1),
            deadline: options.deadline.get().map(|(deadline, _)| *deadline),
            steps,
            hooks,
        })
    }
}

/// The attributes of hooks, which are also the builder's methods.
const HOOKS: [&str; 3] = ["on_completed", "on_compensated", "on_stuck"];

/// Takes the attributes of hooks off a method, and checks its shape.
fn take_hooks(method: &mut ImplItemFn, is_step: bool, faults: &mut Faults) -> Vec<Hook> {
    let mut hooks = Vec::new();
    let mut kept = Vec::with_capacity(method.attrs.len());
    for attribute in method.attrs.drain(..) {
        let found = attribute
            .path()
            .get_ident()
            .filter(|ident| HOOKS.iter().any(|hook| *ident == hook))
            .cloned();
        let Some(ident) = found else {
            kept.push(attribute);
            continue;
        };
        if !matches!(attribute.meta, Meta::Path(_)) {
            faults.at(&attribute, format!("`#[{ident}]` has no options"));
        }
        hooks.push(Hook { attribute: ident, method: method.sig.ident.clone() });
    }
    method.attrs = kept;
    let Some(hook) = hooks.first() else { return hooks };
    let (sig, attribute) = (&method.sig, &hook.attribute);
    let reads = matches!(
        sig.inputs.first(),
        Some(FnArg::Receiver(Receiver { kind: ReceiverKind::Reference(_, _, None), .. }))
    );
    if is_step {
        faults.at(
            &sig.ident,
            format!("a step is no hook: let a method of its own be `#[{attribute}]`"),
        );
    } else if sig.asyncness.is_none()
        || !reads
        || sig.inputs.len() != 2
        || matches!(sig.output, ReturnType::Default)
    {
        let message = format!(
            "`#[{attribute}]` reads the saga's data: write `async fn {}(&self, cx: &StepContext) -> Result<(), StepError>`",
            sig.ident
        );
        faults.at(&sig.ident, message);
    }
    hooks
}

fn duplicates(hooks: &[Hook], faults: &mut Faults) {
    for (at, hook) in hooks.iter().enumerate() {
        if let Some(first) = hooks[..at].iter().find(|first| first.attribute == hook.attribute) {
            faults.at(
                &hook.method,
                format!(
                    "`{}` is `#[{}]` already; a saga has one at most",
                    first.method, hook.attribute
                ),
            );
        }
    }
}

/// Takes `#[step]` off a method; `None` where there is none.
fn take_step(attributes: &mut Vec<Attribute>, faults: &mut Faults) -> Option<StepOptions> {
    let mut options = None;
    let mut kept = Vec::with_capacity(attributes.len());
    for attribute in attributes.drain(..) {
        if !attribute.path().is_ident("step") {
            kept.push(attribute);
            continue;
        }
        if options.is_some() {
            faults.at(&attribute, "a method is a step once: keep one `#[step]`");
            continue;
        }
        options = Some(match &attribute.meta {
            Meta::Path(_) => StepOptions::default(),
            Meta::List(list) => match faults.take(list.parse_args_with(StepOptions::read)) {
                Some((options, read)) => {
                    if let Some(fault) = read.into_fault() {
                        faults.add(fault);
                    }
                    options
                }
                None => StepOptions::default(),
            },
            Meta::NameValue(_) => {
                faults.at(&attribute, "write the options in parentheses: `#[step(retries = 5)]`");
                StepOptions::default()
            }
        });
    }
    *attributes = kept;
    options
}

fn step(
    method: &ImplItemFn,
    options: StepOptions,
    methods: &BTreeMap<String, &ImplItemFn>,
    faults: &mut Faults,
) -> Step {
    let ident = &method.sig.ident;
    let name = options.name.get().cloned().unwrap_or_else(|| {
        let plain = ident.to_string();
        LitStr::new(&plain.trim_start_matches("r#").replace('_', "-"), ident.span())
    });
    shape(method, &options, faults);
    if options.is_remote() {
        if !options.timeout.is_given() {
            let message =
                "this step is remote: say how long its reply is awaited, `timeout = \"30s\"`";
            faults.at(ident, message);
        }
        if let Some(at) = options.merge.get() {
            faults.add(syn::Error::new(*at, "a remote step takes no outputs of a group"));
        }
    }
    if let (Some(_), Some(at), false) =
        (options.timeout.get(), options.no_timeout.get(), options.is_remote())
    {
        faults.add(syn::Error::new(
            *at,
            "`timeout` says how long an attempt may take, `no_timeout` that there is no limit: \
                                         keep one of them",
        ));
    }
    if let (Some(_), Some((_, second))) = (options.retry.get(), options.retries.get()) {
        faults.add(syn::Error::new(
            *second,
            "`retries` is short for `retry(max_attempts = ..)`: keep one of them",
        ));
    }
    if let (Some((_, at)), false) = (options.compensate_retry.get(), options.compensate.is_given())
    {
        faults.add(syn::Error::new(
            *at,
            "there is no compensation to try again: say which, `compensate = release_stock`",
        ));
    }
    let mut undo_takes_output = true;
    if let Some(undo) = options.compensate.get() {
        match methods.get(&undo.to_string()) {
            None => faults.at(undo, format!("there is no method `{undo}` in this block")),
            Some(undo) => match undo.sig.inputs.len() {
                3 => {}
                2 => undo_takes_output = false,
                _ => faults.at(
                    &undo.sig.ident,
                    if options.is_remote() {
                        "the compensation of a remote step takes the step's output, where it is known: write `async fn(&mut self, output: Option<..>, cx: &StepContext) -> Result<Command, StepError>`"
                    } else {
                        "a compensation takes its step's output: write `async fn(&mut self, output: .., cx: &StepContext) -> Result<(), StepError>`"
                    },
                ),
            },
        }
    }
    Step { method: ident.clone(), name, options, undo_takes_output }
}

/// Checks what can be seen of a method's shape; types are the builder's to check.
fn shape(method: &ImplItemFn, options: &StepOptions, faults: &mut Faults) {
    let sig = &method.sig;
    if sig.asyncness.is_none() {
        faults.at(sig.fn_token, format!("a step is async: write `async fn {}`", sig.ident));
    }
    if matches!(sig.output, ReturnType::Default) {
        faults.at(&sig.ident, "a step returns a `Result`: write `-> Result<(), StepError>`");
    }
    let (beside, merges) = (options.parallel.is_given(), options.merge.is_given());
    match sig.inputs.first() {
        Some(FnArg::Receiver(Receiver {
            kind: ReceiverKind::Reference(_, _, mutable), ..
        })) => {
            let receiver = sig.inputs.first();
            if beside && mutable.is_some() {
                faults.at(
                    receiver,
                    "other steps run at the same time: a step of a group takes `&self`",
                );
            } else if !beside && mutable.is_none() {
                faults.at(receiver, "a step takes `&mut self`, the saga's data");
            }
        }
        Some(FnArg::Receiver(receiver)) => {
            faults.at(receiver, "a step borrows the saga's data: write `&mut self`")
        }
        _ => faults.at(&sig.ident, "a step is a method: write `&mut self` first"),
    }
    let wanted = if merges { 3 } else { 2 };
    if matches!(sig.inputs.first(), Some(FnArg::Receiver(_))) && sig.inputs.len() != wanted {
        let example = if merges {
            "`(&mut self, outputs: (A, B), cx: &StepContext)`"
        } else {
            "`(&mut self, cx: &StepContext)`"
        };
        faults.at(&sig.ident, format!("this takes {example}"));
    }
}

fn pivots(steps: &[Step], faults: &mut Faults) {
    let mut pivot: Option<&Step> = None;
    for step in steps {
        if let Some(at) = step.options.pivot.get() {
            match pivot {
                Some(first) => {
                    let message =
                        format!("`{}` is the pivot already; a saga has one at most", first.method);
                    faults.add(syn::Error::new(*at, message));
                }
                None => pivot = Some(step),
            }
        }
        if let (Some(pivot), Some(undo)) = (pivot, step.options.compensate.get()) {
            let message = format!(
                "`{}` is the pivot: from it on nothing is undone, so this would never run",
                pivot.method
            );
            faults.at(undo, message);
        }
    }
}

fn names(steps: &[Step], faults: &mut Faults) {
    let mut seen: BTreeMap<String, &Step> = BTreeMap::new();
    for step in steps {
        if let Some(first) = seen.insert(step.name.value(), step) {
            let message = format!(
                "`{}` has the name `{}` already; names are stored and must differ",
                first.method,
                step.name.value()
            );
            faults.at(&step.name, message);
        }
    }
}

fn groups(steps: &[Step], faults: &mut Faults) {
    let group = |step: &Step| step.options.parallel.get().map(LitStr::value);
    let mut closed = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| group(&steps[before]));
        if let Some(before) = &before
            && group(step).as_ref() != Some(before)
        {
            closed.push(before.clone());
        }
        if let Some(name) = group(step) {
            if closed.contains(&name)
                && let Some(literal) = step.options.parallel.get()
            {
                faults.at(
                    literal,
                    format!(
                        "the steps of the group `{name}` stand next to each other: move this one"
                    ),
                );
            }
            let spans = [
                ("pivot", step.options.pivot.get().copied()),
                ("skip_if", step.options.skip_if.get().map(|s| s.1)),
                ("merge", step.options.merge.get().copied()),
            ];
            for (what, span) in spans {
                if let Some(span) = span {
                    faults.add(syn::Error::new(
                        span,
                        format!("a step of a parallel group cannot have `{what}`"),
                    ));
                }
            }
        } else if let (Some(span), None) = (step.options.merge.get(), &before) {
            faults.add(syn::Error::new(
                *span,
                "there is nothing to merge: the step before is in no parallel group",
            ));
        }
    }
}
