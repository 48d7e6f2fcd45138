//! The VM itself: that what it promises to tests is there. Judged by foreign tools inside it.

use std::fs;

use lab::process::{command, run};

#[test]
#[ignore = "vm: IPVS"]
fn ipvs_is_there() {
    run(command("ipvsadm").args(["-A", "-t", "10.0.0.1:80", "-s", "rr"])).expect("virtual server");
    let listing = run(command("ipvsadm").arg("-ln")).expect("listing");
    run(command("ipvsadm").arg("-C")).expect("cleared");
    assert!(listing.contains("10.0.0.1:80 rr"), "{listing}");
}

#[test]
#[ignore = "vm: dummy, ipip and FoU links"]
fn links_are_there() {
    for link in [
        "lab-d type dummy",
        "lab-t type ipip local 192.0.2.1 remote 192.0.2.2",
        "lab-f type ipip local 192.0.2.1 remote 192.0.2.3 encap fou encap-dport 5555",
    ] {
        let add = format!("link add {link}");
        run(command("ip").args(add.split(' '))).expect(link);
        run(command("ip").args(["link", "del", add.split(' ').nth(2).expect("a name")])).expect("removed");
    }
}

/// The guest must not be able to leave anything in the folders of the host that hold state.
#[test]
#[ignore = "vm: its scratch folders"]
fn scratch_folders_are_private() {
    let mounts = fs::read_to_string("/proc/mounts").expect("mounts");
    for folder in ["/run", "/tmp"] {
        assert!(mounts.contains(&format!("tmpfs {folder} tmpfs")), "{folder} is not covered:\n{mounts}");
    }
}
