//! Sysctls of a real kernel; `cat` is the judge.
#![allow(clippy::expect_used, clippy::panic)] // a panic is how a test fails
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{in_netns, run};
use linux::lane::{Change, Lane, Refusal};
use linux::row::{Key, Row};
use linux::sysctl::{Error, SysctlLane, Sysctls};
use nix::mount::{MsFlags, mount};

const IGNORE: &str = "net/ipv4/conf/all/arp_ignore";
const ABSENT: &str = "net/ipv4/vs/no_such_key";

fn proc_sys() -> Sysctls {
    Sysctls::new(vec![PathBuf::from("/proc/sys")])
}

fn change(key: &str, to: Option<&str>) -> Change {
    Change {
        key: Key::Sysctl(key.into()),
        from: None,
        to: to.map(|value| Row::Sysctl(value.into())),
        after: Vec::new(),
    }
}

fn cat(path: &str) -> String {
    run(&["cat", path]).trim().to_owned()
}

fn refused(lane: &mut SysctlLane, key: &str, value: &str) -> Refusal {
    lane.apply(&[change(key, Some(value))]).pop().expect("an answer").expect_err("a refusal")
}

/// Runs in a mount namespace of its own in which `/proc/sys` is read-only, as in a container.
fn read_only(test: impl FnOnce() + Send) {
    in_netns(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let none = None::<&Path>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
        mount(Some("/proc/sys"), "/proc/sys", none, MsFlags::MS_BIND, none).expect("a bind mount");
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, "/proc/sys", none, flags, none).expect("a read-only mount");
        test();
    });
}

#[test]
fn what_is_written_is_read_trimmed() {
    in_netns(|| {
        let mut lane = SysctlLane::new(proc_sys(), vec![IGNORE.into(), ABSENT.into()]);
        assert_eq!(lane.read().expect("rows"), [(Key::Sysctl(IGNORE.into()), Row::Sysctl("0".into()))]);
        assert_eq!(lane.apply(&[change(IGNORE, Some("1"))]), [Ok(())]);
        assert_eq!(cat("/proc/sys/net/ipv4/conf/all/arp_ignore"), "1");
        assert_eq!(lane.read().expect("rows"), [(Key::Sysctl(IGNORE.into()), Row::Sysctl("1".into()))]);
        // Nobody's wish any more: it stays.
        assert_eq!(lane.apply(&[change(IGNORE, None)]), [Ok(())]);
        assert_eq!(cat("/proc/sys/net/ipv4/conf/all/arp_ignore"), "1");
        assert_eq!(
            proc_sys().read("net/ipv4/ip_local_port_range").expect("a value"),
            Some("32768\t60999".to_owned())
        );
    });
}

#[test]
fn an_absent_key_is_none_to_read_and_a_reason_to_write() {
    in_netns(|| {
        assert_eq!(proc_sys().read(ABSENT).expect("no error"), None);
        let mut lane = SysctlLane::new(proc_sys(), Vec::new());
        let answers = lane.apply(&[change(ABSENT, Some("1")), change(IGNORE, Some("2"))]);
        let refusal = answers[0].as_ref().expect_err("a refusal");
        assert_eq!(refusal.errno, Some(libc::ENOENT));
        assert!(refusal.reason.contains("modprobe ip_vs"), "{refusal}");
        assert_eq!(answers[1], Ok(()));
        assert_eq!(cat("/proc/sys/net/ipv4/conf/all/arp_ignore"), "2");
    });
}

#[test]
fn a_value_the_kernel_does_not_take_is_refused() {
    in_netns(|| {
        let mut lane = SysctlLane::new(proc_sys(), Vec::new());
        let refusal = refused(&mut lane, IGNORE, "many");
        assert_eq!(refusal.errno, Some(libc::EINVAL));
        assert!(refusal.reason.contains("many"), "{refusal}");
        assert_eq!(cat("/proc/sys/net/ipv4/conf/all/arp_ignore"), "0");
    });
}

#[test]
fn a_read_only_proc_sys_is_explained() {
    read_only(|| {
        let refusal = refused(&mut SysctlLane::new(proc_sys(), Vec::new()), IGNORE, "1");
        assert_eq!(refusal.errno, Some(libc::EROFS));
        assert!(refusal.reason.contains("/host/proc/sys/net"), "{refusal}");
        assert_eq!(proc_sys().read(IGNORE).expect("a value"), Some("0".to_owned()));
    });
}

#[test]
fn the_first_writable_root_takes_the_value() {
    read_only(|| {
        let host = std::env::temp_dir().join(format!("host-proc-{}", std::process::id()));
        fs::create_dir_all(&host).expect("a directory");
        mount(Some("proc"), &host, Some("proc"), MsFlags::empty(), None::<&Path>).expect("another proc");
        let both = Sysctls::new(vec![PathBuf::from("/proc/sys"), host.join("sys")]);
        both.write(IGNORE, "1").expect("a write through the second root");
        assert_eq!(cat("/proc/sys/net/ipv4/conf/all/arp_ignore"), "1");
        // Absent everywhere is absence, not the first root's being read-only.
        assert!(matches!(both.write(ABSENT, "1"), Err(Error::Absent { .. })));
        nix::mount::umount(&host).expect("unmounted");
        fs::remove_dir(&host).expect("removed");
    });
}

#[test]
fn a_key_cannot_lead_out_of_the_root() {
    for key in ["", "/etc/passwd", "net/../../self/comm", "net//x", "net/ipv4/conf/./x"] {
        assert!(matches!(proc_sys().read(key), Err(Error::BadKey { .. })), "{key}");
        assert!(matches!(proc_sys().write(key, "1"), Err(Error::BadKey { .. })), "{key}");
    }
}
