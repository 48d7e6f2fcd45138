//! The real binary: what it prints, with which status it ends, what it answers over HTTP. Loopback only; needs root,
//! as the binary does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, helpers too"
)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a loaded machine; a condition that is met ends the wait.
const PATIENCE: Duration = Duration::from_secs(60);

#[allow(clippy::disallowed_methods, reason = "the binary under test is a process")]
fn command(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kube-router"));
    command
        .args(flags)
        .env_remove("NODE_NAME")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn output(flags: &[&str]) -> (Option<i32>, String) {
    finished(command(flags).output().unwrap())
}

/// Status and stderr; stdout is never used.
fn finished(output: Output) -> (Option<i32>, String) {
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A running agent, killed when dropped.
struct Agent(Option<Child>);

impl Agent {
    fn start(flags: &[&str]) -> Self {
        Self(Some(command(flags).spawn().unwrap()))
    }

    /// TCP ports it listens on, of either family: sockets of its own that the kernel lists in the state LISTEN.
    fn listens(&self) -> BTreeSet<u16> {
        let pid = self.0.as_ref().unwrap().id();
        let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let links = links.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        let own: BTreeSet<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
        let mut ports = BTreeSet::new();
        for table in ["tcp", "tcp6"] {
            // Without IPv6 there is no second table.
            let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
            for line in text.lines().skip(1) {
                // Number, own end, other end, state (0A is LISTEN), …, inode as the tenth.
                let words: Vec<&str> = line.split_whitespace().collect();
                if words[3] == "0A" && own.contains(&format!("socket:[{}]", words[9])) {
                    let (_, port) = words[1].rsplit_once(':').unwrap();
                    ports.insert(u16::from_str_radix(port, 16).unwrap());
                }
            }
        }
        ports
    }

    /// Sends `signal` and waits for the end.
    fn end(mut self, signal: nix::sys::signal::Signal) -> (Option<i32>, String) {
        let mut child = self.0.take().unwrap();
        let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
                panic!("the agent did not end after {signal}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        finished(child.wait_with_output().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Status and body of a GET, as soon as someone listens.
fn get(address: &str, path: &str) -> (u16, String) {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => panic!("{address}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// An agent that lives on any kernel: the service proxy would need IPVS, the life of the process does not.
const QUIET: [&str; 3] =
    ["--master=http://127.0.0.1:1", "--hostname-override=node-1", "--run-service-proxy=false"];

#[test]
fn help_and_version_end_well_on_stderr() {
    let (code, text) = output(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(
        text.starts_with("Usage: kube-router [flags]\n") && text.contains("--masquerade-all[=bool]"),
        "{text}"
    );
    for flag in ["--version", "-V"] {
        let (code, text) = output(&[flag]);
        assert_eq!(code, Some(0));
        let expected = format!("Running {} version ", env!("CARGO_BIN_EXE_kube-router"));
        assert!(text.starts_with(&expected) && text.contains(", built on 20"), "{text}");
        assert!(text.contains("+0000, rustc 1.") && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn help_and_version_need_no_root() {
    for (flags, code) in [(&["--help"][..], 0), (&["--version"], 0), (&QUIET, 1), (&["--cleanup-config"], 1)]
    {
        let mut command = command(flags);
        command.uid(65_534).gid(65_534);
        let (status, text) = finished(command.output().expect("the binary must be executable for everyone"));
        assert_eq!(status, Some(code), "{flags:?}: {text}");
        assert_eq!(code == 1, text.contains("must run as root"), "{flags:?}: {text}");
    }
}

#[test]
fn bad_flags_end_with_two_and_show_usage() {
    for (flags, reason) in [
        (&["--bgp-port=x"][..], "Error: bad value \"x\" for --bgp-port: not a whole number of zero or more"),
        (&["--ipvs-sync-period=0"], "Error: bad value \"0s\" for --ipvs-sync-period: must be more than 0"),
        (&["--no-such"], "Error: unknown flag --no-such"),
        (&["--master"], "Error: --master needs a value"),
    ] {
        let (code, text) = output(flags);
        assert_eq!(code, Some(2), "{text}");
        assert_eq!((text.lines().next(), text.lines().last()), (Some(reason), Some(reason)));
        assert!(text.contains("Usage: kube-router [flags]"), "{text}");
    }
}

#[test]
fn arguments_that_are_not_flags_end_with_one() {
    let (code, text) = output(&["--run-router", "false"]);
    assert_eq!(code, Some(1));
    assert!(
        text.starts_with("Error: unexpected argument \"false\"") && text.contains("--flag=false"),
        "{text}"
    );
}

#[test]
fn a_closed_stderr_is_no_crash() {
    for flags in [&["--help"][..], &["--no-such"]] {
        let mut child = command(flags).spawn().unwrap();
        drop(child.stderr.take());
        let code = child.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 2)), "{flags:?}: {code:?}");
    }
}

#[test]
fn a_password_is_never_shown() {
    let peer = ["--peer-router-ips=192.0.2.1", "--peer-router-asns=65000"];
    let (code, text) = output(&[peer[0], peer[1], "--peer-router-passwords=hunter2!"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("***") && !text.contains("hunter2"), "{text}");
}

#[test]
fn nothing_to_run_ends_well() {
    let (code, text) = output(&["--run-service-proxy=false", "--run-firewall=false", "--run-loadbalancer"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("nothing to run"), "{text}");
}

#[test]
fn clean_up_needs_no_api_server_and_ends_well() {
    // Any network use would fail in an empty namespace of its own; so would a change there harm nothing.
    let mut command = command(&["--cleanup-config"]);
    in_new_network_namespace(&mut command);
    let (code, text) = finished(command.output().unwrap());
    assert_eq!(code, Some(0), "{text}");
}

#[allow(unsafe_code, reason = "pre_exec is the only way to unshare a child before it runs")]
fn in_new_network_namespace(command: &mut Command) {
    // SAFETY: unshare(2) is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(Into::into));
    }
}

#[test]
fn a_taken_port_is_a_plain_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("--health-port={}", taken.local_addr().unwrap().port());
    let (code, text) = output(&[&QUIET[..], &["--health-addr=127.0.0.1", &port]].concat());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("cannot listen on 127.0.0.1:") && text.contains("in use"), "{text}");
}

#[test]
fn an_unusable_kubeconfig_is_a_plain_error() {
    let (code, text) = output(&["--health-port=0", "--kubeconfig=/nonexistent/kubeconfig"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("Error: cannot use the kubeconfig /nonexistent/kubeconfig: "), "{text}");
}

#[test]
fn a_status_nobody_can_give_says_whom_it_asked() {
    let (code, text) = output(&["status", "--socket=/nonexistent/kube-router.sock"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("Error: no kube-router answers at /nonexistent/kube-router.sock"), "{text}");
    assert_eq!(output(&["status", "--output=xml"]).0, Some(2));
}

/// Status, stdout and stderr of a command.
fn both(flags: &[&str]) -> (Option<i32>, String, String) {
    let output = command(flags).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn commands_are_in_the_help_and_unknown_ones_end_with_two() {
    let (code, help) = output(&["--help"]);
    assert_eq!(code, Some(0));
    for name in ["status", "explain", "monitor", "doctor", "completion"] {
        assert!(help.contains(&format!("\n  {name} ")), "{name}: {help}");
        for ask in [&["help", name][..], &[name, "--help"]] {
            let (code, text, _) = both(ask);
            assert_eq!(code, Some(0), "{ask:?}");
            assert!(text.contains(&format!("Usage: kube-router {name}")), "{ask:?}: {text}");
            assert!(!text.contains('\u{1b}'), "no colours but on a terminal: {text:?}");
        }
    }
    for bad in [&["stats"][..], &["help", "stats"], &["Status"]] {
        let (code, text) = output(bad);
        assert_eq!(code, Some(2), "{bad:?}");
        assert!(
            text.starts_with("Error: unknown command \"") && text.contains("Usage: kube-router"),
            "{text}"
        );
    }
    for bad in [
        &["status", "nothing"][..],
        &["explain", "--from", "a/b"],
        &["explain", "--from", "a/b", "--to", "c/d", "--port", "0"],
        &["explain", "--from", "a/b", "--to", "c/d", "--protocol", "icmp"],
        &["monitor", "--count", "x"],
        &["doctor", "--output", "xml"],
        &["completion", "dos"],
    ] {
        let (code, text) = output(bad);
        assert_eq!(code, Some(2), "{bad:?}: {text}");
        assert!(text.contains("--help"), "{text}");
    }
}

#[test]
fn commands_without_an_agent_say_so() {
    let socket = "--socket=/nonexistent/kube-router.sock";
    for ask in [&["status"][..], &["explain", "--from=10.0.0.1", "--to=10.0.0.2"], &["monitor"]] {
        let (code, text) = output(&[ask, &[socket]].concat());
        assert_eq!(code, Some(1), "{ask:?}: {text}");
        assert!(text.contains("Error: no kube-router answers at /nonexistent/kube-router.sock"), "{text}");
    }
}

#[test]
fn completion_is_a_script_the_shell_can_read() {
    let (code, script, _) = both(&["completion", "bash"]);
    assert_eq!(code, Some(0));
    for word in ["explain", "doctor", "--masquerade-all", "--from"] {
        assert!(script.contains(word), "{word}");
    }
    // The shell itself says what it would complete.
    let asked = "f=$(complete -p kube-router | sed 's/.*-F \\([^ ]*\\) .*/\\1/'); COMP_WORDS=(kube-router exp) COMP_CWORD=1; \
                 $f kube-router exp kube-router; echo ${COMPREPLY[@]}";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("completion");
    std::fs::write(&file, &script).unwrap();
    #[allow(clippy::disallowed_methods, reason = "the shell is the judge")]
    let shell =
        Command::new("bash").args(["-c", &format!("source {}; {asked}", file.display())]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&shell.stdout).trim(),
        "explain",
        "{}",
        String::from_utf8_lossy(&shell.stderr)
    );
    for shell in ["zsh", "fish"] {
        assert!(both(&["completion", shell]).1.contains("explain"), "{shell}");
    }
}

/// A node where nothing is set up: an empty network namespace, no API server.
#[test]
fn doctor_needs_no_agent_names_each_fix_and_ends_with_one() {
    let mut command = command(&[
        "doctor",
        "-o",
        "json",
        "--socket=/nonexistent/kube-router.sock",
        "--",
        "--master=http://127.0.0.1:1",
        "--hostname-override=node-1",
        "--run-service-proxy=false",
    ]);
    in_new_network_namespace(&mut command);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let checks: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let level = |about: &str| {
        let found = checks.iter().find(|check| check["about"] == about);
        found.unwrap_or_else(|| panic!("{about}: {checks:#?}"))["level"].as_str().unwrap()
    };
    assert_eq!(level("api server"), "problem", "{checks:#?}");
    assert_eq!(level("agent"), "unknown");
    assert_eq!(level("capabilities"), "fine");
    for check in checks.iter().filter(|check| check["level"] == "problem") {
        assert!(check["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{check}");
    }
}

#[test]
fn flags_the_agent_would_refuse_are_refused_by_doctor_too() {
    for (flags, why) in [
        (&["--no-such-flag"][..], "flags of the agent: unknown flag --no-such-flag"),
        (&["word"], "flags of the agent: unexpected argument \"word\""),
        (&["--firewall-backend=pf"], "flags of the agent: bad value \"pf\" for --firewall-backend"),
        (&["--cleanup-config"], "do not go with doctor"),
    ] {
        let (code, text) = output(&[&["doctor", "--"][..], flags].concat());
        assert_eq!(code, Some(2), "{flags:?}: {text}");
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn a_running_agent_answers_and_stops_on_either_signal() {
    use nix::sys::signal::Signal::{SIGINT, SIGTERM};
    for (signal, host) in [(SIGTERM, "127.0.0.1"), (SIGINT, "[::1]")] {
        let (health, metrics) = (free_port(), free_port());
        let flags = [
            format!("--health-addr={host}"),
            format!("--health-port={health}"),
            format!("--metrics-addr={host}"),
            format!("--metrics-port={metrics}"),
            "--metrics-path=/numbers".to_owned(),
        ];
        let flags: Vec<&str> = QUIET.into_iter().chain(flags.iter().map(String::as_str)).collect();
        let agent = Agent::start(&flags);
        assert_eq!(get(&format!("{host}:{health}"), "/healthz"), (200, "OK\n".to_owned()));
        assert_eq!(get(&format!("{host}:{health}"), "/metrics").0, 404);
        let (status, text) = get(&format!("{host}:{metrics}"), "/numbers");
        assert_eq!(status, 200);
        assert!(
            text.contains("kube_router_build_info{") && text.contains("process_cpu_seconds_total"),
            "{text}"
        );
        let (code, log) = agent.end(signal);
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("stopping"), "{log}");
    }
}

#[test]
fn the_start_names_older_flags_and_what_is_not_built_once() {
    let (health, admin) = (free_port(), free_port());
    let (port, admin) = (format!("--health-port={health}"), format!("--gobgp-admin-port={admin}"));
    let agent = Agent::start(&[
        "--master=http://127.0.0.1:1",
        "--hostname-override=node-1",
        "--run-service-proxy=false",
        "--health-addr=127.0.0.1",
        &port,
        "--config-sync-period=1m",
        "--enable-bfd",
        "--gobgp-admin-address=127.0.0.1",
        &admin,
    ]);
    assert_eq!(get(&format!("127.0.0.1:{health}"), "/healthz").0, 200);
    assert_eq!(
        agent.listens(),
        [health].into(),
        "there is no administration server, on this port or another"
    );
    let (code, log) = agent.end(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches("--config-sync-period has no effect").count(), 1, "{log}");
    let unbuilt = "without effect yet: --enable-bfd --gobgp-admin-address --gobgp-admin-port";
    assert_eq!(log.matches(unbuilt).count(), 1, "{log}");
}
