//! The arguments of the attribute.

use crate::{
    attr::{self, Slot},
    fallback::Faults,
};
use proc_macro2::{Ident, Span};
use syn::{Expr, LitInt, Path, parse::ParseStream, token::Paren};

const KNOWN: &[&str] = &[
    "tx",
    "outbox",
    "emit",
    "nested",
    "mandatory",
    "requires_new",
    "isolation",
    "read_only",
    "retry",
    "crate",
];
const LEVELS: &[&str] = &["ReadUncommitted", "ReadCommitted", "RepeatableRead", "Serializable"];
/// Most retries: with waits that double up to a second, ten take some six seconds already.
const MAX_RETRIES: u32 = 20;

/// The options of the attribute.
#[derive(Default)]
pub(super) struct Options {
    /// `tx = expression`: where the transaction comes from, and the name that it gets.
    pub(super) tx: Slot<(Ident, Expr)>,
    /// `outbox = expression`, for a transaction of SeaORM's.
    pub(super) outbox: Slot<(Ident, Expr)>,
    /// `emit = closure`.
    pub(super) emit: Slot<Expr>,
    pub(super) nested: Slot<Span>,
    pub(super) mandatory: Slot<Span>,
    pub(super) requires_new: Slot<Span>,
    pub(super) isolation: Slot<Ident>,
    pub(super) read_only: Slot<Span>,
    pub(super) retry: Slot<(Span, u32)>,
    /// `crate = path`.
    pub(super) root: Slot<Path>,
}

impl Options {
    /// Reads all of them, with the faults.
    pub(super) fn read(input: ParseStream<'_>) -> syn::Result<(Self, Faults)> {
        let (mut options, mut faults) = (Self::default(), Faults::default());
        attr::each(input, &mut faults, |name, input, _| options.one(name, input));
        Ok((options, faults))
    }

    fn one(&mut self, name: &Ident, input: ParseStream<'_>) -> syn::Result<()> {
        match name.to_string().as_str() {
            "tx" => {
                let example =
                    "`tx` says where the transaction comes from: write `tx = self.outbox`";
                let read = attr::value(name, input, example).map(|expr| (name.clone(), expr));
                self.tx.fill(name, read)
            }
            "outbox" => {
                let example =
                    "`outbox` says which outbox saves the event: write `outbox = self.outbox`";
                let read = attr::value(name, input, example).map(|expr| (name.clone(), expr));
                self.outbox.fill(name, read)
            }
            "emit" => {
                let example = "`emit` makes the event of what the function returns: write `emit = |order| OrderPlaced::from(order)`";
                self.emit.fill(name, attr::value(name, input, example))
            }
            "nested" => self.nested.fill(name, flag(name, input)),
            "mandatory" => self.mandatory.fill(name, flag(name, input)),
            "requires_new" => self.requires_new.fill(name, flag(name, input)),
            "isolation" => self.isolation.fill(name, level(name, input)),
            "read_only" => self.read_only.fill(name, flag(name, input)),
            "retry" => self.retry.fill(name, times(name, input)),
            "crate" => {
                let example =
                    "`crate` says where the framework is: write `crate = my_crate::outbox_sea_orm`";
                let read = attr::value(name, input, example);
                self.root.fill(name, read)
            }
            _ => Err(attr::unknown(name, "`#[transactional_outbox]`", KNOWN)),
        }
    }
}

fn flag(name: &Ident, input: ParseStream<'_>) -> syn::Result<Span> {
    if input.peek(syn::Token![=]) || input.peek(Paren) {
        return Err(syn::Error::new(
            name.span(),
            format!("`{name}` takes no value: write `{name}` alone"),
        ));
    }
    Ok(name.span())
}

fn level(name: &Ident, input: ParseStream<'_>) -> syn::Result<Ident> {
    let known = LEVELS.join("`, `");
    let wrong = format!("`isolation` is one of `{known}`");
    let path: Path = attr::value(name, input, &wrong)?;
    match path.segments.last() {
        Some(last) if LEVELS.contains(&last.ident.to_string().as_str()) => Ok(last.ident.clone()),
        _ => Err(syn::Error::new_spanned(path, wrong)),
    }
}

fn times(name: &Ident, input: ParseStream<'_>) -> syn::Result<(Span, u32)> {
    let wrong = format!(
        "`retry` is how often to repeat the transaction, from 1 to {MAX_RETRIES}: write `retry = 3`"
    );
    let times: LitInt = attr::value(name, input, &wrong)?;
    match times.base10_parse() {
        Ok(n @ 1..=MAX_RETRIES) => Ok((name.span(), n)),
        _ => Err(syn::Error::new_spanned(times, wrong)),
    }
}
