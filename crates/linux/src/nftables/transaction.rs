//! One transaction, and what to do when part of it is refused.
//!
//! A transaction is applied as a whole or not at all. What the kernel refuses is told by place; the changes it belongs
//! to are taken out and the others committed again, so every round ends or loses a change. Something to be removed
//! that is not there counts as done. Decided here: who is to blame. Not here: what is written, and in which order.

use std::ops::Range;
use std::rc::Rc;

use super::wire::{self, SUBSYSTEM, element};
use crate::lane::Refusal;
use crate::netlink::attribute::NESTED;
use crate::netlink::{Error, MessageBuilder, Request, Socket, flag};
use crate::row::Family;

/// Outcomes of a stage's changes, by index; `None` until it is known.
pub(super) type Outcomes = Vec<Option<Result<(), Refusal>>>;

/// Bytes of elements in one message; the nest around them is at most 65,535 long.
const ELEMENTS_BYTES: usize = 60 * 1024;

/// Whose a step is, by index of changes: if it is refused, they are.
#[derive(Debug, Clone)]
pub(super) enum Owner {
    /// Without it nothing can be done.
    Everyone,
    /// One change.
    One(usize),
    /// Several, which are written together: the changes of one chain of ours with a hook.
    These(Rc<[usize]>),
}

/// A set by table and name.
#[derive(Debug, Clone)]
pub(super) struct SetAddress {
    pub(super) family: Family,
    pub(super) table: Rc<str>,
    pub(super) name: Rc<str>,
}

/// Which step a message is of, and which of the step's elements are in it.
type Place = (usize, Range<usize>);

#[derive(Debug)]
enum Body {
    Request(Request),
    /// Elements of one set, each with the change it belongs to, as encoded; `apart` is one message for each.
    Elements {
        set: SetAddress,
        elements: Vec<(usize, Vec<u8>)>,
        apart: bool,
    },
}

#[derive(Debug)]
struct Step {
    owner: Owner,
    body: Body,
    /// Whether something goes, which may be gone already.
    removes: bool,
    /// For a person.
    doing: &'static str,
    /// Found to be done already.
    done: bool,
}

/// Steps in the order in which the kernel takes them.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    steps: Vec<Step>,
    sets: u32,
}

impl Transaction {
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// A number for a new set, which only has to differ within the transaction.
    pub(super) fn new_set(&mut self) -> u32 {
        self.sets += 1;
        self.sets
    }

    /// Adds a message that makes or changes something.
    pub(super) fn put(&mut self, owner: Owner, doing: &'static str, request: Result<Request, Error>) {
        self.request(owner, doing, false, request);
    }

    /// Adds a message that removes something.
    pub(super) fn remove(&mut self, owner: Owner, doing: &'static str, request: Result<Request, Error>) {
        self.request(owner, doing, true, request);
    }

    fn request(&mut self, owner: Owner, doing: &'static str, removes: bool, request: Result<Request, Error>) {
        // Too long for its length field, which names checked before never are: the kernel will refuse an empty one.
        let request = request.unwrap_or_else(|_| Request::from_bytes(wire::message::NEW_RULE, 0, Vec::new()));
        self.steps.push(Step { owner, body: Body::Request(request), removes, doing, done: false });
    }

    /// Adds elements, each with its change.
    pub(super) fn put_elements(&mut self, set: SetAddress, elements: Vec<(usize, Vec<u8>)>) {
        self.elements(set, elements, false, "adding an element");
    }

    /// Removes elements, each with its change.
    pub(super) fn remove_elements(&mut self, set: SetAddress, elements: Vec<(usize, Vec<u8>)>) {
        self.elements(set, elements, true, "removing an element");
    }

    fn elements(
        &mut self,
        set: SetAddress,
        elements: Vec<(usize, Vec<u8>)>,
        removes: bool,
        doing: &'static str,
    ) {
        if !elements.is_empty() {
            let body = Body::Elements { set, elements, apart: false };
            self.steps.push(Step { owner: Owner::These(Rc::default()), body, removes, doing, done: false });
        }
    }

    /// Commits what the kernel takes, and notes the outcome of every change that it did not simply take. O(bytes) for
    /// each round; there is one more round than groups of changes that were refused together.
    pub(super) fn commit(mut self, socket: &mut Socket, outcomes: &mut Outcomes) {
        loop {
            self.leave_out(outcomes);
            let (requests, places) = match self.assemble() {
                Ok(assembled) => assembled,
                Err(error) => return refuse_all(outcomes, &error),
            };
            if !self.steps.iter().any(|step| !matches!(step.owner, Owner::Everyone)) {
                return;
            }
            match socket.transaction(SUBSYSTEM, None, &requests) {
                Ok(refused) if refused.is_empty() => return,
                Ok(refused) => {
                    // From the back, so that taking a step apart moves none that is still to be looked at.
                    for (place, error) in refused.into_iter().rev() {
                        let Some((step, range)) = places.get(place) else { continue };
                        self.blame(*step, range.clone(), &error, outcomes);
                    }
                }
                Err(error) => return refuse_all(outcomes, &error),
            }
        }
    }

    /// Steps of changes whose outcome is known are not tried again.
    fn leave_out(&mut self, outcomes: &Outcomes) {
        let open = |index: &usize| outcomes.get(*index).is_some_and(Option::is_none);
        self.steps.retain_mut(|step| match (&step.owner, &mut step.body) {
            _ if step.done => false,
            (_, Body::Elements { elements, .. }) => {
                elements.retain(|(index, _)| open(index));
                !elements.is_empty()
            }
            (Owner::Everyone, _) => true,
            (Owner::One(index), _) => open(index),
            (Owner::These(indexes), _) => indexes.iter().any(open),
        });
    }

    /// The messages, and of each which step it is, and which of the step's elements.
    fn assemble(&self) -> Result<(Vec<Request>, Vec<Place>), Error> {
        let mut requests = Vec::with_capacity(self.steps.len());
        let mut places = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate() {
            match &step.body {
                Body::Request(request) => {
                    requests.push(request.clone());
                    places.push((index, 0..0));
                }
                Body::Elements { set, elements, apart } => {
                    for range in chunks(elements, *apart) {
                        let these = elements.get(range.clone()).unwrap_or_default();
                        requests.push(elements_message(set, these, step.removes)?);
                        places.push((index, range));
                    }
                }
            }
        }
        Ok((requests, places))
    }

    fn blame(&mut self, at: usize, range: Range<usize>, error: &Error, outcomes: &mut Outcomes) {
        let Some(step) = self.steps.get_mut(at) else { return };
        let gone = step.removes && error.errno() == Some(libc::ENOENT);
        let refused = |outcomes: &mut Outcomes, index| settle(outcomes, index, refusal(step.doing, error));
        match (&step.owner, &mut step.body) {
            (_, Body::Elements { elements, .. }) => match elements.get(range.clone()).unwrap_or_default() {
                [_] if gone => drop(elements.remove(range.start)),
                [(index, _)] => refused(outcomes, *index),
                _ => self.take_apart(at, range),
            },
            (_, Body::Request(_)) if gone => step.done = true,
            (Owner::Everyone, _) => refuse_all(outcomes, error),
            (Owner::One(index), _) => refused(outcomes, *index),
            (Owner::These(indexes), _) => indexes.iter().for_each(|index| refused(outcomes, *index)),
        }
    }

    /// One of these elements was refused; in messages of their own the next round tells which.
    fn take_apart(&mut self, at: usize, range: Range<usize>) {
        let Some(step) = self.steps.get_mut(at) else { return };
        let Body::Elements { set, elements, .. } = &mut step.body else { return };
        let behind = elements.split_off(range.end.min(elements.len()));
        let these = elements.split_off(range.start.min(elements.len()));
        let (set, removes, doing) = (set.clone(), step.removes, step.doing);
        let part = |elements, apart| Step {
            owner: Owner::These(Rc::default()),
            body: Body::Elements { set: set.clone(), elements, apart },
            removes,
            doing,
            done: false,
        };
        self.steps.splice(at + 1..at + 1, [part(these, true), part(behind, false)]);
    }
}

/// Elements that go into one message each time.
fn chunks(elements: &[(usize, Vec<u8>)], apart: bool) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, (_, element)) in elements.iter().enumerate() {
        if index > start && (apart || bytes + element.len() > ELEMENTS_BYTES) {
            ranges.push(start..index);
            (start, bytes) = (index, 0);
        }
        bytes += element.len();
    }
    ranges.push(start..elements.len());
    ranges
}

fn elements_message(
    set: &SetAddress,
    elements: &[(usize, Vec<u8>)],
    removes: bool,
) -> Result<Request, Error> {
    let mut message = header(set.family);
    message.put_str(element::LIST_TABLE, &set.table).put_str(element::LIST_SET, &set.name);
    let bytes: Vec<u8> = elements.iter().flat_map(|(_, element)| element).copied().collect();
    message.put(element::LIST_ELEMENTS | NESTED, &bytes);
    match removes {
        true => Request::new(wire::message::DELETE_ELEMENT, 0, message),
        false => Request::new(wire::message::NEW_ELEMENT, flag::CREATE, message),
    }
}

/// `struct nfgenmsg`
pub(super) fn header(family: Family) -> MessageBuilder {
    let family = match family {
        Family::V4 => libc::AF_INET as u8,
        Family::V6 => libc::AF_INET6 as u8,
    };
    MessageBuilder::new(&[family, 0, 0, 0])
}

/// The first outcome stays: it is the cause.
fn settle(outcomes: &mut Outcomes, index: usize, refusal: Refusal) {
    if let Some(slot @ None) = outcomes.get_mut(index) {
        *slot = Some(Err(refusal));
    }
}

fn refuse_all(outcomes: &mut Outcomes, error: &Error) {
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
        *outcome = Some(Err(refusal("nftables", error)));
    }
}

/// A refusal that says what was tried.
pub(super) fn refusal(doing: &str, error: &Error) -> Refusal {
    Refusal { reason: format!("{doing}: {error}"), errno: error.errno() }
}
