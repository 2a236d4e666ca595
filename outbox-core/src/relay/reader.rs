//! The reader: makes one read at a time, as the dispatcher asks.

use super::{
    board::{ReadAnswer, ReadJob},
    messages::Note,
};
use crate::{
    outbox::{EventReader, StoreError},
    runtime::fault::{FaultPoint, reach},
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Reads until the dispatcher is gone, which at a shutdown may be in the middle of a read.
pub(crate) async fn run(
    store: Arc<dyn EventReader>,
    mut jobs: mpsc::Receiver<ReadJob>,
    dispatcher: mpsc::Sender<Note>,
) {
    while let Some(job) = jobs.recv().await {
        let answer = read(&*store, job).await;
        reach(FaultPoint::AfterRead);
        if dispatcher.send(Note::Read(answer)).await.is_err() {
            return;
        }
    }
}

async fn read(store: &dyn EventReader, job: ReadJob) -> Result<ReadAnswer, StoreError> {
    Ok(match job {
        ReadJob::Main { plan, .. } => ReadAnswer::Main(store.read(&plan).await?),
        ReadJob::Fetch { ids, whole_up_to, .. } => {
            ReadAnswer::Events(store.fetch(&ids, whole_up_to).await?)
        }
        ReadJob::Page { partition, from, to, limit, whole_up_to, .. } => {
            ReadAnswer::Events(store.page(partition, from, to, limit, whole_up_to).await?)
        }
        ReadJob::Ids { partition, from, to, limit, .. } => {
            ReadAnswer::Ids(store.ids(partition, from, to, limit).await?)
        }
    })
}
