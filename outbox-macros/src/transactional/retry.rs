//! The parameters of a function that is retried: none that its first run may have changed.
//!
//! Each run works with the parameters themselves. The compiler refuses one that was moved into the
//! first run. It does not see one that the first run has drained, and the second run would commit
//! the rest.

use crate::fallback::Faults;
use quote::ToTokens;
use syn::{
    FnArg, ItemFn, ParenthesizedGenericArguments, Pat, PatIdent, Receiver, ReceiverKind, Stmt,
    Type, TypeFnPtr, TypeReference, visit::Visit,
};

/// Notes the parameters that one run could leave to the next in another state. `before` are the
/// statements before the body, which run once; `transaction` is the parameter that each run gets
/// anew.
pub(super) fn check(
    function: &ItemFn,
    before: &[Stmt],
    transaction: Option<usize>,
    faults: &mut Faults,
) {
    for (at, input) in
        function.sig.inputs.iter().enumerate().filter(|(at, _)| Some(*at) != transaction)
    {
        match input {
            FnArg::Receiver(receiver) => receiver_stays(receiver, faults),
            FnArg::Typed(input) => {
                let bindings = Bindings::of(&input.pat);
                for name in &bindings {
                    binding(name, faults);
                }
                if let (true, Some(reference)) = (bindings.is_empty(), unique(&input.ty)) {
                    let name = shown(&input.pat, at);
                    let message = format!(
                        "`retry` runs the function again, with what the first run has left in {name}: take it by value or by \
                         `&`, and return what is to be changed, or repeat the call outside"
                    );
                    faults.at(reference, message);
                }
            }
        }
    }
    for statement in before {
        if let Stmt::Local(local) = statement {
            // `#[async_trait]` binds the receiver under this name; its fault is at the signature.
            let own = Bindings::of(&local.pat).into_iter().filter(|name| name.ident != "__self");
            own.for_each(|name| binding(name, faults));
        }
    }
}

fn binding(name: &PatIdent, faults: &mut Faults) {
    let ident = &name.ident;
    let message = format!(
        "`retry` runs the function again, with what the first run has left in `{ident}`: take it without `mut`, and begin with \
         `let mut {ident} = {ident}.clone();`"
    );
    faults.at(name, message);
}

fn receiver_stays(receiver: &Receiver, faults: &mut Faults) {
    let changes = match &receiver.kind {
        ReceiverKind::Value => receiver.mutability.is_some(),
        ReceiverKind::Reference(_, _, mutability) => mutability.is_some(),
        ReceiverKind::Typed(_, ty) => receiver.mutability.is_some() || unique(ty).is_some(),
        // A form that `syn` does not know yet.
        _ => receiver.mutability.is_some(),
    };
    if changes {
        let message = "`retry` runs the method again, with what the first run has left in `self`: take `&self`, and return what is \
                       to be changed";
        faults.at(receiver, message);
    }
}

fn shown(pat: &Pat, at: usize) -> String {
    match pat {
        Pat::Ident(name) => format!("`{}`", name.ident),
        Pat::Wild(_) => format!("parameter {}", at + 1),
        other => format!("`{}`", other.to_token_stream()),
    }
}

/// Finds the names that a pattern binds as `mut`.
#[derive(Default)]
struct Bindings<'p>(Vec<&'p PatIdent>);

impl<'p> Bindings<'p> {
    fn of(pat: &'p Pat) -> Vec<&'p PatIdent> {
        let mut found = Self::default();
        found.visit_pat(pat);
        found.0
    }
}

impl<'p> Visit<'p> for Bindings<'p> {
    fn visit_pat_ident(&mut self, name: &'p PatIdent) {
        if name.mutability.is_some() {
            self.0.push(name);
        }
        syn::visit::visit_pat_ident(self, name);
    }
}

/// Finds a unique reference in a type, except in the parameters and results of functions.
fn unique(ty: &Type) -> Option<&TypeReference> {
    #[derive(Default)]
    struct Unique<'t>(Option<&'t TypeReference>);
    impl<'t> Visit<'t> for Unique<'t> {
        fn visit_type_reference(&mut self, reference: &'t TypeReference) {
            if reference.mutability.is_some() {
                self.0.get_or_insert(reference);
            }
            syn::visit::visit_type_reference(self, reference);
        }

        fn visit_type_fn_ptr(&mut self, _: &'t TypeFnPtr) {}

        fn visit_parenthesized_generic_arguments(&mut self, _: &'t ParenthesizedGenericArguments) {}
    }
    let mut found = Unique::default();
    found.visit_type(ty);
    found.0
}
