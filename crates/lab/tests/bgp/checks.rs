//! What any two implementations must come to agree on.

use std::collections::BTreeSet;

use lab::router::{Config, Distance, Network, Software};

use crate::setup::{Cease, Over, Wire, eventually, family, net, networks, v4, v6};

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

/// With the same key a session comes up; with another key or none it does not, and comes up once the key is right.
pub(crate) fn signature(a: Software, b: Software, over: Over) {
    let mut wire = Wire::new(&[a, b]);
    let keyed = |key: Option<&'static str>| {
        move |at: usize, config: &mut Config| {
            config.neighbours[0].password =
                if at == 0 { Some("right".to_owned()) } else { key.map(str::to_owned) };
        }
    };
    for key in [Some("wrong"), None] {
        // Who has a key drops what is not signed or not signed with it, and counts that.
        let names = ["TCPMD5Failure", "TCPMD5NotFound"];
        let before = wire.counted(0, &names);
        wire.start_pair(over, keyed(key));
        wire.counts(0, &names, before + 3);
        assert!(!wire.is_established(0, 1, over) && !wire.is_established(1, 0, over));
    }
    wire.start_pair(over, keyed(Some("right")));
    wire.established(0, 1, over);
}

/// Both secured by TTL: a session. A neighbour that sends less than 255 is not heard.
pub(crate) fn ttl_security(a: Software, b: Software, over: Over) {
    let mut wire = Wire::new(&[a, b]);
    wire.start_pair(over, |at, config| {
        // A TTL that a neighbour somewhere else might arrive with.
        config.neighbours[0].distance = if at == 0 { Distance::Secured } else { Distance::Multihop(64) };
    });
    wire.counts(0, &["TCPMinTTLDrop"], 3);
    // The other may think otherwise for a hold time: its OPEN can arrive before the limit is on the new connection.
    assert!(!wire.is_established(0, 1, over));
    wire.start_pair(over, |_, config| config.neighbours[0].distance = Distance::Secured);
    wire.established(0, 1, over);
}

/// The first asks to be told everything again, and is; nothing goes on the way (RFC 2918, and RFC 7313 where both know it).
pub(crate) fn refresh(a: Software, b: Software, over: Over) {
    let mut wire = Wire::new(&[a, b]);
    wire.start_pair(over, |at, config| {
        config.networks = networks(at);
        config.graceful_restart = Some(40);
    });
    wire.established(0, 1, over);
    let prefixes = [v4(1, 0), v6(1, 0)];
    for prefix in &prefixes {
        wire.path(0, prefix, |path| path.best);
        wire.kernel(0, prefix, &[wire.address(1, family(prefix))]);
    }
    wire.settled(0, 1, over);
    let neighbour = wire.address(1, over);
    let heard = |wire: &Wire| wire.routers[0].peering(neighbour).map(|peering| (peering.heard, peering.said));
    let watch = wire.watch(0);
    let (before, _) = heard(&wire).unwrap_or_else(|error| panic!("{error}"));
    wire.routers[0].refresh(neighbour).unwrap_or_else(|error| panic!("{error}"));
    eventually("both families are told again", || match heard(&wire).map_err(|error| error.to_string())? {
        (now, _) if now >= before + 2 => Ok(()),
        (now, said) => Err(format!("{before}, then {now}: {said}\n{}", wire.routers[1].log())),
    });
    // What both know by now holds from here on: a withdrawal is one, and what was repeated has stayed.
    wire.routers[1].withdraw(&net(&prefixes[0])).expect("withdrawn");
    wire.no_path(0, &prefixes[0]);
    wire.kernel(0, &prefixes[0], &[]);
    assert!(wire.has_path(0, &prefixes[1]) && wire.is_established(0, 1, over));
    assert_eq!(watch.lost(&prefixes[1]), Vec::<String>::new());
}

/// One autonomous system: a reflector, its client, and two that are none. Clients hear everything, the others hear clients
/// only; who brought a path in and the cluster are told, the next hop stays (RFC 4456).
pub(crate) fn reflection(reflector: Software, client: Software, other: Software, over: Over) {
    let mut wire = Wire::new(&[reflector, client, other, other]);
    let [reflector, client, one, two] = [0, 1, 2, 3];
    for at in [client, one, two, reflector] {
        let mut config = wire.config(at);
        config.asn = 65100;
        config.networks = vec![Network::new(net(&v4(at, 0))), Network::new(net(&v6(at, 0)))];
        let others = if at == reflector { vec![client, one, two] } else { vec![reflector] };
        for other in others {
            let mut neighbour = wire.neighbour(other, over);
            neighbour.asn = 65100;
            neighbour.reflector_client = at == reflector && other == client;
            config.neighbours.push(neighbour);
        }
        config.cluster_id = (at == reflector).then_some([10, 9, 9, 9].into());
        wire.routers[at].start(config).unwrap_or_else(|error| panic!("{error}"));
    }
    for at in [client, one, two] {
        wire.established(reflector, at, over);
    }
    for (prefix, family) in [(v4 as fn(usize, usize) -> String, Over::V4), (v6, Over::V6)] {
        for (at, from) in [(client, one), (client, two), (one, client), (two, client)] {
            let path = wire.path(at, &prefix(from, 0), |_| true);
            let router_id = wire.config(from).router_id;
            // GoBGP tells nobody but clients where a path comes from.
            let told = wire.routers[reflector].software() != Software::GoBgp || at == client;
            let (originator, clusters) = match told {
                true => (Some(router_id), vec![[10, 9, 9, 9].into()]),
                false => (None, vec![]),
            };
            assert_eq!(path.from, Some(wire.address(reflector, over)), "{path:?}");
            assert_eq!(path.next_hop, wire.address(from, family), "{path:?}");
            assert_eq!((&path.clusters, path.originator), (&clusters, originator), "{path:?}");
            assert_eq!((path.as_path.len(), path.local_pref), (0, Some(100)), "{path:?}");
        }
        let own = wire.path(one, &prefix(reflector, 0), |_| true);
        assert_eq!((own.originator, own.clusters), (None, vec![]));
        assert!(!wire.has_path(one, &prefix(two, 0)) && !wire.has_path(two, &prefix(one, 0)));
    }
}

/// The second is killed and comes back: the first keeps its paths and its kernel's routes all the while, and drops what
/// is not announced again.
pub(crate) fn restart(a: Software, b: Software, over: Over) {
    let mut wire = Wire::new(&[a, b]);
    let both = |at: usize, n: usize| [v4(at, n), v6(at, n)];
    wire.start_pair(over, |at, config| {
        config.graceful_restart = Some(120);
        let all = both(at, 0).into_iter().chain(both(at, 1));
        config.networks = all.map(|prefix| Network::new(net(&prefix))).collect();
    });
    wire.established(0, 1, over);
    for prefix in both(1, 0).iter().chain(&both(1, 1)) {
        wire.path(0, prefix, |path| path.best);
        wire.kernel(0, prefix, &[wire.address(1, family(prefix))]);
    }
    for prefix in both(0, 0) {
        wire.kernel(1, &prefix, &[wire.address(0, family(&prefix))]);
    }
    wire.settled(0, 1, over);
    let watch = wire.watch(0);
    wire.routers[1].kill();
    eventually("the session is down", || {
        assert!(both(1, 0).iter().all(|prefix| wire.has_path(0, prefix)), "paths go when the session goes");
        if wire.is_established(0, 1, over) { Err(wire.routers[0].log()) } else { Ok(()) }
    });
    wire.routers[1]
        .config_mut()
        .unwrap()
        .networks
        .retain(|network| both(1, 0).contains(&network.prefix.to_string()));
    wire.routers[1].start_again().unwrap_or_else(|error| panic!("{error}"));
    wire.established(0, 1, over);
    for prefix in both(1, 1) {
        wire.no_path(0, &prefix);
    }
    for prefix in both(1, 0) {
        wire.path(0, &prefix, |path| path.best);
        wire.kernel(0, &prefix, &[wire.address(1, family(&prefix))]);
    }
    for prefix in both(0, 0) {
        wire.path(1, &prefix, |path| path.best);
        wire.kernel(1, &prefix, &[wire.address(0, family(&prefix))]);
    }
    let gone = |prefix: &String| !watch.lost(prefix).is_empty();
    assert!(!both(1, 0).iter().any(gone), "a route was away for a moment:\n{}", watch.text());
}

/// The second is killed and does not come back: what it announced goes when its restart time is over.
pub(crate) fn no_return(a: Software, b: Software, over: Over) {
    let mut wire = Wire::new(&[a, b]);
    wire.start_pair(over, |at, config| {
        config.graceful_restart = Some(60);
        config.networks = networks(at);
    });
    wire.established(0, 1, over);
    for prefix in [v4(1, 0), v6(1, 0)] {
        wire.path(0, &prefix, |path| path.best);
    }
    wire.settled(0, 1, over);
    wire.routers[1].kill();
    eventually("the session is down", || {
        if wire.is_established(0, 1, over) { Err(String::new()) } else { Ok(()) }
    });
    assert!(wire.has_path(0, &v4(1, 0)) && wire.has_path(0, &v6(1, 0)), "gone at once");
    for prefix in [v4(1, 0), v6(1, 0)] {
        wire.no_path(0, &prefix);
        wire.kernel(0, &prefix, &[]);
    }
}

/// The first takes ten prefixes of a family; the second announces nine, then three more: Cease, Maximum Number of Prefixes
/// Reached (RFC 4486).
pub(crate) fn max_prefixes(a: Software, b: Software, over: Over) {
    let mut wire = Wire::new(&[a, b]);
    wire.start_pair(over, |at, config| {
        config.neighbours[0].max_prefixes = (at == 0).then_some(10);
        config.networks = (0..if at == 0 { 1 } else { 9 }).map(|n| Network::new(net(&v4(at, n)))).collect();
    });
    wire.established(0, 1, over);
    wire.path(0, &v4(1, 8), |_| true);
    assert!(wire.is_established(0, 1, over), "nine are no more than ten");
    for n in 9..12 {
        wire.routers[1].announce(Network::new(net(&v4(1, n)))).expect("announced");
    }
    wire.hears(1, 0, over, Cease::MaximumPrefixes, "");
    for n in 0..12 {
        wire.no_path(0, &v4(1, n));
    }
}

/// The first closes the session for maintenance: the second hears so, with the text where the first can send one.
pub(crate) fn shutdown(a: Software, b: Software, over: Over) {
    let mut wire = Wire::new(&[a, b]);
    wire.start_pair(over, |at, config| config.networks = networks(at));
    wire.established(0, 1, over);
    wire.path(1, &v4(0, 0), |_| true);
    wire.routers[0].shut(wire.address(1, over), "back at noon").expect("shut");
    // GoBGP 3.10 takes a text and sends none.
    let text = if a == Software::GoBgp { "" } else { "back at noon" };
    wire.hears(1, 0, over, Cease::AdministrativeShutdown, text);
    wire.no_path(1, &v4(0, 0));
    wire.no_path(1, &v6(0, 0));
}

/// IPv4 prefixes over an IPv6 session with IPv6 next hops (RFC 8950).
pub(crate) fn extended_next_hop(a: Software, b: Software) {
    let mut wire = Wire::new(&[a, b]);
    let hops = [wire.address(0, Over::V6), wire.address(1, Over::V6)];
    wire.start_pair(Over::V6, |at, config| {
        config.neighbours[0].extended_next_hop = true;
        let mut network = Network::new(net(&v4(at, 0)));
        network.next_hop = Some(hops[at]);
        config.networks = vec![network];
    });
    wire.established(0, 1, Over::V6);
    for (own, other) in [(0, 1), (1, 0)] {
        let path = wire.path(own, &v4(other, 0), |path| path.best);
        assert_eq!(path.next_hop, hops[other], "{path:?}");
    }
}

/// The second stops for longer than the hold time, a short one, without closing anything: the first takes its paths out,
/// and both find together again when it goes on.
pub(crate) fn frozen(a: Software, b: Software, over: Over) {
    let mut wire = Wire::new(&[a, b]);
    wire.start_pair(over, |at, config| {
        config.networks = networks(at);
        config.hold_seconds = 9;
    });
    wire.established(0, 1, over);
    wire.path(0, &v4(1, 0), |path| path.best);
    let pid = i32::try_from(wire.routers[1].pid().expect("a daemon")).unwrap();
    let signal = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("signalled");
    signal(nix::sys::signal::Signal::SIGSTOP);
    for prefix in [v4(1, 0), v6(1, 0)] {
        wire.no_path(0, &prefix);
        wire.kernel(0, &prefix, &[]);
    }
    assert!(!wire.is_established(0, 1, over));
    signal(nix::sys::signal::Signal::SIGCONT);
    wire.established(0, 1, over);
    for (own, other) in [(0, 1), (1, 0)] {
        for prefix in [v4(other, 0), v6(other, 0)] {
            wire.path(own, &prefix, |path| path.best);
            wire.kernel(own, &prefix, &[wire.address(other, family(&prefix))]);
        }
    }
}
