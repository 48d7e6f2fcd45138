//! BGP-4 vocabulary. The speaker comes with pod routing; what is here serves option validation today.

pub mod asn;

pub use asn::{Asn, AsnError};
