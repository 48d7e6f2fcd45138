//! The two packet filters, as the agent's flag names them and as their own tools write them; and the floor: tools that do
//! nothing else write the same final state into an empty node.

use std::time::{Duration, Instant};

use super::bare_node;
use crate::bench::Error;
use crate::bench::report::seconds;
use crate::node::Namespace;
use crate::process::{command, run, run_with_input};

/// A tool, its arguments, and what it is given.
type Input = (&'static str, &'static [&'static str], String);

/// A packet filter, as the agent's flag has it, and as its own tools write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Filter {
    Iptables,
    Nftables,
}

impl Filter {
    pub(in crate::bench) const ALL: [Filter; 2] = [Filter::Iptables, Filter::Nftables];

    pub(super) fn name(self) -> &'static str {
        match self {
            Filter::Iptables => "iptables",
            Filter::Nftables => "nftables",
        }
    }

    /// The state of a node as input of the tools that write it, each with its arguments.
    fn dump(self, node: &Namespace) -> Result<Vec<Input>, Error> {
        const RESTORE: &[&str] = &["restore"];
        const NOTHING: &[&str] = &[];
        const FILE: &[&str] = &["-f", "-"];
        let output = |program: &'static str, args: &'static [&'static str]| {
            node.run(move || run(command(program).args(args)))
        };
        Ok(match self {
            Filter::Iptables => vec![
                ("ipset", RESTORE, output("ipset", &["save"])??),
                ("iptables-restore", NOTHING, output("iptables-save", NOTHING)??),
            ],
            Filter::Nftables => vec![("nft", FILE, output("nft", &["-s", "list", "ruleset"])??)],
        })
    }

    /// Writes the state into an empty node; the time it took, and each tool's part of it.
    pub(super) fn floor(self, node: &Namespace) -> Result<(Duration, String), Error> {
        let state = self.dump(node)?;
        let empty = bare_node()?;
        let (mut sum, mut parts) = (Duration::ZERO, Vec::new());
        for (program, args, input) in state.clone() {
            let took = empty.run(move || -> Result<Duration, Error> {
                let start = Instant::now();
                run_with_input(command(program).args(args), &input)?;
                Ok(start.elapsed())
            })??;
            sum += took;
            parts.push(format!("{program} {}", seconds(took)));
        }
        let size = |state: &[Input]| -> Vec<usize> {
            state.iter().map(|(_, _, text)| text.split([',', '\n']).count()).collect()
        };
        let (written, wanted) = (size(&self.dump(&empty)?), size(&state));
        if written != wanted {
            return Err(Error::Wrong(format!("the floor wrote {written:?} lines, not {wanted:?}")));
        }
        Ok((sum, parts.join(" + ")))
    }
}
