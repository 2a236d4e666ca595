//! Bodies that are being read: whoever sends them, nobody knows yet whether they are signed.
//!
//! Signed senders send a body at once, and strangers may take their time. So a body takes nothing of what requests are
//! handled with, and where too many are waited for, the one is given up of which nothing has come for longest. A stranger who
//! opens connections and sends a byte a second on each, or nothing, takes places from himself: to keep one from somebody else he
//! has to send more often than that one does.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use outbox_core::runtime::now;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::oneshot, time::sleep_until};

/// Most bytes of bodies that are waited for: a few hundred usual ones, or forty of the largest.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// A warning that bodies are given up is not repeated earlier.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// The bodies that are waited for.
pub(super) struct Bodies {
    most: usize,
    most_bytes: usize,
    waiting: Mutex<Waiting>,
}

/// Why a body is not there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    TooLarge,
    /// The connection broke, or what came is no body.
    Broken,
    Late,
    /// Something of all others came later, and there are too many.
    GivenUp,
}

/// The one first of which nothing has come for longest.
#[derive(Default)]
struct Waiting {
    next: u64,
    places: BTreeMap<u64, Place>,
    bytes: usize,
    given_up: u64,
    warned_at: Option<Instant>,
}

struct Place {
    bytes: usize,
    /// Dropped to give the body up.
    _keep: oneshot::Sender<()>,
}

/// A body's place among those that are waited for; dropped, it is free.
struct Ticket<'a> {
    bodies: &'a Bodies,
    number: u64,
    given_up: oneshot::Receiver<()>,
}

impl Bodies {
    /// Makes room for so many, of which one may be so large.
    pub(super) fn new(most: usize, max_body: usize) -> Self {
        Self { most, most_bytes: MAX_BYTES.max(max_body), waiting: Mutex::default() }
    }

    /// Reads a body of at most `max` bytes, up to a deadline.
    pub(super) async fn read(
        &self,
        mut body: Body,
        max: usize,
        until: Instant,
    ) -> Result<Bytes, Unread> {
        let (mut whole, mut ticket) = (Whole::default(), None);
        while !body.is_end_stream() {
            let mut frame = body.frame();
            let frame = match (&mut frame).now_or_never() {
                Some(frame) => frame,
                None => {
                    let ticket = ticket.get_or_insert_with(|| self.enter(whole.len()));
                    tokio::select! {
                        frame = frame => frame,
                        _ = &mut ticket.given_up => return Err(Unread::GivenUp),
                        () = sleep_until(until.into()) => return Err(Unread::Late),
                    }
                }
            };
            match frame {
                None => break,
                Some(Err(_)) => return Err(Unread::Broken),
                Some(Ok(frame)) => {
                    // Trailers say nothing here.
                    let data = frame.into_data().unwrap_or_default();
                    if data.len() > max.saturating_sub(whole.len()) {
                        return Err(Unread::TooLarge);
                    }
                    if let Some(ticket) = &mut ticket {
                        ticket.grow(data.len());
                    }
                    whole.append(data);
                }
            }
        }
        Ok(whole.into_bytes())
    }

    fn enter(&self, bytes: usize) -> Ticket<'_> {
        let (keep, given_up) = oneshot::channel();
        let mut waiting = self.waiting();
        let number = waiting.enter(bytes, keep);
        self.give_up_surplus(waiting);
        Ticket { bodies: self, number, given_up }
    }

    fn give_up_surplus(&self, mut waiting: MutexGuard<'_, Waiting>) {
        if !waiting.give_up_surplus(self.most, self.most_bytes) {
            return;
        }
        if waiting.warned_at.is_none_or(|at| now().saturating_duration_since(at) >= WARN_EVERY) {
            waiting.warned_at = Some(now());
            let given_up = std::mem::take(&mut waiting.given_up);
            drop(waiting);
            tracing::warn!(
                given_up,
                most = self.most,
                most_bytes = self.most_bytes,
                "senders are slow: request bodies of which nothing has come for longest are given up for others; limit slow \
                 clients in front of the receiver, or raise max_in_flight"
            );
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn enter(&mut self, bytes: usize, keep: oneshot::Sender<()>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.bytes += bytes;
        self.places.insert(number, Place { bytes, _keep: keep });
        number
    }

    /// Notes that more of one has come; it goes behind all others, under the number that is given.
    fn grow(&mut self, number: u64, bytes: usize) -> u64 {
        let Some(mut place) = self.places.remove(&number) else { return number };
        place.bytes += bytes;
        self.bytes += bytes;
        let number = self.next;
        self.next += 1;
        self.places.insert(number, place);
        number
    }

    fn leave(&mut self, number: u64) {
        if let Some(place) = self.places.remove(&number) {
            self.bytes -= place.bytes;
        }
    }

    /// Gives up those of which nothing has come for longest until the others are few and small enough; tells whether any was.
    fn give_up_surplus(&mut self, most: usize, most_bytes: usize) -> bool {
        let before = self.given_up;
        while self.places.len() > most || (self.bytes > most_bytes && self.places.len() > 1) {
            let Some((_, oldest)) = self.places.pop_first() else { break };
            self.bytes -= oldest.bytes;
            self.given_up += 1;
        }
        self.given_up > before
    }
}

impl Ticket<'_> {
    fn grow(&mut self, bytes: usize) {
        let mut waiting = self.bodies.waiting();
        self.number = waiting.grow(self.number, bytes);
        self.bodies.give_up_surplus(waiting);
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.bodies.waiting().leave(self.number);
    }
}

/// What has come of a body. One piece is kept as it came; several are copied, since each would keep alive the buffer that it
/// was read into, however small it is.
#[derive(Default)]
struct Whole {
    first: Bytes,
    rest: BytesMut,
}

impl Whole {
    fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    fn append(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
        } else {
            self.rest.extend_from_slice(&std::mem::take(&mut self.first));
            self.rest.extend_from_slice(&data);
        }
    }

    fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bodies of some sizes, and of which of them are given up, oldest first, at 3 bodies and 100 bytes.
    #[test]
    fn the_oldest_bodies_are_given_up_when_they_are_too_many_or_too_large_together() {
        let table: [(&[usize], &[u64]); 7] = [
            (&[], &[]),
            (&[0, 0, 0], &[]),
            (&[0, 0, 0, 0], &[0]),
            (&[0, 0, 0, 0, 0], &[0, 1]),
            (&[60, 40], &[]),
            (&[60, 40, 1], &[0]),
            (&[60, 101], &[0]),
        ];
        for (sizes, given_up) in table {
            let mut waiting = Waiting::default();
            let mut kept = Vec::new();
            for size in sizes {
                let (keep, receiver) = oneshot::channel();
                waiting.enter(*size, keep);
                kept.push(receiver);
                waiting.give_up_surplus(3, 100);
            }
            let mut told = Vec::new();
            for (number, kept) in (0..).zip(&mut kept) {
                if kept.try_recv() == Err(oneshot::error::TryRecvError::Closed) {
                    told.push(number);
                }
            }
            assert_eq!(told, given_up, "{sizes:?}");
            for number in 0..waiting.next {
                waiting.leave(number);
            }
            assert_eq!((waiting.bytes, waiting.places.len()), (0, 0), "{sizes:?}");
        }
    }

    #[test]
    fn a_body_that_comes_is_kept_however_many_strangers_open_connections_or_send_more_rarely() {
        let (mut waiting, mut kept) = (Waiting::default(), Vec::new());
        let (keep, mut honest) = oneshot::channel();
        let mut number = waiting.enter(10, keep);
        for _ in 0..50 {
            // Between two pieces of it there come as many strangers as leave one place.
            for _ in 0..2 {
                let (keep, stranger) = oneshot::channel();
                waiting.enter(10, keep);
                kept.push(stranger);
                waiting.give_up_surplus(3, 1_000_000);
            }
            number = waiting.grow(number, 1_000);
            waiting.give_up_surplus(3, 1_000_000);
        }
        assert_eq!(
            honest.try_recv(),
            Err(oneshot::error::TryRecvError::Empty),
            "it is still waited for"
        );
        waiting.leave(number);
        assert_eq!((waiting.bytes, waiting.places.len()), (20, 2));
    }

    #[test]
    fn a_body_is_whole_however_it_is_cut() {
        for pieces in [vec![], vec!["abc"], vec!["a", "bc"], vec!["", "a", "", "b", "c"]] {
            let mut whole = Whole::default();
            pieces.iter().for_each(|piece| whole.append(Bytes::from_static(piece.as_bytes())));
            assert_eq!(whole.len(), pieces.concat().len());
            assert_eq!(whole.into_bytes(), pieces.concat().as_bytes());
        }
    }
}
