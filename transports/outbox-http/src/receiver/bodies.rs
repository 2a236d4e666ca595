//! Bodies that the receiver is still reading, before it can verify their senders.
//!
//! A known sender sends a body at once; an attacker may send it slowly. So a pending body takes no
//! permit of the requests that are handled, and at the limit the receiver evicts the body whose
//! sender has been idle the longest. An attacker who opens connections and sends a byte a second on
//! each, or nothing, evicts their own bodies: to evict another sender's body they have to send more
//! often.

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

/// Most bytes of all pending bodies: a few hundred usual ones, or forty of the largest.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Shortest time between two warnings about evicted bodies.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// The pending bodies of a receiver.
pub(super) struct PendingBodies {
    max_bodies: usize,
    max_bytes: usize,
    queue: Mutex<IdleQueue>,
}

/// Why a body could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    TooLarge,
    /// The connection broke, or the framing is wrong.
    Broken,
    TimedOut,
    /// There were too many pending bodies, and this sender had been idle the longest.
    Evicted,
}

/// Pending bodies by when data last came, the one whose sender has been idle the longest first.
#[derive(Default)]
struct IdleQueue {
    next: u64,
    bodies: BTreeMap<u64, PendingBody>,
    bytes: usize,
    evicted: u64,
    warned_at: Option<Instant>,
}

struct PendingBody {
    bytes: usize,
    /// Dropped to evict the body.
    _keep: oneshot::Sender<()>,
}

/// A body's entry in the queue, removed on drop.
struct QueueEntry<'a> {
    bodies: &'a PendingBodies,
    number: u64,
    evicted: oneshot::Receiver<()>,
}

impl PendingBodies {
    /// Makes room for `max_bodies`, each of at most `max_body` bytes.
    pub(super) fn new(max_bodies: usize, max_body: usize) -> Self {
        Self { max_bodies, max_bytes: MAX_BYTES.max(max_body), queue: Mutex::default() }
    }

    /// Reads a body of at most `max` bytes, up to a deadline.
    pub(super) async fn read(
        &self,
        mut body: Body,
        max: usize,
        deadline: Instant,
    ) -> Result<Bytes, BodyError> {
        let (mut collected, mut entry) = (CollectedBody::default(), None);
        while !body.is_end_stream() {
            let mut frame = body.frame();
            let frame = match (&mut frame).now_or_never() {
                Some(frame) => frame,
                None => {
                    let entry = entry.get_or_insert_with(|| self.push(collected.len()));
                    tokio::select! {
                        frame = frame => frame,
                        _ = &mut entry.evicted => return Err(BodyError::Evicted),
                        () = sleep_until(deadline.into()) => return Err(BodyError::TimedOut),
                    }
                }
            };
            match frame {
                None => break,
                Some(Err(_)) => return Err(BodyError::Broken),
                Some(Ok(frame)) => {
                    // Trailers are ignored.
                    let data = frame.into_data().unwrap_or_default();
                    if data.len() > max.saturating_sub(collected.len()) {
                        return Err(BodyError::TooLarge);
                    }
                    if let Some(entry) = &mut entry {
                        entry.grow(data.len());
                    }
                    collected.append(data);
                }
            }
        }
        Ok(collected.into_bytes())
    }

    fn push(&self, bytes: usize) -> QueueEntry<'_> {
        let (keep, evicted) = oneshot::channel();
        let mut queue = self.queue();
        let number = queue.push(bytes, keep);
        self.evict_excess(queue);
        QueueEntry { bodies: self, number, evicted }
    }

    fn evict_excess(&self, mut queue: MutexGuard<'_, IdleQueue>) {
        if !queue.evict_excess(self.max_bodies, self.max_bytes) {
            return;
        }
        if queue.warned_at.is_none_or(|at| now().saturating_duration_since(at) >= WARN_EVERY) {
            queue.warned_at = Some(now());
            let evicted = std::mem::take(&mut queue.evicted);
            drop(queue);
            tracing::warn!(
                evicted,
                max_bodies = self.max_bodies,
                max_bytes = self.max_bytes,
                "too many slow senders: the receiver refuses the request bodies that have been idle the longest; limit \
                 slow clients in front of the receiver, or raise max_in_flight"
            );
        }
    }

    fn queue(&self) -> MutexGuard<'_, IdleQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdleQueue {
    fn push(&mut self, bytes: usize, keep: oneshot::Sender<()>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.bytes += bytes;
        self.bodies.insert(number, PendingBody { bytes, _keep: keep });
        number
    }

    /// Records that more bytes of a body came; the body moves to the end of the queue, under the
    /// number that this returns.
    fn grow(&mut self, number: u64, bytes: usize) -> u64 {
        let Some(mut body) = self.bodies.remove(&number) else { return number };
        body.bytes += bytes;
        self.bytes += bytes;
        let number = self.next;
        self.next += 1;
        self.bodies.insert(number, body);
        number
    }

    fn remove(&mut self, number: u64) {
        if let Some(body) = self.bodies.remove(&number) {
            self.bytes -= body.bytes;
        }
    }

    /// Evicts the bodies that have been idle the longest until both limits hold; tells whether it
    /// evicted any.
    fn evict_excess(&mut self, max_bodies: usize, max_bytes: usize) -> bool {
        let before = self.evicted;
        while self.bodies.len() > max_bodies || (self.bytes > max_bytes && self.bodies.len() > 1) {
            let Some((_, oldest)) = self.bodies.pop_first() else { break };
            self.bytes -= oldest.bytes;
            self.evicted += 1;
        }
        self.evicted > before
    }
}

impl QueueEntry<'_> {
    fn grow(&mut self, bytes: usize) {
        let mut queue = self.bodies.queue();
        self.number = queue.grow(self.number, bytes);
        self.bodies.evict_excess(queue);
    }
}

impl Drop for QueueEntry<'_> {
    fn drop(&mut self) {
        self.bodies.queue().remove(self.number);
    }
}

/// The chunks of a body so far. One chunk is kept as it came; several are copied, since each would
/// keep alive the buffer that it was read into, however small it is.
#[derive(Default)]
struct CollectedBody {
    first: Bytes,
    rest: BytesMut,
}

impl CollectedBody {
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

    /// Sizes of bodies, and which of them are evicted, oldest first, at 3 bodies and 100 bytes.
    #[test]
    fn the_oldest_bodies_are_evicted_when_they_are_too_many_or_too_large_together() {
        let table: [(&[usize], &[u64]); 7] = [
            (&[], &[]),
            (&[0, 0, 0], &[]),
            (&[0, 0, 0, 0], &[0]),
            (&[0, 0, 0, 0, 0], &[0, 1]),
            (&[60, 40], &[]),
            (&[60, 40, 1], &[0]),
            (&[60, 101], &[0]),
        ];
        for (sizes, expected) in table {
            let mut queue = IdleQueue::default();
            let mut kept = Vec::new();
            for size in sizes {
                let (keep, receiver) = oneshot::channel();
                queue.push(*size, keep);
                kept.push(receiver);
                queue.evict_excess(3, 100);
            }
            let mut evicted = Vec::new();
            for (number, kept) in (0..).zip(&mut kept) {
                if kept.try_recv() == Err(oneshot::error::TryRecvError::Closed) {
                    evicted.push(number);
                }
            }
            assert_eq!(evicted, expected, "{sizes:?}");
            for number in 0..queue.next {
                queue.remove(number);
            }
            assert_eq!((queue.bytes, queue.bodies.len()), (0, 0), "{sizes:?}");
        }
    }

    #[test]
    fn a_body_that_comes_is_kept_however_many_strangers_open_connections_or_send_more_rarely() {
        let (mut queue, mut kept) = (IdleQueue::default(), Vec::new());
        let (keep, mut honest) = oneshot::channel();
        let mut number = queue.push(10, keep);
        for _ in 0..50 {
            // Between two chunks of it as many strangers come as leave one entry free.
            for _ in 0..2 {
                let (keep, stranger) = oneshot::channel();
                queue.push(10, keep);
                kept.push(stranger);
                queue.evict_excess(3, 1_000_000);
            }
            number = queue.grow(number, 1_000);
            queue.evict_excess(3, 1_000_000);
        }
        assert_eq!(
            honest.try_recv(),
            Err(oneshot::error::TryRecvError::Empty),
            "it is still pending"
        );
        queue.remove(number);
        assert_eq!((queue.bytes, queue.bodies.len()), (20, 2));
    }

    #[test]
    fn a_body_is_whole_however_it_is_cut() {
        for pieces in [vec![], vec!["abc"], vec!["a", "bc"], vec!["", "a", "", "b", "c"]] {
            let mut collected = CollectedBody::default();
            pieces.iter().for_each(|piece| collected.append(Bytes::from_static(piece.as_bytes())));
            assert_eq!(collected.len(), pieces.concat().len());
            assert_eq!(collected.into_bytes(), pieces.concat().as_bytes());
        }
    }
}
