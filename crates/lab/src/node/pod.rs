//! A pod: a network namespace that the node's CNI plugins have wired.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::cni::{Attachment, PodObject};
use super::{Error, Namespace, Node};

/// A running pod without its processes; its listeners are [`crate::probe`]'s.
#[derive(Debug)]
pub struct Pod {
    name: String,
    addresses: Vec<IpAddr>,
    attachment: Attachment,
    namespace: Arc<Namespace>,
    node: Arc<Node>,
}

impl Pod {
    /// Creates the namespace and has the node's CNI plugins wire it. Blocks for two processes; pods of one node may be
    /// made side by side. `name` is unique on the node.
    pub fn new(node: &Arc<Node>, name: &str) -> Result<Self, Error> {
        Self::wired(node, name, None)
    }

    /// As [`Self::new`], for a pod of the cluster: plugins are told which.
    pub fn of_object(node: &Arc<Node>, name: &str, object: PodObject) -> Result<Self, Error> {
        Self::wired(node, name, Some(object))
    }

    fn wired(node: &Arc<Node>, name: &str, object: Option<PodObject>) -> Result<Self, Error> {
        let namespace = Namespace::network(name)?;
        // The bridge plugin waits for addresses to leave the tentative state: without DAD they never enter it.
        namespace
            .sysctls(&[("net/ipv6/conf/all/accept_dad", "0"), ("net/ipv6/conf/default/accept_dad", "0")])?;
        let attachment =
            Attachment { container: container_id(node.name(), name), object, netns: namespace.net_path() };
        let adding = attachment.clone();
        let added = join(node, move || adding.add());
        // As a runtime does: what was made of the sandbox before a plugin failed goes.
        let addresses = added.inspect_err(|_| {
            let removing = attachment.clone();
            let _ = join(node, move || removing.remove());
        })?;
        node.fabric().publish(&namespace)?;
        let namespace = Arc::new(namespace);
        Ok(Self { name: name.to_owned(), addresses, attachment, namespace, node: Arc::clone(node) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Addresses CNI gave it, in the order of the node's pod ranges.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// To run things inside.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// Where it runs.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.node.fabric().withdraw(&self.namespace);
        if self.node.abandoned.load(Ordering::Relaxed) {
            return;
        }
        let attachment = self.attachment.clone();
        let _ = join(&self.node, move || attachment.remove());
    }
}

fn join<R: Send + 'static>(
    node: &Node,
    work: impl FnOnce() -> Result<R, Error> + Send + 'static,
) -> Result<R, Error> {
    match node.namespace().enter(work)?.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// host-local keeps its reservations by this name; only letters, digits, `.`, `_` and `-` are allowed in it. A pod
/// created again under its name is another container, as with a real runtime: the two may overlap for a moment.
fn container_id(node: &str, pod: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name =
        format!("{node}.{pod}").replace(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c), "-");
    format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
