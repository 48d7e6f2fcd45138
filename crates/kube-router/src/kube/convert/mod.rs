//! From the JSON of the API server to the model: what is kept, what is left out, what is objected to.
//!
//! Pure. Each kind has a file. The rule for trouble is the same everywhere: the smallest part that cannot be used
//! (an address, a port) is left out with an [`Objection`], the rest of the object stays; an object nothing of which
//! can be used is absent. Whether a family is enabled, or an address lies in a permitted range, is not known here:
//! plans decide that.

mod node;
mod pod;
mod policy;
#[cfg(test)]
mod policy_tests;
mod reading;
mod selector;
mod service;
mod slice;
#[cfg(test)]
mod tests;

use serde::de::DeserializeOwned;

use super::interner::Interner;
use super::lenient::Lenient;
use super::model::{Kind, Object, ObjectName, WatchEvent};
use super::wire::{self, Meta, Part};
use crate::objection::Objection;
use reading::Reading;

/// Why an object is treated as if it were not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unused {
    /// A Service without a cluster address, or anything labelled `service.kubernetes.io/headless`.
    Headless,
    /// A Service of type ExternalName.
    ExternalName,
    /// Label `service.kubernetes.io/service-proxy-name` names another proxy.
    OtherProxy,
    /// An EndpointSlice of names instead of addresses.
    Fqdn,
    /// Nothing of it can be used; an objection says why.
    Unusable,
}

/// An object, converted.
#[derive(Debug)]
pub struct Converted {
    /// Its kind.
    pub kind: Kind,
    /// Its name; empty parts if it had none.
    pub id: ObjectName,
    /// The object, or why there is none.
    pub object: Result<Object, Unused>,
    /// What was left out.
    pub objections: Vec<Objection>,
}

impl Converted {
    /// What the store is to hear of it.
    pub fn into_event(self) -> WatchEvent {
        match self.object {
            Ok(object) => WatchEvent::Applied(object, self.objections),
            Err(_) => WatchEvent::Ignored(self.kind, self.id, self.objections),
        }
    }
}

/// A kind of object as the API server sends it.
pub trait Wire: DeserializeOwned + Clone + Send + Sync + 'static {
    /// What it becomes.
    const KIND: Kind;
    /// Where all objects of the kind are listed and watched.
    const PATH: &'static str;

    /// `metadata`
    fn meta(&self) -> &Part<Meta>;

    /// Converts the object. O(its size).
    fn convert(self, names: &mut Interner) -> Converted;

    /// Its namespace and name; empty if it has none.
    fn id(&self, names: &mut Interner) -> ObjectName {
        let meta = self.meta().get();
        let namespace = meta.and_then(|meta| meta.namespace.get()).map_or("", String::as_str);
        let name = meta.and_then(|meta| meta.name.get()).map_or("", String::as_str);
        ObjectName { namespace: names.name(namespace), name: name.into() }
    }

    /// `metadata.resourceVersion`
    fn version(&self) -> Option<&str> {
        self.meta().get()?.resource_version.get().map(String::as_str).filter(|version| !version.is_empty())
    }
}

/// What is common to all kinds: an object is its metadata, with at least a name, and a body.
fn object(
    mut reading: Reading<'_>,
    meta: Part<Meta>,
    body: impl FnOnce(Meta, &mut Reading<'_>) -> Result<Object, Unused>,
) -> Converted {
    let meta = reading.take("metadata", meta).unwrap_or_default();
    let object = if reading.id().name.is_empty() {
        reading.object_to("metadata.name", "", "is empty", "the object is not used");
        Err(Unused::Unusable)
    } else {
        body(*meta, &mut reading)
    };
    let (kind, id, objections) = reading.finish();
    Converted { kind, id, object, objections }
}

/// Ties a wire type to its kind, its path and its conversion.
macro_rules! kind {
    ($kind:ident, $path:literal, $body:path) => {
        impl Wire for wire::$kind {
            const KIND: Kind = Kind::$kind;
            const PATH: &'static str = $path;

            fn meta(&self) -> &Part<Meta> {
                &self.metadata
            }

            fn convert(mut self, names: &mut Interner) -> Converted {
                let id = self.id(names);
                let meta = std::mem::take(&mut self.metadata);
                object(Reading::new(Kind::$kind, id, names), meta, |meta, reading| {
                    $body(self, meta, reading).map(Object::$kind)
                })
            }
        }
    };
}

kind!(Service, "/api/v1/services", service::service);
kind!(EndpointSlice, "/apis/discovery.k8s.io/v1/endpointslices", slice::slice);
kind!(Node, "/api/v1/nodes", node::node);
kind!(Pod, "/api/v1/pods", pod::pod);
kind!(Namespace, "/api/v1/namespaces", policy::namespace);
kind!(NetworkPolicy, "/apis/networking.k8s.io/v1/networkpolicies", policy::policy);
