//! The faults of one input, reported all at once.

use proc_macro2::TokenStream;
use quote::ToTokens;
use std::fmt::Display;

/// Faults found so far. Reading goes on after each, so that one compilation shows them all.
#[derive(Default)]
pub(crate) struct Faults {
    all: Option<syn::Error>,
    count: usize,
}

impl Faults {
    /// Notes a fault at the given tokens.
    pub(crate) fn at(&mut self, tokens: impl ToTokens, message: impl Display) {
        self.add(syn::Error::new_spanned(tokens, message));
    }

    /// Notes a fault.
    pub(crate) fn add(&mut self, fault: syn::Error) {
        self.count += 1;
        match &mut self.all {
            Some(all) => all.combine(fault),
            None => self.all = Some(fault),
        }
    }

    /// Gives the value, or notes the fault.
    pub(crate) fn take<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|fault| self.add(fault)).ok()
    }

    /// Tells how many there are, so that a reader knows whether a part of the input had any.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Gives all of them as one, to be noted among others.
    pub(crate) fn into_fault(self) -> Option<syn::Error> {
        self.all
    }

    /// Gives the `compile_error!` calls, or `None` without faults.
    ///
    /// The caller prints them beside a stand-in for the expansion, so that code which uses the item
    /// does not fail as well.
    pub(crate) fn into_errors(self) -> Option<TokenStream> {
        self.all.map(syn::Error::into_compile_error)
    }
}
