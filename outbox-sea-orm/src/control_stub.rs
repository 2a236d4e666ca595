use crate::Outbox;
use async_trait::async_trait;
use outbox_core::{admin::*, outbox::StoreError};
use std::time::Duration;
#[async_trait]
impl ControlStore for Outbox {
    async fn controls(&self) -> Result<Controls, StoreError> { Ok(Controls::default()) }
    async fn set_control(&self, _: ControlScope, _: &str, _: ControlAction, _: Option<Duration>, _: &OperatorNote) -> Result<(), StoreError> { Ok(()) }
    async fn end_controls(&self, _: ControlScope, _: &str, _: &OperatorNote) -> Result<u64, StoreError> { Ok(0) }
}
