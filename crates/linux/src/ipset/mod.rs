//! IP sets over netlink: no `ipset` program, no text.
//!
//! Decided here: which type revision is asked for, how many members go into one message, and how one bad member is
//! told from its good neighbours. Not here: which sets and members there should be, and in which order they change.

mod codec;
pub mod errno;

use std::collections::HashMap;
use std::sync::Arc;

use codec::Command;

use crate::netlink::{Error, Request, Requests, Socket};
use crate::row::{Family, Member, SetHeader, SetKey, SetKind};

const NETLINK_NETFILTER: libc::c_int = 12;
/// `IPSET_MAXNAMELEN` without the terminating zero.
pub const NAME_BYTES: usize = 31;
/// What kernel names of IPv6 sets begin with.
pub const V6_PREFIX: &str = "inet6:";

/// Adding or removing members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// `IPSET_CMD_ADD`
    Add,
    /// `IPSET_CMD_DEL`
    Delete,
}

/// A set as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Name without family prefix, and the family the name says.
    pub key: SetKey,
    /// The kernel's type name.
    pub kind_name: String,
    /// Header, unless the type is not one of [`SetKind`] or the family is not what the name says.
    pub header: Option<SetHeader>,
    /// Rules and sets that refer to it.
    pub references: u32,
    /// Members in it.
    pub count: u32,
}

/// The kernel's name of a set: IPv6 ones begin with `inet6:`.
pub fn kernel_name(key: &SetKey) -> String {
    match key.family {
        Family::V4 => key.name.to_string(),
        Family::V6 => format!("{V6_PREFIX}{}", key.name),
    }
}

/// The key of a kernel name.
pub fn key_of(kernel_name: &str) -> SetKey {
    match kernel_name.strip_prefix(V6_PREFIX) {
        Some(name) => SetKey { family: Family::V6, name: name.into() },
        None => SetKey { family: Family::V4, name: kernel_name.into() },
    }
}

/// The kernel's sets, through one socket.
#[derive(Debug)]
pub struct Sets {
    socket: Socket,
    revisions: HashMap<(SetKind, Family), u8>,
}

impl Sets {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no nfnetlink or refuses us.
    pub fn open() -> Result<Sets, Error> {
        Ok(Sets { socket: Socket::open(NETLINK_NETFILTER)?, revisions: HashMap::new() })
    }

    /// Counts what is sent from now on here.
    pub fn count_in(&mut self, requests: Arc<Requests>) {
        self.socket.count_in(requests);
    }

    /// Creates a set under a kernel name. An equal set being there is success.
    ///
    /// # Errors
    /// The kernel's refusal; `IPSET_ERR_EXIST` or `EEXIST` when another set has the name.
    pub fn create(&mut self, name: &str, family: Family, header: &SetHeader) -> Result<(), Error> {
        let revision = self.revision(header.kind, family)?;
        self.socket.request(codec::create(name, family, header, revision)?)
    }

    /// Destroys sets; one outcome for each. A missing set is success.
    ///
    /// # Errors
    /// Only when the socket fails.
    pub fn destroy(&mut self, names: &[String]) -> Result<Vec<Result<(), Error>>, Error> {
        let requests = names.iter().map(|name| codec::destroy(name)).collect::<Result<Vec<_>, _>>()?;
        let mut outcomes = self.socket.batch(&requests)?;
        for outcome in &mut outcomes {
            if matches!(outcome, Err(error) if error.errno() == Some(libc::ENOENT)) {
                *outcome = Ok(());
            }
        }
        Ok(outcomes)
    }

    /// Exchanges the contents of two sets of one type, at once for every packet.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn swap(&mut self, one: &str, other: &str) -> Result<(), Error> {
        self.socket.request(codec::swap(one, other)?)
    }

    /// Adds or removes members; one outcome for each, in order. Adding what is there and removing what is not is
    /// success. About 1400 members travel in one message; those of a refused message are tried one by one, so that
    /// a bad one keeps none of the others out.
    ///
    /// # Errors
    /// Only when the socket fails.
    pub fn change(
        &mut self,
        edit: Edit,
        name: &str,
        members: &[Member],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let command = match edit {
            Edit::Add => Command::Add,
            Edit::Delete => Command::Delete,
        };
        let (counts, requests): (Vec<usize>, Vec<Request>) =
            codec::change_members(command, name, members)?.into_iter().unzip();
        let mut outcomes = Vec::with_capacity(members.len());
        let mut rest = members;
        for (count, outcome) in counts.into_iter().zip(self.socket.batch(&requests)?) {
            let (these, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            rest = later;
            match outcome {
                Ok(()) => outcomes.extend(these.iter().map(|_| Ok(()))),
                Err(error) if these.len() == 1 => outcomes.push(Err(error)),
                Err(_) => outcomes.extend(self.change_each(command, name, these)?),
            }
        }
        Ok(outcomes)
    }

    fn change_each(
        &mut self,
        command: Command,
        name: &str,
        members: &[Member],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let requests = members.iter().map(|member| codec::change_member(command, name, member));
        self.socket.batch(&requests.collect::<Result<Vec<_>, _>>()?)
    }

    /// Describes every set of the namespace, without members. O(sets).
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn describe(&mut self) -> Result<Vec<Description>, Error> {
        let listed = self.socket.dump(&codec::list_headers()?, |_, payload| codec::parse_listed(payload))?;
        Ok(listed.into_iter().map(describe).collect())
    }

    /// Describes one set and lists its members; `None` if there is none of that name. Members of a set whose type
    /// is not a [`SetKind`] are not listed.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn members(&mut self, name: &str) -> Result<Option<(Description, Vec<Member>)>, Error> {
        let dumped = self.socket.dump(&codec::list(name)?, |_, payload| codec::parse_listed(payload));
        let parts = match dumped {
            Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
            parts => parts?,
        };
        let mut parts = parts.into_iter();
        let Some(mut first) = parts.next() else { return Ok(None) };
        let mut members = std::mem::take(&mut first.members);
        parts.for_each(|part| members.extend(part.members));
        let description = describe(first);
        if description.header.is_none() {
            members.clear();
        }
        Ok(Some((description, members)))
    }

    /// The newest revision both the kernel and this module know.
    fn revision(&mut self, kind: SetKind, family: Family) -> Result<u8, Error> {
        if let Some(revision) = self.revisions.get(&(kind, family)) {
            return Ok(*revision);
        }
        let answers = self.socket.ask(codec::revisions(kind, family)?)?;
        let (lowest, highest) = answers
            .iter()
            .find_map(|payload| codec::parse_revisions(payload))
            .ok_or(Error::Malformed("IPSET_CMD_TYPE answer without a revision"))?;
        let revision = codec::kind_name(kind).1.clamp(lowest, highest.max(lowest));
        self.revisions.insert((kind, family), revision);
        Ok(revision)
    }
}

fn describe(listed: codec::Listed) -> Description {
    let key = key_of(&listed.name);
    let header = listed.header.filter(|_| listed.family == Some(key.family));
    Description {
        key,
        kind_name: listed.kind_name,
        header,
        references: listed.references,
        count: listed.count,
    }
}
