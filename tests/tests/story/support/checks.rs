//! Checks of deliveries: nothing lost, nothing invented, order per key.

use super::{event::Sample, wire::Sent};
use std::collections::{BTreeMap, HashMap};

/// How many events of each key were emitted, numbered from 1.
pub(crate) type Expected = BTreeMap<String, u64>;

/// Expects so many events of each of so many keys.
pub(crate) fn keys(keys: u64, each: u64) -> Expected {
    (0..keys).map(|key| (format!("k{key}"), each)).collect()
}

/// Deliveries of one route, by key.
pub(crate) struct Deliveries {
    /// First deliveries, by key.
    pub(crate) first: BTreeMap<String, Vec<u64>>,
    pub(crate) repeats: usize,
}

impl Deliveries {
    /// Groups deliveries of one route by key.
    ///
    /// # Panics
    /// When a repeat differs from what it repeats.
    pub(crate) fn of(deliveries: &[Sent]) -> Self {
        let mut seen: HashMap<&str, &Sent> = HashMap::new();
        let mut first: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut repeats = 0;
        for sent in deliveries {
            if let Some(earlier) = seen.insert(&sent.id, sent) {
                assert_eq!(
                    (&sent.key, &sent.payload),
                    (&earlier.key, &earlier.payload),
                    "a repeat has the same bytes"
                );
                repeats += 1;
                continue;
            }
            let sample: Sample = serde_json::from_str(&sent.payload).unwrap();
            assert_eq!(sent.key.as_ref(), Some(&sample.key));
            first.entry(sample.key).or_default().push(sample.n);
        }
        Self { first, repeats }
    }

    /// Nothing lost, nothing invented, each message under one id.
    pub(crate) fn is_whole(&self, expected: &Expected) -> &Self {
        let mut found: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (key, numbers) in &self.first {
            let mut numbers = numbers.clone();
            numbers.sort_unstable();
            found.insert(key, numbers);
        }
        for (key, count) in expected {
            let numbers = found.remove(key.as_str()).unwrap_or_default();
            let lost: Vec<u64> =
                (1..=*count).filter(|n| numbers.binary_search(n).is_err()).take(20).collect();
            assert!(
                lost.is_empty(),
                "lost of {key}: {lost:?} (of {count}, {} came)",
                numbers.len()
            );
            assert_eq!(numbers.len() as u64, *count, "{key} has more than was emitted");
        }
        assert!(found.is_empty(), "never emitted: {found:?}");
        self
    }

    /// First deliveries of each key follow their order.
    pub(crate) fn is_in_order(&self) -> &Self {
        for (key, numbers) in &self.first {
            if let Some(at) = numbers.windows(2).position(|pair| pair[0] >= pair[1]) {
                let around = &numbers[at.saturating_sub(3)..numbers.len().min(at + 5)];
                panic!("{key} is out of order: {around:?}");
            }
        }
        self
    }

    /// Fails where more was repeated.
    pub(crate) fn repeats_at_most(&self, most: usize) -> &Self {
        assert!(self.repeats <= most, "{} repeats, at most {most} were in flight", self.repeats);
        self
    }
}
