//! One connection for publishing, and its channels, of which every batch has one for itself.
//!
//! A server returns an unroutable message before it acknowledges it, but not next to its acknowledgement, and the client
//! library hands a returned message out with whatever confirm comes next on the channel. A batch that has a channel for itself
//! therefore waits for all of its confirms, and only then asks which of its messages were returned, by their ids.

use crate::{
    connection::{Dial, Link, quiet},
    headers::Packet,
    topology::Topology,
    verdict::{Failure, UNTIL_A_LEADER},
};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lapin::{
    Channel, Confirmation,
    message::BasicReturnMessage,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use outbox_core::{event::MessageId, runtime::now};
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};

/// Channels whose batch did not end, kept so that nothing of them is sent to a closed channel. With more the connection is
/// given up: something is wrong with it.
const MAX_PARKED: usize = 64;

/// How long queues count as new after they were declared: longer than a server whose cores are taken needs to choose leaders.
const NEW: Duration = Duration::from_secs(10);

/// A message with its way.
pub(crate) struct Parcel {
    pub(crate) id: MessageId,
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    pub(crate) packet: Packet,
}

/// The way to the server.
pub(crate) struct Line {
    dial: Dial,
    topology: Topology,
    lanes: Arc<Semaphore>,
    /// How often connecting has failed: who waited for another's attempt shares its end.
    failures: AtomicU64,
    slot: tokio::sync::Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    open: Option<Arc<Open>>,
    failure: Option<Failure>,
}

/// An open connection with its channels.
struct Open {
    link: Link,
    /// Whether the topology is there, as far as is known.
    declared: AtomicBool,
    /// When it was declared last, if anything was.
    declared_at: Mutex<Option<Instant>>,
    idle: Mutex<Vec<(Channel, u64)>>,
    parked: Mutex<Vec<Channel>>,
}

/// A channel in confirm mode that one batch has for itself. Dropped before all its confirms came, it is never used again.
pub(crate) struct Lane {
    open: Arc<Open>,
    channel: Channel,
    /// The delivery tag of the last message: the server counts as we do.
    tag: AtomicU64,
    finished: bool,
    _permit: OwnedSemaphorePermit,
}

impl Line {
    pub(crate) fn new(dial: Dial, topology: Topology, channels: usize) -> Self {
        let lanes = Arc::new(Semaphore::new(channels));
        Self {
            dial,
            topology,
            lanes,
            failures: AtomicU64::new(0),
            slot: tokio::sync::Mutex::default(),
        }
    }

    /// Takes a channel. Waits for as long as others have them all; they end by their own deadlines.
    pub(crate) async fn lane(&self) -> Result<Lane, Failure> {
        let permit = self.lanes.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Failure::unavailable("the publisher is closed"))?;
        let open = self.open().await?;
        if let Some(reason) = open.link.blocked() {
            return Err(Failure::blocked(&reason));
        }
        let idle = locked(&open.idle).pop();
        let (channel, tag) = match idle {
            Some(idle) => idle,
            None => (open.channel().await?, 0),
        };
        Ok(Lane { open, channel, tag: AtomicU64::new(tag), finished: false, _permit: permit })
    }

    /// Connects and declares the topology, where that is not done.
    ///
    /// # Cancel safety
    /// Whoever waits for the lock goes on with what was left undone.
    async fn open(&self) -> Result<Arc<Open>, Failure> {
        let seen = self.failures.load(Ordering::Acquire);
        let mut slot = self.slot.lock().await;
        if let Some(failure) = &slot.failure
            && self.failures.load(Ordering::Acquire) != seen
        {
            return Err(failure.clone());
        }
        let mut ready = self.ready(slot.open.clone()).await;
        for pause in UNTIL_A_LEADER {
            if ready.as_ref().is_err_and(|failure| failure.stumbled) {
                sleep(pause).await;
                ready = self.ready(None).await;
            }
        }
        match ready {
            Ok(open) => {
                *slot = Slot { open: Some(open.clone()), failure: None };
                Ok(open)
            }
            Err(failure) => {
                slot.failure = Some(failure.clone());
                self.failures.fetch_add(1, Ordering::AcqRel);
                Err(failure)
            }
        }
    }

    async fn ready(&self, open: Option<Arc<Open>>) -> Result<Arc<Open>, Failure> {
        let open = match open.filter(|open| open.link.is_up()) {
            Some(open) => open,
            None => Open::new(self.dial.connect().await?),
        };
        self.declare(open).await
    }

    async fn declare(&self, open: Arc<Open>) -> Result<Arc<Open>, Failure> {
        if !open.declared.load(Ordering::Acquire) {
            self.topology.declare(&open.link).await?;
            *locked(&open.declared_at) = self.topology.has_queues().then(|| now().into());
            open.declared.store(true, Ordering::Release);
        }
        Ok(open)
    }

    /// Connects, if that is not done.
    pub(crate) async fn reach(&self) -> Result<(), Failure> {
        self.open().await.map(|_| ())
    }

    /// Until when confirms are waited for that are asked for now.
    fn deadline(&self) -> Instant {
        (now() + self.dial.timeout).into()
    }

    /// Publishes parcels and gives the delivery tag or the failure of each. `again` makes one of them once more, by its place.
    ///
    /// Two failures are not told at once. One message over which the server closes the channel takes its neighbours down;
    /// one by one it is told from them. And a quorum queue takes nothing until its leader is chosen: where queues were just
    /// declared and the channel has published nothing before, what was refused goes again for a moment. (On a channel that
    /// has published, a refusal means a queue that is full or failed.) Where nothing may arrive twice, nothing goes again.
    pub(crate) async fn send(
        &self,
        lane: Lane,
        parcels: Vec<Parcel>,
        once: bool,
        again: impl Fn(usize) -> Result<Parcel, Failure>,
    ) -> Vec<Result<u64, Failure>> {
        let deadline = self.deadline();
        let may_lack_a_leader = lane.is_new() && lane.open.declared_lately();
        let mut verdicts = lane.send(parcels, deadline).await;
        if once {
            // What was refused may have reached another queue.
            return verdicts;
        }
        if verdicts.len() > 1 {
            let fallen: Vec<usize> = places(&verdicts, |failure| failure.of_one_message);
            for place in fallen {
                verdicts[place] = self.send_again(place, &again, self.deadline()).await;
            }
        }
        for pause in UNTIL_A_LEADER.into_iter().filter(|_| may_lack_a_leader) {
            let refused = places(&verdicts, |failure| failure.refused);
            if refused.is_empty() || deadline.saturating_duration_since(now().into()) < pause {
                break;
            }
            sleep(pause).await;
            for place in refused {
                verdicts[place] = self.send_again(place, &again, deadline).await;
                if verdicts[place].as_ref().is_err_and(|failure| failure.refused) {
                    // Still none; the others need not be asked for.
                    break;
                }
            }
        }
        verdicts
    }

    async fn send_again(
        &self,
        place: usize,
        again: &impl Fn(usize) -> Result<Parcel, Failure>,
        deadline: Instant,
    ) -> Result<u64, Failure> {
        let (parcel, lane) = (again(place)?, self.lane().await?);
        let alone = lane.send(vec![parcel], deadline).await;
        alone.into_iter().next().unwrap_or_else(|| Err(Failure::transient("no verdict")))
    }
}

/// Lists the places of failures of a kind.
fn places(verdicts: &[Result<u64, Failure>], is: impl Fn(&Failure) -> bool) -> Vec<usize> {
    let failed = |verdict: &Result<u64, Failure>| verdict.as_ref().is_err_and(&is);
    verdicts
        .iter()
        .enumerate()
        .filter(|(_, verdict)| failed(verdict))
        .map(|(place, _)| place)
        .collect()
}

impl Open {
    fn new(link: Link) -> Arc<Self> {
        Arc::new(Self {
            link,
            declared: AtomicBool::new(false),
            declared_at: Mutex::default(),
            idle: Mutex::default(),
            parked: Mutex::default(),
        })
    }

    /// Tells whether a queue may be so new that it has no leader yet.
    fn declared_lately(&self) -> bool {
        locked(&self.declared_at).is_some_and(|at| Instant::from(now()) < at + NEW)
    }

    async fn channel(&self) -> Result<Channel, Failure> {
        let channel = self.link.channel().await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        self.link.ask("confirms nothing", confirms).await?;
        Ok(channel)
    }

    fn park(&self, channel: Channel) {
        let mut parked = locked(&self.parked);
        parked.push(channel);
        if parked.len() > MAX_PARKED {
            self.link.give_up();
        }
    }
}

impl Lane {
    /// Tells whether nothing was published on it yet.
    fn is_new(&self) -> bool {
        self.tag.load(Ordering::Relaxed) == 0
    }

    /// Gives the largest frame that both sides take.
    pub(crate) fn frame_max(&self) -> usize {
        usize::try_from(self.open.link.frame_max()).unwrap_or(usize::MAX)
    }

    /// Publishes all of them, waits for their confirms up to the deadline, and then says which were returned.
    async fn send(mut self, parcels: Vec<Parcel>, deadline: Instant) -> Vec<Result<u64, Failure>> {
        let written = AtomicUsize::new(0);
        let ids: Vec<MessageId> = parcels.iter().map(|parcel| parcel.id).collect();
        let mut answers: Vec<Option<(u64, lapin::Result<Confirmation>)>> =
            parcels.iter().map(|_| None).collect();
        {
            let publish = async |place: usize, parcel: Parcel| {
                let tag = self.tag.fetch_add(1, Ordering::Relaxed) + 1;
                let answer = self.publish(parcel, &written).await;
                (place, tag, answer)
            };
            let mut under_way: FuturesUnordered<_> = parcels
                .into_iter()
                .enumerate()
                .map(|(place, parcel)| quiet(publish(place, parcel)).fuse())
                .collect();
            while let Ok(Some((place, tag, answer))) = timeout_at(deadline, under_way.next()).await
            {
                answers[place] = Some((tag, answer));
            }
            // What has come by the deadline counts whole: a confirm that was not looked at may carry the return of a message
            // whose own confirm was. It has come before that one, so a look that finds nothing new has missed none.
            loop {
                let before = answers.iter().flatten().count();
                for rest in Pin::new(&mut under_way).iter_pin_mut() {
                    if let Some((place, tag, answer)) = rest.now_or_never() {
                        answers[place] = Some((tag, answer));
                    }
                }
                if answers.iter().flatten().count() == before {
                    break;
                }
            }
        }
        self.finished = answers.iter().all(|answer| matches!(answer, Some((_, Ok(_)))));
        self.verdicts(&ids, answers, written.into_inner())
    }

    async fn publish(&self, parcel: Parcel, written: &AtomicUsize) -> lapin::Result<Confirmation> {
        let Parcel { exchange, routing_key, packet, .. } = parcel;
        let mandatory = BasicPublishOptions { mandatory: true, ..Default::default() };
        let publish = self.channel.basic_publish(
            exchange,
            routing_key,
            mandatory,
            &packet.body,
            packet.properties,
        );
        let confirm = publish.await?;
        written.fetch_add(1, Ordering::Relaxed);
        confirm.await
    }

    fn verdicts(
        &self,
        ids: &[MessageId],
        answers: Vec<Option<(u64, lapin::Result<Confirmation>)>>,
        written: usize,
    ) -> Vec<Result<u64, Failure>> {
        let unanswered =
            answers.iter().any(Option::is_none).then(|| self.unanswered(ids.len(), written));
        let (mut returned, mut verdicts) = (HashMap::new(), Vec::with_capacity(ids.len()));
        for answer in answers {
            verdicts.push(match answer {
                Some((tag, Ok(Confirmation::Ack(message)))) => {
                    returned.extend(message.and_then(of_message));
                    Ok(tag)
                }
                Some((_, Ok(Confirmation::Nack(message)))) => {
                    returned.extend(message.and_then(of_message));
                    Err(Failure::refused())
                }
                Some((_, Ok(Confirmation::NotRequested))) => {
                    Err(Failure::unavailable("the channel is not in confirm mode"))
                }
                Some((_, Err(error))) => {
                    let failure = Failure::of(&error);
                    if failure.missing {
                        self.open.declared.store(false, Ordering::Release);
                    }
                    Err(failure)
                }
                None => Err(unanswered.clone().unwrap_or_else(|| Failure::transient("no verdict"))),
            });
        }
        for (id, verdict) in ids.iter().zip(&mut verdicts) {
            if let Some(failure) = returned.get(id) {
                *verdict = Err(failure.clone());
            }
        }
        verdicts
    }

    /// Says what it means that the deadline passed.
    fn unanswered(&self, sent: usize, written: usize) -> Failure {
        if let Some(reason) = self.open.link.blocked() {
            return Failure::blocked(&reason);
        }
        if written < sent {
            // What is not written yet would be written some day, to a channel that nobody listens to.
            self.open.link.give_up();
            return Failure::unavailable("the server takes no messages");
        }
        Failure::transient("the server did not confirm in time")
    }
}

fn of_message(returned: BasicReturnMessage) -> Option<(MessageId, Failure)> {
    let failure = Failure::returned(
        returned.reply_code,
        returned.reply_text.as_str(),
        returned.exchange.as_str(),
        returned.routing_key.as_str(),
    );
    Some((returned.properties.message_id().as_ref()?.as_str().parse().ok()?, failure))
}

impl Drop for Lane {
    fn drop(&mut self) {
        if !self.channel.status().connected() {
            return;
        }
        let (channel, tag) = (self.channel.clone(), self.tag.load(Ordering::Relaxed));
        if self.finished {
            locked(&self.open.idle).push((channel, tag));
        } else {
            self.open.park(channel);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
