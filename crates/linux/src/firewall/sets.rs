//! Set and member changes, through [`Sets`].
//!
//! Decided here: how a set comes to have a header when another one is already under its name. Same type: a second set
//! is filled and swapped in, so that every packet sees all members. Another type: replaced if nothing refers to it,
//! else refused, because a rule would be without its set meanwhile.

use std::time::Duration;

use crate::ipset::{Edit, NAME_BYTES, Sets, errno, kernel_name};
use crate::lane::Refusal;
use crate::netlink::Error;
use crate::row::{Member, SetHeader, SetKey};

/// A set freed by a rule of the nft flavour is let go by a kernel worker a moment after the transaction.
const RELEASE_TRIES: u32 = 10;
const RELEASE_PAUSE: Duration = Duration::from_millis(20);

/// Creates a set, or gives the one there this header. O(members) when the header differs, else O(1).
pub(super) fn put(sets: &mut Sets, key: &SetKey, header: &SetHeader) -> Result<(), Refusal> {
    let name = kernel_name(key);
    if name.len() > NAME_BYTES {
        let reason = format!("the kernel's name '{name}' is longer than {NAME_BYTES} bytes");
        return Err(Refusal::new(reason));
    }
    match sets.create(&name, key.family, header) {
        Ok(()) => Ok(()),
        Err(error) if error.errno() == Some(libc::EEXIST) => replace(sets, key, &name, header),
        Err(error) => Err(errno::refusal("creating the set", &error)),
    }
}

fn replace(sets: &mut Sets, key: &SetKey, name: &str, header: &SetHeader) -> Result<(), Refusal> {
    let there = sets.members(name).map_err(|error| errno::refusal("reading the set", &error))?;
    let Some((description, members)) = there else {
        return Err(Refusal::new("the set appeared and vanished while it was created"));
    };
    match description.header {
        Some(old) if old.kind == header.kind => rebuild(sets, key, name, header, &members),
        _ if description.references == 0 => {
            destroy_one(sets, name)
                .map_err(|error| errno::refusal("replacing a set of another type", &error))?;
            let created = sets.create(name, key.family, header);
            created.map_err(|error| errno::refusal("creating the set", &error))
        }
        _ => Err(Refusal::new(format!(
            "a set {name} of type {} is there and {} rules refer to it; remove them, then `ipset destroy {name}`",
            description.kind_name, description.references
        ))),
    }
}

/// Fills a temporary set with the members there and swaps it in.
fn rebuild(
    sets: &mut Sets,
    key: &SetKey,
    name: &str,
    header: &SetHeader,
    members: &[Member],
) -> Result<(), Refusal> {
    let temporary = kernel_name(&SetKey { family: key.family, name: temporary_name(&key.name).into() });
    let failed = |doing: &'static str| move |error: Error| errno::refusal(doing, &error);
    // One left behind by a process that was killed here; nothing refers to it.
    destroy_one(sets, &temporary).map_err(failed("removing a left-over temporary set"))?;
    sets.create(&temporary, key.family, header).map_err(failed("creating a temporary set"))?;
    let swapped = fill(sets, &temporary, members)
        .and_then(|()| sets.swap(&temporary, name).map_err(failed("swapping in the new set")));
    let destroyed = destroy_one(sets, &temporary).map_err(failed("destroying the temporary set"));
    swapped.and(destroyed)
}

fn fill(sets: &mut Sets, name: &str, members: &[Member]) -> Result<(), Refusal> {
    let doing = format!("copying {} members to the new set", members.len());
    let outcomes = sets.change(Edit::Add, name, members).map_err(|error| errno::refusal(&doing, &error))?;
    match outcomes.into_iter().find_map(Result::err) {
        Some(error) => Err(errno::refusal(&doing, &error)),
        None => Ok(()),
    }
}

/// What a set's successor is named by until both are swapped; 16 hexadecimal digits follow.
pub const TEMPORARY_PREFIX: &str = "TMP-";

/// Like Go kube-router's temporary sets: a prefix and a hash, well below the length limit.
fn temporary_name(name: &str) -> String {
    // FNV-1a; only has to differ between sets, and be the same after a restart.
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{TEMPORARY_PREFIX}{:016X}", name.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
}

fn destroy_one(sets: &mut Sets, name: &str) -> Result<(), Error> {
    sets.destroy(&[name.to_owned()])?.pop().unwrap_or(Ok(()))
}

/// Destroys sets; one outcome for each. Waits up to 200 ms, for all of them together, for rules just removed.
pub(super) fn destroy(sets: &mut Sets, keys: &[SetKey]) -> Vec<Result<(), Refusal>> {
    let names: Vec<String> = keys.iter().map(kernel_name).collect();
    let mut outcomes: Vec<Result<(), Refusal>> = keys.iter().map(|_| Ok(())).collect();
    let mut left: Vec<usize> = (0..names.len()).collect();
    for attempt in 0..RELEASE_TRIES {
        let these: Vec<String> = left.iter().filter_map(|index| names.get(*index).cloned()).collect();
        let answers = sets.destroy(&these);
        let mut busy = Vec::new();
        let each: Vec<Result<(), Refusal>> = match answers {
            Ok(answers) => answers
                .into_iter()
                .map(|answer| answer.map_err(|error| errno::refusal("destroying the set", &error)))
                .collect(),
            Err(error) => these.iter().map(|_| Err(errno::refusal("destroying the set", &error))).collect(),
        };
        for (index, outcome) in left.iter().zip(each) {
            if outcome.as_ref().is_err_and(|refusal| refusal.errno == Some(errno::BUSY)) {
                busy.push(*index);
            }
            if let Some(slot) = outcomes.get_mut(*index) {
                *slot = outcome;
            }
        }
        left = busy;
        if left.is_empty() || attempt + 1 == RELEASE_TRIES {
            break;
        }
        std::thread::sleep(RELEASE_PAUSE);
    }
    outcomes
}

/// Adds or removes members of one set; one outcome for each. O(members).
pub(super) fn change(
    sets: &mut Sets,
    edit: Edit,
    key: &SetKey,
    members: &[Member],
) -> Vec<Result<(), Refusal>> {
    let doing = match edit {
        Edit::Add => "adding the member",
        Edit::Delete => "removing the member",
    };
    match sets.change(edit, &kernel_name(key), members) {
        Ok(outcomes) => outcomes
            .into_iter()
            .map(|outcome| match outcome {
                // Without its set the member is gone as well.
                Err(error) if edit == Edit::Delete && error.errno() == Some(libc::ENOENT) => Ok(()),
                outcome => outcome.map_err(|error| errno::refusal(doing, &error)),
            })
            .collect(),
        Err(error) => members.iter().map(|_| Err(errno::refusal(doing, &error))).collect(),
    }
}
