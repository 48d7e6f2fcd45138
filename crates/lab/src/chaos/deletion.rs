//! What others take away by hand. Until it is back, connections may fail or pass by that deletion alone, so these are held
//! to coming back.

use std::time::{Duration, Instant};

use super::Error;
use super::report::Outcome;
use super::stage::{SOON, Seen, Stage};
use crate::cluster::eventually;

/// An object of node 1, how it is taken away, and where it is seen again.
struct Deletion {
    what: &'static str,
    line: String,
    look: &'static str,
    sign: String,
}

/// Takes away one kind of object after the other, of those whose name contains `only`.
pub(super) async fn all(
    stage: &mut Stage,
    only: &str,
    progress: &dyn Fn(&str),
) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = Vec::new();
    for deletion in deletions(stage)?.into_iter().filter(|deletion| deletion.what.contains(only)) {
        progress(deletion.what);
        let probes = stage.ask();
        let back = back(stage, &deletion).await;
        let Seen { asked, lost, leaked, .. } = probes.stop().await;
        let (back, said) = match back {
            Ok(back) => (Some(back), None),
            Err(error) => (None, Some(error.to_string())),
        };
        outcomes.push(Outcome { what: deletion.what.to_owned(), times: 1, asked, lost, leaked, back, said });
    }
    stage.settled().await?;
    Ok(outcomes)
}

async fn back(stage: &Stage, deletion: &Deletion) -> Result<Duration, Error> {
    let there = |text: &str| text.contains(&deletion.sign);
    if !there(&stage.tool(deletion.look)?) {
        return Err(Error::Object(deletion.what));
    }
    stage.tool(&deletion.line)?;
    let gone = Instant::now();
    let look = || async {
        match stage.tool(deletion.look) {
            Ok(text) if there(&text) => Ok(()),
            Ok(text) => Err(format!("{} is back: {text}", deletion.what)),
            Err(error) => Err(error.to_string()),
        }
    };
    eventually(SOON, look).await?;
    Ok(gone.elapsed())
}

fn deletions(stage: &Stage) -> Result<Vec<Deletion>, Error> {
    let mut all = of_services(stage);
    let range = stage.cluster.node(2)?.pod_ranges().first().map(ToString::to_string);
    let range = range.ok_or(Error::Object("pod range of node-2"))?;
    let forward = "iptables -S FORWARD";
    all.extend([
        deletion(
            "a route to another node's pods",
            &format!("ip route del {range}"),
            "ip route show proto 17",
            &range,
        ),
        deletion(
            "members of a set",
            "ipset flush kube-router-pod-subnets",
            "ipset list kube-router-pod-subnets",
            &range,
        ),
        deletion("our jumps", "iptables -F FORWARD", forward, "KUBE-ROUTER-FORWARD"),
        deletion(
            "rules of a chain",
            "iptables -F KUBE-ROUTER-FORWARD",
            "iptables -S KUBE-ROUTER-FORWARD",
            "-A KUBE-ROUTER-FORWARD",
        ),
        deletion(
            "every rule of a table",
            "iptables -t nat -F",
            "iptables -t nat -S POSTROUTING",
            "kube-router-pod-subnets",
        ),
    ]);
    Ok(all)
}

/// What the service proxy alone has.
fn of_services(stage: &Stage) -> Vec<Deletion> {
    let Some(vip) = stage.vips.first() else { return Vec::new() };
    let (dummy, servers) = ("ip addr show dev kube-dummy-if", "ipvsadm -Sn");
    let server = format!("-A -t {vip}:80");
    vec![
        deletion(
            "a service's address",
            &format!("ip addr del {vip}/32 dev kube-dummy-if"),
            dummy,
            &vip.to_string(),
        ),
        deletion("kube-dummy-if", "ip link del kube-dummy-if", "ip addr show", &format!("{vip}/32")),
        deletion("a virtual server", &format!("ipvsadm -D -t {vip}:80"), servers, &server),
        deletion("all virtual servers", "ipvsadm -C", servers, &server),
    ]
}

fn deletion(what: &'static str, line: &str, look: &'static str, sign: &str) -> Deletion {
    Deletion { what, line: line.to_owned(), look, sign: sign.to_owned() }
}
