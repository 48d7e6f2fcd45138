//! The AS path: through which systems a path came (RFC 4271 section 5.1.2, RFC 5065, RFC 6793).

use std::borrow::Cow;
use std::fmt;

/// What the numbers of a segment are (the code on the wire).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentKind {
    /// AS_SET: any of them, in no order (1).
    Set = 1,
    /// AS_SEQUENCE: one after the other, nearest first (2).
    Sequence = 2,
    /// AS_CONFED_SEQUENCE: as a sequence, inside of a confederation (3).
    ConfedSequence = 3,
    /// AS_CONFED_SET: as a set, inside of a confederation (4).
    ConfedSet = 4,
}

impl SegmentKind {
    /// Whether such a segment may leave a confederation.
    const fn is_external(self) -> bool {
        matches!(self, SegmentKind::Set | SegmentKind::Sequence)
    }
}

/// A segment of an AS path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// How to read the numbers.
    pub kind: SegmentKind,
    /// 1 to 255 AS numbers.
    pub asns: Vec<u32>,
}

/// A segment can hold no more numbers than its length octet can count.
pub const SEGMENT_MAX: usize = 255;

/// The segments, nearest first. Empty for what this AS originates.
///
/// One allocation holds all of it, since a table has many: before the numbers of each segment stands its kind and their
/// count.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPath {
    words: Box<[u32]>,
}

/// Iterates over segments; see [`AsPath::segments`].
struct Segments<'a> {
    rest: &'a [u32],
}

impl<'a> Iterator for Segments<'a> {
    type Item = (SegmentKind, &'a [u32]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&header, rest) = self.rest.split_first()?;
        let (asns, rest) = rest.split_at_checked((header & 0xffff) as usize)?;
        self.rest = rest;
        let kind = match header >> 16 {
            1 => SegmentKind::Set,
            2 => SegmentKind::Sequence,
            3 => SegmentKind::ConfedSequence,
            _ => SegmentKind::ConfedSet,
        };
        Some((kind, asns))
    }
}

impl AsPath {
    /// A path of the segments given. One without numbers is left out, one with more than [`SEGMENT_MAX`] cut.
    pub fn new(segments: impl IntoIterator<Item = Segment>) -> Self {
        let mut words = Vec::new();
        for segment in segments {
            push(&mut words, segment.kind, &segment.asns);
        }
        AsPath { words: words.into() }
    }

    /// A path of segments somebody else has.
    pub(crate) fn of<'a>(segments: impl IntoIterator<Item = (SegmentKind, &'a [u32])>) -> Self {
        // Nearly all paths are one sequence, and few of those are longer.
        let mut words = Vec::with_capacity(8);
        for (kind, asns) in segments {
            push(&mut words, kind, asns);
        }
        AsPath { words: words.into() }
    }

    /// A path of one sequence, cut into segments where it is longer than one can be.
    pub fn sequence(asns: impl IntoIterator<Item = u32>) -> Self {
        AsPath::new([Segment { kind: SegmentKind::Sequence, asns: asns.into_iter().collect() }])
    }

    /// The segments, nearest first, each with 1 to 255 numbers.
    pub fn segments(&self) -> impl Iterator<Item = (SegmentKind, &[u32])> {
        Segments { rest: &self.words }
    }

    /// Whether it has no segment: the path comes from this AS.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The length best path selection compares: a set counts as one, confederation segments not at all
    /// (RFC 4271 section 9.1.2.2 a, RFC 5065 section 5.3).
    pub fn length(&self) -> usize {
        self.segments()
            .map(|(kind, asns)| match kind {
                SegmentKind::Sequence => asns.len(),
                SegmentKind::Set => 1,
                SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
            })
            .sum()
    }

    /// Whether the number is anywhere in it.
    pub fn contains(&self, asn: u32) -> bool {
        self.segments().any(|(_, asns)| asns.contains(&asn))
    }

    /// The neighbouring AS the path came from, confederation segments apart: first of the leading sequence. `None` for
    /// a path of this AS or one that begins with a set (RFC 4271 section 9.1.2.2 c).
    pub fn neighbour(&self) -> Option<u32> {
        match self.segments().find(|(kind, _)| kind.is_external())? {
            (SegmentKind::Sequence, asns) => asns.first().copied(),
            _ => None,
        }
    }

    /// The AS that originated the path: last of a closing sequence.
    pub fn origin(&self) -> Option<u32> {
        match self.segments().last()? {
            (SegmentKind::Sequence, asns) => asns.last().copied(),
            _ => None,
        }
    }

    /// The path with a number put in front, `times` times, in the leading sequence or new ones where that is full
    /// (RFC 4271 section 5.1.2 b).
    #[must_use]
    pub fn prepended(&self, asn: u32, times: usize) -> Self {
        let mut rest = Segments { rest: &self.words };
        let first = match self.segments().next() {
            Some((SegmentKind::Sequence, first)) => {
                rest.next();
                first
            }
            _ => &[],
        };
        let count = times + first.len();
        // Most often there are segments before and as many after.
        let mut words = Vec::with_capacity(times + self.words.len());
        if count > SEGMENT_MAX {
            let all: Vec<u32> = std::iter::repeat_n(asn, times).chain(first.iter().copied()).collect();
            push(&mut words, SegmentKind::Sequence, &all);
        } else if count > 0 {
            words.push(header(SegmentKind::Sequence, count));
            words.extend(std::iter::repeat_n(asn, times));
            words.extend_from_slice(first);
        }
        words.extend_from_slice(rest.rest);
        AsPath { words: words.into() }
    }

    /// The path without confederation segments, as an external peer has to see it (RFC 5065 section 4.1).
    #[must_use]
    pub fn without_confederation(&self) -> Cow<'_, Self> {
        match self.segments().all(|(kind, _)| kind.is_external()) {
            true => Cow::Borrowed(self),
            false => Cow::Owned(AsPath::of(self.segments().filter(|(kind, _)| kind.is_external()))),
        }
    }
}

/// What stands before the numbers of a segment.
const fn header(kind: SegmentKind, count: usize) -> u32 {
    (kind as u32) << 16 | count as u32
}

/// Appends a segment, or several where one is too short.
fn push(words: &mut Vec<u32>, kind: SegmentKind, asns: &[u32]) {
    for asns in asns.chunks(SEGMENT_MAX) {
        words.push(header(kind, asns.len()));
        words.extend_from_slice(asns);
    }
}

/// `64512 64513 {64514,64515} (65001) [65002,65003]`, as routers print it.
impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (kind, asns)) in self.segments().enumerate() {
            let (open, between, close) = match kind {
                SegmentKind::Sequence => ("", " ", ""),
                SegmentKind::Set => ("{", ",", "}"),
                SegmentKind::ConfedSequence => ("(", " ", ")"),
                SegmentKind::ConfedSet => ("[", ",", "]"),
            };
            f.write_str(if at == 0 { "" } else { " " })?;
            f.write_str(open)?;
            for (at, asn) in asns.iter().enumerate() {
                write!(f, "{}{asn}", if at == 0 { "" } else { between })?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed() -> AsPath {
        AsPath::new(vec![
            Segment { kind: SegmentKind::ConfedSequence, asns: vec![65_001] },
            Segment { kind: SegmentKind::Sequence, asns: vec![1, 2] },
            Segment { kind: SegmentKind::Set, asns: vec![3, 4, 5] },
        ])
    }

    #[test]
    fn counts_as_selection_does() {
        assert_eq!(mixed().length(), 3);
        assert_eq!(AsPath::default().length(), 0);
        assert_eq!(AsPath::sequence([1, 1, 1]).length(), 3);
    }

    #[test]
    fn knows_its_ends() {
        assert_eq!(mixed().neighbour(), Some(1));
        assert_eq!(mixed().origin(), None);
        assert_eq!(AsPath::sequence([1, 2]).origin(), Some(2));
        let set_first = AsPath::new(vec![Segment { kind: SegmentKind::Set, asns: vec![7] }]);
        assert_eq!(set_first.neighbour(), None);
        assert!(mixed().contains(5) && mixed().contains(65_001) && !mixed().contains(6));
    }

    #[test]
    fn prepends_into_full_segments() {
        let path = AsPath::sequence(std::iter::repeat_n(9, SEGMENT_MAX)).prepended(8, 2);
        let lengths: Vec<usize> = path.segments().map(|(_, asns)| asns.len()).collect();
        assert_eq!(lengths, [SEGMENT_MAX, 2]);
        assert_eq!(path.length(), SEGMENT_MAX + 2);
        assert_eq!(path.neighbour(), Some(8));
        let set = AsPath::new([Segment { kind: SegmentKind::Set, asns: vec![7] }]);
        assert_eq!(set.prepended(8, 1).to_string(), "8 {7}");
        assert_eq!(AsPath::default().prepended(8, 0), AsPath::default());
        assert_eq!(mixed().prepended(8, 2).to_string(), "8 8 (65001) 1 2 {3,4,5}");
    }

    #[test]
    fn prints_as_routers_do() {
        assert_eq!(mixed().to_string(), "(65001) 1 2 {3,4,5}");
        assert_eq!(mixed().without_confederation().to_string(), "1 2 {3,4,5}");
    }
}
