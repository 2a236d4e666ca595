//! A line of text to a destination in another process, and a line back.

use crate::wire::{Answer, Sent};
use async_trait::async_trait;
use outbox_sea_orm::{
    event::Message,
    transport::{Limits, PublishError, Publisher, Receipt},
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
        let rested = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut link = match rested {
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
        self.publish_batch(std::slice::from_ref(message)).await.remove(0)
    }

    async fn publish_batch(&self, messages: &[Message]) -> Vec<Result<Receipt, PublishError>> {
        match self.exchange(messages).await {
            Ok(answers) => answers.into_iter().map(Answer::verdict).collect(),
            Err(error) => messages.iter().map(|_| Err(PublishError::unavailable(error.to_string()))).collect(),
        }
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}
