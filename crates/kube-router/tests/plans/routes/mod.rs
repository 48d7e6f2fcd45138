//! Pod routing without a kernel and without sockets: Node and Service objects in; rows, sessions and what peers hear
//! out. The speaker between the plans and the peers is the agent's own, so its policies are judged by what they let
//! through.

mod golden;
mod node;
mod speaker;
