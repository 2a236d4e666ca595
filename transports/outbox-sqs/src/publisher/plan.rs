//! Which messages go into which request. Pure.

use std::collections::{HashMap, HashSet};

/// Most entries of a request, by the service's rule.
const MAX_ENTRIES: usize = 10;

/// What the plan knows of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item<'m> {
    /// The queue or topic.
    pub(crate) place: &'m str,
    /// The group of a FIFO queue or topic.
    pub(crate) group: Option<&'m str>,
    /// Its bytes.
    pub(crate) size: usize,
}

/// Gives for each message in which round it goes. A FIFO queue keeps the order in which it takes
/// the messages of a group, and a batch may be taken in part: so a group has one message in a
/// round, and the next one goes when that is confirmed. The relay has one message of a key in
/// flight, and one round.
pub(crate) fn rounds(items: &[Item<'_>]) -> Vec<Vec<usize>> {
    let (mut rounds, mut seen) = (Vec::<Vec<usize>>::new(), HashMap::new());
    for (index, item) in items.iter().enumerate() {
        let round = match item.group {
            Some(group) => {
                let count = seen.entry((item.place, group)).or_insert(0_usize);
                *count += 1;
                *count - 1
            }
            None => 0,
        };
        if rounds.len() <= round {
            rounds.resize_with(round + 1, Vec::new);
        }
        rounds[round].push(index);
    }
    rounds
}

/// Cuts the messages of a round into requests: of one place each, of at most ten entries and at
/// most so many bytes. A message that is larger by itself has a request of its own.
pub(crate) fn requests(items: &[Item<'_>], round: &[usize], max_bytes: usize) -> Vec<Vec<usize>> {
    let mut requests: Vec<Vec<usize>> = Vec::new();
    // The last request of each place, with its bytes.
    let mut open: HashMap<&str, (usize, usize)> = HashMap::new();
    for &index in round {
        let item = &items[index];
        match open.get_mut(item.place) {
            Some((request, bytes))
                if requests[*request].len() < MAX_ENTRIES && *bytes + item.size <= max_bytes =>
            {
                requests[*request].push(index);
                *bytes += item.size;
            }
            _ => {
                open.insert(item.place, (requests.len(), item.size));
                requests.push(vec![index]);
            }
        }
    }
    requests
}

/// Groups of which a message was not confirmed: later ones of the same call are not sent.
#[derive(Debug, Default)]
pub(crate) struct Stopped<'m>(HashSet<(&'m str, &'m str)>);

impl<'m> Stopped<'m> {
    /// Notes that a message was not confirmed.
    pub(crate) fn add(&mut self, item: &Item<'m>) {
        self.0.extend(item.group.map(|group| (item.place, group)));
    }

    /// Tells whether an earlier message of its group was not confirmed.
    pub(crate) fn covers(&self, item: &Item<'m>) -> bool {
        item.group.is_some_and(|group| self.0.contains(&(item.place, group)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(place: &'static str, group: Option<&'static str>, size: usize) -> Item<'static> {
        Item { place, group, size }
    }

    #[test]
    fn a_group_has_one_message_in_a_round_and_without_groups_there_is_one_round() {
        let fifo = [
            item("q.fifo", Some("a"), 1),
            item("q.fifo", Some("b"), 1),
            item("q.fifo", Some("a"), 1),
            item("r.fifo", Some("a"), 1),
            item("q.fifo", Some("a"), 1),
        ];
        assert_eq!(rounds(&fifo), [vec![0, 1, 3], vec![2], vec![4]]);
        let standard = [item("q", None, 1), item("q", None, 1)];
        assert_eq!(rounds(&standard), [vec![0, 1]]);
        assert_eq!(rounds(&[]), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn a_request_has_at_most_ten_entries_of_one_place() {
        let mut items = vec![item("q", None, 1); 23];
        items[3] = item("r", None, 1);
        let round: Vec<usize> = (0..items.len()).collect();
        let requests = requests(&items, &round, 1_000);
        let mut sizes: Vec<usize> = requests.iter().map(Vec::len).collect();
        assert_eq!(requests.iter().flatten().count(), items.len());
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 2, 10, 10]);
        assert!(requests.contains(&vec![3]));
    }

    #[test]
    fn a_request_has_at_most_so_many_bytes_and_a_larger_message_goes_alone() {
        let sizes = [400, 600, 1, 1_500, 999, 1];
        let items: Vec<_> = sizes.iter().map(|size| item("q", None, *size)).collect();
        let round: Vec<usize> = (0..items.len()).collect();
        assert_eq!(requests(&items, &round, 1_000), [vec![0, 1], vec![2], vec![3], vec![4, 5]]);
    }

    #[test]
    fn behind_a_message_that_was_not_confirmed_its_group_stops_and_no_other() {
        let mut stopped = Stopped::default();
        stopped.add(&item("q.fifo", Some("a"), 1));
        stopped.add(&item("q", None, 1));
        assert!(stopped.covers(&item("q.fifo", Some("a"), 1)));
        assert!(!stopped.covers(&item("q.fifo", Some("b"), 1)));
        assert!(!stopped.covers(&item("r.fifo", Some("a"), 1)));
        assert!(!stopped.covers(&item("q", None, 1)));
    }
}
