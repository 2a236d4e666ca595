//! Messages as lines of a file, a CloudEvent each: appended by the publisher, followed by the subscriber.

use async_trait::async_trait;
use outbox_core::{
    event::{Message, Timestamp},
    transport::{
        Acknowledge, Delivery, PublishError, Publisher, Receipt, SubscribeError, Subscriber,
        cloudevents,
    },
};
use std::io::{self, BufRead, BufReader, Write};
use std::{fs::File, path::Path, sync::Arc, time::Duration};
use tokio::{sync::Mutex, sync::mpsc, task::spawn_blocking, time::sleep};

/// Makes publisher and subscriber of a file, which is created if need be.
pub fn open(path: &Path) -> io::Result<(LinePublisher, LineSubscriber)> {
    let publisher =
        LinePublisher(Arc::new(Mutex::new(File::options().create(true).append(true).open(path)?)));
    let (file, returned) = (BufReader::new(File::open(path)?), mpsc::unbounded_channel());
    Ok((publisher, LineSubscriber { file, line: Vec::new(), returned }))
}

/// Appends lines. One is confirmed when it is on the disk.
pub struct LinePublisher(Arc<Mutex<File>>);

#[async_trait]
impl Publisher for LinePublisher {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let (line, mut file) = (line(message), self.0.clone().lock_owned().await);
        // On a thread of its own, which finishes also where the caller is dropped: no line is cut,
        // unless the disk is full.
        let append = move || {
            let length = file.metadata()?.len();
            file.write_all(&line)
                .and_then(|()| file.sync_data())
                .or_else(|e| file.set_len(length).and(Err(e)))
        };
        let appended = spawn_blocking(append).await.map_err(io::Error::other).flatten();
        // A failure to write one line concerns all lines: the destination is down.
        appended
            .map_err(|e| PublishError::unavailable("the line cannot be written").caused_by(e))?;
        Ok(Receipt::new())
    }
}

/// One line. A payload may have line ends between its tokens: such an event is written as a JSON
/// string.
fn line(message: &Message) -> Vec<u8> {
    let mut line = cloudevents::to_json(message).to_vec();
    if line.contains(&b'\n') {
        line = serde_json::json!(String::from_utf8_lossy(&line)).to_string().into_bytes();
    }
    line.push(b'\n');
    line
}

fn read(line: &[u8]) -> Result<Message, String> {
    let fallback = cloudevents::Fallback { topic: None, received_at: Timestamp::from_micros(0) };
    let text: Option<String> = serde_json::from_slice(line).ok();
    cloudevents::from_json(text.as_deref().map_or(line, str::as_bytes), &fallback)
        .map_err(|e| e.to_string())
}

/// Follows a file from its beginning: the inbox suppresses the lines that were read before.
pub struct LineSubscriber {
    file: BufReader<File>,
    /// The line that is being read; its end may not be written yet.
    line: Vec<u8>,
    /// Lines that were not handled, to be delivered again.
    returned: (mpsc::UnboundedSender<Vec<u8>>, mpsc::UnboundedReceiver<Vec<u8>>),
}

#[async_trait]
impl Subscriber for LineSubscriber {
    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        let line = loop {
            if let Ok(line) = self.returned.1.try_recv() {
                break line;
            }
            self.file.read_until(b'\n', &mut self.line).map_err(|e| SubscribeError(e.into()))?;
            if self.line.ends_with(b"\n") {
                break std::mem::take(&mut self.line);
            }
            sleep(Duration::from_millis(10)).await;
        };
        Ok(Some(Delivery::new(read(&line), None, Box::new(Answer(line, self.returned.0.clone())))))
    }
}

/// The settlement of a line. Dropped, the line is delivered again.
struct Answer(Vec<u8>, mpsc::UnboundedSender<Vec<u8>>);

impl Drop for Answer {
    fn drop(&mut self) {
        // A subscriber that has ended reads the file anew at its next start.
        let _ = (!self.0.is_empty()).then(|| self.1.send(std::mem::take(&mut self.0)));
    }
}

#[async_trait]
impl Acknowledge for Answer {
    async fn ack(self: Box<Self>) -> Result<(), SubscribeError> {
        self.nack(false).await
    }
    async fn nack(mut self: Box<Self>, requeue: bool) -> Result<(), SubscribeError> {
        self.0.truncate(if requeue { usize::MAX } else { 0 });
        Ok(())
    }
    async fn reject(self: Box<Self>, _: &str) -> Result<(), SubscribeError> {
        self.nack(false).await
    }
}
