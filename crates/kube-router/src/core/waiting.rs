//! Who waits until a pod's rules are in the kernel: the CNI plugin, before the pod's first program runs.
//!
//! Decided here: who is told what, and when there is no more to wait for. Whether the rules are there is told by the
//! controllers.

use tokio::sync::watch;

use crate::kube::model::ObjectName;
use crate::store::Announced;

/// How far this node has come with a pod that is being wired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The API server has not shown the pod to this agent: nothing is known of its labels.
    Unseen,
    /// The controller of this name does not know enough to plan anything.
    NotPlanning(&'static str),
    /// Rows that this controller wants for the pod are not in the kernel.
    NotInKernel(&'static str),
    /// It may send.
    Ready,
    /// The runtime has removed the sandbox, or made another for the pod.
    Over,
}

impl Progress {
    /// Whether nothing else will follow.
    pub fn is_final(self) -> bool {
        matches!(self, Progress::Ready | Progress::Over)
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Progress::Unseen => f.write_str("the API server has not shown this pod to the agent yet"),
            Progress::NotPlanning(who) => write!(
                f,
                "{who} plans nothing yet, because something it needs is not known (see `kube-router status`)"
            ),
            Progress::NotInKernel(who) => {
                write!(f, "what {who} wants for this pod is not in the kernel yet (see `kube-router status`)")
            }
            Progress::Ready => f.write_str("the pod's rules are in the kernel"),
            Progress::Over => f.write_str("its sandbox was removed, or another one was made for the pod"),
        }
    }
}

/// Those who wait.
#[derive(Debug, Default)]
pub(super) struct Waiting(Vec<(Announced, watch::Sender<Progress>)>);

impl Waiting {
    /// One more, about a sandbox that replaces any other of the pod.
    pub(super) fn add(&mut self, told: Announced, asker: watch::Sender<Progress>) {
        self.end(|other| other.id == told.id && other.container != told.container);
        self.0.push((told, asker));
    }

    /// The sandbox is gone.
    pub(super) fn sandbox_removed(&mut self, id: &ObjectName, container: &str) {
        self.end(|told| told.id == *id && *told.container == *container);
    }

    fn end(&mut self, is_over: impl Fn(&Announced) -> bool) {
        let over = self.0.extract_if(.., |(told, _)| is_over(told));
        for (_, asker) in over {
            // Whoever gave up waiting needs no answer.
            let _ = asker.send(Progress::Over);
        }
    }

    /// Tells everyone how far it is. O(who waits): nearly always nobody.
    pub(super) fn tell(&mut self, progress: impl Fn(&Announced) -> Progress) {
        self.0.retain(|(told, asker)| {
            let now = progress(told);
            asker.send_if_modified(|before| std::mem::replace(before, now) != now);
            !asker.is_closed() && !now.is_final()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(container: &str) -> Announced {
        let id = ObjectName { namespace: "shop".into(), name: "web-0".into() };
        Announced { id, uid: None, container: container.into(), ips: Vec::new() }
    }

    #[test]
    fn everyone_hears_of_each_step_and_of_the_end() {
        let mut waiting = Waiting::default();
        let (first, hears_first) = watch::channel(Progress::Unseen);
        let (second, hears_second) = watch::channel(Progress::Unseen);
        waiting.add(told("c1"), first);
        waiting.tell(|_| Progress::NotPlanning("policy"));
        assert_eq!(*hears_first.borrow(), Progress::NotPlanning("policy"));
        waiting.add(told("c2"), second);
        assert_eq!(*hears_first.borrow(), Progress::Over, "another sandbox was made for the pod");
        waiting.tell(|_| Progress::Ready);
        assert_eq!((*hears_second.borrow(), waiting.0.len()), (Progress::Ready, 0));
        let (third, hears_third) = watch::channel(Progress::Unseen);
        waiting.add(told("c2"), third);
        waiting.sandbox_removed(&told("c1").id, "c1");
        assert_eq!(waiting.0.len(), 1);
        drop(hears_third);
        waiting.tell(|_| Progress::Unseen);
        assert_eq!(waiting.0.len(), 0, "nobody listens");
    }
}
