//! Peers tell tables; an observer says when it has heard the best of it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::{Error, Lab};
use super::message::{self, Update};
use super::session::{Hears, Identity, Session, say};
use super::subject::{Subject, Wire, external};
use super::table::Tables;
use crate::router::Software;

/// Longest wait for a table to be told.
const LIMIT: Duration = Duration::from_secs(150);
/// Between the last prefix and the reading of memory.
const SETTLE: Duration = Duration::from_millis(500);
/// AS number of the observer, which tells nothing.
const OBSERVER: u32 = 65_099;

/// How long something took: on the clock, and of the speaker's processor time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) clock: Duration,
    pub(super) processor: Duration,
}

impl Taken {
    /// The lesser of each.
    pub(super) fn least(self, other: Taken) -> Taken {
        Taken { clock: self.clock.min(other.clock), processor: self.processor.min(other.processor) }
    }
}

/// What one speaker made of some tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Everything told: from the first octet to the last best path at the observer.
    pub(super) converge: Taken,
    /// Everything told again, each prefix with another best path.
    pub(super) churn: Taken,
    /// Everything taken back.
    pub(super) withdraw: Taken,
    /// Growth of the process for each path it holds, in octets.
    pub(super) weight: u64,
}

impl Times {
    /// The best of two runs.
    pub(super) fn least(self, other: Times) -> Times {
        Times {
            converge: self.converge.least(other.converge),
            churn: self.churn.least(other.churn),
            withdraw: self.withdraw.least(other.withdraw),
            weight: self.weight.min(other.weight),
        }
    }
}

/// Lets one speaker hear tables, other tables, and the end of them.
pub(super) fn run(lab: &Lab<'_>, wire: &Wire, software: Software, tables: Tables) -> Result<Times, Error> {
    let identities: Vec<Identity> = (0..tables.peers)
        .map(|n| Identity { address: address(n), asn: Tables::asn(n) })
        .chain([Identity { address: address(tables.peers), asn: OBSERVER }])
        .collect();
    let subject = wire.start(software, &identities)?;
    let outcome = lab.runtime.block_on(race(wire, &subject, &identities, tables));
    outcome.map_err(|error| match error {
        Error::TooLate { what, seconds, said } => {
            Error::TooLate { what: format!("{software}: {what}"), seconds, said: said + &subject.log() }
        }
        other => other,
    })
}

fn address(n: u32) -> Ipv4Addr {
    external(u8::try_from(n).unwrap_or(u8::MAX))
}

async fn race(
    wire: &Wire,
    subject: &Subject,
    identities: &[Identity],
    tables: Tables,
) -> Result<Times, Error> {
    let mut says = Vec::new();
    let mut observer = None;
    // Tasks end with their connections, and these with the set.
    let mut hearers = JoinSet::new();
    for identity in identities {
        let session = Session::establish(&wire.senders, *identity, subject.address).await?;
        if identity.asn == OBSERVER {
            let (seen, news) = watch::channel(Seen::default());
            hearers.spawn(observe(session.hears, tables, seen));
            observer = Some((news, session.says));
        } else {
            hearers.spawn(session.hears.deafly());
            says.push(session.says);
        }
    }
    let Some((mut news, _quiet)) = observer else {
        return Err(Error::Wrong("nobody observes".to_owned()));
    };
    tokio::time::sleep(SETTLE).await;
    let idle = subject.memory()?;
    let all = tables.destinations();
    let numbered = |n: usize| u32::try_from(n).unwrap_or_default();
    let tell = |round| {
        let each = (0..says.len()).map(numbered);
        each.map(|n| tables.announcement(n, address(n), round)).collect::<Vec<_>>()
    };
    let (first, second) = (tell(1), tell(2));
    let back = (0..says.len()).map(numbered).map(|n| tables.withdrawal(n)).collect();
    let mut stage = Stage { subject, says, news: &mut news };
    let converge = stage.run("the tables", first, |seen| seen.first == all).await?;
    tokio::time::sleep(SETTLE).await;
    let weight = stage.subject.memory()?.saturating_sub(idle) / tables.paths();
    let churn = stage.run("the other tables", second, |seen| seen.second == all).await?;
    let withdraw = stage.run("the end of the tables", back, |seen| seen.gone).await?;
    Ok(Times { converge, churn, withdraw, weight })
}

/// The sessions of a race.
struct Stage<'a> {
    subject: &'a Subject,
    says: Vec<OwnedWriteHalf>,
    news: &'a mut watch::Receiver<Seen>,
}

impl Stage<'_> {
    /// Has every peer say its part, all at once, and waits until the observer has seen it.
    async fn run(
        &mut self,
        what: &str,
        parts: Vec<Vec<u8>>,
        mut done: impl FnMut(&Seen) -> bool,
    ) -> Result<Taken, Error> {
        let before = self.subject.processor()?;
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for ((mut says, part), n) in std::mem::take(&mut self.says).into_iter().zip(parts).zip(0..) {
            tasks.spawn(async move { say(&mut says, &part).await.map(|()| (n, says)) });
        }
        let seen = tokio::time::timeout(LIMIT, self.news.wait_for(|seen| done(seen)));
        let end = match seen.await.map(|seen| seen.map(|seen| seen.at)) {
            Ok(Ok(at)) => at,
            Ok(Err(_)) => return Err(Error::Wrong(format!("the observer's session ended during {what}"))),
            Err(_) => {
                let said = format!("; seen by then: {:?}", *self.news.borrow());
                return Err(Error::TooLate { what: what.to_owned(), seconds: LIMIT.as_secs(), said });
            }
        };
        // In the order of the peers, whoever was done first.
        let done = tasks.join_all().await.into_iter().collect::<Result<BTreeMap<i32, _>, Error>>()?;
        self.says = done.into_values().collect();
        let processor = self.subject.processor()?.saturating_sub(before);
        Ok(Taken { clock: end.map_or_else(|| start.elapsed(), |end| end - start), processor })
    }
}

/// What the observer knows.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Prefixes with the best path of the first round.
    first: usize,
    /// Prefixes with the best path of the second round.
    second: usize,
    /// There were prefixes, and there are none.
    gone: bool,
    /// When that was so.
    at: Option<Instant>,
}

/// Hears what the router tells until it hangs up.
async fn observe(mut hears: Hears, tables: Tables, news: watch::Sender<Seen>) {
    // For each prefix: none, or the round of which its path is the best one, or another path.
    let mut known: Vec<Option<Option<u32>>> = vec![None; tables.destinations()];
    let mut counts = Counts::default();
    loop {
        let more = hears.next(|kind, body| {
            let Some(update) = Update::read(body).filter(|_| kind == message::UPDATE) else { return };
            for index in update.withdrawn() {
                counts.put(&mut known, index, None);
            }
            let best = Tables::best_of(&update.as_path());
            for index in update.announced() {
                counts.put(&mut known, index, Some(best));
            }
        });
        if !matches!(more.await, Ok(true)) {
            return;
        }
        let Counts { present, rounds: [first, second] } = counts;
        let at = Some(Instant::now());
        news.send_replace(Seen { first, second, gone: present == 0, at });
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    present: usize,
    rounds: [usize; 2],
}

impl Counts {
    fn put(&mut self, known: &mut [Option<Option<u32>>], index: usize, path: Option<Option<u32>>) {
        let Some(place) = known.get_mut(index) else { return };
        let before = std::mem::replace(place, path);
        self.present += usize::from(path.is_some());
        self.present -= usize::from(before.is_some());
        for (count, round) in self.rounds.iter_mut().zip(1..) {
            *count += usize::from(path == Some(Some(round)));
            *count -= usize::from(before == Some(Some(round)));
        }
    }
}
