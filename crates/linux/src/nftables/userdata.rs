//! What is kept with a rule for people and for us: its comment, and where in its chain it was asked to be.
//!
//! nft prints a comment between double quotes as it is, and cannot read back one that has such quotes: they are kept as
//! single ones, so that a listing of our tables can be restored. Comments have no single quotes of their own.
//! A list of type, length, value, one byte each for the first two. nft knows type 0, the comment, and passes over what
//! it does not know (libnftnl, `nftnl_udata`).

use crate::row::{Name, Position};

const COMMENT: u8 = 0;
/// Ours; far from nft's own, which count up.
const POSITION: u8 = 0xa0;
/// Longest comment: `NFT_USERDATA_MAXLEN` (256) less both headers, the terminating zero and the position.
pub(super) const COMMENT_BYTES: usize = 256 - 2 - 1 - 4;

const FIRST: u8 = 0;
const LAST: u8 = 1;
const ANYWHERE: u8 = 2;

/// Empty where there is nothing to keep.
pub(super) fn encode(comment: Option<&Name>, position: Option<Position>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(comment) = comment {
        let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
        bytes.extend([COMMENT, length]);
        let kept = |byte| if byte == b'"' { b'\'' } else { byte };
        bytes.extend(comment.bytes().map(kept).chain([0]));
    }
    if let Some(position) = position {
        let (kind, rank) = match position {
            Position::First(rank) => (FIRST, rank),
            Position::Last => (LAST, 0),
            Position::Anywhere => (ANYWHERE, 0),
        };
        bytes.extend([POSITION, 2, kind, rank]);
    }
    bytes
}

/// Comment and position, as far as they are there and whole.
pub(super) fn decode(mut bytes: &[u8]) -> (Option<Name>, Option<Position>) {
    let (mut comment, mut position) = (None, None);
    while let [kind, length, rest @ ..] = bytes {
        let Some(value) = rest.get(..usize::from(*length)) else { break };
        match (*kind, value) {
            (COMMENT, [text @ .., 0]) => {
                comment = std::str::from_utf8(text).ok().map(|text| text.replace('\'', "\"").into())
            }
            (POSITION, [FIRST, rank]) => position = Some(Position::First(*rank)),
            (POSITION, [LAST, _]) => position = Some(Position::Last),
            (POSITION, [ANYWHERE, _]) => position = Some(Position::Anywhere),
            _ => {}
        }
        bytes = rest.get(usize::from(*length)..).unwrap_or_default();
    }
    (comment, position)
}
