//! The model of a valid input, with all defaults.

use super::{
    argument::{Retry, Step},
    attrs::{FieldSaid, Place, Said},
    serde, value,
};
use crate::fallback::Faults;
use proc_macro2::Ident;
use quote::ToTokens;
use std::time::Duration;
use syn::{Data, DataEnum, DeriveInput, Fields, Member, Type};

/// One type that derives `OutboxEvent`.
pub(super) struct Model {
    /// The framework's path as the user gave it.
    pub(super) root: Option<syn::Path>,
    /// The user wants no decoding, or none is possible: borrowed content cannot be read back.
    pub(super) encode_only: bool,
    pub(super) shape: Shape,
}

/// Struct or enum.
pub(super) enum Shape {
    Struct(Box<Contract>),
    Enum(Vec<Variant>),
}

/// One event type on the wire.
pub(super) struct Contract {
    pub(super) name: String,
    pub(super) version: u16,
    pub(super) topic: String,
    pub(super) aggregate: Option<String>,
    pub(super) key: Option<FieldRef>,
    /// Headers with a fixed value, by name.
    pub(super) fixed_headers: Vec<(String, String)>,
    /// Headers with the value of a field, by name.
    pub(super) field_headers: Vec<(String, FieldRef)>,
    pub(super) ttl: Option<Duration>,
    pub(super) retry: Option<Retry>,
    /// Steps from older versions, in order.
    pub(super) upcast: Vec<Step>,
    /// It has no content: the entity of its key is deleted.
    pub(super) tombstone: bool,
    /// Operators are not shown its content.
    pub(super) sensitive: bool,
}

/// A variant as an event type of its own.
pub(super) struct Variant {
    pub(super) ident: Ident,
    pub(super) contract: Contract,
    /// It has no content: its payload is an empty object.
    pub(super) is_unit: bool,
}

/// A field that gives the key or a header.
#[derive(Clone)]
pub(super) struct FieldRef {
    pub(super) member: Member,
    pub(super) ty: Type,
}

impl Model {
    /// Reads and checks an input; the model is complete only when there is no fault.
    pub(super) fn read(input: &DeriveInput, faults: &mut Faults) -> Self {
        let place = if matches!(input.data, Data::Enum(_)) { Place::Enum } else { Place::Struct };
        let before = faults.count();
        let said = Said::read(&input.attrs, place, faults);
        let well_said = faults.count() == before;
        let borrowed = input.generics.lifetimes().next().is_some();
        // A tombstone struct has no content to decode.
        let encode_only = borrowed || said.encode_only.is_given() || said.tombstone.is_given();
        let root = said.root.get().cloned();
        let shape = match &input.data {
            Data::Struct(data) => Shape::Struct(Box::new(read_struct(
                &input.ident,
                &said,
                well_said,
                &data.fields,
                faults,
            ))),
            Data::Enum(data) => Shape::Enum(read_enum(&input.ident, &said, data, faults)),
            Data::Union(data) => {
                faults.at(data.union_token, "a union cannot be an event: use a struct or an enum");
                Shape::Enum(Vec::new())
            }
        };
        if let Data::Enum(data) = &input.data {
            serde::check(&input.attrs, serde::OF_ENUM, !encode_only, faults);
            for variant in &data.variants {
                serde::check(&variant.attrs, serde::OF_VARIANT, !encode_only, faults);
            }
        }
        let model = Self { root, encode_only, shape };
        model.check_steps(borrowed, faults);
        model
    }

    /// Gives all event types, in order of declaration.
    pub(super) fn contracts(&self) -> Vec<&Contract> {
        match &self.shape {
            Shape::Struct(contract) => vec![&**contract],
            Shape::Enum(variants) => variants.iter().map(|v| &v.contract).collect(),
        }
    }

    /// Steps that could never run are mistakes.
    fn check_steps(&self, borrowed: bool, faults: &mut Faults) {
        let is_tombstone = matches!(&self.shape, Shape::Struct(contract) if contract.tombstone);
        if !self.encode_only || is_tombstone {
            return;
        }
        let reason = if borrowed { "borrows its content" } else { "is `encode_only`" };
        for step in self.contracts().iter().filter_map(|c| c.upcast.first()) {
            let message = format!(
                "this type {reason}, so it is never read and needs no `upcast`: remove the steps"
            );
            faults.add(syn::Error::new(step.at, message));
        }
    }
}

fn read_struct(
    ident: &Ident,
    said: &Said,
    well_said: bool,
    fields: &Fields,
    faults: &mut Faults,
) -> Contract {
    let name = match said.name.get() {
        Some(name) => name.value(),
        // That fault may be the reason.
        None if !well_said => String::new(),
        None => {
            let example = value::snake_case(&ident.to_string()).replace('_', ".");
            let message =
                format!("the event has no type name: add `#[outbox(type = \"{example}\")]`");
            faults.at(ident, message);
            String::new()
        }
    };
    Contract::read(name, &Said::default(), said, fields, faults)
}

fn read_enum(ident: &Ident, said: &Said, data: &DataEnum, faults: &mut Faults) -> Vec<Variant> {
    if data.variants.is_empty() {
        faults.at(
            ident,
            "an enum without variants cannot be an event: add a variant for each event type",
        );
    }
    let prefix =
        said.prefix.get().map_or_else(|| value::snake_case(&ident.to_string()), syn::LitStr::value);
    let mut unkeyed = Vec::new();
    let mut variants: Vec<Variant> = Vec::new();
    for variant in &data.variants {
        let before = faults.count();
        let own = Said::read(&variant.attrs, Place::Variant, faults);
        if let Fields::Unnamed(fields) = &variant.fields
            && fields.unnamed.len() != 1
        {
            faults.at(
                fields,
                "a tuple variant has exactly one field, its content: write one struct, or name the fields `{ .. }`",
            );
        }
        let name = variant_name(&prefix, &variant.ident, &own, faults);
        if variants.iter().any(|v| v.contract.name == name) && !own.name.is_faulty() {
            let at = own
                .name
                .get()
                .map_or_else(|| variant.ident.to_token_stream(), ToTokens::to_token_stream);
            faults.at(
                at,
                format!("another variant has the type `{name}`: give this one a name of its own, `type = \"..\"`"),
            );
        }
        let contract = Contract::read(name, said, &own, &variant.fields, faults);
        if contract.key.is_none() && !own.no_key.is_given() && faults.count() == before {
            unkeyed.push(variant.ident.clone());
        }
        variants.push(Variant {
            ident: variant.ident.clone(),
            contract,
            is_unit: matches!(variant.fields, Fields::Unit),
        });
    }
    if variants.iter().any(|v| v.contract.key.is_some()) {
        for ident in unkeyed {
            let message = format!(
                "`{ident}` has no ordering key, but other variants have: mark its field with `#[outbox(key)]`, or the variant with `#[outbox(no_key)]`"
            );
            faults.at(ident, message);
        }
    }
    variants
}

/// Gives `prefix.suffix`.
fn variant_name(prefix: &str, ident: &Ident, own: &Said, faults: &mut Faults) -> String {
    let suffix =
        own.name.get().map_or_else(|| value::snake_case(&ident.to_string()), syn::LitStr::value);
    let name = format!("{prefix}.{suffix}");
    let at = own.name.get().map_or_else(|| ident.to_token_stream(), ToTokens::to_token_stream);
    if let Some(rest) = suffix.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) {
        faults.at(
            at,
            format!("the enum's prefix `{prefix}.` is put before it: write `type = \"{rest}\"`"),
        );
    } else if let Err(message) = value::check_wire_name("type", &name) {
        faults.at(at, message);
    }
    name
}

impl Contract {
    /// Merges the arguments of an enum for all its variants (`common`) and those of this type
    /// (`own`, which take precedence).
    fn read(name: String, common: &Said, own: &Said, fields: &Fields, faults: &mut Faults) -> Self {
        let (key, field_headers) = read_fields(own, fields, faults);
        let mut fixed_headers: Vec<_> =
            own.headers.iter().map(|(n, v)| (n.value(), v.clone())).collect();
        for (header, content) in &common.headers {
            let name = header.value();
            let overridden = fixed_headers.iter().any(|(n, _)| *n == name)
                || field_headers.iter().any(|(n, _)| *n == name);
            if !overridden {
                fixed_headers.push((name, content.clone()));
            }
        }
        if let Some(&at) = own.tombstone.get() {
            let fault = if key.is_none() {
                Some(
                    "a tombstone says that the entity of its key is deleted: mark a field with `#[outbox(key)]`",
                )
            } else if own.upcast.is_given() {
                Some("a tombstone has no content, so that there is none to raise: remove `upcast`")
            } else {
                None
            };
            if let Some(message) = fault {
                faults.add(syn::Error::new(at, message));
            }
        }
        let version = own.version.get().or(common.version.get()).copied().unwrap_or(1);
        let version_is_known = !own.version.is_faulty() && !common.version.is_faulty();
        let upcast = if version_is_known { read_steps(version, own, faults) } else { Vec::new() };
        Self {
            topic: own.topic.get().or(common.topic.get()).cloned().unwrap_or_else(|| name.clone()),
            aggregate: own.aggregate.get().or(common.aggregate.get()).cloned(),
            ttl: own.ttl.get().or(common.ttl.get()).copied(),
            retry: own.retry.get().or(common.retry.get()).copied(),
            name,
            version,
            key,
            fixed_headers,
            field_headers,
            upcast,
            tombstone: own.tombstone.is_given(),
            sensitive: own.sensitive.is_given() || common.sensitive.is_given(),
        }
    }
}

/// Finds the key and the headers among the fields.
fn read_fields(
    own: &Said,
    fields: &Fields,
    faults: &mut Faults,
) -> (Option<FieldRef>, Vec<(String, FieldRef)>) {
    let mut key: Option<FieldRef> = None;
    let mut headers: Vec<(String, FieldRef)> = Vec::new();
    for (member, field) in fields.members().zip(fields) {
        let said = FieldSaid::read(&field.attrs, faults);
        let field = FieldRef { member, ty: field.ty.clone() };
        if let Some(&at) = said.key.get() {
            match &key {
                Some(first) => {
                    let first = member_name(&first.member);
                    let message = format!(
                        "`{first}` is the ordering key already: keep one `key`, or make one field of both"
                    );
                    faults.add(syn::Error::new(at, message));
                }
                None => key = Some(field.clone()),
            }
        }
        if let Some(name) = said.header.get() {
            let given = headers.iter().any(|(n, _)| *n == name.value());
            if given || own.headers.iter().any(|(n, _)| n.value() == name.value()) {
                faults.at(
                    name,
                    format!("the header `{}` is given twice; keep one of them", name.value()),
                );
            } else {
                headers.push((name.value(), field));
            }
        }
    }
    if let (Some(&at), Some(key)) = (own.no_key.get(), &key) {
        let message = format!(
            "`{}` is the ordering key: remove `no_key` here, or `key` there",
            member_name(&key.member)
        );
        faults.add(syn::Error::new(at, message));
    }
    (key, headers)
}

fn member_name(member: &Member) -> String {
    match member {
        Member::Named(ident) => ident.to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    }
}

/// Sorts the steps and checks that they lead to the version of the type without a gap.
fn read_steps(version: u16, own: &Said, faults: &mut Faults) -> Vec<Step> {
    let mut steps = own.upcast.get().cloned().unwrap_or_default();
    steps.sort_by_key(|step| step.from);
    let mut next = steps.first().map_or(version, |first| first.from);
    for step in &steps {
        let fault = if step.from >= version {
            Some(format!(
                "the type has version {version}: a step begins below it, or raise `version`"
            ))
        } else if step.from < next {
            Some(format!("the step from version {} is given twice; keep one of them", step.from))
        } else if step.from > next {
            Some(format!("the step from version {next} is missing: add `{next} = ..`"))
        } else {
            None
        };
        if let Some(message) = fault {
            faults.add(syn::Error::new(step.at, message));
        }
        next = step.from.saturating_add(1);
    }
    if let Some(last) = steps.last().filter(|_| next < version) {
        faults.add(syn::Error::new(
            last.at,
            format!("the step from version {next} is missing: add `{next} = ..`"),
        ));
    }
    steps
}
