//! A route reflector and its clients: each tells a few prefixes and has to hear everybody else's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::super::{Error, Lab};
use super::message::{self, Update};
use super::race::Taken;
use super::session::{Hears, Identity, Session, say};
use super::subject::{OURS, Subject, Wire, client};
use crate::router::Software;

/// Longest wait for all clients to have heard everything.
const LIMIT: Duration = Duration::from_secs(120);
/// Sessions being set up at a time.
const AT_ONCE: usize = 50;

/// How many clients, and how many prefixes each tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clients {
    pub(super) count: u16,
    pub(super) prefixes: u16,
}

/// What one speaker made of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reflected {
    /// From the first word to the last prefix at the last client.
    pub(super) taken: Taken,
    /// Growth of the process in octets.
    pub(super) growth: u64,
}

impl Reflected {
    /// The best of two runs.
    pub(super) fn least(self, other: Reflected) -> Reflected {
        Reflected { taken: self.taken.least(other.taken), growth: self.growth.min(other.growth) }
    }
}

/// Lets one speaker reflect.
pub(super) fn run(
    lab: &Lab<'_>,
    wire: &Wire,
    software: Software,
    clients: Clients,
) -> Result<Reflected, Error> {
    let identities: Vec<Identity> =
        (0..clients.count).map(|n| Identity { address: client(n), asn: OURS }).collect();
    let subject = wire.start(software, &identities)?;
    let outcome = lab.runtime.block_on(reflect(wire, &subject, &identities, clients));
    outcome.map_err(|error| match error {
        Error::TooLate { what, seconds, said } => {
            Error::TooLate { what: format!("{software}: {what}"), seconds, said: said + &subject.log() }
        }
        other => other,
    })
}

async fn reflect(
    wire: &Wire,
    subject: &Subject,
    identities: &[Identity],
    clients: Clients,
) -> Result<Reflected, Error> {
    let progress = Arc::new(Progress::default());
    let mut hearers = JoinSet::new();
    let mut says = Vec::new();
    for (n, some) in identities.chunks(AT_ONCE).enumerate() {
        let up = some.iter().map(|identity| Session::establish(&wire.senders, *identity, subject.address));
        let up: Vec<Session> = futures::future::try_join_all(up).await?;
        for (at, session) in up.into_iter().enumerate() {
            let own = n * AT_ONCE + at;
            hearers.spawn(hear(session.hears, clients, own, Arc::clone(&progress)));
            says.push((own, session.says));
        }
    }
    let (idle, before) = (subject.memory()?, subject.processor()?);
    let words: Vec<Vec<u8>> =
        identities.iter().zip(0..).map(|(identity, n)| words(*identity, clients, n)).collect();
    let start = Instant::now();
    for ((_, says), words) in says.iter_mut().zip(&words) {
        say(says, words).await?;
    }
    let done = async {
        while progress.done.load(Ordering::Relaxed) < usize::from(clients.count) {
            progress.more.notified().await;
        }
    };
    if tokio::time::timeout(LIMIT, done).await.is_err() {
        let done = progress.done.load(Ordering::Relaxed);
        return Err(Error::TooLate {
            what: "all prefixes at all clients".to_owned(),
            seconds: LIMIT.as_secs(),
            said: format!("; {done} of {} clients have heard everything", clients.count),
        });
    }
    let clock = start.elapsed();
    let processor = subject.processor()?.saturating_sub(before);
    Ok(Reflected { taken: Taken { clock, processor }, growth: subject.memory()?.saturating_sub(idle) })
}

#[derive(Debug, Default)]
struct Progress {
    /// Clients that have heard everything.
    done: AtomicUsize,
    more: Notify,
}

/// What a client tells.
fn words(identity: Identity, clients: Clients, n: u32) -> Vec<u8> {
    let attributes = message::attributes(&[], identity.address, Some(100), &[]);
    let each = u32::from(clients.prefixes);
    message::reach(&attributes, n * each..(n + 1) * each)
}

/// Hears until everybody else's prefixes are there, then goes on without listening.
async fn hear(mut hears: Hears, clients: Clients, own: usize, progress: Arc<Progress>) {
    let each = usize::from(clients.prefixes);
    let mut known = vec![false; usize::from(clients.count) * each];
    // Its own it need not hear.
    known.iter_mut().skip(own * each).take(each).for_each(|known| *known = true);
    let mut missing = known.iter().filter(|known| !**known).count();
    while missing > 0 {
        let more = hears.next(|kind, body| {
            let Some(update) = Update::read(body).filter(|_| kind == message::UPDATE) else { return };
            for index in update.announced() {
                let Some(known) = known.get_mut(index) else { continue };
                missing -= usize::from(!std::mem::replace(known, true));
            }
        });
        if !matches!(more.await, Ok(true)) {
            return;
        }
    }
    progress.done.fetch_add(1, Ordering::Relaxed);
    progress.more.notify_one();
    hears.deafly().await;
}
