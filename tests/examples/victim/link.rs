//! A publisher to a destination in another process: a line of JSON there, and a line back.

use crate::wire::{Answer, Sent};
use async_trait::async_trait;
use outbox_sea_orm::{
    event::Message,
    transport::{Batch, Limits, PublishError, Publisher, Receipt, publish_all},
};
use std::{
    io,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// Publishes over TCP.
pub(crate) struct Link {
    pub(crate) to: SocketAddr,
    pub(crate) from: String,
    pub(crate) route: String,
    pub(crate) limits: Limits,
    pub(crate) idle: Mutex<Vec<BufReader<TcpStream>>>,
}

impl Link {
    async fn exchange(&self, messages: &[Message]) -> io::Result<Vec<Answer>> {
        let pooled = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut link = match pooled {
            Some(link) => link,
            None => BufReader::new(TcpStream::connect(self.to).await?),
        };
        let mut text = String::new();
        for message in messages {
            text += &serde_json::to_string(&Sent::new(&self.from, &self.route, message))?;
            text.push('\n');
        }
        // While writing, nothing may be left unread on either side: a batch is small, an answer smaller.
        link.get_mut().write_all(text.as_bytes()).await?;
        let mut answers = Vec::with_capacity(messages.len());
        for _ in messages {
            let mut line = String::new();
            if link.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            answers.push(serde_json::from_str(&line)?);
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(link);
        Ok(answers)
    }
}

#[async_trait]
impl Publisher for Link {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        publish_all(self, std::slice::from_ref(message)).await.remove(0)
    }

    async fn publish_batch(&self, batch: &mut Batch) {
        match self.exchange(&batch.messages()).await {
            Ok(answers) => {
                let outcomes = answers.into_iter().map(Answer::into_outcome).enumerate();
                outcomes.for_each(|(index, outcome)| batch.done(index, outcome));
            }
            Err(error) => batch.rest(|| Err(PublishError::unavailable(error.to_string()))),
        }
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}
