//! What reaches the core.

use std::collections::HashMap;
use std::net::IpAddr;

use bgp::driver::PeerReport;
use ipnet::IpNet;
use linux::conntrack::Flow;
use linux::lane::Report;
use linux::row::{Key, LaneName, Name, Row, VirtualServerKey};
use tokio::sync::{oneshot, watch};

use super::waiting::Progress;
use crate::explain::{Explanation, Question, Unanswerable};
use crate::kube::model::{ObjectName, WatchEvent};
use crate::network_services::drain::RealServerKey;
use crate::node::Facts;
use crate::secret::Secret;
use crate::status::Status;
use crate::store::Announced;

/// One message to the core.
#[derive(Debug)]
pub enum Input {
    /// The API server says something; what came together, in its order.
    Watch(Vec<WatchEvent>),
    /// A lane did its job.
    Lane(Report),
    /// This node's links and addresses, after they changed.
    Facts(Facts),
    /// Rows that somebody else changed or removed; `None` is gone.
    Changed(Vec<(Key, Option<Row>)>),
    /// Somebody else may have changed anything in this lane's tables.
    Reread(LaneName),
    /// The process ends: say good-bye to whoever would wait for us, then tell.
    Stop(oneshot::Sender<()>),
    /// The container runtime makes a pod, or has removed one.
    Sandbox(Sandbox),
    /// Something for one controller.
    News(News),
    /// Somebody asks for the status.
    Status(oneshot::Sender<Account>),
    /// Somebody asks what becomes of packets. The answer is what stands against answering.
    Explain(Question, oneshot::Sender<Result<Box<Explanation>, Unanswerable>>),
}

impl From<Vec<WatchEvent>> for Input {
    fn from(events: Vec<WatchEvent>) -> Input {
        Input::Watch(events)
    }
}

/// The status, and a question to the BGP speaker that is answered later, where there is one.
#[derive(Debug)]
pub struct Account {
    /// What the core knows.
    pub status: Box<Status>,
    /// What the speaker knows of its peers. Nothing comes if it has no configuration yet.
    pub peers: Option<oneshot::Receiver<Vec<PeerReport>>>,
}

/// What the CNI plugin hands over.
#[derive(Debug)]
pub enum Sandbox {
    /// It is being wired; who waits for its rules, if anybody does.
    Wired(Announced, Option<watch::Sender<Progress>>),
    /// It is gone.
    Removed {
        /// Whose it was.
        pod: ObjectName,
        /// The runtime's identifier.
        container: Name,
    },
}

/// What concerns one controller, by where it comes from.
#[derive(Debug)]
pub enum News {
    /// Draining real servers without connections.
    Idle(Vec<RealServerKey>),
    /// Flows that were asked for.
    Flows(Vec<Flow>),
    /// Next hops of the best paths learned from BGP peers to these prefixes now; none where there is no path any more.
    Selected(Vec<(IpNet, Option<IpAddr>)>),
    /// A BGP peer came up.
    PeerUp(IpAddr),
    /// The BGP speaker has begun to select paths of this family.
    SelectionBegan(bgp::Family),
    /// The file with the passwords of BGP peers says this now, or why it cannot be read.
    Passwords(Result<Secret, String>),
    /// A scrape wants to know whose each virtual server is.
    Owners(oneshot::Sender<HashMap<VirtualServerKey, ObjectName>>),
}
