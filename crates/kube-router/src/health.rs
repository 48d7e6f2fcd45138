//! Whether the process does its work (`/healthz`) and whether it has started to (`/readyz`).
//!
//! Decided here, from beats: a component that has work and made no progress on it for longer than its period and some
//! grace is stuck, and a restart may help. Nothing else is: refused rows, bad objects or an absent API server are no
//! reason to restart a process that forwards traffic. What counts as work and progress is the component's business.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

/// The health of the process; clones share it.
#[derive(Clone, Debug)]
pub struct Health(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    origin: Instant,
    beats: Mutex<Vec<Arc<Pulse>>>,
    conditions: Mutex<Vec<Arc<Condition>>>,
    concerns: Mutex<Vec<String>>,
}

/// What is known of one component. Times are milliseconds since the origin plus one; zero is never.
#[derive(Debug)]
struct Pulse {
    name: &'static str,
    limit: Duration,
    origin: Instant,
    had_work_since: AtomicU64,
    last_progress: AtomicU64,
    ended: AtomicBool,
}

#[derive(Debug)]
struct Condition {
    name: &'static str,
    met: AtomicBool,
}

/// A component's side of its health. Each call is an atomic store. Dropping it says that the component has ended,
/// which is unhealthy until the process ends too.
#[derive(Debug)]
pub struct Beat(Arc<Pulse>);

/// Something that has to happen once before the process is ready.
#[derive(Debug)]
pub struct Awaited(Arc<Condition>);

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Shared {
            origin: Instant::now(),
            beats: Mutex::default(),
            conditions: Mutex::default(),
            concerns: Mutex::default(),
        }))
    }
}

impl Health {
    /// Watches a component that, having work, makes progress at least every `period`; `grace` is added to it.
    pub fn watch(&self, name: &'static str, period: Duration, grace: Duration) -> Beat {
        let pulse = Arc::new(Pulse {
            name,
            limit: period.saturating_add(grace),
            origin: self.0.origin,
            had_work_since: AtomicU64::new(0),
            last_progress: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        lock(&self.0.beats).push(pulse.clone());
        Beat(pulse)
    }

    /// Adds something that has to happen before the process is ready.
    pub fn await_first(&self, name: &'static str) -> Awaited {
        let condition = Arc::new(Condition { name, met: AtomicBool::new(false) });
        lock(&self.0.conditions).push(condition.clone());
        Awaited(condition)
    }

    /// The components that are stuck or have ended, with the reason. Empty means healthy.
    pub fn complaints(&self) -> Vec<String> {
        let now = self.0.origin.elapsed();
        lock(&self.0.beats).iter().filter_map(|pulse| pulse.complaint(now)).collect()
    }

    /// What has not happened yet. Empty means ready.
    pub fn missing(&self) -> Vec<&'static str> {
        let conditions = lock(&self.0.conditions);
        conditions.iter().filter(|c| !c.met.load(Ordering::Relaxed)).map(|c| c.name).collect()
    }

    /// Replaces what is not as it should be although everything works: told by `/readyz`, which stays as green as it is.
    pub fn set_concerns(&self, concerns: Vec<String>) {
        *lock(&self.0.concerns) = concerns;
    }

    /// `/healthz` and `/readyz`.
    pub fn routes(&self) -> Router {
        Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(self.clone())
    }
}

/// Upstream's answers, to the byte; the reasons are in the log and at `/readyz`.
async fn healthz(State(health): State<Health>) -> (StatusCode, &'static str) {
    let complaints = health.complaints();
    if complaints.is_empty() {
        return (StatusCode::OK, "OK\n");
    }
    tracing::warn!("unhealthy: {}", complaints.join("; "));
    (StatusCode::INTERNAL_SERVER_ERROR, "Unhealthy")
}

async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    let mut reasons: Vec<String> = health.missing().iter().map(|name| format!("missing: {name}")).collect();
    reasons.extend(health.complaints());
    let ready = reasons.is_empty();
    if ready {
        reasons.push("OK".to_owned());
    }
    reasons.extend(lock(&health.0.concerns).iter().cloned());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, reasons.join("\n") + "\n")
}

impl Beat {
    /// There is work. Told before the work is handed over; further work while there is some changes nothing.
    pub fn has_work(&self) {
        let _ = self.0.had_work_since.compare_exchange(0, self.0.now(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A piece of work is done, successfully or not, and there may be more.
    pub fn progressed(&self) {
        self.0.last_progress.store(self.0.now(), Ordering::Relaxed);
    }

    /// All work is done. For the component itself to say, not for those who give it work.
    pub fn idle(&self) {
        self.0.had_work_since.store(0, Ordering::Relaxed);
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

impl Awaited {
    /// It has happened. Said again, it changes nothing.
    pub fn done(&self) {
        self.0.met.store(true, Ordering::Relaxed);
    }
}

impl Pulse {
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn complaint(&self, now: Duration) -> Option<String> {
        if self.ended.load(Ordering::Relaxed) {
            return Some(format!("{} has ended", self.name));
        }
        let time = |at: &AtomicU64| at.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis);
        let stuck = stuck_for(now, time(&self.had_work_since), time(&self.last_progress), self.limit)?;
        Some(format!("{} has made no progress for {}s", self.name, stuck.as_secs()))
    }
}

/// How long a component has been stuck at `now`, if it is. Times count from the same origin.
fn stuck_for(
    now: Duration,
    had_work_since: Option<Duration>,
    last_progress: Option<Duration>,
    limit: Duration,
) -> Option<Duration> {
    let since = had_work_since?.max(last_progress.unwrap_or_default());
    now.checked_sub(since).filter(|stuck| *stuck > limit)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The lists are pushed to and read; a panic in between leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_work_without_progress_is_stuck() {
        let s = Duration::from_secs;
        let limit = s(65);
        for (now, work, progress, stuck) in [
            (1000, None, None, None),
            (1000, None, Some(1), None),
            (65, Some(0), None, None),
            (66, Some(0), None, Some(66)),
            (1000, Some(0), Some(950), None),
            (1000, Some(0), Some(900), Some(100)),
            (1000, Some(990), Some(1), None),
            (1, Some(5), None, None),
        ] {
            assert_eq!(
                stuck_for(s(now), work.map(s), progress.map(s), limit),
                stuck.map(s),
                "{now} {work:?}"
            );
        }
    }

    #[test]
    fn a_component_is_watched_until_it_ends() {
        let health = Health::default();
        let beat = health.watch("core", Duration::ZERO, Duration::ZERO);
        assert_eq!(health.complaints(), Vec::<String>::new());
        beat.has_work();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(health.complaints(), ["core has made no progress for 0s"]);
        beat.idle();
        assert_eq!(health.complaints(), Vec::<String>::new());
        drop(beat);
        assert_eq!(health.complaints(), ["core has ended"]);
    }

    #[tokio::test]
    async fn the_answers_are_upstreams_and_readiness_names_what_is_missing() {
        let health = Health::default();
        let services = health.await_first("the list of services");
        let (status, body) = healthz(State(health.clone())).await;
        assert_eq!((status.as_u16(), body), (200, "OK\n"));
        let (status, body) = readyz(State(health.clone())).await;
        assert_eq!((status.as_u16(), body.as_str()), (503, "missing: the list of services\n"));
        services.done();
        let (status, body) = readyz(State(health.clone())).await;
        assert_eq!((status.as_u16(), body.as_str()), (200, "OK\n"));
        health.set_concerns(vec!["refused: 1 of links".to_owned()]);
        let (status, body) = readyz(State(health.clone())).await;
        assert_eq!((status.as_u16(), body.as_str()), (200, "OK\nrefused: 1 of links\n"));
        drop(health.watch("ipvs", Duration::ZERO, Duration::ZERO));
        let (status, body) = healthz(State(health)).await;
        assert_eq!((status.as_u16(), body), (500, "Unhealthy"));
    }
}
