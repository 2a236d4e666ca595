//! Which field types can be an ordering key or a header.

use std::borrow::Cow;

/// A value with one canonical text form, fit for an ordering key or a header.
///
/// Implemented for text, integers, `bool`, `char`, UUIDs, references and options of these. For a type of your own:
///
/// ```
/// # use std::borrow::Cow;
/// use outbox_core::event::KeyPart;
/// struct OrderId(i64);
/// impl KeyPart for OrderId {
///     fn key_part(&self) -> Option<Cow<'_, str>> {
///         self.0.key_part()
///     }
/// }
/// assert_eq!(OrderId(7).key_part().as_deref(), Some("7"));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no text form that can be an ordering key or a header",
    note = "use text, an integer, a bool, a char or a Uuid, or implement `KeyPart` for it"
)]
pub trait KeyPart {
    /// Gives the text, or `None` where there is no value.
    fn key_part(&self) -> Option<Cow<'_, str>>;
}

impl KeyPart for str {
    fn key_part(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(self))
    }
}

impl KeyPart for String {
    fn key_part(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(self))
    }
}

impl KeyPart for Cow<'_, str> {
    fn key_part(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(self))
    }
}

impl<T: KeyPart + ?Sized> KeyPart for &T {
    fn key_part(&self) -> Option<Cow<'_, str>> {
        (**self).key_part()
    }
}

impl<T: KeyPart + ?Sized> KeyPart for Box<T> {
    fn key_part(&self) -> Option<Cow<'_, str>> {
        (**self).key_part()
    }
}

impl<T: KeyPart + ?Sized> KeyPart for std::sync::Arc<T> {
    fn key_part(&self) -> Option<Cow<'_, str>> {
        (**self).key_part()
    }
}

impl<T: KeyPart> KeyPart for Option<T> {
    fn key_part(&self) -> Option<Cow<'_, str>> {
        self.as_ref().and_then(KeyPart::key_part)
    }
}

macro_rules! by_display {
    ($($t:ty),*) => {$(
        impl KeyPart for $t {
            fn key_part(&self) -> Option<Cow<'_, str>> {
                Some(Cow::Owned(self.to_string()))
            }
        }
    )*};
}
by_display!(
    i8,
    i16,
    i32,
    i64,
    i128,
    isize,
    u8,
    u16,
    u32,
    u64,
    u128,
    usize,
    bool,
    char,
    uuid::Uuid,
    super::MessageId
);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn part(value: impl KeyPart) -> Option<String> {
        value.key_part().map(Cow::into_owned)
    }

    #[test]
    fn each_kind_of_value_has_one_text_form() {
        let id = uuid::Uuid::from_u128(0x0190_f5c0_0000_7000_8000_0000_0000_0001);
        for (part, text) in [
            (part("a"), "a"),
            (part(String::from("ß")), "ß"),
            (part(Cow::Borrowed("c")), "c"),
            (part(Box::<str>::from("b")), "b"),
            (part(Arc::new(3_u8)), "3"),
            (<&i64 as KeyPart>::key_part(&&-7).map(Cow::into_owned), "-7"),
            (part(i128::MIN), "-170141183460469231731687303715884105728"),
            (part(true), "true"),
            (part('x'), "x"),
            (part(id), "0190f5c0-0000-7000-8000-000000000001"),
            (part(super::super::MessageId::from_uuid(id)), "0190f5c0-0000-7000-8000-000000000001"),
            (part(Some(Some(5_u16))), "5"),
            (part(""), ""),
        ] {
            assert_eq!(part.as_deref(), Some(text));
        }
        assert_eq!(part(None::<i64>), None);
        assert_eq!(part(Some(None::<String>)), None);
    }

    #[test]
    fn text_is_borrowed() {
        assert!(matches!(String::from("a").key_part(), Some(Cow::Borrowed("a"))));
    }
}
