//! Network policy as the lab judges it: what should pass by the text of the API ([`reference`]), what does pass by packets
//! ([`Truth`] tables), and the difference for a person to read.

mod reference;
mod table;

pub use reference::{Objects, Packet};
pub use table::{Member, Port, Question, Truth, ask};
