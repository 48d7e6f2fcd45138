//! The way of news to the caller: in batches, so that a table of a million prefixes does not cost a million wake-ups.

use tokio::sync::mpsc;

use super::event::Event;

/// Batches that may wait for the caller. While it does not read, peers are not listened to.
const BATCHES: usize = 4;

/// The driver's end.
pub(super) type News = mpsc::Sender<Vec<Event>>;

/// The news of a driver, in order.
#[derive(Debug)]
pub struct Events {
    batches: mpsc::Receiver<Vec<Event>>,
    /// What of the last batch has not been read.
    rest: std::vec::IntoIter<Event>,
}

/// Both ends.
pub(super) fn channel() -> (News, Events) {
    let (news, batches) = mpsc::channel(BATCHES);
    (news, Events { batches, rest: Vec::new().into_iter() })
}

impl Events {
    /// Waits for the next news; `None` once the driver has ended. Nothing is lost if the wait is given up.
    pub async fn recv(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.rest.next() {
                return Some(event);
            }
            self.rest = self.batches.recv().await?.into_iter();
        }
    }

    /// Waits for news and appends them, up to `most`; returns how many, none once the driver has ended. Nothing is lost
    /// if the wait is given up.
    pub async fn recv_many(&mut self, buffer: &mut Vec<Event>, most: usize) -> usize {
        if most == 0 {
            return 0;
        }
        if self.rest.len() == 0 {
            match self.batches.recv().await {
                Some(batch) => self.rest = batch.into_iter(),
                None => return 0,
            }
        }
        let before = buffer.len();
        loop {
            let room = most - (buffer.len() - before);
            buffer.extend(self.rest.by_ref().take(room));
            if self.rest.len() > 0 {
                break;
            }
            let Ok(batch) = self.batches.try_recv() else { break };
            self.rest = batch.into_iter();
        }
        buffer.len() - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(number: usize) -> Event {
        Event::Trouble(number.to_string())
    }

    fn numbers(events: &[Event]) -> Vec<usize> {
        let number = |event: &Event| match event {
            Event::Trouble(text) => text.parse().unwrap(),
            other => panic!("{other:?}"),
        };
        events.iter().map(number).collect()
    }

    #[tokio::test]
    async fn come_in_order_however_they_are_cut() {
        let (news, mut events) = channel();
        let mut read = Vec::new();
        for batch in [vec![0, 1, 2], vec![], vec![3, 4]] {
            news.send(batch.into_iter().map(trouble).collect()).await.unwrap();
        }
        assert_eq!(events.recv_many(&mut read, 0).await, 0);
        assert_eq!(events.recv_many(&mut read, 2).await, 2);
        read.extend(events.recv().await);
        assert_eq!(events.recv_many(&mut read, 9).await, 2);
        assert_eq!(numbers(&read), [0, 1, 2, 3, 4]);
        drop(news);
        assert_eq!(events.recv_many(&mut read, 9).await, 0);
        assert!(events.recv().await.is_none());
    }
}
