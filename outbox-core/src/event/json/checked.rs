//! The serializer between a value and serde_json's.

use super::{Fault, MAX_DEPTH, Segment, Trace};
use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use std::{cell::RefCell, collections::HashSet, fmt};
use xxhash_rust::xxh3::xxh3_64;

/// Keys of a flattened object that are remembered without an allocation: more fields than most have.
const FEW: usize = 16;

/// A serializer that refuses what JSON would lose.
pub struct Checked<'t, S> {
    inner: S,
    trace: &'t Trace,
    depth: u8,
    /// The keys of the object, where the value is to be another one.
    keys: Option<&'t Keys>,
}

/// Hashes of the keys of one object.
#[derive(Default)]
struct Keys(RefCell<Seen>);

#[derive(Default)]
struct Seen {
    few: [u64; FEW],
    count: usize,
    more: HashSet<u64>,
}

impl Keys {
    /// Notes a key; tells whether it is new.
    fn is_new(&self, key: &str) -> bool {
        let (hash, mut seen) = (xxh3_64(key.as_bytes()), self.0.borrow_mut());
        if seen.few[..seen.count].contains(&hash) {
            return false;
        }
        if seen.count < FEW {
            let at = seen.count;
            seen.few[at] = hash;
            seen.count += 1;
            return true;
        }
        seen.more.insert(hash)
    }
}

/// A key of an object that is flattened together.
struct Key<'v, 't, T: ?Sized> {
    key: &'v T,
    trace: &'t Trace,
    keys: &'t Keys,
}

impl<T: Serialize + ?Sized> Serialize for Key<'_, '_, T> {
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        self.key.serialize(Checked { inner, trace: self.trace, depth: 0, keys: Some(self.keys) })
    }
}

/// A value inside another one, to be written through [`Checked`] as well.
struct Within<'v, 't, T: ?Sized> {
    value: &'v T,
    trace: &'t Trace,
    depth: u8,
}

impl<T: Serialize + ?Sized> Serialize for Within<'_, '_, T> {
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Checked { inner, trace: self.trace, depth: self.depth, keys: None })
    }
}

/// A list or a struct of which elements are being written.
pub struct Elements<'t, C> {
    inner: C,
    trace: &'t Trace,
    depth: u8,
    next: usize,
}

/// A map of which entries are being written.
pub struct Entries<'t, C> {
    of: Elements<'t, C>,
    /// A struct with `#[serde(flatten)]` gives no length; a map, whose keys are unique, does.
    keys: Option<Keys>,
}

impl<'t, S: Serializer> Checked<'t, S> {
    pub(super) const fn new(inner: S, trace: &'t Trace) -> Self {
        Self { inner, trace, depth: 0, keys: None }
    }

    /// Opens so many levels.
    fn enter<C>(
        self,
        levels: u8,
        open: impl FnOnce(S) -> Result<C, S::Error>,
    ) -> Result<Elements<'t, C>, S::Error> {
        let Self { inner, trace, depth, .. } = self;
        let depth = depth + levels;
        if depth > MAX_DEPTH {
            return Err(trace.refuse(Fault::TooDeep));
        }
        Ok(Elements { inner: open(inner)?, trace, depth, next: 0 })
    }
}

impl<C> Elements<'_, C> {
    /// Writes one element, and notes its place where it fails.
    fn one<T: Serialize + ?Sized, E>(
        &mut self,
        value: &T,
        segment: impl FnOnce() -> Segment,
        write: impl FnOnce(&mut C, &Within<'_, '_, T>) -> Result<(), E>,
    ) -> Result<(), E> {
        let within = Within { value, trace: self.trace, depth: self.depth };
        write(&mut self.inner, &within).map_err(|error| self.trace.leave(error, segment()))
    }

    /// Writes the next element of a list.
    fn next<T: Serialize + ?Sized, E>(
        &mut self,
        value: &T,
        write: impl FnOnce(&mut C, &Within<'_, '_, T>) -> Result<(), E>,
    ) -> Result<(), E> {
        let at = self.next;
        self.next += 1;
        self.one(value, || Segment::Index(at), write)
    }
}

macro_rules! as_it_is {
    ($($method:ident($ty:ty)),+ $(,)?) => {
        $(fn $method(self, value: $ty) -> Result<S::Ok, S::Error> {
            self.inner.$method(value)
        })+
    };
}

macro_rules! finite {
    ($($method:ident($ty:ty)),+ $(,)?) => {
        $(fn $method(self, value: $ty) -> Result<S::Ok, S::Error> {
            if value.is_finite() {
                return self.inner.$method(value);
            }
            let what = if value.is_nan() { "NaN" } else if value > 0.0 { "infinity" } else { "-infinity" };
            Err(self.trace.refuse(Fault::NotFinite(what)))
        })+
    };
}

impl<'t, S: Serializer> Serializer for Checked<'t, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Elements<'t, S::SerializeSeq>;
    type SerializeTuple = Elements<'t, S::SerializeTuple>;
    type SerializeTupleStruct = Elements<'t, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Elements<'t, S::SerializeTupleVariant>;
    type SerializeMap = Entries<'t, S::SerializeMap>;
    type SerializeStruct = Elements<'t, S::SerializeStruct>;
    type SerializeStructVariant = Elements<'t, S::SerializeStructVariant>;

    as_it_is! {
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64),
        serialize_i128(i128), serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64),
        serialize_u128(u128), serialize_char(char), serialize_bytes(&[u8]), serialize_unit_struct(&'static str),
    }

    finite! { serialize_f32(f32), serialize_f64(f64) }

    fn serialize_str(self, value: &str) -> Result<S::Ok, S::Error> {
        if self.keys.is_some_and(|keys| !keys.is_new(value)) {
            return Err(self.trace.refuse(Fault::Twice));
        }
        self.inner.serialize_str(value)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&Within { value, trace: self.trace, depth: self.depth })
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner
            .serialize_newtype_struct(name, &Within { value, trace: self.trace, depth: self.depth })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let Elements { inner, trace, depth, .. } = self.enter(1, Ok)?;
        let written =
            inner.serialize_newtype_variant(name, index, variant, &Within { value, trace, depth });
        written.map_err(|error| trace.leave(error, Segment::Field(variant)))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.enter(1, |inner| inner.serialize_seq(len))
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.enter(1, |inner| inner.serialize_tuple(len))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.enter(1, |inner| inner.serialize_tuple_struct(name, len))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.enter(2, |inner| inner.serialize_tuple_variant(name, index, variant, len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        let of = self.enter(1, |inner| inner.serialize_map(len))?;
        Ok(Entries { of, keys: len.is_none().then(Keys::default) })
    }

    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        self.enter(1, |inner| inner.serialize_struct(name, len))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.enter(2, |inner| inner.serialize_struct_variant(name, index, variant, len))
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! lists {
    ($($name:ident::$method:ident),+ $(,)?) => {
        $(impl<C: $name> $name for Elements<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                self.next(value, |inner, value| inner.$method(value))
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        })+
    };
}

lists! {
    SerializeSeq::serialize_element, SerializeTuple::serialize_element, SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

macro_rules! objects {
    ($($name:ident),+ $(,)?) => {
        $(impl<C: $name> $name for Elements<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), C::Error> {
                self.one(value, || Segment::Field(key), |inner, value| inner.serialize_field(key, value))
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), C::Error> {
                self.inner.skip_field(key)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        })+
    };
}

objects! { SerializeStruct, SerializeStructVariant }

impl<C: SerializeMap> SerializeMap for Entries<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        let (map, trace) = (&mut self.of.inner, self.of.trace);
        let written = match &self.keys {
            Some(keys) => map.serialize_key(&Key { key, trace, keys }),
            None => map.serialize_key(key),
        };
        written.map_err(|error| trace.leave(error, key_of(key)))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.of.one(value, || Segment::Key, |map, value| map.serialize_value(value))
    }

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), C::Error> {
        self.serialize_key(key)?;
        self.of.one(value, || key_of(key), |map, value| map.serialize_value(value))
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.of.inner.end()
    }
}

/// Names an entry of a map. A struct with `#[serde(flatten)]` is written as a map, by its fields' names as `str`; keys of
/// another type are a map's own, which are data.
fn key_of<K: Serialize + ?Sized>(key: &K) -> Segment {
    if std::any::type_name::<K>() != "str" {
        return Segment::Key;
    }
    match serde_json::to_value(key) {
        Ok(serde_json::Value::String(name)) => Segment::Named(name),
        _ => Segment::Key,
    }
}
