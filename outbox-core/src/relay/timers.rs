//! The timer actor: tells the dispatcher when retries are due.

use super::{board::Timer, messages::DispatcherMsg};
use crate::runtime::now;
use std::{cmp::Reverse, collections::BinaryHeap};
use tokio::{sync::mpsc, time::sleep_until};

/// Runs until the dispatcher has stopped.
pub(crate) async fn run(
    mut timers: mpsc::Receiver<Vec<Timer>>,
    dispatcher: mpsc::Sender<DispatcherMsg>,
) {
    let mut heap: BinaryHeap<Reverse<Timer>> = BinaryHeap::new();
    loop {
        let first = heap.peek().map(|Reverse(t)| t.at);
        tokio::select! {
            set = timers.recv() => match set {
                Some(set) => heap.extend(set.into_iter().map(Reverse)),
                None => return,
            },
            () = sleep_until(first.unwrap_or_else(now).into()), if first.is_some() => {
                let now = now();
                let mut due = Vec::new();
                while let Some(Reverse(timer)) = heap.peek().copied() {
                    if timer.at > now {
                        break;
                    }
                    due.push(timer);
                    heap.pop();
                }
                if !due.is_empty()
                    && dispatcher.send(DispatcherMsg::TimersFired(due)).await.is_err()
                {
                    return;
                }
            }
        }
    }
}
