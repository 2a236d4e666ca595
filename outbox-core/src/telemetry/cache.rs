//! Handles that an actor keeps.

use super::metrics::MAX_SERIES;
use std::{
    array,
    sync::{PoisonError, RwLock},
};

/// Handles that an actor keeps by the label values that vary. Beyond 400 it keeps no more, and looks
/// them up each time.
#[derive(Debug)]
pub(crate) struct HandleCache<const N: usize, H>(RwLock<Vec<([Box<str>; N], H)>>);

impl<const N: usize, H> Default for HandleCache<N, H> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<const N: usize, H: Clone> HandleCache<N, H> {
    /// Gives the handle of some label values, which is made the first time.
    pub(crate) fn get(&self, values: [&str; N], make: impl FnOnce() -> H) -> H {
        let is = |known: &[Box<str>; N]| known.iter().zip(values).all(|(is, value)| **is == *value);
        let handles = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, handle)) = handles.iter().find(|(known, _)| is(known)) {
            return handle.clone();
        }
        drop(handles);
        let handle = make();
        let mut handles = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if handles.len() < MAX_SERIES {
            handles.push((array::from_fn(|at| values[at].into()), handle.clone()));
        }
        handle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_makes_each_handle_once_and_stays_bounded() {
        let (cache, mut made) = (HandleCache::<2, usize>::default(), 0);
        for _ in 0..2 {
            for topic in ["orders", "payments"] {
                cache.get(["mails", topic], || {
                    made += 1;
                    made
                });
            }
        }
        assert_eq!((made, cache.get(["mails", "payments"], || 0)), (2, 2));
        for number in 0..10_000 {
            cache.get(["mails", &number.to_string()], || 0);
        }
        assert_eq!(cache.0.read().unwrap().len(), MAX_SERIES);
    }
}
