//! Reading attribute arguments: `flag`, `name = value`, `name(..)`.

use crate::fallback::Faults;
use proc_macro2::{Ident, TokenTree};
use syn::{
    LitStr, Token,
    ext::IdentExt,
    parenthesized,
    parse::{Parse, ParseStream},
    token,
};

/// Reads arguments separated by commas. After a fault in one it goes on behind the next comma.
pub(crate) fn each(
    input: ParseStream<'_>,
    faults: &mut Faults,
    mut read: impl FnMut(&Ident, ParseStream<'_>, &mut Faults) -> syn::Result<()>,
) {
    while !input.is_empty() {
        let one = input
            .call(Ident::parse_any)
            .and_then(|name| read(&name, input, faults))
            .and_then(|()| {
                if input.is_empty() || input.peek(Token![,]) {
                    Ok(())
                } else {
                    Err(input.error("expected `,` here"))
                }
            });
        if faults.take(one).is_none() {
            skip_to_comma(input);
        }
        // Cannot fail: reading stopped at a comma or at the end.
        let _ = input.parse::<Option<Token![,]>>();
    }
}

fn skip_to_comma(input: ParseStream<'_>) {
    while !input.is_empty() && !input.peek(Token![,]) {
        if input.parse::<TokenTree>().is_err() {
            return;
        }
    }
}

/// Reads `= value`; `wrong` says what to write instead, at the name when nothing follows, else at
/// what does.
pub(crate) fn value<T: Parse>(name: &Ident, input: ParseStream<'_>, wrong: &str) -> syn::Result<T> {
    if !input.peek(Token![=]) {
        return Err(syn::Error::new(name.span(), wrong));
    }
    input.parse::<Token![=]>()?;
    let at = if input.is_empty() { name.span() } else { input.span() };
    input.parse().map_err(|_| syn::Error::new(at, wrong))
}

/// Reads `= "text"`.
pub(crate) fn string(name: &Ident, input: ParseStream<'_>) -> syn::Result<LitStr> {
    value(name, input, &format!("`{name}` takes text: write `{name} = \"..\"`"))
}

/// Checks that a text has 1 to `longest` bytes without control characters; else the fault says
/// `rule`.
pub(crate) fn limited(text: LitStr, longest: usize, rule: &str) -> syn::Result<LitStr> {
    let value = text.value();
    if (1..=longest).contains(&value.len()) && !value.chars().any(char::is_control) {
        Ok(text)
    } else {
        Err(syn::Error::new(text.span(), rule))
    }
}

/// Reads a list in parentheses that is not empty; `wrong` says what to write instead.
pub(crate) fn list<T>(
    name: &Ident,
    input: ParseStream<'_>,
    wrong: &str,
    read: impl FnOnce(ParseStream<'_>) -> syn::Result<T>,
) -> syn::Result<T> {
    if !input.peek(token::Paren) {
        return Err(syn::Error::new(name.span(), wrong));
    }
    let content;
    parenthesized!(content in input);
    if content.is_empty() {
        return Err(syn::Error::new(name.span(), wrong));
    }
    let result = read(&content);
    // The rest would be a fault of its own.
    while !content.is_empty() && content.parse::<TokenTree>().is_ok() {}
    result
}

/// Makes the fault of an unknown name at a place, such as `a struct`.
pub(crate) fn unknown(name: &Ident, place: &str, known: &[&str]) -> syn::Error {
    let known = known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
    syn::Error::new(name.span(), format!("`{name}` is unknown on {place}; known here: {known}"))
}

/// The place of one argument that may be given once.
pub(crate) struct Slot<T> {
    given: bool,
    value: Option<T>,
}

// Not derived: that would ask `T` for a default.
impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { given: false, value: None }
    }
}

impl<T> Slot<T> {
    /// Fills the place with what was read.
    ///
    /// # Errors
    /// A fault at the name when it was given before, or the fault of the reading.
    pub(crate) fn fill(&mut self, name: &Ident, read: syn::Result<T>) -> syn::Result<()> {
        if std::mem::replace(&mut self.given, true) {
            return Err(syn::Error::new(
                name.span(),
                format!("`{name}` is given twice; keep one of them"),
            ));
        }
        self.value = Some(read?);
        Ok(())
    }

    /// Gives what was said, if it was well said.
    pub(crate) fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Tells whether anything was said, well or not.
    pub(crate) fn is_given(&self) -> bool {
        self.given
    }

    /// Tells whether something was said, but not well: a fault is noted already.
    pub(crate) fn is_faulty(&self) -> bool {
        self.given && self.value.is_none()
    }
}
