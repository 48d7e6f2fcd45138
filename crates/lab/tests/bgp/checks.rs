//! What any two implementations must come to agree on.

use std::collections::BTreeSet;

use lab::router::{Network, Software};

use crate::setup::{Over, Wire, net, networks, v4, v6};

/// A session over either family carries routes of both families both ways, with communities, large communities and MED;
/// what is announced later arrives, what is withdrawn goes.
pub(crate) fn exchange(a: Software, b: Software, over: Over) {
    let mut wire = Wire::new(&[a, b]);
    wire.start_pair(over, |at, config| config.networks = networks(at));
    wire.established(0, 1, over);
    for (own, other) in [(0, 1), (1, 0)] {
        for (prefix, family) in [(v4(other, 0), Over::V4), (v6(other, 0), Over::V6)] {
            let hop = wire.address(other, family);
            let path = wire.path(own, &prefix, |path| path.best);
            let asn = 65001 + u32::try_from(other).unwrap();
            let set = |words: &[String]| words.iter().cloned().collect::<BTreeSet<_>>();
            assert_eq!(path.as_path, [asn], "{path:?}");
            assert_eq!(path.next_hop, hop, "{path:?}");
            assert_eq!(path.from, Some(wire.address(other, over)), "{path:?}");
            assert_eq!(path.communities, set(&[format!("{asn}:1"), format!("{asn}:2")]), "{path:?}");
            assert_eq!(path.large_communities, set(&[format!("{asn}:1:2")]), "{path:?}");
            assert_eq!(path.med, Some(u32::try_from(other).unwrap() + 7), "{path:?}");
            wire.kernel(own, &prefix, &[hop]);
        }
    }
    for (own, other) in [(0, 1), (1, 0)] {
        for prefix in [v4(other, 1), v6(other, 1)] {
            wire.routers[other].announce(Network::new(net(&prefix))).expect("announced");
            wire.path(own, &prefix, |path| path.best);
        }
        for prefix in [v4(other, 0), v6(other, 0)] {
            wire.routers[other].withdraw(&net(&prefix)).expect("withdrawn");
            wire.no_path(own, &prefix);
            wire.kernel(own, &prefix, &[]);
            assert!(wire.has_path(own, &v4(other, 1)) && wire.has_path(own, &v6(other, 1)));
        }
    }
}
