//! A queue's receiving end that stops taking when the program ends and still gives out what it holds.

use tokio::sync::{mpsc, watch};

use super::queue::Parcel;

#[derive(Debug)]
pub struct Inbox<T: ?Sized> {
    queue: mpsc::Receiver<Parcel<T>>,
    closing: watch::Receiver<bool>,
    closed: bool,
}

impl<T: ?Sized> Inbox<T> {
    pub fn new(queue: mpsc::Receiver<Parcel<T>>, closing: &watch::Receiver<bool>) -> Self {
        Self { queue, closing: closing.clone(), closed: false }
    }

    /// The next parcel, or `None` when there will be none. Nothing is lost when this future is dropped.
    pub async fn recv(&mut self) -> Option<Parcel<T>> {
        if !self.closed {
            tokio::select! {
                parcel = self.queue.recv() => return parcel,
                _ = self.closing.wait_for(|closing| *closing) => {}
            }
            self.closed = true;
            self.queue.close();
        }
        self.queue.recv().await
    }

    /// The next parcel if it is there already.
    pub fn ready(&mut self) -> Option<Parcel<T>> {
        self.queue.try_recv().ok()
    }
}
