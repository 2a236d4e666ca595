//! The reader: makes the reads that the dispatcher asks for, one at a time.

use super::{
    board::{ReadAnswer, ReadJob},
    messages::DispatcherMsg,
};
use crate::{
    outbox::{EventReader, StoreError},
    runtime::fault::{FaultPoint, fault_point},
    telemetry::Heartbeats,
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Reads until the dispatcher has stopped, at a shutdown perhaps in the middle of a read.
pub(crate) async fn run(
    store: Arc<dyn EventReader>,
    mut jobs: mpsc::Receiver<ReadJob>,
    dispatcher: mpsc::Sender<DispatcherMsg>,
    heartbeats: Arc<Heartbeats>,
) {
    while let Some(job) = jobs.recv().await {
        let answer = heartbeats.polled(read(&*store, job)).await;
        fault_point(FaultPoint::AfterRead);
        if dispatcher.send(DispatcherMsg::Read(answer)).await.is_err() {
            return;
        }
    }
}

async fn read(store: &dyn EventReader, job: ReadJob) -> Result<ReadAnswer, StoreError> {
    Ok(match job {
        ReadJob::Main { plan, .. } => ReadAnswer::Main(store.read(&plan).await?),
        ReadJob::Fetch { ids, payload_limit, .. } => {
            ReadAnswer::Events(store.fetch(&ids, payload_limit).await?)
        }
        ReadJob::Page { partition, from, to, limit, payload_limit, .. } => {
            ReadAnswer::Events(store.page(partition, from, to, limit, payload_limit).await?)
        }
        ReadJob::Ids { partition, from, to, limit, .. } => {
            ReadAnswer::Ids(store.ids(partition, from, to, limit).await?)
        }
    })
}
