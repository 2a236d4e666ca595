//! Readers of the values of arguments.

use super::value;
use crate::{
    attr::{self, Slot, each, list, string, unknown},
    fallback::Faults,
};
use proc_macro2::{Ident, Span};
use std::{fmt::Display, time::Duration};
use syn::{Expr, Lit, LitInt, LitStr, Path, Token, parse::ParseStream};

/// The longest wait of the framework's default policy.
const DEFAULT_MAX_BACKOFF: Duration = Duration::from_mins(5);

/// What `retry(..)` sets; the rest is the framework's default.
#[derive(Clone, Copy, Default)]
pub(crate) struct Retry {
    pub(crate) max_attempts: Option<u32>,
    pub(crate) backoff: Option<Duration>,
    pub(crate) factor: Option<f64>,
    pub(crate) max_backoff: Option<Duration>,
    pub(crate) give_up_after: Option<Duration>,
}

impl Retry {
    const KNOWN: &'static [&'static str] =
        &["max_attempts", "backoff", "factor", "max_backoff", "give_up_after"];

    /// The short form: `max_attempts = 3`.
    pub(super) fn attempts(max_attempts: u32) -> Self {
        Self { max_attempts: Some(max_attempts), ..Self::default() }
    }

    /// Reads `(max_attempts = 3, backoff = "1s", ..)`.
    pub(crate) fn read(
        name: &Ident,
        input: ParseStream<'_>,
        faults: &mut Faults,
    ) -> syn::Result<Self> {
        let wrong =
            "write the settings in parentheses: `retry(max_attempts = 3, backoff = \"1s\")`";
        let (mut attempts, mut factor) = (Slot::default(), Slot::default());
        let (mut backoff, mut max_backoff, mut give_up) =
            (Slot::default(), Slot::default(), Slot::default());
        list(name, input, wrong, |settings| {
            each(settings, faults, |name, input, _| match name.to_string().as_str() {
                "max_attempts" => attempts.fill(name, number(name, input, u32::MAX)),
                "backoff" => backoff.fill(name, duration(name, input)),
                "factor" => factor.fill(name, multiplier(name, input)),
                "max_backoff" => max_backoff.fill(name, duration(name, input)),
                "give_up_after" => give_up.fill(name, duration(name, input)),
                _ => Err(unknown(name, "`retry`", Self::KNOWN)),
            });
            Ok(())
        })?;
        let longest = max_backoff.get().map_or(DEFAULT_MAX_BACKOFF, |&(longest, _)| longest);
        if let Some(&(_, at)) =
            backoff.get().filter(|(backoff, _)| *backoff > longest && !max_backoff.is_faulty())
        {
            let message = "the first wait is longer than the longest: raise `max_backoff` (5m unless set) or lower this";
            faults.add(syn::Error::new(at, message));
        }
        let time = |slot: &Slot<(Duration, Span)>| slot.get().map(|&(time, _)| time);
        Ok(Self {
            max_attempts: attempts.get().copied(),
            backoff: time(&backoff),
            factor: factor.get().copied(),
            max_backoff: time(&max_backoff),
            give_up_after: time(&give_up),
        })
    }
}

/// A step that raises a payload by one version.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) from: u16,
    pub(super) at: Span,
    pub(super) function: Expr,
}

impl Step {
    const WRONG: &'static str =
        "write a version and the function that raises it by one: `upcast(1 = v1_to_v2)`";

    /// Reads `(1 = function, 2 = function)`.
    pub(super) fn read_all(name: &Ident, input: ParseStream<'_>) -> syn::Result<Vec<Self>> {
        list(name, input, Self::WRONG, |steps| {
            Ok(steps.parse_terminated(Self::read, Token![,])?.into_iter().collect())
        })
    }

    fn read(input: ParseStream<'_>) -> syn::Result<Self> {
        let from: LitInt = input
            .parse()
            .map_err(|fault: syn::Error| syn::Error::new(fault.span(), Self::WRONG))?;
        let at = from.span();
        if !input.peek(Token![=]) {
            return Err(syn::Error::new(at, Self::WRONG));
        }
        input.parse::<Token![=]>()?;
        let function = input.parse()?;
        match from.base10_parse() {
            Ok(0) | Err(_) => {
                Err(syn::Error::new(at, "versions are whole numbers from 1 to 65535"))
            }
            Ok(from) => Ok(Self { from, at, function }),
        }
    }
}

/// Checks a string and gives it back.
pub(super) fn checked(
    text: LitStr,
    check: impl Fn(&str) -> Result<(), String>,
) -> syn::Result<LitStr> {
    match check(&text.value()) {
        Ok(()) => Ok(text),
        Err(message) => Err(syn::Error::new(text.span(), message)),
    }
}

/// Reads `= "order.placed"`.
pub(super) fn wire_name(name: &Ident, input: ParseStream<'_>) -> syn::Result<LitStr> {
    checked(string(name, input)?, |text| value::check_wire_name(&name.to_string(), text))
}

/// Reads `= "7d"`; gives the duration and its span.
pub(crate) fn duration(name: &Ident, input: ParseStream<'_>) -> syn::Result<(Duration, Span)> {
    let text = string(name, input)?;
    let read =
        value::duration(&text.value()).map_err(|message| syn::Error::new(text.span(), message))?;
    Ok((read, text.span()))
}

/// Reads `= 3`, from 1 to `most`.
pub(crate) fn number<N: TryFrom<u64> + Display>(
    name: &Ident,
    input: ParseStream<'_>,
    most: N,
) -> syn::Result<N> {
    let wrong = format!("`{name}` takes a whole number from 1 to {most}: write `{name} = 2`");
    let literal: LitInt = attr::value(name, input, &wrong)?;
    let number = literal.base10_parse::<u64>().ok().filter(|n| *n > 0);
    number.and_then(|n| N::try_from(n).ok()).ok_or_else(|| syn::Error::new(literal.span(), wrong))
}

/// Reads `= 2` or `= 1.5`, from 1.
fn multiplier(name: &Ident, input: ParseStream<'_>) -> syn::Result<f64> {
    let wrong = "`factor` takes a number from 1: write `factor = 2` or `factor = 1.5`";
    let literal: Lit = attr::value(name, input, wrong)?;
    let factor = match &literal {
        Lit::Int(number) => number.base10_parse::<f64>().ok(),
        Lit::Float(number) => number.base10_parse().ok(),
        _ => None,
    };
    factor
        .filter(|f| f.is_finite() && *f >= 1.0)
        .ok_or_else(|| syn::Error::new(literal.span(), wrong))
}

/// Reads no value; gives the span of the name.
pub(crate) fn flag(name: &Ident, input: ParseStream<'_>) -> syn::Result<Span> {
    if input.is_empty() || input.peek(Token![,]) {
        Ok(name.span())
    } else {
        Err(syn::Error::new(name.span(), format!("`{name}` takes no value: write `{name}` alone")))
    }
}

/// Reads `= path`.
pub(crate) fn path(name: &Ident, input: ParseStream<'_>) -> syn::Result<Path> {
    attr::value::<ModPath>(
        name,
        input,
        &format!("`{name}` takes a path without quotes: write `{name} = outbox_sea_orm`"),
    )
    .map(|path| path.0)
}

/// A path that may be `crate`, without generics.
struct ModPath(Path);

impl syn::parse::Parse for ModPath {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        Path::parse_mod_style(input).map(Self)
    }
}

/// Reads `("name" = "value", ..)`.
pub(super) fn pairs(name: &Ident, input: ParseStream<'_>) -> syn::Result<Vec<(LitStr, LitStr)>> {
    let wrong = "write the name and the value of a fixed header, `header(\"name\" = \"value\")`; \
                 a header from a field stands before the field, `#[outbox(header = \"name\")]`";
    let pair = |input: ParseStream<'_>| -> syn::Result<(LitStr, LitStr)> {
        let name = input.parse()?;
        input.parse::<Token![=]>()?;
        Ok((name, input.parse()?))
    };
    list(name, input, wrong, |pairs| {
        let pairs = pairs
            .parse_terminated(pair, Token![,])
            .map_err(|fault| syn::Error::new(fault.span(), wrong))?;
        Ok(pairs.into_iter().collect())
    })
}
