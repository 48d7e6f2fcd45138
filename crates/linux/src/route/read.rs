//! Reading what could be ours: dumps narrowed by the kernel, turned into rows.

use std::collections::{BTreeMap, HashMap};

use crate::lane::ReadError;
use crate::netlink::Error;
use crate::row::{Family, Key, Link, Name, Row};

use super::kernel::route as number;
use super::link::{LinkState, links};
use super::socket::Rtnetlink;
use super::{RouteScope, address, fib, is_host, policy_rule, route_key};

/// Every row of `scope`. O(links + ours); a full routing table of someone else is walked by the kernel but not told.
pub(super) fn rows(kernel: &mut Rtnetlink, scope: &RouteScope) -> Result<Vec<(Key, Row)>, ReadError> {
    let failed = |table: &'static str| move |source: Error| ReadError { table, source: Box::new(source) };
    let links = links(kernel).map_err(failed("links"))?;
    let mut rows = BTreeMap::new();
    link_rows(&links, scope, &mut rows);
    address_rows(kernel, &links, scope, &mut rows).map_err(failed("addresses"))?;
    route_rows(kernel, &links, scope, &mut rows).map_err(failed("routes"))?;
    for family in Family::ALL {
        let rules = policy_rule::dump(kernel, family, scope).map_err(failed("policy rules"))?;
        rows.extend(rules.into_iter().map(|rule| (Key::PolicyRule(rule), Row::PolicyRule)));
    }
    Ok(rows.into_iter().collect())
}

type Rows = BTreeMap<Key, Row>;

fn link_rows(links: &[LinkState], scope: &RouteScope, rows: &mut Rows) {
    let bridges: Vec<u32> =
        links.iter().filter(|link| scope.bridges.contains(&link.name)).map(|link| link.index).collect();
    for link in links {
        if scope.has_link(&link.name) {
            let mtu = scope.links_with_mtu.contains(&link.name).then_some(link.mtu);
            let row = Link { kind: link.kind.clone(), up: link.up, mtu };
            rows.insert(Key::Link(link.name.clone()), Row::Link(Box::new(row)));
        }
        if let Some(hairpin) = link.hairpin
            && link.master.is_some_and(|master| bridges.contains(&master))
        {
            rows.insert(Key::BridgePortHairpin(link.name.clone()), Row::BridgePortHairpin(hairpin));
        }
    }
}

fn address_rows(
    kernel: &mut Rtnetlink,
    links: &[LinkState],
    scope: &RouteScope,
    rows: &mut Rows,
) -> Result<(), Error> {
    for link in links.iter().filter(|link| scope.address_links.contains(&link.name)) {
        for found in address::dump(kernel, link.index)? {
            if !address::is_link_local(found.net.addr()) {
                let key = Key::Address { link: link.name.clone(), net: found.net };
                rows.insert(key, Row::Address { scope: found.scope });
            }
        }
    }
    Ok(())
}

fn route_rows(
    kernel: &mut Rtnetlink,
    links: &[LinkState],
    scope: &RouteScope,
    rows: &mut Rows,
) -> Result<(), Error> {
    let names: HashMap<u32, &Name> = links.iter().map(|link| (link.index, &link.name)).collect();
    let hosts =
        links.iter().filter(|link| scope.address_links.contains(&link.name)).map(|link| fib::Filter {
            table: number::TABLE_LOCAL,
            protocol: number::PROTOCOL_KERNEL,
            kind: number::LOCAL,
            out_link: Some(link.index),
        });
    let tables = scope.tables.iter().map(|table| fib::Filter { table: *table, ..fib::Filter::default() });
    let ours =
        (scope.protocol != 0).then_some(fib::Filter { protocol: scope.protocol, ..fib::Filter::default() });
    let filters: Vec<fib::Filter> = hosts.chain(tables).chain(ours).collect();
    for family in Family::ALL {
        for filter in &filters {
            for found in fib::dump(kernel, family, *filter)? {
                let host_table = filter.table == number::TABLE_LOCAL;
                if host_table
                    && (!is_host(&found.destination) || address::is_link_local(found.destination.addr()))
                {
                    continue;
                }
                let mut route = found.route;
                route.link = found.out_link.and_then(|index| names.get(&index)).map(|name| (*name).clone());
                let key = route_key(found.table, found.destination, route.link.as_ref());
                rows.entry(key).or_insert_with(|| Row::Route(Box::new(route)));
            }
        }
    }
    Ok(())
}
