//! The arguments of `#[on]` and `#[on_command]`: the handler's name and settings.

use crate::{
    attr::{self, Slot},
    event::argument::{duration, flag},
    fallback::Faults,
};
use proc_macro2::Span;
use std::time::Duration;
use syn::{Attribute, LitStr, Token, parse::ParseStream};

/// Longest name of a handler in bytes: what the inbox takes.
const MAX_NAME: usize = 100;
const KNOWN: &[&str] =
    &["timeout", "no_timeout", "deferred_lock", "no_writes", "no_try", "alone", "renamed_from"];

/// The options behind the name in `#[on("bill-order", ..)]`.
#[derive(Default)]
pub(super) struct OnOptions {
    pub(super) timeout: Slot<(Duration, Span)>,
    pub(super) no_timeout: Slot<Span>,
    pub(super) deferred_lock: Slot<Span>,
    pub(super) no_writes: Slot<Span>,
    pub(super) alone: Slot<Span>,
    /// Why it must not be tried.
    pub(super) no_try: Slot<LitStr>,
    /// The name that the handler had before.
    pub(super) renamed_from: Slot<LitStr>,
}

impl OnOptions {
    /// Reads the name and all options of a mark that is called `on` or `on_command`, with the
    /// faults.
    pub(super) fn read(
        mark: &Attribute,
        called: &str,
    ) -> syn::Result<(Option<LitStr>, Self, Faults)> {
        let wrong = &format!(
            "the handler's name is stored with each message: write `#[{called}(\"bill-order\")]`"
        );
        let read = |input: ParseStream<'_>| {
            let (mut options, mut faults) = (Self::default(), Faults::default());
            let name: LitStr = input.parse().map_err(|_| syn::Error::new_spanned(mark, wrong))?;
            if !input.is_empty() {
                input.parse::<Token![,]>().map_err(|_| syn::Error::new_spanned(mark, wrong))?;
            }
            attr::each(input, &mut faults, |name, input, _| match name.to_string().as_str() {
                "timeout" => options.timeout.fill(name, duration(name, input)),
                "no_timeout" => options.no_timeout.fill(name, flag(name, input)),
                "deferred_lock" => options.deferred_lock.fill(name, flag(name, input)),
                "no_writes" => options.no_writes.fill(name, flag(name, input)),
                "alone" => options.alone.fill(name, flag(name, input)),
                "no_try" => options.no_try.fill(name, attr::string(name, input)),
                "renamed_from" => {
                    options.renamed_from.fill(name, attr::string(name, input).and_then(checked))
                }
                _ => Err(attr::unknown(name, &format!("`#[{called}]`"), KNOWN)),
            });
            if let (Some(_), Some(at)) = (options.timeout.get(), options.no_timeout.get()) {
                let message = "`timeout` says how long a run may take, `no_timeout` that there is no limit: keep one of them";
                faults.add(syn::Error::new(*at, message));
            }
            Ok((faults.take(checked(name)), options, faults))
        };
        // Without parentheses there is nothing to read.
        if mark.meta.require_list().is_err() {
            return Err(syn::Error::new_spanned(mark, wrong));
        }
        mark.parse_args_with(read)
    }

    /// Tells whether any option was given.
    pub(super) fn is_given(&self) -> bool {
        let Self { timeout, no_timeout, deferred_lock, no_writes, no_try, alone, renamed_from } =
            self;
        let flags = [no_timeout, deferred_lock, no_writes, alone];
        timeout.is_given()
            || no_try.is_given()
            || renamed_from.is_given()
            || flags.iter().any(|flag| flag.is_given())
    }
}

fn checked(name: LitStr) -> syn::Result<LitStr> {
    let rule = format!("a handler's name has 1 to {MAX_NAME} bytes and no control character");
    attr::limited(name, MAX_NAME, &rule)
}
