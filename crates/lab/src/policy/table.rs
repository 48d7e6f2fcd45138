//! Truth tables: who reaches whom on which port, as it should be and as it is, and the difference as a picture.

use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt;

use super::reference::{Objects, Packet};
use crate::probe::{Probe, Protocol};

/// Questions under way at a time: every cell of a usual table, without running out of descriptors.
const SIDE_BY_SIDE: usize = 300;

/// Port and transport, `80/TCP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Number.
    pub number: u16,
    /// Transport.
    pub protocol: Protocol,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

impl std::str::FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no port like 80/TCP");
        let (number, protocol) = text.split_once('/').ok_or_else(wrong)?;
        let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let protocol = known.into_iter().find(|one| one.to_string() == protocol).ok_or_else(wrong)?;
        Ok(Self { number: number.parse().map_err(|_| wrong())?, protocol })
    }
}

/// A pod of the table.
#[derive(Debug, Clone)]
pub struct Member {
    /// Short name in pictures, `x/a`.
    pub name: String,
    /// Addresses, one of each family, in the same order for all.
    pub addresses: Vec<IpAddr>,
    /// Asks from it; none for tables that are only computed.
    pub probe: Option<Probe>,
}

/// One cell: positions of two members, which of their addresses, and the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// Position of the address.
    pub family: usize,
    /// The port.
    pub port: Port,
    /// Who asks.
    pub from: usize,
    /// Who is asked.
    pub to: usize,
}

/// For every pair, port and family, whether it passes. A pod is not asked by itself: what a policy means for that is not
/// defined, as upstream's tests have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truth {
    names: Vec<String>,
    families: Vec<&'static str>,
    cells: Vec<(Question, bool)>,
}

/// Every question about these members and ports. O(members² × ports × families).
fn questions(members: &[Member], ports: &[Port]) -> Vec<Question> {
    let families = members.first().map_or(0, |member| member.addresses.len());
    let mut all = Vec::new();
    for family in 0..families {
        for &port in ports {
            for from in 0..members.len() {
                let others = (0..members.len()).filter(|to| *to != from);
                all.extend(others.map(|to| Question { family, port, from, to }));
            }
        }
    }
    all
}

impl Truth {
    /// A table of which each cell is what `holds` says of (family, port, asking, asked).
    pub fn new(members: &[Member], ports: &[Port], holds: impl Fn(&Question) -> bool) -> Self {
        let cells =
            questions(members, ports).into_iter().map(|question| (question, holds(&question))).collect();
        Self::of(members, cells)
    }

    fn of(members: &[Member], cells: Vec<(Question, bool)>) -> Self {
        let families = members.first().map_or(&[][..], |member| member.addresses.as_slice());
        let families = families.iter().map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" }).collect();
        Self { names: members.iter().map(|member| member.name.clone()).collect(), families, cells }
    }

    /// What should pass by these objects.
    pub fn expected(members: &[Member], ports: &[Port], objects: &Objects) -> Self {
        let address = |at: usize, family: usize| members.get(at)?.addresses.get(family).copied();
        Self::new(members, ports, |question| {
            let Question { family, port, from, to } = *question;
            let pair = address(from, family).zip(address(to, family));
            pair.is_some_and(|(from, to)| {
                objects.allows(&Packet { from, to, protocol: port.protocol, port: port.number })
            })
        })
    }

    /// How many cells there are, and how many of them pass.
    pub fn count(&self) -> (usize, usize) {
        (self.cells.len(), self.cells.iter().filter(|(_, passes)| *passes).count())
    }

    /// Cells in which `self` and `other`, a table of the same questions, differ: who asks whom how, and whether it passes
    /// in `other`.
    pub fn changes<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (String, bool)> + use<'a> {
        let differ = self.cells.iter().zip(&other.cells).filter(|(mine, theirs)| mine.1 != theirs.1);
        differ.map(|(_, (question, passes))| (self.describe(question), *passes))
    }

    fn describe(&self, question: &Question) -> String {
        let name = |at: usize| self.names.get(at).map_or("?", String::as_str);
        let family = self.families.get(question.family).copied().unwrap_or_default();
        format!("{} > {} {} {family}", name(question.from), name(question.to), question.port)
    }

    /// The cells that are not as `expected`, drawn: one square for each port and family that has any; nothing if all are
    /// right. `X`: is refused and should pass; `O`: passes and should not; `.` and `-` are right, passing and refused.
    pub fn difference(&self, expected: &Self) -> Option<String> {
        if self.cells == expected.cells {
            return None;
        }
        let wrong = self.changes(expected).count();
        let mut picture = format!(
            "{wrong} of {} cells are wrong (rows ask columns; X refused, should pass; O passes, should not)\n",
            self.cells.len()
        );
        let side = self.names.len() * self.names.len().saturating_sub(1);
        let squares = self.cells.chunks(side.max(1)).zip(expected.cells.chunks(side.max(1)));
        for (seen, wanted) in squares.filter(|(seen, wanted)| seen != wanted) {
            let Some((first, _)) = seen.first() else { continue };
            let family = self.families.get(first.family).copied().unwrap_or_default();
            let _ = writeln!(picture, "{} {family}", first.port);
            self.draw(&mut picture, seen, wanted);
        }
        Some(picture)
    }

    fn draw(&self, picture: &mut String, seen: &[(Question, bool)], wanted: &[(Question, bool)]) {
        let width = self.names.iter().map(String::len).max().unwrap_or(0).max(3);
        let _ = write!(picture, "  {:width$}", "");
        for name in &self.names {
            let _ = write!(picture, " {name:>width$}");
        }
        let rows = self.names.len().saturating_sub(1).max(1);
        for (name, (seen, wanted)) in self.names.iter().zip(seen.chunks(rows).zip(wanted.chunks(rows))) {
            let _ = write!(picture, "\n  {name:width$}");
            let mut cells = seen.iter().zip(wanted);
            for other in &self.names {
                let mark = match if other == name { None } else { cells.next() } {
                    None => ' ',
                    Some(((_, true), (_, true))) => '.',
                    Some(((_, false), (_, false))) => '-',
                    Some(((_, true), (_, false))) => 'O',
                    Some(((_, false), (_, true))) => 'X',
                };
                let _ = write!(picture, " {mark:>width$}");
            }
        }
        picture.push('\n');
    }
}

/// Asks every cell, side by side, each for `patience` at most. An answer by somebody else than the pod asked counts as
/// none.
pub async fn ask(members: &[Member], ports: &[Port], patience: Duration) -> Truth {
    let asked = questions(members, ports).into_iter().enumerate().map(|(at, question)| async move {
        let passes = passes(members, question, patience).await;
        (at, question, passes.unwrap_or(false))
    });
    let mut cells: Vec<_> = futures::stream::iter(asked).buffer_unordered(SIDE_BY_SIDE).collect().await;
    cells.sort_by_key(|(at, ..)| *at);
    Truth::of(members, cells.into_iter().map(|(_, question, passes)| (question, passes)).collect())
}

async fn passes(members: &[Member], question: Question, patience: Duration) -> Option<bool> {
    let Question { family, port, from, to } = question;
    let probe = members.get(from)?.probe.clone()?.patience(patience);
    let to = members.get(to)?;
    let address = SocketAddr::new(*to.addresses.get(family)?, port.number);
    let answer = probe.ask(port.protocol, address).await.ok()?;
    Some(Some(answer.by.as_str()) == to.probe.as_ref().map(Probe::name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Vec<Member> {
        let member = |name: &str, ip: &str| Member {
            name: name.to_owned(),
            addresses: vec![ip.parse().expect("an address")],
            probe: None,
        };
        vec![member("x/a", "10.0.0.1"), member("x/b", "10.0.0.2"), member("y/a", "10.0.0.3")]
    }

    #[test]
    fn what_differs_is_drawn() {
        let ports = ["80/TCP".parse().expect("a port"), "80/UDP".parse().expect("a port")];
        let all = Truth::new(&members(), &ports, |_| true);
        assert_eq!(all.count(), (12, 12));
        assert_eq!(all.difference(&all), None);
        let wanted = Truth::new(&members(), &ports, |cell| !(cell.port == ports[0] && cell.from == 0));
        let seen = Truth::new(&members(), &ports, |cell| !(cell.port == ports[0] && cell.to == 1));
        let expected = "2 of 12 cells are wrong (rows ask columns; X refused, should pass; O passes, should not)\n\
                        80/TCP IPv4\n\
                        \x20     x/a x/b y/a\n\
                        \x20 x/a       -   O\n\
                        \x20 x/b   .       .\n\
                        \x20 y/a   .   X    \n";
        let picture = seen.difference(&wanted).expect("they differ");
        assert_eq!(picture, expected);
        let changes: Vec<_> = wanted.changes(&seen).collect();
        assert_eq!(
            changes,
            [("x/a > y/a 80/TCP IPv4".to_owned(), true), ("y/a > x/b 80/TCP IPv4".to_owned(), false)]
        );
    }

    #[test]
    fn ports_are_read() {
        assert_eq!("81/SCTP".parse(), Ok(Port { number: 81, protocol: Protocol::Sctp }));
        assert!(
            "81".parse::<Port>().is_err()
                && "x/TCP".parse::<Port>().is_err()
                && "81/tcp".parse::<Port>().is_err()
        );
    }
}
