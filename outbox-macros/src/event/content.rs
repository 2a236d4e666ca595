//! Payloads of an enum: the content of a variant alone.
//!
//! serde does the work, on two private copies of the enum (its `remote` feature): one without a tag
//! for writing, one that takes the variant's name from the envelope for reading. So fields, their
//! attributes and their bytes are those of the user's type.

use super::serde;
use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote};
use std::collections::BTreeSet;
use syn::{
    DataEnum, DeriveInput, GenericArgument, Meta, PathArguments, Type, Variant, parse_quote,
    visit_mut::{VisitMut, visit_type_mut},
};

/// The direction of a copy: writing or reading.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Encode,
    Decode,
}

impl Way {
    /// Gives the name of the copy.
    pub(super) fn ident(self) -> Ident {
        let name = match self {
            Self::Encode => "__OutboxEncode",
            Self::Decode => "__OutboxDecode",
        };
        Ident::new(name, Span::call_site())
    }
}

/// Prints the copy of an enum for one direction; its variants' own names are its serde names.
pub(super) fn copy_of(input: &DeriveInput, data: &DataEnum, way: Way) -> TokenStream {
    let (ident, remote) = (way.ident(), input.ident.to_string());
    let serde_path = "__outbox::serde";
    let bounds = bounds(input, data, way);
    let bounds = quote!(#(#bounds),*).to_string();
    let (derive, mode) = match way {
        Way::Encode => (quote!(Serialize), quote!(untagged, bound(serialize = #bounds))),
        Way::Decode => (quote!(Deserialize), quote!(bound(deserialize = #bounds))),
    };
    let kept = serde::of_enum(&input.attrs);
    let variants = data.variants.iter().map(|variant| copy_variant(variant, input));
    // Those of an impl: without defaults.
    let (generics, _, where_clause) = input.generics.split_for_impl();
    quote! {
        #[derive(__outbox::serde::#derive)]
        #[serde(crate = #serde_path, remote = #remote, #mode #(, #kept)*)]
        #[allow(dead_code, deprecated, nonstandard_style, clippy::all, clippy::pedantic)]
        enum #ident #generics #where_clause { #(#variants),* }
    }
}

fn copy_variant(variant: &Variant, input: &DeriveInput) -> Variant {
    let keep = |metas: Vec<Meta>| {
        serde::print(&metas).map(|attr| parse_quote!(#attr)).into_iter().collect()
    };
    let mut copy = variant.clone();
    copy.attrs = keep(serde::of_variant(&variant.attrs));
    copy.discriminant = None;
    for field in &mut copy.fields {
        field.attrs = keep(serde::of_field(&field.attrs));
        field.ty = named(&field.ty, input);
    }
    copy
}

/// Gives the bounds of the fields' types for a direction.
///
/// Reading is bound by every field, also where no type parameter is involved: an enum with a field
/// that serde cannot read is an event all the same, only one that is not `DecodeEvent`. The
/// `for<..>` lets such a bound be false without being an error.
pub(super) fn bounds(input: &DeriveInput, data: &DataEnum, way: Way) -> Vec<TokenStream> {
    let parameters: BTreeSet<String> =
        input.generics.type_params().map(|p| p.ident.to_string()).collect();
    let mut bounds = Vec::new();
    for variant in &data.variants {
        let by_variant = serde::of_variant(&variant.attrs);
        for field in &variant.fields {
            let (own, ty) = (serde::of_field(&field.attrs), named(&field.ty, input));
            let generic = mentions(&ty, &parameters);
            match way {
                Way::Encode => {
                    let by_hand = ["with", "serialize_with"];
                    let skipped = serde::has(&own, &["skip", "skip_serializing"]);
                    if generic
                        && !skipped
                        && !serde::has(&own, &by_hand)
                        && !serde::has(&by_variant, &by_hand)
                    {
                        bounds.push(quote!(#ty: __outbox::serde::Serialize));
                    }
                }
                Way::Decode => {
                    let by_hand = ["with", "deserialize_with"];
                    let skipped = serde::has(&own, &["skip", "skip_deserializing"]);
                    if !skipped && !serde::has(&own, &by_hand) && !serde::has(&by_variant, &by_hand)
                    {
                        bounds.push(quote!(for<'__de> #ty: __outbox::serde::Deserialize<'__de>));
                    }
                    if generic && serde::takes_default(&own) {
                        bounds.push(quote!(#ty: __outbox::core::default::Default));
                    }
                }
            }
        }
    }
    let mut seen = BTreeSet::new();
    bounds.retain(|bound| seen.insert(bound.to_string()));
    bounds
}

/// Tells whether a field is read by borrowing from the payload, as serde does with references: no
/// such enum outlives its message.
pub(super) fn is_borrowed(data: &DataEnum) -> bool {
    fn is_reference(ty: &Type) -> bool {
        match ty {
            Type::Reference(_) => true,
            Type::Group(group) => is_reference(&group.elem),
            Type::Paren(paren) => is_reference(&paren.elem),
            Type::Path(path) => path.path.segments.last().is_some_and(|last| {
                let PathArguments::AngleBracketed(arguments) = &last.arguments else { return false };
                let of_reference = |a: &GenericArgument| matches!(a, GenericArgument::Type(ty) if is_reference(ty));
                last.ident == "Option" && arguments.args.iter().any(of_reference)
            }),
            _ => false,
        }
    }
    data.variants.iter().flat_map(|variant| &variant.fields).any(|field| is_reference(&field.ty))
}

/// Tells whether a type contains one of the names.
pub(super) fn mentions(ty: &Type, names: &BTreeSet<String>) -> bool {
    fn any(tokens: TokenStream, names: &BTreeSet<String>) -> bool {
        tokens.into_iter().any(|tree| match tree {
            proc_macro2::TokenTree::Ident(ident) => names.contains(&ident.to_string()),
            proc_macro2::TokenTree::Group(group) => any(group.stream(), names),
            _ => false,
        })
    }
    !names.is_empty() && any(ty.to_token_stream(), names)
}

/// Writes `Self` in a field's type as the type's name, since it stands outside of the type then.
fn named(ty: &Type, input: &DeriveInput) -> Type {
    struct Receiver(Type);
    impl VisitMut for Receiver {
        fn visit_type_mut(&mut self, ty: &mut Type) {
            match ty {
                Type::Path(path) if path.path.is_ident("Self") => *ty = self.0.clone(),
                _ => visit_type_mut(self, ty),
            }
        }
    }
    let (ident, generics) = (&input.ident, input.generics.split_for_impl().1);
    let mut ty = ty.clone();
    Receiver(parse_quote!(#ident #generics)).visit_type_mut(&mut ty);
    ty
}
