//! Prints the impls.

use super::{
    argument::Retry,
    content::{self, Way},
    model::{Contract, FieldRef, Model, Shape, Variant},
};
use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use std::{collections::BTreeSet, time::Duration};
use syn::{
    Data, DataEnum, DeriveInput, Generics, parse_quote, parse_quote_spanned, spanned::Spanned,
};

/// Prints the impls of a valid input.
pub(super) fn impls(input: &DeriveInput, model: &Model) -> TokenStream {
    match (&model.shape, &input.data) {
        (Shape::Enum(variants), Data::Enum(data)) => enum_impls(input, model, variants, data),
        (Shape::Struct(contract), _) => struct_impls(input, model, contract),
        // The faults are noted already.
        (Shape::Enum(_), _) => TokenStream::new(),
    }
}

/// Prints impls for an input with faults, so that code which uses the type does not fail as well.
pub(super) fn stand_in(input: &DeriveInput, model: &Model) -> TokenStream {
    let never = quote!(__outbox::core::unreachable!("the derive failed"));
    let event = event_impl(input, &input.generics, &never, &never);
    let decode = (!model.encode_only).then(|| decode_impl(input, &input.generics, &never));
    let contract = contract_impl(input, &[]);
    quote!(#event #contract #decode)
}

fn struct_impls(input: &DeriveInput, model: &Model, contract: &Contract) -> TokenStream {
    let meta = {
        let value = |field: &FieldRef| {
            let member = &field.member;
            quote!(&self.#member)
        };
        meta(contract, value)
    };
    let name = &contract.name;
    let ident = &input.ident;
    let (_, type_generics, _) = input.generics.split_for_impl();
    let this = quote!(#ident #type_generics);
    // Named, so that the compiler reports a missing `Serialize` at the type's name.
    let payload = if contract.tombstone {
        nothing()
    } else {
        quote!(__outbox::encode_json::<#this>(#name, self))
    };
    let mut generics = with_key_bounds(input, &[contract]);
    if !contract.tombstone && input.generics.type_params().next().is_some() {
        generics
            .make_where_clause()
            .predicates
            .push(parse_quote!(#this: __outbox::serde::Serialize));
    }
    let event = event_impl(input, &generics, &meta, &payload);
    let contracts = contract_impl(input, &[contract]);
    let decode = (!model.encode_only).then(|| {
        let mut generics = input.generics.clone();
        let bound = parse_quote!(for<'__de> #this: __outbox::serde::Deserialize<'__de>);
        generics.make_where_clause().predicates.push(bound);
        let read = steps(contract);
        decode_impl(input, &generics, &select(&[(contract, quote!(#read.json()))]))
    });
    quote!(#event #contracts #decode)
}

fn enum_impls(
    input: &DeriveInput,
    model: &Model,
    variants: &[Variant],
    data: &DataEnum,
) -> TokenStream {
    let contracts: Vec<&Contract> = variants.iter().map(|v| &v.contract).collect();
    let metas = variants.iter().map(meta_arm);
    let meta = quote!(match self { #(#metas),* });
    let payloads = variants.iter().map(payload_arm);
    let payload = quote!(match self { #(#payloads),* });
    let mut generics = with_key_bounds(input, &contracts);
    for bound in content::bounds(input, data, Way::Encode) {
        generics.make_where_clause().predicates.push(parse_quote!(#bound));
    }
    let with_content = variants.iter().any(|v| !v.is_unit);
    let copy = |way| with_content.then(|| content::copy_of(input, data, way));
    let encode = copy(Way::Encode);
    let event = event_impl(input, &generics, &meta, &payload);
    let contract = contract_impl(input, &contracts);
    let decode = (!model.encode_only && !content::is_borrowed(data)).then(|| {
        let mut generics = input.generics.clone();
        for bound in content::bounds(input, data, Way::Decode) {
            generics.make_where_clause().predicates.push(parse_quote!(#bound));
        }
        // A tombstone is no message of its type: a consumer gets it as a `Tombstone`.
        let read = variants.iter().filter(|v| !v.contract.tombstone);
        let arms: Vec<_> = read.map(|v| (&v.contract, read_variant(v, input))).collect();
        let copy = copy(Way::Decode);
        let decode = decode_impl(input, &generics, &select(&arms));
        quote!(#copy #decode)
    });
    quote!(#encode #event #contract #decode)
}

fn event_impl(
    input: &DeriveInput,
    generics: &Generics,
    meta: &TokenStream,
    payload: &TokenStream,
) -> TokenStream {
    let ident = &input.ident;
    let (_, type_generics, _) = input.generics.split_for_impl();
    let mut generics = generics.clone();
    if input.generics.type_params().next().is_some() {
        let bound = parse_quote!(#ident #type_generics: __outbox::core::marker::Send + __outbox::core::marker::Sync);
        generics.make_where_clause().predicates.push(bound);
    }
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    // Listeners take events by type, which needs one without lifetimes.
    let owned = input.generics.lifetimes().next().is_none()
        && input.generics.type_params().next().is_none();
    let itself = owned.then(|| {
        quote! {
            fn as_any(&self) -> __outbox::core::option::Option<&dyn __outbox::core::any::Any> {
                __outbox::core::option::Option::Some(self)
            }
        }
    });
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #impl_generics __outbox::OutboxEvent for #ident #type_generics #where_clause {
            fn meta(&self) -> __outbox::EventMeta<'_> {
                #meta
            }
            fn payload(&self) -> __outbox::core::result::Result<__outbox::Bytes, __outbox::EncodeError> {
                #payload
            }
            #itself
        }
    }
}

fn contract_impl(input: &DeriveInput, contracts: &[&Contract]) -> TokenStream {
    let ident = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let types = contracts.iter().map(|Contract { name, version, topic, .. }| {
        quote!(__outbox::EventType { name: #name, version: #version, topic: #topic })
    });
    quote! {
        #[automatically_derived]
        impl #impl_generics __outbox::EventContract for #ident #type_generics #where_clause {
            const TYPES: &'static [__outbox::EventType] = &[#(#types),*];
        }
    }
}

fn decode_impl(input: &DeriveInput, generics: &Generics, body: &TokenStream) -> TokenStream {
    let ident = &input.ident;
    let (_, type_generics, _) = input.generics.split_for_impl();
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    let message = Ident::new("message", Span::mixed_site());
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #impl_generics __outbox::DecodeEvent for #ident #type_generics #where_clause {
            fn decode(#message: &__outbox::Message) -> __outbox::core::result::Result<Self, __outbox::DecodeError> {
                #body
            }
        }
    }
}

/// Prints the match on the type's name.
fn select(arms: &[(&Contract, TokenStream)]) -> TokenStream {
    let message = Ident::new("message", Span::mixed_site());
    let arms = arms.iter().map(|(Contract { name, .. }, read)| quote!(#name => #read));
    quote! {
        match #message.event_type.as_str() {
            #(#arms,)*
            _ => __outbox::core::result::Result::Err(
                __outbox::DecodeError::unknown_type(#message, <Self as __outbox::EventContract>::TYPES)
            ),
        }
    }
}

fn steps(contract: &Contract) -> TokenStream {
    let message = Ident::new("message", Span::mixed_site());
    let version = contract.version;
    let steps = contract.upcast.iter().map(|step| {
        let (from, function) = (step.from, &step.function);
        quote_spanned!(function.span()=> .step(#from, #function)?)
    });
    quote!(__outbox::Upcast::begin(#message, #version) #(#steps)*)
}

fn read_variant(variant: &Variant, input: &DeriveInput) -> TokenStream {
    let (ident, steps) = (&variant.ident, steps(&variant.contract));
    if variant.is_unit {
        return quote!(#steps.unit().map(|()| Self::#ident));
    }
    let (_, type_generics, _) = input.generics.split_for_impl();
    let (copy, name) = (Way::Decode.ident(), ident.to_string());
    let name = name.trim_start_matches("r#");
    let content = Ident::new("content", Span::mixed_site());
    quote!(#steps.variant(#name, |#content| <#copy #type_generics>::deserialize(#content)))
}

fn payload_arm(variant: &Variant) -> TokenStream {
    let (ident, name) = (&variant.ident, &variant.contract.name);
    if variant.contract.tombstone {
        let nothing = nothing();
        return quote!(Self::#ident { .. } => #nothing);
    }
    if variant.is_unit {
        return quote!(Self::#ident => __outbox::core::result::Result::Ok(__outbox::empty_json()));
    }
    let (copy, out) = (Way::Encode.ident(), Ident::new("out", Span::mixed_site()));
    quote!(Self::#ident { .. } => __outbox::encode_with(#name, |#out| #copy::serialize(self, #out)))
}

/// Prints the payload of a tombstone.
fn nothing() -> TokenStream {
    quote!(__outbox::core::result::Result::Ok(__outbox::Bytes::new()))
}

fn meta_arm(variant: &Variant) -> TokenStream {
    let ident = &variant.ident;
    let contract = &variant.contract;
    let fields = contract.key.iter().chain(contract.field_headers.iter().map(|(_, field)| field));
    let mut bound: Vec<(String, TokenStream)> = Vec::new();
    for field in fields {
        let (name, member) = (field_name(field), &field.member);
        if bound.iter().all(|(bound, _)| *bound != name) {
            let local = local(&name);
            bound.push((name, quote!(#member: #local)));
        }
    }
    let bindings = bound.into_iter().map(|(_, binding)| binding);
    let value = |field: &FieldRef| local(&field_name(field)).into_token_stream();
    let meta = meta(contract, value);
    quote!(Self::#ident { #(#bindings,)* .. } => #meta)
}

fn field_name(field: &FieldRef) -> String {
    field.member.to_token_stream().to_string().trim_start_matches("r#").to_owned()
}

fn local(field: &str) -> Ident {
    format_ident!("field_{}", field, span = Span::mixed_site())
}

/// Prints the envelope; `value` gives a reference to a field.
fn meta(contract: &Contract, value: impl Fn(&FieldRef) -> TokenStream) -> TokenStream {
    let Contract { name, version, topic, .. } = contract;
    let mut meta = quote!(__outbox::EventMeta::new(#name).version(#version).topic(#topic));
    // Spans of the field's type: the compiler reports a type without a text form there.
    let part = |field: &FieldRef| {
        let (ty, value) = (&field.ty, value(field));
        quote_spanned!(ty.span()=> <#ty as __outbox::KeyPart>::key_part(#value))
    };
    if let Some(aggregate) = &contract.aggregate {
        meta.extend(quote!(.aggregate(#aggregate)));
    }
    if let Some(key) = &contract.key {
        let key = part(key);
        meta.extend(quote!(.key(#key)));
    }
    for (name, value) in &contract.fixed_headers {
        meta.extend(quote!(.header(#name, __outbox::core::option::Option::Some(#value))));
    }
    for (name, field) in &contract.field_headers {
        let value = part(field);
        meta.extend(quote!(.header(#name, #value)));
    }
    if let Some(ttl) = contract.ttl {
        let ttl = duration(ttl);
        meta.extend(quote!(.ttl(#ttl)));
    }
    if let Some(retry) = &contract.retry {
        let retry = policy(retry);
        meta.extend(quote!(.retry(#retry)));
    }
    if contract.tombstone {
        meta.extend(quote!(.tombstone()));
    }
    if contract.sensitive {
        meta.extend(quote!(.sensitive()));
    }
    meta
}

fn policy(retry: &Retry) -> TokenStream {
    let mut policy = quote!(<__outbox::RetryPolicy as __outbox::core::default::Default>::default());
    if let Some(max_attempts) = retry.max_attempts {
        policy.extend(quote!(.max_attempts(#max_attempts)));
    }
    if let Some(factor) = retry.factor {
        policy.extend(quote!(.factor(#factor)));
    }
    let times = [
        ("backoff", retry.backoff),
        ("max_backoff", retry.max_backoff),
        ("give_up_after", retry.give_up_after),
    ];
    for (setter, time) in times.into_iter().filter_map(|(setter, time)| Some((setter, time?))) {
        let (setter, time) = (Ident::new(setter, Span::call_site()), duration(time));
        policy.extend(quote!(.#setter(#time)));
    }
    policy
}

fn duration(time: Duration) -> TokenStream {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    quote!(__outbox::core::time::Duration::from_millis(#millis))
}

/// Adds the bounds of key and header fields of a generic type.
fn with_key_bounds(input: &DeriveInput, contracts: &[&Contract]) -> Generics {
    let parameters: BTreeSet<String> =
        input.generics.type_params().map(|p| p.ident.to_string()).collect();
    let mut generics = input.generics.clone();
    for contract in contracts {
        let fields =
            contract.key.iter().chain(contract.field_headers.iter().map(|(_, field)| field));
        for ty in fields.map(|field| &field.ty).filter(|ty| content::mentions(ty, &parameters)) {
            let bound = parse_quote_spanned!(ty.span()=> #ty: __outbox::KeyPart);
            generics.make_where_clause().predicates.push(bound);
        }
    }
    generics
}
