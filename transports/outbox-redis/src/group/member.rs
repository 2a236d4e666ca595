//! The task of a consumer: it connects, reads new entries, and looks after those that it has.
//!
//! New entries are read over a connection of their own, on which the server keeps the reply back
//! until there is one. Everything else goes over a second connection.

use super::{
    commands::Group,
    handoff::Handoff,
    membership::{FIRST, MemberOptions, Membership},
    replies::{EntryId, StreamEntry},
};
use crate::{
    classify::{Failure, Kind},
    connection::{Connector, RedisConnection},
};
use futures_util::{FutureExt, future::BoxFuture};
use outbox_core::runtime::{now, spawn};
use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How long the server keeps the reply to a read back where there is no new entry: how often a
/// connection shows that it lives.
const BLOCK: Duration = Duration::from_secs(2);
/// Longest pause between two looks at leases and at entries of consumers that died.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest pause of that kind is a lease's share.
const UPKEEPS: u32 = 6;
/// First wait before connecting again; it doubles.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// Longest such wait: how late the member notices a recovery at worst.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// How late a member claims an entry whose lease has ended.
pub(crate) const NOTICED_WITHIN: Duration = UPKEEP_INTERVAL.saturating_add(MAX_BACKOFF);

/// The callers' handle of a member. When it is dropped, the member releases the entries that are
/// not in flight and ends.
pub(crate) struct Member(Arc<Membership>);

impl Drop for Member {
    fn drop(&mut self) {
        self.0.handoff.close();
    }
}

impl Member {
    /// Starts the task, which connects by itself.
    pub(crate) fn start(connector: Connector, group: Group, options: MemberOptions) -> Self {
        let handoff = Handoff::new(group.streams.len(), options.prefetch);
        let membership = Arc::new(Membership { group, handoff, options });
        let task = MemberTask {
            last_seen: vec![None; membership.group.streams.len()],
            membership: membership.clone(),
            connector,
            backoff: Duration::ZERO,
        };
        spawn(task.run()).detach();
        Self(membership)
    }

    pub(crate) fn membership(&self) -> &Arc<Membership> {
        &self.0
    }

    /// Releases the entries that are not in flight, and waits until that is done.
    pub(crate) async fn leave(self) {
        let membership = self.0.clone();
        drop(self);
        membership.handoff.ended().await;
    }
}

/// What a read gave: the entries by stream, and when it began.
type Read = (Vec<(usize, Vec<StreamEntry>)>, Instant);
/// A read that is under way.
type Reading = BoxFuture<'static, Result<Read, Failure>>;
/// An upkeep that is under way, with its cursors.
type Upkeep = BoxFuture<'static, Result<Vec<String>, Failure>>;

/// Waits for work that is under way; for ever where none is.
async fn settled<T>(work: &mut Option<BoxFuture<'static, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

/// The task of a member.
struct MemberTask {
    membership: Arc<Membership>,
    connector: Connector,
    backoff: Duration,
    /// The last entry that was read of each stream.
    last_seen: Vec<Option<EntryId>>,
}

/// The connections of a member.
struct Session {
    reader: Arc<RedisConnection>,
    commands: Arc<RedisConnection>,
}

impl MemberTask {
    /// Connects and receives, again after each loss, until the subscriber is closed.
    async fn run(mut self) {
        let membership = self.membership.clone();
        let handoff = &membership.handoff;
        loop {
            let opened = tokio::select! {
                biased;
                () = handoff.closing() => break,
                opened = self.open() => opened,
            };
            let lost = match opened {
                Ok(session) => self.serve(&session).await,
                Err(failure) => Err(failure),
            };
            let Err(failure) = lost else { break };
            handoff.report_loss(failure.text);
            self.backoff = (self.backoff * 2).clamp(MIN_BACKOFF, MAX_BACKOFF);
            tokio::select! {
                biased;
                () = handoff.closing() => break,
                () = sleep(self.backoff) => {}
            }
        }
        let connection = handoff.state().connection.clone();
        if let Some(connection) = connection {
            match timeout(self.connector.timeout, membership.release(&connection)).await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => {
                    tracing::debug!(error = failure.text, "releasing the entries failed");
                }
                Err(_) => tracing::debug!("releasing the entries timed out"),
            }
        }
        handoff.end();
    }

    /// Opens both connections, makes the group where it does not exist, and takes the entries that
    /// are pending with this consumer.
    async fn open(&mut self) -> Result<Session, Failure> {
        let commands = Arc::new(self.connector.connect().await?);
        let reader = Arc::new(self.connector.connect_blocking(BLOCK).await?);
        match self.membership.group.create(&commands, &self.last_seen).await {
            Ok(_) => {}
            // Somebody else may make the groups; without them the next command fails.
            Err(failure) if failure.kind == Kind::NoPermission => {
                tracing::debug!(error = failure.text, "making the consumer group was refused");
            }
            Err(failure) => return Err(failure),
        }
        self.membership.recover(&commands).await?;
        self.membership.handoff.state().connection = Some(commands.clone());
        self.membership.handoff.wake_caller();
        Ok(Session { reader, commands })
    }

    /// Receives until the subscriber is closed.
    ///
    /// # Errors
    /// What has ended the connection.
    async fn serve(&mut self, session: &Session) -> Result<(), Failure> {
        let membership = self.membership.clone();
        let (mut reading, mut upkeep): (Option<Reading>, Option<Upkeep>) = (None, None);
        let pause = UPKEEP_INTERVAL.min(membership.options.lease / UPKEEPS);
        let mut ticks = interval(pause.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Where the claims of each stream go on.
        let mut cursors = vec![FIRST.to_owned(); membership.group.streams.len()];
        loop {
            if membership.handoff.state().closing {
                return Ok(());
            }
            if !session.commands.is_usable() {
                return Err(Failure::lost("the connection was lost"));
            }
            if reading.is_none() {
                let room = membership.handoff.state().room(membership.group.streams.len());
                reading = room.map(|count| self.read(session, count));
            }
            tokio::select! {
                read = settled(&mut reading) => {
                    reading = None;
                    self.on_read(session, read).await?;
                }
                done = settled(&mut upkeep) => {
                    upkeep = None;
                    cursors = self.unless_group_is_missing(session, done).await?.unwrap_or(cursors);
                }
                _ = ticks.tick(), if upkeep.is_none() => {
                    let commands = session.commands.clone();
                    upkeep = Some(membership.clone().upkeep(commands, cursors.clone()).boxed());
                }
                () = membership.handoff.woken() => {}
            }
        }
    }

    fn read(&self, session: &Session, count: usize) -> Reading {
        let (membership, reader) = (self.membership.clone(), session.reader.clone());
        async move {
            let begun = now();
            let entries = membership.group.read(&reader, count, BLOCK).await?;
            Ok((entries, begun))
        }
        .boxed()
    }

    async fn on_read(
        &mut self,
        session: &Session,
        read: Result<Read, Failure>,
    ) -> Result<(), Failure> {
        let Some((streams, begun)) = self.unless_group_is_missing(session, read).await? else {
            return Ok(());
        };
        self.backoff = Duration::ZERO;
        for (stream, entries) in streams {
            self.last_seen[stream] =
                entries.last().map(|entry| entry.id).or(self.last_seen[stream]);
            let first = entries.into_iter().map(|entry| (entry, 1)).collect();
            let gone = self.membership.accept(stream, first, begun);
            self.membership.forget_trimmed(&session.commands, stream, &gone).await?;
        }
        Ok(())
    }

    /// Makes a missing group again; gives `None` then.
    async fn unless_group_is_missing<T>(
        &self,
        session: &Session,
        result: Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        match result {
            Err(failure) if failure.kind == Kind::NoGroup => {
                let group = &self.membership.group;
                if group.create(&session.commands, &self.last_seen).await? {
                    tracing::warn!(
                        group = group.name,
                        "the consumer group was missing and is made again"
                    );
                }
                Ok(None)
            }
            other => other.map(Some),
        }
    }
}
