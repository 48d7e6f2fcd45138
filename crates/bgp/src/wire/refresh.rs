//! ROUTE-REFRESH: tell me again (RFC 2918), and where such an answer begins and ends (RFC 7313).

use super::notification::HeaderError;
use super::{Cause, HEADER, Kind, Notification, message};
use crate::family::Family;

/// What a ROUTE-REFRESH says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshKind {
    /// Subtype 0: send all paths of the family again.
    Request,
    /// Subtype 1, BoRR: all paths follow.
    Begin,
    /// Subtype 2, EoRR: all paths were told.
    End,
}

/// A ROUTE-REFRESH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// Of these paths.
    pub family: Family,
    /// What about them.
    pub kind: RefreshKind,
}

impl Refresh {
    /// Reads the body. `None` for a family or subtype to be ignored (RFC 2918 section 4, RFC 7313 section 5).
    ///
    /// # Errors
    /// A wrong length. Where the enhanced form was agreed on, marks of a wrong length have a code of their own.
    pub fn decode(body: &[u8], enhanced: bool) -> Result<Option<Refresh>, Notification> {
        let [high, low, subtype, safi] = body else {
            return Err(match body {
                [_, _, 1 | 2, ..] if enhanced => Notification::with(Cause::RefreshLength, whole(body)),
                _ => {
                    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
                    Notification::with(HeaderError::BadMessageLength, length.to_be_bytes())
                }
            });
        };
        let kind = match subtype {
            0 => RefreshKind::Request,
            1 if enhanced => RefreshKind::Begin,
            2 if enhanced => RefreshKind::End,
            // RFC 2918 calls the octet reserved: a speaker of the plain form reads nothing from it.
            _ if !enhanced => RefreshKind::Request,
            _ => return Ok(None),
        };
        let family = Family::from_wire(u16::from_be_bytes([*high, *low]), *safi);
        Ok(family.map(|family| Refresh { family, kind }))
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let subtype = match self.kind {
            RefreshKind::Request => 0,
            RefreshKind::Begin => 1,
            RefreshKind::End => 2,
        };
        message(out, Kind::RouteRefresh, |out| {
            out.extend_from_slice(&self.family.afi().to_be_bytes());
            out.extend_from_slice(&[subtype, self.family.safi()]);
        });
    }
}

fn whole(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    message(&mut out, Kind::RouteRefresh, |out| out.extend_from_slice(body));
    out
}
