//! Who tells what: tables of which everybody knows the outcome.
//!
//! Prefixes go in portions of equal attributes, about as many as the Internet's table has. For each portion and round one
//! peer has the shortest path; the others' are longer by one. So the observer knows from a path whether it is the best one
//! of the round. Every peer ends with a prefix of its own, the mark: when the observer has heard of it, everything that
//! the peer said before has been read.

use std::net::Ipv4Addr;
use std::ops::Range;

use super::message;

/// Prefixes with equal attributes.
const PORTION: u32 = 6;
/// The last number of a path is this plus the round.
const ROUNDS: u32 = 200_000;

/// Tables of some peers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables {
    pub(super) peers: u32,
    /// Prefixes of each, the same ones for all.
    pub(super) prefixes: u32,
}

impl Tables {
    /// AS number of the peer `n`, from 0.
    pub(super) const fn asn(n: u32) -> u32 {
        65_001 + n
    }

    /// Paths that a speaker holds when everybody has told everything.
    pub(super) const fn paths(&self) -> u64 {
        self.peers as u64 * (self.prefixes as u64 + 1)
    }

    /// Prefixes there are, the marks included.
    pub(super) const fn destinations(&self) -> usize {
        (self.prefixes + self.peers) as usize
    }

    fn portions(&self) -> impl Iterator<Item = (u32, Range<u32>)> {
        let all = self.prefixes;
        (0..all.div_ceil(PORTION)).map(move |at| (at, at * PORTION..all.min((at + 1) * PORTION)))
    }

    /// Everything peer `n` tells in a round.
    pub(super) fn announcement(&self, n: u32, address: Ipv4Addr, round: u32) -> Vec<u8> {
        let asn = Self::asn(n);
        let mut octets = Vec::new();
        for (at, prefixes) in self.portions() {
            let best = (at + round) % self.peers == n;
            let mut path = vec![asn];
            path.extend((!best).then_some(asn));
            path.extend([3_000 + at % 97, 100_000 + at, ROUNDS + round]);
            let communities = [asn << 16, asn << 16 | (at % 50 + 1)];
            let attributes = message::attributes(&path, address, None, &communities);
            octets.extend(message::reach(&attributes, prefixes));
        }
        let attributes = message::attributes(&[asn, 3_000, ROUNDS + round], address, None, &[]);
        octets.extend(message::reach(&attributes, std::iter::once(self.prefixes + n)));
        octets
    }

    /// Everything peer `n` takes back.
    pub(super) fn withdrawal(&self, n: u32) -> Vec<u8> {
        message::unreach((0..self.prefixes).chain([self.prefixes + n]))
    }

    /// The round of which a path, as the router passes it on, is the best one.
    pub(super) fn best_of(as_path: &[u32]) -> Option<u32> {
        let [_router, peer, next, .., last] = as_path else { return None };
        (peer != next).then(|| last.checked_sub(ROUNDS)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_has_the_best_path_to_each_prefix() {
        let tables = Tables { peers: 3, prefixes: 20 };
        let mut best = [0; 23];
        for n in 0..3 {
            let octets = tables.announcement(n, Ipv4Addr::LOCALHOST, 1);
            message::Inbox { octets }.drain(|_, body| {
                let update = message::Update::read(body).expect("an update");
                let path: Vec<u32> = [64_500].into_iter().chain(update.as_path()).collect();
                if Tables::best_of(&path) == Some(1) {
                    update.announced().for_each(|index| best[index] += 1);
                }
            });
        }
        assert_eq!(best, [1; 23]);
    }
}
