//! What reaches the core.

use std::collections::HashMap;

use linux::lane::Report;
use linux::row::{Key, LaneName, Row, VirtualServerKey};
use tokio::sync::oneshot;

use crate::kube::model::{ObjectName, WatchEvent};
use crate::network_services::drain::RealServerKey;
use crate::node::Facts;
use crate::status::Status;

/// One message to the core.
#[derive(Debug)]
pub enum Input {
    /// The API server says something.
    Watch(WatchEvent),
    /// A lane did its job.
    Lane(Report),
    /// This node's links and addresses, after they changed.
    Facts(Facts),
    /// Rows that somebody else changed or removed; `None` is gone.
    Changed(Vec<(Key, Option<Row>)>),
    /// Somebody else may have changed anything in this lane's tables.
    Reread(LaneName),
    /// Something for one controller.
    News(News),
    /// Somebody asks for the status.
    Status(oneshot::Sender<Box<Status>>),
}

/// What concerns one controller, by where it comes from. Best paths of BGP and hand-overs of the CNI plugin are to be
/// variants here, like API objects inputs of plans.
#[derive(Debug)]
pub enum News {
    /// Draining real servers without connections.
    Idle(Vec<RealServerKey>),
    /// A scrape wants to know whose each virtual server is.
    Owners(oneshot::Sender<HashMap<VirtualServerKey, ObjectName>>),
}
