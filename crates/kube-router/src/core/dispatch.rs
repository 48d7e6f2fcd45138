//! Between the reconciler and the lanes: which lane has its next job when, and what its report means.

use std::time::{Duration, Instant};

use linux::lane::{Refusal, Report};
use linux::row::{Key, LaneName};

use super::purge::Question;
use super::{Core, purge};

/// How long the first rules of a controller may wait until sets are filled. What looks into no set need not wait, but
/// would be a transaction of its own, and a process, which makes all others later. Where sets change all the time the
/// wait must have an end.
pub(super) const RULES_WAIT: Duration = Duration::from_secs(1);

impl Core {
    pub(super) fn take_report(&mut self, report: Report, now: Instant) {
        let lane = match report {
            Report::Applied(lane, outcomes) => {
                let reconciler = &self.reconciler;
                self.reporter.applied(lane, &outcomes, |key| reconciler.desired(key).is_some());
                let forgotten = self.flows_to_forget(&outcomes);
                self.reconciler.applied(lane, outcomes, now);
                if let Some(purge) = &self.purge {
                    forgotten.into_iter().for_each(|question| purge.ask(question));
                }
                lane
            }
            Report::Read(lane, Ok(rows)) => {
                self.ownership.note(&self.reconciler, &rows);
                let ownership = self.ownership.of(&self.reconciler, &rows, &self.node);
                self.reconciler.was_read(lane, rows, |key, row| ownership.is_ours(key, row));
                if lane == LaneName::Ipvs {
                    self.ownership.judged();
                }
                lane
            }
            Report::Read(lane, Err(error)) => {
                self.reporter.unreadable(lane, &error);
                self.reconciler.read_failed(lane, now);
                lane
            }
        };
        if let Some((_, beat)) = self.lanes.get(&lane) {
            beat.progressed();
            beat.idle();
        }
    }

    /// Flows that connection tracking is to forget for what a lane has done. O(outcomes).
    fn flows_to_forget(&self, outcomes: &[(Key, Result<(), Refusal>)]) -> Vec<Question> {
        let serves =
            |key: &&Key| matches!(key, Key::VirtualServer(_) | Key::RealServer(..) | Key::Address { .. });
        let done =
            || outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(key, _)| key).filter(serves);
        let gone = done().filter(|key| self.reconciler.desired(key).is_none()).filter_map(purge::flows_of);
        let come = done()
            .filter(|key| self.reconciler.desired(key).is_some() && self.reconciler.actual(key).is_none());
        let served = purge::served_by(come).map(Question::Served);
        gone.map(Question::Gone).chain(served).collect()
    }

    /// Hands every free lane its next job.
    pub(super) fn dispatch(&mut self, now: Instant) {
        if now >= self.audit_at {
            self.audit_at = now + self.audit;
            self.lanes.keys().for_each(|lane| self.reconciler.request_read(*lane));
        }
        // In the order of lanes: sets have their job before it is asked whether rules wait for it.
        for (name, (lane, beat)) in &self.lanes {
            let early = match name {
                LaneName::Sets => false,
                LaneName::Ipvs => self.partly_planned || !self.ledger_is_read(),
                LaneName::Firewall => self.partly_planned || self.sets_come_first(now),
                LaneName::Sysctl | LaneName::Route | LaneName::Cni => self.partly_planned,
            };
            if early {
                continue;
            }
            if *name == LaneName::Firewall {
                self.rules_wait = None;
            }
            let Some(job) = self.reconciler.next_job(*name, now) else { continue };
            beat.has_work();
            self.reporter.started(*name, &job);
            // A lane thread that is gone leaves its job unanswered; its beat turns /healthz red.
            lane.start(job);
        }
        if !self.reconciler.is_busy(LaneName::Ipvs) {
            self.reporter.nothing_due();
        }
        for notice in self.reconciler.take_notices() {
            self.reporter.notice(&notice);
        }
        let planned = !self.partly_planned && self.controllers.iter().all(|running| running.planning);
        if planned && self.reconciler.is_settled() {
            self.ready.done();
            self.take_over();
        }
    }

    /// Everything of ours is in the kernel: what a predecessor wrote through the other packet filter may go. Where a row
    /// of ours is refused it stays, because it may be what enforces that row's purpose.
    pub(super) fn take_over(&mut self) {
        let Some(leftovers) = self.leftovers.take() else { return };
        let filters = [LaneName::Sets, LaneName::Firewall];
        let refused = self
            .reconciler
            .counts()
            .any(|(table, count)| filters.contains(&table.lane()) && count.refused > 0);
        if refused {
            self.leftovers = Some(leftovers);
        } else if let Err(error) = leftovers.remove() {
            tracing::warn!("{error}; the other packet filter's rules stay until the next start");
        }
    }

    /// Whether the first rules of a controller wait for sets that are being filled. Sets that cannot be read are not waited
    /// for.
    pub(super) fn sets_come_first(&self, now: Instant) -> bool {
        let filling =
            self.reconciler.is_adopted(LaneName::Sets) && !self.reconciler.is_at_rest(LaneName::Sets);
        filling && self.rules_wait.is_some_and(|until| now < until)
    }

    /// Whose a virtual server is can be told only with what the other lanes read, and with the node's addresses.
    pub(super) fn ledger_is_read(&self) -> bool {
        let lanes = [LaneName::Route, LaneName::Sets];
        lanes.iter().all(|lane| self.reconciler.has_answered(*lane)) && !self.node.facts.addresses.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Instant {
        let planned = self.controllers.iter().filter_map(|running| running.controller.next_deadline());
        let rest = self.reconciler.next_deadline().into_iter().chain(self.rules_wait).chain([self.audit_at]);
        planned.chain(rest).min().unwrap_or(self.audit_at)
    }
}
