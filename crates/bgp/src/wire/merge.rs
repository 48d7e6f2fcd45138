//! AS numbers of four octets through speakers of two (RFC 6793 section 4.2.3).

use super::AS_TRANS;
use super::attribute::Parts;
use crate::as_path::{AsPath, Segment, SegmentKind};

/// Puts AS4_PATH and AS4_AGGREGATOR where AS_PATH and AGGREGATOR have stand-ins.
pub(super) fn four_octet_numbers(parts: &mut Parts) {
    let as4_path = parts.as4_path.take();
    let as4_aggregator = parts.as4_aggregator.take();
    if let Some((asn, _)) = parts.aggregator {
        if asn != u32::from(AS_TRANS) {
            // Somebody aggregated who knows only two octets: what the older attributes say is no longer true.
            return;
        }
        parts.aggregator = as4_aggregator.or(parts.aggregator);
    }
    if let (Some(path), Some(as4)) = (&parts.as_path, as4_path)
        && let Some(ahead) = path.length().checked_sub(as4.length())
    {
        let merged = leading(path, ahead).into_iter().chain(owned(&as4));
        parts.as_path = Some(joined(merged));
    }
}

/// The first `count` numbers of a path, a set counted as one.
fn leading(path: &AsPath, mut count: usize) -> Vec<Segment> {
    let mut segments = Vec::new();
    for (kind, asns) in path.segments() {
        if count == 0 {
            break;
        }
        let asns = if kind == SegmentKind::Sequence { asns.get(..count).unwrap_or(asns) } else { asns };
        count -= if kind == SegmentKind::Sequence { asns.len() } else { 1 };
        segments.push(Segment { kind, asns: asns.to_vec() });
    }
    segments
}

fn owned(path: &AsPath) -> impl Iterator<Item = Segment> {
    path.segments().map(|(kind, asns)| Segment { kind, asns: asns.to_vec() })
}

/// A path of these segments, sequences that follow each other made one.
fn joined(segments: impl Iterator<Item = Segment>) -> AsPath {
    let mut all: Vec<Segment> = Vec::new();
    for segment in segments {
        match all.last_mut() {
            Some(last) if last.kind == SegmentKind::Sequence && segment.kind == SegmentKind::Sequence => {
                last.asns.extend(segment.asns);
            }
            _ => all.push(segment),
        }
    }
    AsPath::new(all)
}
