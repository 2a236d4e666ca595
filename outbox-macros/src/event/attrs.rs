//! The arguments of `#[outbox(..)]` on a type, a variant or a field.

use super::{
    argument::{Retry, Step, checked, duration, flag, number, pairs, path, wire_name},
    value,
};
use crate::{
    attr::{Slot, each, string, unknown},
    fallback::Faults,
};
use proc_macro2::{Ident, Span};
use std::{fmt::Display, time::Duration};
use syn::{Attribute, LitStr, parse::ParseStream, token::Paren};

/// The item with the attributes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Struct,
    Enum,
    Variant,
}

impl Place {
    const fn known(self) -> &'static [&'static str] {
        match self {
            Self::Struct => &[
                "type",
                "version",
                "topic",
                "aggregate",
                "header",
                "retry",
                "max_attempts",
                "ttl",
                "no_key",
                "upcast",
                "encode_only",
                "tombstone",
                "sensitive",
                "crate",
            ],
            Self::Enum => &[
                "prefix",
                "version",
                "topic",
                "aggregate",
                "header",
                "retry",
                "max_attempts",
                "ttl",
                "encode_only",
                "sensitive",
                "crate",
            ],
            Self::Variant => &[
                "type",
                "version",
                "topic",
                "aggregate",
                "header",
                "retry",
                "max_attempts",
                "ttl",
                "no_key",
                "upcast",
                "tombstone",
                "sensitive",
            ],
        }
    }

    /// Tells on which items a known argument is allowed, when this one is not among them.
    fn misplaced(self, name: &str) -> Option<&'static str> {
        Some(match (name, self) {
            ("key", _) => {
                "`key` belongs on a field: write `#[outbox(key)]` before the field that orders the events"
            }
            ("type", Self::Enum) => {
                "the types of an enum are its prefix and its variants' names: write `prefix = \"..\"` here, `type = \"..\"` on a variant"
            }
            ("prefix", Self::Struct) => {
                "a struct is one event type: write its whole name, `type = \"..\"`"
            }
            ("prefix" | "crate" | "encode_only", Self::Variant) => {
                "this belongs on the enum: move it there"
            }
            ("no_key" | "upcast" | "tombstone", Self::Enum) => {
                "this belongs on a variant: move it there"
            }
            _ => return None,
        })
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Struct => "a struct",
            Self::Enum => "an enum",
            Self::Variant => "a variant",
        })
    }
}

/// The arguments of a type or a variant.
#[derive(Default)]
pub(super) struct Said {
    pub(super) name: Slot<LitStr>,
    pub(super) prefix: Slot<LitStr>,
    pub(super) version: Slot<u16>,
    pub(super) topic: Slot<String>,
    pub(super) aggregate: Slot<String>,
    pub(super) headers: Vec<(LitStr, String)>,
    pub(super) retry: Slot<Retry>,
    pub(super) ttl: Slot<Duration>,
    pub(super) no_key: Slot<Span>,
    pub(super) encode_only: Slot<Span>,
    pub(super) upcast: Slot<Vec<Step>>,
    pub(super) tombstone: Slot<Span>,
    pub(super) sensitive: Slot<Span>,
    pub(super) root: Slot<syn::Path>,
}

impl Said {
    /// Reads all `#[outbox(..)]` attributes of a type or a variant.
    pub(super) fn read(attrs: &[Attribute], place: Place, faults: &mut Faults) -> Self {
        let mut said = Self::default();
        arguments(attrs, faults, |name, input, faults| said.argument(place, name, input, faults));
        said
    }

    fn argument(
        &mut self,
        place: Place,
        name: &Ident,
        input: ParseStream<'_>,
        faults: &mut Faults,
    ) -> syn::Result<()> {
        let text = name.to_string();
        if !place.known().contains(&text.as_str()) {
            return Err(match place.misplaced(&text) {
                Some(advice) => syn::Error::new(name.span(), advice),
                None => unknown(name, &place.to_string(), place.known()),
            });
        }
        match text.as_str() {
            "type" => self.name.fill(name, wire_name(name, input)),
            "prefix" => self.prefix.fill(name, wire_name(name, input)),
            "topic" => self.topic.fill(name, wire_name(name, input).map(|t| t.value())),
            "aggregate" => self.aggregate.fill(name, wire_name(name, input).map(|a| a.value())),
            "version" => self.version.fill(name, number(name, input, u16::MAX)),
            "ttl" => self.ttl.fill(name, duration(name, input).map(|(ttl, _)| ttl)),
            "header" => self.header(name, input, faults),
            "retry" | "max_attempts" if self.retry.is_given() => {
                let message = "the retry policy is given twice: keep one of `retry(..)` and its short form `max_attempts = ..`";
                Err(syn::Error::new(name.span(), message))
            }
            "retry" => self.retry.fill(name, Retry::read(name, input, faults)),
            "max_attempts" => {
                self.retry.fill(name, number(name, input, u32::MAX).map(Retry::attempts))
            }
            "no_key" => self.no_key.fill(name, flag(name, input)),
            "encode_only" => self.encode_only.fill(name, flag(name, input)),
            "tombstone" => self.tombstone.fill(name, flag(name, input)),
            "sensitive" => self.sensitive.fill(name, flag(name, input)),
            "upcast" => self.upcast.fill(name, Step::read_all(name, input)),
            _ => self.root.fill(name, path(name, input)),
        }
    }

    /// Reads `("name" = "value", ..)`.
    fn header(
        &mut self,
        name: &Ident,
        input: ParseStream<'_>,
        faults: &mut Faults,
    ) -> syn::Result<()> {
        for (header, content) in pairs(name, input)? {
            if let Err(message) = value::check_header_value(&content.value()) {
                faults.at(&content, message);
            }
            match value::check_header_name(&header.value()) {
                Err(message) => faults.at(&header, message),
                Ok(()) if self.headers.iter().any(|(h, _)| h.value() == header.value()) => {
                    faults.at(
                        &header,
                        format!("the header `{}` is given twice; keep one of them", header.value()),
                    );
                }
                Ok(()) => self.headers.push((header, content.value())),
            }
        }
        Ok(())
    }
}

/// The arguments of a field.
#[derive(Default)]
pub(super) struct FieldSaid {
    pub(super) key: Slot<Span>,
    pub(super) header: Slot<LitStr>,
}

impl FieldSaid {
    /// Reads all `#[outbox(..)]` attributes of a field.
    pub(super) fn read(attrs: &[Attribute], faults: &mut Faults) -> Self {
        let mut said = Self::default();
        arguments(attrs, faults, |name, input, _faults| match name.to_string().as_str() {
            "key" => said.key.fill(name, flag(name, input)),
            "header" if input.peek(Paren) => Err(syn::Error::new(
                name.span(),
                "a field gives the value of its header: write `header = \"name\"`; a fixed one stands on the type",
            )),
            "header" => said
                .header
                .fill(name, string(name, input).and_then(|n| checked(n, value::check_header_name))),
            _ => Err(unknown(name, "a field", &["key", "header"])),
        });
        said
    }
}

/// Goes through the arguments of all `#[outbox(..)]` among the attributes.
fn arguments(
    attrs: &[Attribute],
    faults: &mut Faults,
    mut read: impl FnMut(&Ident, ParseStream<'_>, &mut Faults) -> syn::Result<()>,
) {
    for attr in attrs.iter().filter(|a| a.path().is_ident("outbox")) {
        if attr.meta.require_list().is_err() {
            faults.at(
                attr.path(),
                "write what to set in parentheses, such as `#[outbox(type = \"..\")]`",
            );
            continue;
        }
        let parsed = attr.parse_args_with(|input: ParseStream<'_>| {
            each(input, faults, &mut read);
            Ok(())
        });
        faults.take(parsed);
    }
}
