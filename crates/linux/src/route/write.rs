//! Writing a stage: changes become few batches of requests.
//!
//! Order within a stage: rules, routes and addresses go; links and bridge ports change; addresses, routes and rules
//! come. So one stage may hold a link and everything on it.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::lane::{Change, Refusal};
use crate::netlink::{Error, Request};
use crate::row::{Key, Link, LinkKind, Name, PolicyRuleKey, Route, RouteKind, Row, Scope, Table};

use super::kernel::route as number;
use super::lane::{Outcomes, refusal};
use super::link::{LinkState, by_name};
use super::socket::Rtnetlink;
use super::{RouteScope, address, fib, is_host, link, policy_rule};

/// How long the kernel may take to install its own route of an IPv6 address, counted from the last one it did.
const SETTLE: Duration = Duration::from_secs(2);

/// Writes a stage; refusals go to `outcomes`.
///
/// # Errors
/// Only when the socket itself fails.
pub(super) fn stage(
    kernel: &mut Rtnetlink,
    scope: &RouteScope,
    changes: &[Change],
    outcomes: &mut Outcomes,
) -> Result<(), Error> {
    let mut links = Links::named_in(kernel, changes)?;
    let going = |table| of_table(changes, table).filter(|(_, change)| change.to.is_none());
    let coming = |table| of_table(changes, table).filter(|(_, change)| change.to.is_some());

    let mut batch = Batch::default();
    for (at, change) in going(Table::PolicyRules) {
        batch.remove_rule(at, change)?;
    }
    for (at, change) in going(Table::Routes) {
        batch.remove_route(at, change, &links)?;
    }
    for (at, change) in going(Table::Addresses) {
        batch.remove_address(at, change, &links)?;
    }
    batch.run(kernel, outcomes)?;

    for (at, change) in of_table(changes, Table::Links) {
        if let Err(refusal) = change_link(kernel, change)? {
            outcomes.refuse(at, refusal);
        }
    }
    if of_table(changes, Table::Links).next().is_some() {
        links = Links::named_in(kernel, changes)?;
    }
    for (at, change) in of_table(changes, Table::BridgePorts) {
        if let Err(refusal) = change_hairpin(kernel, change, &links)? {
            outcomes.refuse(at, refusal);
        }
    }

    let mut batch = Batch::default();
    for (at, change) in coming(Table::Addresses) {
        batch.add_address(at, change, &links, outcomes)?;
    }
    let there = batch.run(kernel, outcomes)?;
    let added = coming(Table::Addresses).filter(|(at, _)| outcomes.is_ok(*at) && !there.contains(at));
    await_own_routes(kernel, added, &links)?;

    let mut batch = Batch::default();
    for (at, change) in coming(Table::Routes) {
        batch.write_route(at, change, scope, &links, outcomes)?;
    }
    for (at, change) in coming(Table::PolicyRules) {
        batch.add_rule(at, change)?;
    }
    batch.run(kernel, outcomes)?;
    displace_own_routes(kernel, scope, coming(Table::Routes), &links, outcomes)
}

fn of_table(changes: &[Change], table: Table) -> impl Iterator<Item = (usize, &Change)> {
    changes.iter().enumerate().filter(move |(_, change)| change.key.table() == table)
}

/// Links named by the changes of a stage, as they are now. Asked anew for each stage: an index is only good as long as
/// nobody replaces the link.
struct Links(HashMap<Name, Option<LinkState>>);

impl Links {
    /// O(changes + distinct links named).
    fn named_in(kernel: &mut Rtnetlink, changes: &[Change]) -> Result<Links, Error> {
        let mut found = HashMap::new();
        for change in changes {
            let in_key = match &change.key {
                Key::Address { link, .. } | Key::BridgePortHairpin(link) => Some(link),
                _ => None,
            };
            let in_rows =
                [&change.from, &change.to].into_iter().filter_map(|row| as_route(row)?.link.as_ref());
            for name in in_key.into_iter().chain(in_rows) {
                if !found.contains_key(name) {
                    found.insert(name.clone(), by_name(kernel, name)?);
                }
            }
        }
        Ok(Links(found))
    }

    fn get(&self, name: &Name) -> Option<&LinkState> {
        self.0.get(name)?.as_ref()
    }

    fn index(&self, name: &Name) -> Option<u32> {
        self.get(name).map(|link| link.index)
    }
}

/// One request of a change.
struct Step {
    change: usize,
    doing: &'static str,
    /// Errnos that say the wish is fulfilled already.
    fulfilled: &'static [i32],
}

/// Requests to be sent together, in order.
#[derive(Default)]
struct Batch {
    steps: Vec<Step>,
    requests: Vec<Request>,
}

impl Batch {
    fn push(&mut self, change: usize, doing: &'static str, request: Request, fulfilled: &'static [i32]) {
        self.steps.push(Step { change, doing, fulfilled });
        self.requests.push(request);
    }

    /// Returns the changes of which something was fulfilled before.
    fn run(self, kernel: &mut Rtnetlink, outcomes: &mut Outcomes) -> Result<HashSet<usize>, Error> {
        let mut fulfilled = HashSet::new();
        let answers = kernel.socket().batch(&self.requests)?;
        for (step, answer) in self.steps.iter().zip(answers) {
            let Err(error) = answer else {
                continue;
            };
            if error.errno().is_some_and(|errno| step.fulfilled.contains(&errno)) {
                fulfilled.insert(step.change);
            } else {
                outcomes.refuse(step.change, refusal(step.doing, &error));
            }
        }
        Ok(fulfilled)
    }

    fn remove_rule(&mut self, at: usize, change: &Change) -> Result<(), Error> {
        if let Some(rule) = as_rule(&change.key) {
            self.push(at, "removing the rule", policy_rule::delete(rule)?, &[libc::ENOENT, libc::ESRCH]);
        }
        Ok(())
    }

    fn add_rule(&mut self, at: usize, change: &Change) -> Result<(), Error> {
        if let Some(rule) = as_rule(&change.key) {
            self.push(at, "adding the rule", policy_rule::add(rule)?, &[libc::EEXIST]);
        }
        Ok(())
    }

    /// A route over a link that is gone went with it.
    fn remove_route(&mut self, at: usize, change: &Change, links: &Links) -> Result<(), Error> {
        let (Key::Route { table, destination, .. }, Some(from)) = (&change.key, as_route(&change.from))
        else {
            return Ok(());
        };
        let link = from.link.as_ref().and_then(|name| links.index(name));
        if from.link.is_some() && link.is_none() {
            return Ok(());
        }
        const GONE: &[i32] = &[libc::ESRCH, libc::ENOENT, libc::ENODEV];
        // An IPv6 host route of ours may stand behind the kernel's own, if the address was taken away and came back:
        // the first deletion takes the kernel's then.
        let times = if *table == number::TABLE_LOCAL && destination.addr().is_ipv6() { 2 } else { 1 };
        for _ in 0..times {
            self.push(at, "removing the route", fib::delete(*table, *destination, from, link)?, GONE);
        }
        Ok(())
    }

    fn write_route(
        &mut self,
        at: usize,
        change: &Change,
        scope: &RouteScope,
        links: &Links,
        outcomes: &mut Outcomes,
    ) -> Result<(), Error> {
        let (Key::Route { table, destination, .. }, Some(to)) = (&change.key, as_route(&change.to)) else {
            return Ok(());
        };
        let link = to.link.as_ref().and_then(|name| links.index(name));
        if let (Some(name), None) = (&to.link, link) {
            outcomes.refuse(at, no_link(name));
            return Ok(());
        }
        const DOING: &str = "writing the route";
        if !is_own_host_route(scope, &change.key, to) || destination.addr().is_ipv6() {
            self.push(at, DOING, fib::replace(*table, *destination, to, link)?, &[]);
            return Ok(());
        }
        // In front first, then away with the one it stands for: there is no moment without a route.
        self.push(at, DOING, fib::prepend(*table, *destination, to, link)?, &[libc::EEXIST]);
        let stood = as_route(&change.from).and_then(|from| from.source).unwrap_or(destination.addr());
        if to.source != Some(stood) {
            let old = Route { source: Some(stood), ..to.clone() };
            self.push(at, DOING, fib::delete(*table, *destination, &old, link)?, &[libc::ESRCH]);
        }
        Ok(())
    }

    /// An address on a link that is gone went with it.
    fn remove_address(&mut self, at: usize, change: &Change, links: &Links) -> Result<(), Error> {
        if let Key::Address { link, net } = &change.key
            && let Some(index) = links.index(link)
        {
            const GONE: &[i32] = &[libc::EADDRNOTAVAIL, libc::ENODEV];
            self.push(at, "removing the address", address::delete(index, *net)?, GONE);
        }
        Ok(())
    }

    /// The scope of an IPv4 address cannot be changed in place.
    fn add_address(
        &mut self,
        at: usize,
        change: &Change,
        links: &Links,
        outcomes: &mut Outcomes,
    ) -> Result<(), Error> {
        let (Key::Address { link, net }, Some(Row::Address { scope })) = (&change.key, &change.to) else {
            return Ok(());
        };
        let Some(index) = links.index(link) else {
            outcomes.refuse(at, no_link(link));
            return Ok(());
        };
        if other_scope(change.from.as_ref(), *scope) {
            self.push(at, "replacing the address", address::delete(index, *net)?, &[libc::EADDRNOTAVAIL]);
        }
        self.push(at, "adding the address", address::add(index, *net, *scope)?, &[libc::EEXIST]);
        Ok(())
    }
}

fn other_scope(from: Option<&Row>, wanted: Scope) -> bool {
    matches!(from, Some(Row::Address { scope }) if *scope != wanted)
}

fn as_route(row: &Option<Row>) -> Option<&Route> {
    match row {
        Some(Row::Route(route)) => Some(route),
        _ => None,
    }
}

fn as_rule(key: &Key) -> Option<&PolicyRuleKey> {
    match key {
        Key::PolicyRule(rule) => Some(rule),
        _ => None,
    }
}

fn no_link(name: &Name) -> Refusal {
    Refusal { reason: format!("there is no link {name}"), errno: Some(libc::ENODEV) }
}

/// Whether a route stands for the one the kernel makes for an address.
fn is_own_host_route(scope: &RouteScope, key: &Key, route: &Route) -> bool {
    match key {
        Key::Route { table: number::TABLE_LOCAL, destination, link: Some(link) } => {
            route.kind == RouteKind::Local && is_host(destination) && scope.address_links.contains(link)
        }
        _ => false,
    }
}

/// Makes a link be as wanted, from whatever is there: created, its flags and MTU set, replaced if it is of another
/// kind, removed.
fn change_link(kernel: &mut Rtnetlink, change: &Change) -> Result<Result<(), Refusal>, Error> {
    let Key::Link(name) = &change.key else {
        return Ok(Ok(()));
    };
    let wanted = match &change.to {
        Some(Row::Link(link)) => Some(&**link),
        _ => None,
    };
    let found = by_name(kernel, name)?;
    let keep = match (&found, wanted) {
        (Some(found), Some(wanted)) => found.kind == wanted.kind,
        _ => false,
    };
    if let Some(found) = &found
        && !keep
        && let Err(error) = send(kernel, link::delete(found.index)?, &[libc::ENODEV])?
    {
        return Ok(Err(refusal("removing the link", &error)));
    }
    let Some(wanted) = wanted else {
        return Ok(Ok(()));
    };
    match found.filter(|_| keep) {
        Some(found) if agrees(&found, wanted) => Ok(Ok(())),
        Some(found) => {
            let outcome = send(kernel, link::set(found.index, wanted)?, &[])?;
            Ok(outcome.map_err(|error| refusal("setting the link", &error)))
        }
        None => {
            let outcome = send(kernel, link::create(name, wanted)?, &[])?;
            Ok(outcome.map_err(|error| not_created(&wanted.kind, &error)))
        }
    }
}

fn agrees(found: &LinkState, wanted: &Link) -> bool {
    found.up == wanted.up && wanted.mtu.is_none_or(|mtu| mtu == found.mtu)
}

fn not_created(kind: &LinkKind, error: &Error) -> Refusal {
    let mut refusal = refusal("creating the link", error);
    if error.errno() == Some(libc::EOPNOTSUPP) {
        let kind = link::kind_name(kind);
        refusal.reason.push_str(&format!("; this kernel has no {kind} links until `modprobe {kind}`"));
    }
    refusal
}

/// Sets the hairpin mode. A row taken away leaves the mode as it is: whoever made the port may want it too (the CNI
/// plugin's `hairpinMode`).
fn change_hairpin(
    kernel: &mut Rtnetlink,
    change: &Change,
    links: &Links,
) -> Result<Result<(), Refusal>, Error> {
    let (Key::BridgePortHairpin(name), Some(Row::BridgePortHairpin(on))) = (&change.key, &change.to) else {
        return Ok(Ok(()));
    };
    let Some(port) = links.get(name) else {
        return Ok(Err(no_link(name)));
    };
    let outcome = send(kernel, link::set_hairpin(port.index, *on)?, &[])?;
    Ok(outcome.map_err(|error| refusal("setting hairpin mode of the bridge port", &error)))
}

/// Sends one request; the outer error is the socket's, the inner the kernel's.
fn send(kernel: &mut Rtnetlink, request: Request, fulfilled: &[i32]) -> Result<Result<(), Error>, Error> {
    match kernel.socket().request(request) {
        Ok(()) => Ok(Ok(())),
        Err(error @ Error::Refused { .. }) => {
            let fine = error.errno().is_some_and(|errno| fulfilled.contains(&errno));
            Ok(if fine { Ok(()) } else { Err(error) })
        }
        Err(error) => Err(error),
    }
}

/// Waits until the kernel has installed its own route of each IPv6 host address that was added on a link that is up
/// (`addrconf_dad_completed`, run from a work queue even without duplicate address detection). Otherwise it would
/// appear behind the back of a route of ours written meanwhile, and with its lower metric take over.
fn await_own_routes<'a>(
    kernel: &mut Rtnetlink,
    added: impl Iterator<Item = (usize, &'a Change)>,
    links: &Links,
) -> Result<(), Error> {
    let mut progress = Instant::now();
    let mut pause = Duration::from_micros(200);
    for (_, change) in added {
        let Key::Address { link, net: IpNet::V6(net) } = &change.key else {
            continue;
        };
        let Some(link) = links.get(link).filter(|link| link.up) else {
            continue;
        };
        if !is_host(&IpNet::V6(*net)) {
            continue;
        }
        while !is_own_route(kernel, net.addr(), link.index)? {
            if progress.elapsed() > SETTLE {
                return Ok(()); // the address stands; an audit will see its route if it comes
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        progress = Instant::now();
        pause = Duration::from_micros(200);
    }
    Ok(())
}

/// Removes the kernel's own routes from before ours, for IPv6 addresses whose route is to prefer another source.
fn displace_own_routes<'a>(
    kernel: &mut Rtnetlink,
    scope: &RouteScope,
    written: impl Iterator<Item = (usize, &'a Change)>,
    links: &Links,
    outcomes: &mut Outcomes,
) -> Result<(), Error> {
    let mut batch = Batch::default();
    for (at, change) in written {
        let (Key::Route { table, destination, .. }, Some(to)) = (&change.key, as_route(&change.to)) else {
            continue;
        };
        let IpAddr::V6(ip) = destination.addr() else {
            continue;
        };
        // Read back with a source, ours was alone already.
        let alone = as_route(&change.from).is_some_and(|from| from.source.is_some());
        if alone || to.source.is_none() || !outcomes.is_ok(at) || !is_own_host_route(scope, &change.key, to) {
            continue;
        }
        let Some(index) = to.link.as_ref().and_then(|name| links.index(name)) else {
            continue;
        };
        if is_own_route(kernel, ip, index)? {
            let request = fib::delete(*table, *destination, to, Some(index))?;
            batch.push(at, "removing the kernel's own route", request, &[libc::ESRCH]);
        }
    }
    batch.run(kernel, outcomes).map(drop)
}

/// Whether the route in force for an IPv6 address on a link is the one the kernel made, told by its metric 0, which
/// nobody else can give.
fn is_own_route(kernel: &mut Rtnetlink, ip: Ipv6Addr, link: u32) -> Result<bool, Error> {
    match fib::matching(kernel, IpAddr::V6(ip), link) {
        Ok(found) => Ok(found.is_some_and(|found| {
            found.table == number::TABLE_LOCAL && found.metric == 0 && found.out_link == Some(link)
        })),
        Err(Error::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
