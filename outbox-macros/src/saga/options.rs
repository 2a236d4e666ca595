//! The arguments of `#[saga]` and `#[step]`.

use crate::{
    attr::{self, Slot},
    event::argument::{Retry, duration, flag, number, path},
    fallback::Faults,
};
use proc_macro2::{Ident, Span};
use std::time::Duration;
use syn::{Expr, LitInt, LitStr, Path, Token, Type, parse::ParseStream};

const OF_SAGA: &[&str] = &["name", "version", "deadline", "crate"];
const OF_STEP: &[&str] = &[
    "name",
    "compensate",
    "retries",
    "retry",
    "compensate_retry",
    "timeout",
    "no_timeout",
    "skip_if",
    "pivot",
    "parallel",
    "merge",
    "remote",
    "reply",
    "reject",
    "source",
];
/// Longest name in bytes, as the tables hold it.
const MAX_NAME: usize = 100;
/// Longest source in bytes, as of every event.
const MAX_SOURCE: usize = 255;

/// What was written in `#[saga(..)]`.
#[derive(Default)]
pub(super) struct Options {
    pub(super) name: Slot<LitStr>,
    pub(super) version: Slot<u32>,
    pub(super) deadline: Slot<(Duration, Span)>,
    /// `crate = path`.
    pub(super) root: Slot<Path>,
}

impl Options {
    /// Reads all of them, with the faults.
    pub(super) fn read(input: ParseStream<'_>) -> syn::Result<(Self, Faults)> {
        let (mut options, mut faults) = (Self::default(), Faults::default());
        attr::each(input, &mut faults, |name, input, _| match name.to_string().as_str() {
            "name" => options.name.fill(name, stable_name(name, input)),
            "version" => options.version.fill(name, number(name, input, i32::MAX.unsigned_abs())),
            "deadline" => options.deadline.fill(name, duration(name, input)),
            "crate" => options.root.fill(name, path(name, input)),
            _ => Err(attr::unknown(name, "`#[saga]`", OF_SAGA)),
        });
        Ok((options, faults))
    }
}

/// What was written in `#[step(..)]`.
#[derive(Default)]
pub(super) struct StepOptions {
    pub(super) name: Slot<LitStr>,
    pub(super) compensate: Slot<Ident>,
    pub(super) retries: Slot<(u32, Span)>,
    pub(super) retry: Slot<(Retry, Span)>,
    pub(super) compensate_retry: Slot<(Retry, Span)>,
    pub(super) timeout: Slot<(Duration, Span)>,
    pub(super) no_timeout: Slot<Span>,
    pub(super) skip_if: Slot<(Expr, Span)>,
    pub(super) pivot: Slot<Span>,
    pub(super) parallel: Slot<LitStr>,
    pub(super) merge: Slot<Span>,
    /// The consumer that replies, where it is named.
    pub(super) remote: Slot<Option<LitStr>>,
    /// The source of its replies.
    pub(super) source: Slot<LitStr>,
    pub(super) reply: Slot<Type>,
    pub(super) reject: Slot<Type>,
}

impl StepOptions {
    /// Tells whether the step is remote.
    pub(super) fn is_remote(&self) -> bool {
        self.remote.is_given()
            || self.reply.is_given()
            || self.reject.is_given()
            || self.source.is_given()
    }

    /// Reads all of them, with the faults.
    pub(super) fn read(input: ParseStream<'_>) -> syn::Result<(Self, Faults)> {
        let (mut options, mut faults) = (Self::default(), Faults::default());
        attr::each(input, &mut faults, |name, input, faults| options.one(name, input, faults));
        Ok((options, faults))
    }

    fn one(
        &mut self,
        name: &Ident,
        input: ParseStream<'_>,
        faults: &mut Faults,
    ) -> syn::Result<()> {
        match name.to_string().as_str() {
            "name" => self.name.fill(name, stable_name(name, input)),
            "compensate" => {
                let example =
                    "`compensate` names a method of this block: write `compensate = release_stock`";
                self.compensate.fill(name, attr::value(name, input, example))
            }
            "retries" => self.retries.fill(name, retries(name, input)),
            "retry" => {
                let read = Retry::read(name, input, faults).map(|retry| (retry, name.span()));
                self.retry.fill(name, read)
            }
            "compensate_retry" => {
                let read = Retry::read(name, input, faults).map(|retry| (retry, name.span()));
                self.compensate_retry.fill(name, read)
            }
            "timeout" => self.timeout.fill(name, duration(name, input)),
            "no_timeout" => self.no_timeout.fill(name, flag(name, input)),
            "skip_if" => {
                let example =
                    "`skip_if` takes a function of the data: write `skip_if = |order| !order.gift`";
                let read = attr::value(name, input, example).map(|expr| (expr, name.span()));
                self.skip_if.fill(name, read)
            }
            "pivot" => self.pivot.fill(name, flag(name, input)),
            "parallel" => self.parallel.fill(name, stable_name(name, input)),
            "merge" => self.merge.fill(name, flag(name, input)),
            "remote" if input.peek(Token![=]) => {
                self.remote.fill(name, stable_name(name, input).map(Some))
            }
            "remote" => self.remote.fill(name, flag(name, input).map(|_| None)),
            "source" => self.source.fill(name, attr::string(name, input).and_then(a_source)),
            "reply" => {
                let example = "`reply` names the event that is the step's output: write `reply = PaymentCaptured`";
                self.reply.fill(name, attr::value(name, input, example))
            }
            "reject" => {
                let example = "`reject` names the event that rejects the command: write `reject = PaymentDeclined`";
                self.reject.fill(name, attr::value(name, input, example))
            }
            _ => Err(attr::unknown(name, "`#[step]`", OF_STEP)),
        }
    }
}

/// Reads `= "place-order"`.
fn stable_name(name: &Ident, input: ParseStream<'_>) -> syn::Result<LitStr> {
    let text = attr::string(name, input)?;
    let rule =
        format!("a name that is stored has 1 to {MAX_NAME} bytes without control characters");
    attr::limited(text, MAX_NAME, &rule)
}

/// Checks a source.
fn a_source(text: LitStr) -> syn::Result<LitStr> {
    let rule = format!("a source has 1 to {MAX_SOURCE} bytes without control characters");
    attr::limited(text, MAX_SOURCE, &rule)
}

/// Reads `= 5`, from 0.
fn retries(name: &Ident, input: ParseStream<'_>) -> syn::Result<(u32, Span)> {
    let wrong = "`retries` is how often the step is tried again: write `retries = 5`";
    let literal: LitInt = attr::value(name, input, wrong)?;
    match literal.base10_parse() {
        Ok(times) => Ok((times, literal.span())),
        Err(_) => Err(syn::Error::new(literal.span(), wrong)),
    }
}
