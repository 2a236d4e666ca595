//! Identities as UUIDs, texts and in serde.

use super::{EventId, LetterId, MessageId, SagaId};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{num::ParseIntError, str::FromStr};
use uuid::Uuid;

/// Both ways to a UUID, and as its text in serde.
macro_rules! uuids {
    ($($id:ty)+) => {$(
        impl From<Uuid> for $id {
            fn from(uuid: Uuid) -> Self {
                Self::from_uuid(uuid)
            }
        }

        impl From<$id> for Uuid {
            fn from(id: $id) -> Self {
                *id.as_uuid()
            }
        }

        impl Serialize for $id {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )+};
}

/// From a text, and as a number in serde.
macro_rules! numbers {
    ($($id:ident)+) => {$(
        impl FromStr for $id {
            type Err = ParseIntError;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }

        impl Serialize for $id {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_i64(self.0)
            }
        }

        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                i64::deserialize(deserializer).map(Self)
            }
        }
    )+};
}

uuids!(MessageId SagaId);
numbers!(EventId LetterId);

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::{Debug, Display};

    fn comes_back<T>(id: &T)
    where
        T: Serialize + de::DeserializeOwned + FromStr<Err: Debug> + Display + PartialEq + Debug,
    {
        let json = serde_json::to_string(id).expect("it is written");
        assert_eq!(&serde_json::from_str::<T>(&json).expect("it is read"), id);
        assert_eq!(&id.to_string().parse::<T>().expect("it is a text"), id);
        assert_eq!(json.trim_matches('"'), id.to_string());
    }

    #[test]
    fn identities_are_uuids_texts_and_values_of_serde_and_back() {
        comes_back(&MessageId::generate());
        comes_back(&SagaId::generate());
        comes_back(&EventId(7));
        comes_back(&LetterId(i64::MAX));
        let uuid = *MessageId::generate().as_uuid();
        assert_eq!(
            (Uuid::from(MessageId::from(uuid)), Uuid::from(SagaId::from(uuid))),
            (uuid, uuid)
        );
        assert!(serde_json::from_str::<MessageId>("\"no uuid\"").is_err());
    }
}
