//! Cold start: from the first byte listed to the last row in the kernel, against the floor.

use std::time::{Duration, Instant};

use super::agent::Agent;
use super::floor::{Floor, State, expected, holds};
use super::report::{Line, seconds};
use super::world::{World, wait_for};
use super::{Error, Lab};
use crate::api_server::Resource;

/// What a cold start leaves: a node at work, to go on measuring with.
pub(super) struct Started {
    pub(super) lines: Vec<Line>,
    pub(super) world: World,
    pub(super) agent: Agent,
}

/// Starts an agent on an empty node of a cluster with `services` Services, then writes the same state with the tools.
pub(super) fn measure(lab: &Lab<'_>, services: usize, endpoints: usize) -> Result<Started, Error> {
    lab.say(format!("cold start: {services} services x {endpoints} endpoints"));
    let world = World::new(lab, services, endpoints)?;
    let mut agent = Agent::start(lab, &world)?;
    let listed = first_list(&world)?;
    let ready = agent.ready()?;
    let state = State::dump(&world.namespace)?;
    let (there, wanted) = (state.rows(), expected(services, endpoints));
    if there != wanted || !holds(&state, services) {
        return Err(Error::Wrong(format!("the agent is ready, but there is {there:?}, not {wanted:?}")));
    }
    lab.say(format!("cold start: {} s; now the floor", seconds(ready - listed)));
    let floor = Floor::measure(&state)?;
    let (took, limit) = (ready - listed, floor.sum());
    let parts = format!(
        "ipvsadm -R {} + ip -batch {} + ipset restore {}",
        seconds(floor.ipvsadm),
        seconds(floor.ip),
        seconds(floor.ipset)
    );
    let lines = vec![
        Line::gate(
            format!("cold start, {services} services x {endpoints}: first byte listed to last row"),
            format!("{} s", seconds(took)),
            format!("<= {} s ({parts})", seconds(limit)),
            took <= limit,
        ),
        Line::plain(
            format!("cold start, {services} services x {endpoints}: process start to last row"),
            format!("{} s", seconds(ready - agent.started)),
        ),
    ];
    Ok(Started { lines, world, agent })
}

/// When the first list of Services or EndpointSlices was asked for: its first byte cannot leave earlier.
fn first_list(world: &World) -> Result<Instant, Error> {
    let faults = world.faults();
    wait_for("the agent's first list", Duration::from_secs(60), Duration::from_millis(1), || {
        let asked = faults.requests().into_keys().any(|(verb, resource)| {
            matches!(verb, "list" | "watch")
                && matches!(resource, Resource::Services | Resource::EndpointSlices)
        });
        Ok(asked.then(Instant::now))
    })
}
