//! The partition of an event.

use crate::event::MessageId;
use xxhash_rust::xxh3::xxh3_64;

/// Partitions of a new outbox: enough for sixteen relays, few enough to be read in one statement.
pub const DEFAULT_PARTITIONS: u16 = 16;

/// Number of a partition, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionNo(pub u16);

/// Counts the owners that a partition has had; the store refuses writes under an earlier epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub i64);

impl std::fmt::Display for PartitionNo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Gives the partition of an event: XXH3-64 (seed 0) of the key's UTF-8 bytes modulo `partitions`;
/// without a key, of the 16 bytes of the message id.
///
/// `partitions` is at least 1.
///
/// # Source
/// Yann Collet, xxHash specification, version 0.2.0 (XXH3).
#[must_use]
pub fn partition_of(key: Option<&str>, message_id: MessageId, partitions: u16) -> PartitionNo {
    let hash = match key {
        Some(key) => xxh3_64(key.as_bytes()),
        None => xxh3_64(message_id.as_uuid().as_bytes()),
    };
    let n = u64::from(partitions.max(1));
    PartitionNo(u16::try_from(hash % n).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Written down so that any language can check its own. Computed with the reference
    // implementation in C (xxHash 0.8.4, through Python's `xxhash`):
    // `xxhash.xxh3_64_intdigest(key.encode()) % 16`.
    //
    // | key | bytes | XXH3-64 | partition of 16 |
    // | --- | --- | --- | --- |
    // | (empty) | 0 | 2d06800538d394c2 | 2 |
    // | 1 | 1 | 65cd25028f98f158 | 8 |
    // | 7 | 1 | 06eed105b82285fa | 10 |
    // | 42 | 2 | 1217cb28c0ef2191 | 1 |
    // | order-1 | 7 | 5fc46503368e2876 | 6 |
    // | customer:4711 | 13 | 53347e76fdb8f66d | 13 |
    // | 550e8400-e29b-41d4-a716-446655440000 | 36 | 05dac8bdcc9c8ac3 | 3 |
    // | Bestellung Straße 9 | 20 | 49c08e6c75c824a3 | 3 |
    // | 注文-42 | 9 | 6bea57427dd1a444 | 4 |
    // | k, 255 times | 255 | 4ba1b33e03e3ab0f | 15 |
    const VECTORS: [(&str, usize, u64, u16); 10] = [
        ("", 1, 0x2d06_8005_38d3_94c2, 2),
        ("1", 1, 0x65cd_2502_8f98_f158, 8),
        ("7", 1, 0x06ee_d105_b822_85fa, 10),
        ("42", 1, 0x1217_cb28_c0ef_2191, 1),
        ("order-1", 1, 0x5fc4_6503_368e_2876, 6),
        ("customer:4711", 1, 0x5334_7e76_fdb8_f66d, 13),
        ("550e8400-e29b-41d4-a716-446655440000", 1, 0x05da_c8bd_cc9c_8ac3, 3),
        ("Bestellung Straße 9", 1, 0x49c0_8e6c_75c8_24a3, 3),
        ("注文-42", 1, 0x6bea_5742_7dd1_a444, 4),
        ("k", 255, 0x4ba1_b33e_03e3_ab0f, 15),
    ];

    #[test]
    fn keys_are_in_the_partitions_that_other_languages_compute() {
        let id = MessageId::generate();
        for (text, times, hash, partition) in VECTORS {
            let key = text.repeat(times);
            assert_eq!(xxh3_64(key.as_bytes()), hash, "{key}");
            assert_eq!(partition_of(Some(&key), id, 16), PartitionNo(partition), "{key}");
        }
    }

    /// Of the 16 bytes of the id in network order; the hashes are d0a66a65c7528968 and
    /// 872096fd63fbe14d.
    #[test]
    fn events_without_a_key_are_spread_by_their_id() {
        for (id, of_16, of_7) in [(0, 8, 4), (0x0190_f5c0_0000_7000_8000_0000_0000_0001, 13, 4)] {
            let id = MessageId::from_uuid(uuid::Uuid::from_u128(id));
            assert_eq!(partition_of(None, id, 16), PartitionNo(of_16));
            assert_eq!(partition_of(None, id, 7), PartitionNo(of_7));
        }
    }

    proptest! {
        #[test]
        fn every_key_has_one_partition_whatever_the_message_id(key in "\\PC{0,40}", one: u128, other: u128, n in 1u16..) {
            let [one, other] = [one, other].map(|id| MessageId::from_uuid(uuid::Uuid::from_u128(id)));
            let partition = partition_of(Some(&key), one, n);
            prop_assert!(partition.0 < n);
            prop_assert_eq!(partition, partition_of(Some(&key), other, n));
            prop_assert!(partition_of(None, one, n).0 < n);
        }
    }
}
