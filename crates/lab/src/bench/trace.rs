//! What a process asks of the kernel, counted by the kernel: histograms of tracefs.
//!
//! Nothing is stopped or slowed as under a debugger. Counted are netlink messages as the kernel takes them in (probes on
//! the three functions every rtnetlink, generic netlink and netfilter netlink message goes through), system calls,
//! and programs started. Decided here: which messages write. Needs `CONFIG_HIST_TRIGGERS` and `CONFIG_KPROBE_EVENTS`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::{Error, io};

const TRACEFS: &str = "/sys/kernel/tracing";
/// Probes: `struct nlmsghdr *` is the second argument of each; the type stands at 4 in it, the command of
/// generic netlink behind the header at 16.
const PROBES: [(&str, &str); 3] = [
    ("genl", "genl_rcv_msg kind=+4($arg2):u16 command=+16($arg2):u8"),
    ("rtnl", "rtnetlink_rcv_msg kind=+4($arg2):u16 command=+16($arg2):u8"),
    ("nfnl", "nfnetlink_rcv_msg kind=+4($arg2):u16 command=+16($arg2):u8"),
];
const EVENTS: [(&str, &str); 6] = [
    ("lab_bench/genl", "hist:keys=common_pid,kind,command:size=8192"),
    ("lab_bench/rtnl", "hist:keys=common_pid,kind,command:size=8192"),
    ("lab_bench/nfnl", "hist:keys=common_pid,kind,command:size=8192"),
    ("raw_syscalls/sys_enter", "hist:keys=common_pid,id.syscall:size=8192"),
    ("sched/sched_process_fork", "hist:keys=parent_pid,child_pid:size=8192"),
    ("sched/sched_process_exec", "hist:keys=common_pid,filename:size=8192"),
];

/// Counting goes on from here until [`Trace::stop`]; dropping it takes the probes away.
pub(super) struct Trace {
    instance: PathBuf,
}

/// What one process did, its threads and children included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Netlink messages that write.
    pub(super) writes: u64,
    /// Netlink messages that only ask.
    pub(super) reads: u64,
    /// System calls by name, of the process itself.
    pub(super) calls: BTreeMap<String, u64>,
    /// Programs started, by path.
    pub(super) programs: BTreeMap<String, u64>,
}

impl Counts {
    /// All system calls.
    pub(super) fn calls_total(&self) -> u64 {
        self.calls.values().sum()
    }

    /// The `most` frequent system calls in words.
    pub(super) fn calls_text(&self, most: usize) -> String {
        let mut calls: Vec<_> = self.calls.iter().collect();
        calls.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
        let words: Vec<String> =
            calls.iter().take(most).map(|(name, count)| format!("{name} {count}")).collect();
        words.join(", ")
    }

    /// Programs in words; `0` for none.
    pub(super) fn programs_text(&self) -> String {
        let name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        let words: Vec<String> =
            self.programs.iter().map(|(path, count)| format!("{count} {}", name(path))).collect();
        if words.is_empty() { "0".to_owned() } else { words.join(", ") }
    }
}

impl Trace {
    pub(super) fn start() -> Result<Trace, Error> {
        if !Path::new(TRACEFS).join("events").is_dir() {
            let none = None::<&str>;
            mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::empty(), none)
                .map_err(|errno| io("mounting tracefs")(errno.into()))?;
        }
        let trace = Trace { instance: Path::new(TRACEFS).join("instances/lab_bench") };
        // What a run that was killed may have left.
        trace.remove();
        for (name, probe) in PROBES {
            append(&Path::new(TRACEFS).join("kprobe_events"), &format!("p:lab_bench/{name} {probe}\n"))?;
        }
        fs::create_dir(&trace.instance).map_err(io("making a trace instance"))?;
        for (event, trigger) in EVENTS {
            append(&trace.instance.join("events").join(event).join("trigger"), trigger)?;
        }
        Ok(trace)
    }

    /// Ends counting. `process` is whose doings are wanted, with the threads it had at the start.
    pub(super) fn stop(self, process: u32, threads: &[u32]) -> Result<Counts, Error> {
        let read = |event: &str| {
            let path = self.instance.join("events").join(event).join("hist");
            fs::read_to_string(&path).map_err(io(format!("reading {}", path.display())))
        };
        let histograms = Histograms {
            netlink: [read("lab_bench/genl")?, read("lab_bench/rtnl")?, read("lab_bench/nfnl")?],
            calls: read("raw_syscalls/sys_enter")?,
            forks: read("sched/sched_process_fork")?,
            execs: read("sched/sched_process_exec")?,
        };
        Ok(histograms.of(process, threads))
    }

    fn remove(&self) {
        // Nothing is there as a rule.
        for (event, trigger) in EVENTS {
            let path = self.instance.join("events").join(event).join("trigger");
            if path.exists() {
                let _ = append(&path, &format!("!{trigger}"));
            }
        }
        let _ = fs::remove_dir(&self.instance);
        for (name, _) in PROBES {
            if Path::new(TRACEFS).join("events/lab_bench").join(name).exists() {
                let _ = append(&Path::new(TRACEFS).join("kprobe_events"), &format!("-:lab_bench/{name}\n"));
            }
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.remove();
    }
}

fn append(path: &Path, text: &str) -> Result<(), Error> {
    let file = fs::OpenOptions::new().append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(io(format!("writing `{}` to {}", text.trim(), path.display())))
}

/// What the kernel prints: one line for each combination of keys, `{ a: 1, b: 2 } hitcount: 3`.
struct Histograms {
    netlink: [String; 3],
    calls: String,
    forks: String,
    execs: String,
}

impl Histograms {
    fn of(&self, process: u32, threads: &[u32]) -> Counts {
        let family = self.family(process, threads);
        let own: BTreeSet<u32> = threads.iter().copied().chain([process]).collect();
        let mut counts = Counts::default();
        for (histogram, protocol) in self.netlink.iter().zip(Protocol::ALL) {
            for line in
                lines(histogram).filter(|line| line.pid("common_pid").is_some_and(|pid| own.contains(&pid)))
            {
                match line.message().is_some_and(|message| message.writes(protocol)) {
                    true => counts.writes += line.hits,
                    false => counts.reads += line.hits,
                }
            }
        }
        for line in
            lines(&self.calls).filter(|line| line.pid("common_pid").is_some_and(|pid| own.contains(&pid)))
        {
            let name = line.field("id").and_then(|text| text.split_whitespace().next()).unwrap_or("?");
            *counts.calls.entry(name.trim_start_matches("sys_").to_owned()).or_default() += line.hits;
        }
        for line in
            lines(&self.execs).filter(|line| line.pid("common_pid").is_some_and(|pid| family.contains(&pid)))
        {
            let program = line.field("filename").unwrap_or("?").trim().to_owned();
            *counts.programs.entry(program).or_default() += line.hits;
        }
        counts
    }

    /// The process, its threads and everything they started.
    fn family(&self, process: u32, threads: &[u32]) -> BTreeSet<u32> {
        let mut family: BTreeSet<u32> = threads.iter().copied().chain([process]).collect();
        let births: Vec<(u32, u32)> = lines(&self.forks)
            .filter_map(|line| Some((line.pid("parent_pid")?, line.pid("child_pid")?)))
            .collect();
        // Lines are in no order: until nothing more is found.
        loop {
            let born = births.iter().filter(|(parent, _)| family.contains(parent)).map(|(_, child)| *child);
            let born: Vec<u32> = born.filter(|child| !family.contains(child)).collect();
            if born.is_empty() {
                return family;
            }
            family.extend(born);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Protocol {
    Generic,
    Route,
    Netfilter,
}

impl Protocol {
    const ALL: [Protocol; 3] = [Protocol::Generic, Protocol::Route, Protocol::Netfilter];
}

struct Message {
    kind: u16,
    command: u8,
}

impl Message {
    /// Whether the kernel changes anything because of it.
    fn writes(&self, protocol: Protocol) -> bool {
        match protocol {
            // `GENL_ID_CTRL` only tells families. Of IPVS, GET_SERVICE, GET_DEST, GET_DAEMON, GET_CONFIG and GET_INFO
            // (linux/ip_vs.h) ask; no other family is spoken to.
            Protocol::Generic => self.kind != 16 && ![4, 8, 11, 13, 15].contains(&self.command),
            // Of every four types NEW, DEL, GET, SET (linux/rtnetlink.h).
            Protocol::Route => self.kind & 3 != 2,
            // Subsystem in the high byte. ipset (6) asks with PROTOCOL, LIST, SAVE, TEST, HEADER, TYPE, GET_BYNAME and
            // GET_BYINDEX; conntrack (1) with GET and the later statistics; others are taken for writes.
            Protocol::Netfilter => match (self.kind >> 8, self.kind & 0xff) {
                (6, command) => ![1, 7, 8, 11, 12, 13, 14, 15].contains(&command),
                (1, command) => [0, 2].contains(&command),
                _ => true,
            },
        }
    }
}

struct HistogramLine<'a> {
    keys: &'a str,
    hits: u64,
}

impl<'a> HistogramLine<'a> {
    fn field(&self, name: &str) -> Option<&'a str> {
        self.keys.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix(':'))
    }

    fn pid(&self, name: &str) -> Option<u32> {
        self.field(name)?.trim().parse().ok()
    }

    fn message(&self) -> Option<Message> {
        let number = |name| self.field(name)?.trim().parse::<u64>().ok();
        Some(Message {
            kind: u16::try_from(number("kind")?).ok()?,
            command: u8::try_from(number("command")?).ok()?,
        })
    }
}

fn lines(histogram: &str) -> impl Iterator<Item = HistogramLine<'_>> {
    histogram.lines().filter_map(|line| {
        let (keys, hits) = line.strip_prefix('{')?.split_once('}')?;
        let hits = hits.split_whitespace().nth(1)?.parse().ok()?;
        Some(HistogramLine { keys, hits })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_and_its_children_are_counted() {
        let histograms = Histograms {
            netlink: [
                "{ common_pid: 101, kind: 32, command: 5 } hitcount:          2\n\
                 { common_pid: 101, kind: 32, command: 8 } hitcount:          7\n\
                 { common_pid: 900, kind: 32, command: 5 } hitcount:          9\n"
                    .to_owned(),
                "{ common_pid: 100, kind: 24, command: 2 } hitcount:          1\n\
                 { common_pid: 100, kind: 22, command: 2 } hitcount:          4\n"
                    .to_owned(),
                "{ common_pid: 100, kind: 1545, command: 2 } hitcount:          3\n\
                 { common_pid: 100, kind: 1543, command: 2 } hitcount:          1\n"
                    .to_owned(),
            ],
            calls: "{ common_pid: 101, id: sys_sendto                    [ 44] } hitcount:          6\n\
                    { common_pid: 900, id: sys_sendto                    [ 44] } hitcount:         60\n"
                .to_owned(),
            forks: "{ parent_pid: 200, child_pid: 201 } hitcount:          1\n\
                    { parent_pid: 101, child_pid: 200 } hitcount:          1\n"
                .to_owned(),
            execs: "{ common_pid: 201, filename: /usr/sbin/iptables-save        } hitcount:          1\n\
                    { common_pid: 902, filename: /usr/sbin/ip                   } hitcount:          1\n"
                .to_owned(),
        };
        let counts = histograms.of(100, &[101]);
        assert_eq!((counts.writes, counts.reads), (2 + 1 + 3, 7 + 4 + 1));
        assert_eq!((counts.calls_total(), counts.calls_text(5).as_str()), (6, "sendto 6"));
        assert_eq!(counts.programs_text(), "1 iptables-save");
    }
}
