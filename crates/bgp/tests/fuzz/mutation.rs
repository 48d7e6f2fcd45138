//! How octets are changed: blindly, by what borders often are, by parts of others, and along the structure of a message,
//! so that what is changed is not refused for its lengths alone.

use bgp::wire::{HEADER, MESSAGE_MAX};

/// Values at which something often ends.
const BORDERS: [u8; 10] = [0, 1, 2, 4, 0x20, 0x40, 0x7f, 0x80, 0xc0, 0xff];

/// Changes octets once or a few times.
pub(crate) fn mutate(octets: &mut Vec<u8>, others: &[Vec<u8>], random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..5) {
        if octets.is_empty() {
            return;
        }
        let at = random.usize(..octets.len());
        match random.u8(..10) {
            0 => octets[at] = random.u8(..),
            1 => octets[at] ^= 1 << random.u8(..8),
            2 => drop(octets.remove(at)),
            3 => octets.insert(at, random.u8(..)),
            4 => octets.truncate(at),
            5 => octets[at] = BORDERS[random.usize(..BORDERS.len())],
            6 => splice(octets, &others[random.usize(..others.len())], random),
            _ => in_attributes(octets, random),
        }
    }
    // Otherwise most would end at the length.
    if random.u8(..4) != 0 {
        mend(octets);
    }
}

/// Puts a part of another in the place of a part.
fn splice(octets: &mut Vec<u8>, other: &[u8], random: &mut fastrand::Rng) {
    let part = |length: usize, random: &mut fastrand::Rng| {
        let from = random.usize(..=length);
        from..random.usize(from..=length.min(from + 64))
    };
    let (there, here) = (part(other.len(), random), part(octets.len(), random));
    octets.splice(here, other[there].iter().copied());
    octets.truncate(2 * MESSAGE_MAX);
}

/// The attributes of the first message, if it is an UPDATE with some: where each begins and ends.
fn attributes(octets: &[u8]) -> Option<Vec<std::ops::Range<usize>>> {
    let (header, body) = octets.split_at_checked(HEADER)?;
    let withdrawn = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    let block = HEADER + 4 + withdrawn;
    let length = octets.get(block - 2..block)?;
    let end = block + usize::from(u16::from_be_bytes([length[0], length[1]]));
    if header[18] != 2 || end > octets.len() {
        return None;
    }
    let mut found = Vec::new();
    let mut at = block;
    while let [flags, _, rest @ ..] = octets.get(at..end)? {
        let (head, length) = match rest {
            [high, low, ..] if flags & 0x10 != 0 => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            [length, ..] => (3, usize::from(*length)),
            _ => break,
        };
        if at + head + length > end {
            break;
        }
        found.push(at..at + head + length);
        at += head + length;
    }
    (!found.is_empty()).then_some(found)
}

/// Repeats, drops, resizes or relabels an attribute, and puts the lengths around it right.
fn in_attributes(octets: &mut Vec<u8>, random: &mut fastrand::Rng) {
    let Some(all) = attributes(octets) else { return };
    let one = all[random.usize(..all.len())].clone();
    let extended = octets[one.start] & 0x10 != 0;
    let length_at = one.start + if extended { 3 } else { 2 };
    let before = octets.len();
    match random.u8(..5) {
        0 => {
            let again = octets[one.clone()].to_vec();
            octets.splice(one.end..one.end, again);
        }
        1 => drop(octets.drain(one.clone())),
        2 => octets[one.start + 1] = random.u8(..36),
        3 if octets[length_at] < u8::MAX => {
            octets[length_at] += 1;
            octets.insert(one.end, random.u8(..));
        }
        4 if octets[length_at] > 0 && one.len() > 4 => {
            octets[length_at] -= 1;
            octets.remove(one.end - 1);
        }
        _ => {}
    }
    let block = all[0].start - 2;
    let length = u16::from_be_bytes([octets[block], octets[block + 1]]);
    let grown = octets.len() as i64 - before as i64;
    let length = (i64::from(length) + grown).clamp(0, i64::from(u16::MAX)) as u16;
    octets[block..block + 2].copy_from_slice(&length.to_be_bytes());
    mend(octets);
}

/// Makes the octets one message by their marker and length, where they can be one. What is several messages already
/// stays so if the first of them is whole.
fn mend(octets: &mut [u8]) {
    let length = octets.get(16..18).map(|field| usize::from(u16::from_be_bytes([field[0], field[1]])));
    let next = length.and_then(|length| octets.get(length..length + 16));
    let several = next.is_some_and(|marker| marker.iter().all(|octet| *octet == 0xff));
    if octets.len() > HEADER && octets.len() <= MESSAGE_MAX && !several {
        let length = u16::try_from(octets.len()).unwrap_or(u16::MAX);
        octets[..16].fill(0xff);
        octets[16..18].copy_from_slice(&length.to_be_bytes());
    }
}
