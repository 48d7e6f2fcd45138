//! The lane of chains, rules in built-in chains, and verdict maps.
//!
//! Decided here: that a stage is one transaction, and its order: maps, chains, their rules, entries, then what goes. A
//! changed chain is written whole. Rules for built-in chains (INPUT, FORWARD, …) stand in chains of our own with the
//! same hook and priority, in the order of their positions; those are written whole as well, and exist while they
//! have a rule. Rules that somebody else puts into them, or moves, make them be written anew.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::expression::{Expression, Verdict};
use super::kernel::{self, FoundRule};
use super::names::{Names, chain_name, checked, hook, key_of};
use super::parse::parse;
use super::render::{Context, octets, render};
use super::shape::{Keys, Shape};
use super::transaction::{Outcomes, Owner, Transaction};
use super::userdata::{self, COMMENT_BYTES};
use super::{Link, sweep};
use crate::lane::{Change, Lane, ReadError, Refusal};
use crate::netlink::{Error, OwnPorts, Requests};
use crate::row::{ChainKey, Family, Key, Position, Row, SetKey, SetKind};
use crate::rule::{Match, Rule};

/// Read for an entry of a verdict map that is not a chain to go to. No chain has such a name.
const ANOTHER_VERDICT: &str = "(not of ours)";

/// Rules of ours in one built-in chain, in their order.
type Placed = Vec<(Position, Rule)>;

/// Chains, rules and verdict maps in nftables, of one network namespace.
#[derive(Debug)]
pub struct RulesLane {
    names: Names,
    link: Link,
    /// What stands in for built-in chains; `None` before it was read.
    placed: Option<BTreeMap<ChainKey, Placed>>,
    /// Chains that stand in for no built-in one, as far as known.
    chains: BTreeSet<ChainKey>,
}

impl RulesLane {
    /// Opens nothing yet; the socket is opened at first use, on the lane's own thread.
    pub fn new(names: Names) -> RulesLane {
        RulesLane { names, link: Link::default(), placed: None, chains: BTreeSet::new() }
    }

    /// Adds the socket's port to these before anything is written through it.
    pub fn with_ports(mut self, ports: OwnPorts) -> RulesLane {
        self.link.ports = ports;
        self
    }

    fn context(&self, chain: &ChainKey) -> Context {
        context(chain, &self.names)
    }

    fn read_family(&mut self, family: Family, rows: &mut Vec<(Key, Row)>) -> Result<(), Error> {
        let table = self.names.table(family).clone();
        let names = self.names.clone();
        let socket = self.link.open()?;
        let mut chains: BTreeMap<ChainKey, Vec<(Rule, Option<Position>)>> = BTreeMap::new();
        for found in kernel::chains(socket, family, &table)? {
            let key = key_of(family, &found.name);
            if hook(&key).is_none() {
                self.chains.insert(key.clone());
            }
            chains.insert(key, Vec::new());
        }
        for found in kernel::rules(socket, family, &table)? {
            // A rule of a chain made since is read next time.
            let key = key_of(family, &found.chain);
            if let Some(rules) = chains.get_mut(&key) {
                rules.push(read_rule(&found, &context(&key, &names)));
            }
        }
        for (key, rules) in chains {
            if hook(&key).is_none() {
                let rules: Arc<[Rule]> = rules.into_iter().map(|(rule, _)| rule).collect();
                rows.push((Key::Chain(key), Row::Chain(rules)));
                continue;
            }
            let count = rules.len();
            let placed = rules.into_iter().filter_map(|(rule, place)| Some((place?, rule)));
            let placed: Placed = placed.collect();
            let disturbed =
                placed.len() < count || !placed.is_sorted_by(|one, other| turn(one) <= turn(other));
            let row = |(place, rule): &(Position, Rule)| {
                let place = if disturbed { elsewhere(*place) } else { *place };
                (Key::ForeignRule(key.clone(), rule.clone()), Row::ForeignRule(place))
            };
            rows.extend(placed.iter().map(row));
            self.placed.get_or_insert_default().insert(key, placed);
        }
        self.read_maps(family, &table, rows)
    }

    fn read_maps(&mut self, family: Family, table: &str, rows: &mut Vec<(Key, Row)>) -> Result<(), Error> {
        let socket = self.link.open()?;
        for found in kernel::sets(socket, family, table)? {
            if found.shape != Some(Shape::VerdictMap) {
                continue;
            }
            let key = SetKey { family, name: found.name.as_str().into() };
            for element in kernel::elements(socket, &kernel::set_address(family, table, &found.name))? {
                let Some(ip) = super::parse::address(&element.key) else { continue };
                let chain = match element.verdict {
                    Some(Verdict::Goto(chain)) => chain,
                    // Put in by somebody else; as no row wants it, it is replaced.
                    _ => ANOTHER_VERDICT.into(),
                };
                rows.push((Key::Verdict(key.clone(), ip), Row::Verdict(chain)));
            }
            rows.push((Key::VerdictMap(key), Row::VerdictMap));
        }
        Ok(())
    }

    /// Everything that is made or changed: tables, maps, chains, rules, entries.
    fn put(&mut self, stage: &[Change], to: &mut Transaction, outcomes: &mut Outcomes) {
        let puts = |family: Family| {
            stage.iter().any(|change| change.to.is_some() && family_of(&change.key) == Some(family))
        };
        for family in Family::ALL.into_iter().filter(|family| puts(*family)) {
            let table = self.names.table(family);
            to.put(Owner::Everyone, "creating the table", kernel::new_table(family, table));
        }
        let chains = self.chains_to_write(stage, outcomes);
        let placed = self.place(stage, outcomes);
        self.put_maps(stage, to, outcomes);
        self.put_service_ports(
            chains
                .iter()
                .flat_map(|chain| chain.expressions())
                .chain(placed.iter().flat_map(|chain| chain.expressions())),
            to,
        );
        for chain in chains.iter().chain(&placed) {
            self.declare(chain, to);
        }
        for chain in chains.iter().chain(&placed) {
            chain.write(self.names.table(chain.key.family), to);
        }
        self.put_verdicts(stage, to);
    }

    fn put_maps(&self, stage: &[Change], to: &mut Transaction, outcomes: &mut Outcomes) {
        for (index, change) in stage.iter().enumerate() {
            let (Key::VerdictMap(key), Some(_)) = (&change.key, &change.to) else { continue };
            if let Err(reason) = checked(&key.name) {
                answer(outcomes, index, reason);
                continue;
            }
            let (table, id) = (self.names.table(key.family), to.new_set());
            let request = kernel::new_set(key.family, table, &key.name, Shape::VerdictMap, id);
            to.put(Owner::One(index), "creating the verdict map", request);
        }
    }

    /// Rules that ask for connections through IPVS look into the set of service ports, which another lane fills; it
    /// is made here if it is not there yet.
    fn put_service_ports<'a>(
        &self,
        expressions: impl Iterator<Item = (Family, &'a Expression)>,
        to: &mut Transaction,
    ) {
        let looked_into = |(family, one): (Family, &Expression)| match one {
            Expression::Lookup { set, .. } if *set == self.names.service_ports => Some(family),
            _ => None,
        };
        for family in expressions.filter_map(looked_into).collect::<BTreeSet<Family>>() {
            let (table, id) = (self.names.table(family), to.new_set());
            let shape = Shape::Set(SetKind::HashIpPort);
            let request = kernel::new_set(family, table, &self.names.service_ports, shape, id);
            to.put(Owner::Everyone, "creating the set of service ports", request);
        }
    }

    /// Chains of the stage that get other rules.
    fn chains_to_write(&self, stage: &[Change], outcomes: &mut Outcomes) -> Vec<Chain> {
        let mut chains = Vec::new();
        for (index, change) in stage.iter().enumerate() {
            let (Key::Chain(key), Some(Row::Chain(rules))) = (&change.key, &change.to) else { continue };
            let context = self.context(key);
            let owner = Owner::One(index);
            let lines = rules.iter().map(|rule| line(rule, None, owner.clone(), &context));
            match (chain_name(key), hook(key), lines.collect::<Result<Vec<Line>, String>>()) {
                (Ok(_), Some(_), _) => answer(outcomes, index, format!("{} is a built-in chain", key.name)),
                (Ok(name), None, Ok(lines)) => {
                    chains.push(Chain { key: key.clone(), name, owner, lines });
                }
                (Err(reason), ..) | (.., Err(reason)) => answer(outcomes, index, reason),
            }
        }
        chains
    }

    /// What stands in for built-in chains that get, lose or move a rule; remembered as if it were done.
    fn place(&mut self, stage: &[Change], outcomes: &mut Outcomes) -> Vec<Chain> {
        let mut touched: BTreeMap<&ChainKey, Vec<usize>> = BTreeMap::new();
        let placed = self.placed.get_or_insert_default();
        for (index, change) in stage.iter().enumerate() {
            let Key::ForeignRule(key, rule) = &change.key else { continue };
            if hook(key).is_none() {
                answer(
                    outcomes,
                    index,
                    format!("{} is no built-in chain of {}", key.name, key.table.as_str()),
                );
                continue;
            }
            let context = context(key, &self.names);
            let position = match &change.to {
                Some(Row::ForeignRule(position)) => match written(rule, &context) {
                    Ok(_) => Some(*position),
                    Err(reason) => {
                        answer(outcomes, index, reason);
                        continue;
                    }
                },
                _ => None,
            };
            let rules = placed.entry(key.clone()).or_default();
            rules.retain(|(_, there)| there != rule);
            rules.extend(position.map(|position| (position, rule.clone())));
            rules.sort_by(|one, other| turn(one).cmp(&turn(other)));
            touched.entry(key).or_default().push(index);
        }
        let chain = |(key, indexes): (&ChainKey, Vec<usize>)| {
            let context = context(key, &self.names);
            let rules = placed.get(key)?;
            let these = Owner::These(Rc::from(indexes.as_slice()));
            let owner = |rule: &Rule| {
                let index = indexes.iter().find(|index| {
                    let change = stage.get(**index).filter(|change| change.to.is_some());
                    matches!(change.map(|change| &change.key), Some(Key::ForeignRule(_, wanted)) if wanted == rule)
                });
                index.map_or(these.clone(), |index| Owner::One(*index))
            };
            // What somebody else put in, and is not understood, is not written again.
            let lines =
                rules.iter().filter_map(|(place, rule)| line(rule, Some(*place), owner(rule), &context).ok());
            let (name, lines) = (chain_name(key).ok()?, lines.collect());
            Some(Chain { key: key.clone(), name, owner: these.clone(), lines })
        };
        touched.into_iter().filter_map(chain).collect()
    }

    fn declare(&self, chain: &Chain, to: &mut Transaction) {
        let (family, table) = (chain.key.family, self.names.table(chain.key.family));
        if chain.lines.is_empty() && hook(&chain.key).is_some() {
            return;
        }
        let request = kernel::new_chain(family, table, &chain.name, hook(&chain.key));
        to.put(chain.owner.clone(), "creating the chain", request);
    }

    fn put_verdicts(&self, stage: &[Change], to: &mut Transaction) {
        let mut by_map: BTreeMap<&SetKey, (Vec<_>, Vec<_>)> = BTreeMap::new();
        for (index, change) in stage.iter().enumerate() {
            let Key::Verdict(map, ip) = &change.key else { continue };
            let keys = Keys { start: octets(*ip), end: None };
            let (put, gone) = by_map.entry(map).or_default();
            // An entry is not changed in place: the old one goes, and no packet comes in between.
            if change.from.is_some() || change.to.is_none() {
                gone.push((index, kernel::element(&keys, None)));
            }
            if let Some(Row::Verdict(chain)) = &change.to {
                put.push((index, kernel::element(&keys, Some(&Verdict::Goto(chain.clone())))));
            }
        }
        for (map, (put, gone)) in by_map {
            let set = kernel::set_address(map.family, self.names.table(map.family), &map.name);
            to.remove_elements(set.clone(), gone);
            to.put_elements(set, put);
        }
    }

    /// Everything that goes, after what referred to it.
    fn remove(&self, stage: &[Change], to: &mut Transaction) {
        let gone = |change: &&Change| change.to.is_none();
        let indexed = || stage.iter().enumerate().filter(|(_, change)| gone(change));
        let mut chains = Vec::new();
        for (index, change) in indexed() {
            let Key::Chain(key) = &change.key else { continue };
            // A name that is none was never written.
            let Ok(name) = chain_name(key) else { continue };
            let table = self.names.table(key.family);
            let request = kernel::empty_chain(key.family, table, &name);
            to.remove(Owner::One(index), "emptying the chain", request);
            chains.push((index, kernel::delete_chain(key.family, table, &name)));
        }
        for (index, change) in indexed() {
            let Key::VerdictMap(key) = &change.key else { continue };
            let request = kernel::delete_set(key.family, self.names.table(key.family), &key.name);
            to.remove(Owner::One(index), "removing the verdict map", request);
        }
        for (index, request) in chains {
            to.remove(Owner::One(index), "removing the chain", request);
        }
    }

    /// Remembers what was done; of built-in chains in which something was refused, what is there is read again.
    fn remember(&mut self, stage: &[Change], outcomes: &Outcomes) {
        for (change, outcome) in stage.iter().zip(outcomes) {
            let done = !matches!(outcome, Some(Err(_)));
            match &change.key {
                Key::Chain(key) if done && change.to.is_some() => _ = self.chains.insert(key.clone()),
                Key::Chain(key) if done => _ = self.chains.remove(key),
                Key::ForeignRule(..) if !done => self.placed = None,
                _ => {}
            }
        }
        if let Some(placed) = &mut self.placed {
            placed.retain(|_, rules| !rules.is_empty());
        }
    }

    fn is_empty(&self, family: Family) -> bool {
        let placed = self.placed.iter().flat_map(BTreeMap::keys);
        !self.chains.iter().chain(placed).any(|chain| chain.family == family)
    }
}

impl Lane for RulesLane {
    fn requests(&self) -> Option<Arc<Requests>> {
        Some(Arc::clone(&self.link.requests))
    }

    fn read(&mut self) -> Result<Vec<(Key, Row)>, ReadError> {
        let mut rows = Vec::new();
        self.placed = Some(BTreeMap::new());
        self.chains.clear();
        for family in Family::ALL {
            if let Err(source) = self.read_family(family, &mut rows) {
                self.placed = None;
                return Err(ReadError { table: "nftables chains", source: source.into() });
            }
        }
        Ok(rows)
    }

    fn apply(&mut self, stage: &[Change]) -> Vec<Result<(), Refusal>> {
        let places = stage.iter().any(|change| matches!(change.key, Key::ForeignRule(..)));
        if places
            && self.placed.is_none()
            && let Err(error) = self.read()
        {
            return stage.iter().map(|_| Err(Refusal::new(error.to_string()))).collect();
        }
        let mut outcomes: Outcomes = vec![None; stage.len()];
        for (index, change) in stage.iter().enumerate() {
            if family_of(&change.key).is_none() {
                answer(&mut outcomes, index, "not a row of the lane of rules".to_owned());
            }
        }
        let mut transaction = Transaction::default();
        self.put(stage, &mut transaction, &mut outcomes);
        self.remove(stage, &mut transaction);
        self.link.commit(transaction, &mut outcomes);
        self.remember(stage, &outcomes);
        for family in Family::ALL {
            let removed = |change: &Change| change.to.is_none() && family_of(&change.key) == Some(family);
            if stage.iter().any(removed) && self.is_empty(family) {
                sweep(&mut self.link, family, self.names.table(family));
            }
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Ok(()))).collect()
    }
}

/// A chain to be written whole.
struct Chain {
    key: ChainKey,
    name: String,
    owner: Owner,
    lines: Vec<Line>,
}

struct Line {
    expressions: Vec<Expression>,
    userdata: Vec<u8>,
    owner: Owner,
}

impl Chain {
    fn expressions(&self) -> impl Iterator<Item = (Family, &Expression)> {
        self.lines.iter().flat_map(|line| &line.expressions).map(|one| (self.key.family, one))
    }

    fn write(&self, table: &str, to: &mut Transaction) {
        let family = self.key.family;
        let request = kernel::empty_chain(family, table, &self.name);
        to.remove(self.owner.clone(), "emptying the chain", request);
        for line in &self.lines {
            let request = kernel::new_rule(family, table, &self.name, &line.expressions, &line.userdata);
            to.put(line.owner.clone(), "writing a rule", request);
        }
        if self.lines.is_empty() && hook(&self.key).is_some() {
            let request = kernel::delete_chain(family, table, &self.name);
            to.remove(self.owner.clone(), "removing the chain", request);
        }
    }
}

fn line(rule: &Rule, place: Option<Position>, owner: Owner, context: &Context) -> Result<Line, String> {
    let expressions = written(rule, context)?;
    let comment = match rule {
        Rule::Known(rule) => rule.comment.as_ref(),
        Rule::Unknown(_) => None,
    };
    Ok(Line { expressions, userdata: userdata::encode(comment, place), owner })
}

/// The expressions of a rule that reads back as it is.
pub(super) fn written(rule: &Rule, context: &Context) -> Result<Vec<Expression>, String> {
    let Rule::Known(known) = rule else { return Err("the rule is not understood".to_owned()) };
    let comment = known.comment.clone();
    if comment.as_ref().is_some_and(|comment| comment.len() > COMMENT_BYTES || comment.contains(['\0', '\'']))
    {
        return Err(format!(
            "a comment has at most {COMMENT_BYTES} bytes, none of them zero or a single quote"
        ));
    }
    let families = known.matches.iter().filter_map(|condition| match condition {
        Match::Source { net, .. } | Match::Destination { net, .. } => Some(Family::of_net(net)),
        _ => None,
    });
    if families.into_iter().any(|family| family != context.family) {
        return Err("a prefix of the other family".to_owned());
    }
    let expressions = render(known, context)?;
    match parse(&expressions, comment, context) {
        Some(back) if back == **known => Ok(expressions),
        back => Err(format!("the rule is not in normal form: it reads back as {back:?}")),
    }
}

fn read_rule(found: &FoundRule, context: &Context) -> (Rule, Option<Position>) {
    let (comment, place) = userdata::decode(&found.userdata);
    let known = found.expressions.as_ref().and_then(|list| parse(list, comment, context));
    let rule = match known {
        Some(rule) => Rule::Known(Box::new(rule)),
        None => Rule::Unknown(format!("nft: {}", found.outline).into()),
    };
    (rule, place)
}

/// What a rule's place is said to be when others have put rules between ours, or moved them: any but its own, so that
/// the chain is written anew.
fn elsewhere(position: Position) -> Position {
    match position {
        Position::Anywhere => Position::Last,
        Position::First(_) | Position::Last => Position::Anywhere,
    }
}

/// The order of rules in one of our chains with a hook: as their positions say, and the same each time.
fn turn((position, rule): &(Position, Rule)) -> (u8, u8, &Rule) {
    match position {
        Position::First(rank) => (0, *rank, rule),
        Position::Anywhere => (1, 0, rule),
        Position::Last => (2, 0, rule),
    }
}

fn context(chain: &ChainKey, names: &Names) -> Context {
    Context { family: chain.family, table: chain.table, service_ports: names.service_ports.clone() }
}

/// The family of a key of this lane.
fn family_of(key: &Key) -> Option<Family> {
    match key {
        Key::Chain(chain) | Key::ForeignRule(chain, _) => Some(chain.family),
        Key::VerdictMap(map) | Key::Verdict(map, _) => Some(map.family),
        _ => None,
    }
}

fn answer(outcomes: &mut Outcomes, index: usize, reason: String) {
    if let Some(slot) = outcomes.get_mut(index) {
        *slot = Some(Err(Refusal::new(reason)));
    }
}
