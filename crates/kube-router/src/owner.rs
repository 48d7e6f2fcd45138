//! Who wants a row: the key a plan was made for.

use std::fmt;

use crate::{network_routes, network_services};

/// The subject of a plan. Each has its own claims, replaced as a whole when it is planned anew. Every controller has
/// subjects of its own and knows no others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Of the network services controller.
    Services(network_services::Subject),
    /// Of the network routes controller.
    Routes(network_routes::Subject),
}

impl From<network_routes::Subject> for Owner {
    fn from(subject: network_routes::Subject) -> Owner {
        Owner::Routes(subject)
    }
}

impl From<network_services::Subject> for Owner {
    fn from(subject: network_services::Subject) -> Owner {
        Owner::Services(subject)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Services(subject) => subject.fmt(f),
            Owner::Routes(subject) => subject.fmt(f),
        }
    }
}
