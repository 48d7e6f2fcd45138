//! The command line against the compatibility reference.

use super::*;

/// Every flag with its type and default: those of kube-router v2.11 but for the defaults of `--run-router` and the
/// three sync periods, and the four older names; `--advertise-aggregate` and `--bgp-max-prefixes` are ours.
const FLAGS: &[(&str, &str, &str)] = &[
    ("advertise-aggregate", "bool", "false"),
    ("advertise-cluster-ip", "bool", "false"),
    ("advertise-external-ip", "bool", "false"),
    ("advertise-loadbalancer-ip", "bool", "false"),
    ("advertise-pod-cidr", "bool", "true"),
    ("auto-mtu", "bool", "true"),
    ("bfd-desired-min-tx-interval", "uint32", "1000"),
    ("bfd-detection-multiplier", "uint32", "3"),
    ("bfd-port", "uint32", "3784"),
    ("bfd-required-min-rx-interval", "uint32", "1000"),
    ("bgp-graceful-restart", "bool", "false"),
    ("bgp-graceful-restart-deferral-time", "duration", "6m0s"),
    ("bgp-graceful-restart-time", "duration", "1m30s"),
    ("bgp-holdtime", "duration", "1m30s"),
    ("bgp-max-prefixes", "uint32", "100000"),
    ("bgp-port", "uint32", "179"),
    ("cache-sync-timeout", "duration", "1m0s"),
    ("cleanup-config", "bool", "false"),
    ("cluster-asn", "uint", "0"),
    ("cluster-cidr", "cidrs", "[]"),
    ("cni-wait-for-policy", "bool", "false"),
    ("config-sync-period", "duration", "1m0s"),
    ("disable-source-dest-check", "bool", "true"),
    ("enable-bfd", "bool", "false"),
    ("enable-cni", "bool", "true"),
    ("enable-ibgp", "bool", "true"),
    ("enable-ipv4", "bool", "true"),
    ("enable-ipv6", "bool", "false"),
    ("enable-overlay", "bool", "true"),
    ("enable-pod-egress", "bool", "true"),
    ("enable-pprof", "bool", "false"),
    ("excluded-cidrs", "cidrs", "[]"),
    ("firewall-backend", "string", "auto"),
    ("gobgp-admin-address", "string", "127.0.0.1"),
    ("gobgp-admin-port", "uint16", "50051"),
    ("hairpin-mode", "bool", "false"),
    ("health-addr", "string", "\"\""),
    ("health-port", "uint16", "20244"),
    ("help", "bool", "false"),
    ("hostname-override", "string", "\"\""),
    ("injected-routes-sync-period", "duration", "1m0s"),
    ("iptables-sync-period", "duration", "1m0s"),
    ("ipvs-graceful-period", "duration", "30s"),
    ("ipvs-graceful-termination", "bool", "false"),
    ("ipvs-permit-all", "bool", "true"),
    ("ipvs-sync-period", "duration", "1m0s"),
    ("kubeconfig", "string", "\"\""),
    ("loadbalancer-default-class", "bool", "true"),
    ("loadbalancer-ip-range", "cidrs", "[]"),
    ("loadbalancer-sync-period", "duration", "1m0s"),
    ("masquerade-all", "bool", "false"),
    ("master", "string", "\"\""),
    ("metrics-addr", "string", "\"\""),
    ("metrics-path", "string", "/metrics"),
    ("metrics-port", "uint16", "0"),
    ("netpol-default-deny", "bool", "false"),
    ("nodeport-bindon-all-ip", "bool", "false"),
    ("nodes-full-mesh", "bool", "true"),
    ("overlay-encap", "string", "ipip"),
    ("overlay-encap-port", "uint16", "5555"),
    ("overlay-type", "string", "subnet"),
    ("override-nexthop", "bool", "false"),
    ("peer-asn", "uints", "[]"),
    ("peer-router", "ips", "[]"),
    ("peer-router-asns", "uints", "[]"),
    ("peer-router-ips", "ips", "[]"),
    ("peer-router-multihop-ttl", "uint8", "0"),
    ("peer-router-passwords", "strings", "[]"),
    ("peer-router-passwords-file", "string", "\"\""),
    ("peer-router-ports", "uints", "[]"),
    ("router-id", "string", "\"\""),
    ("routes-sync-period", "duration", "1m0s"),
    ("run-firewall", "bool", "true"),
    ("run-loadbalancer", "bool", "false"),
    ("run-router", "bool", "false"),
    ("run-service-proxy", "bool", "true"),
    ("runtime-endpoint", "string", "\"\""),
    ("service-cluster-ip-range", "cidrs", "[10.96.0.0/12]"),
    ("service-external-ip-range", "cidrs", "[]"),
    ("service-node-port-range", "string", "30000-32767"),
    ("service-tcp-timeout", "duration", "0s"),
    ("service-tcpfin-timeout", "duration", "0s"),
    ("service-udp-timeout", "duration", "0s"),
    ("strict-external-ip-validation", "bool", "true"),
    ("use-nftables-for-netpol", "bool", "false"),
    ("v", "level", "0"),
    ("version", "bool", "false"),
];

fn options(flags: &[&str]) -> Options {
    Options::from_flags(flags).unwrap_or_else(|refusal| panic!("{flags:?}: {refusal}"))
}

fn refusal(flags: &[&str]) -> Refusal {
    match Options::from_flags(flags) {
        Ok(_) => panic!("{flags:?} was accepted"),
        Err(refusal) => refusal,
    }
}

fn args(flags: &[&str]) -> Vec<OsString> {
    std::iter::once("kube-router").chain(flags.iter().copied()).map(OsString::from).collect()
}

#[test]
fn every_flag_has_its_type_and_default() {
    let command = command::command();
    let mut flags: Vec<(String, String, String)> = command
        .get_arguments()
        .filter(|arg| !arg.is_positional())
        .map(|arg| {
            let kind = arg.get_value_names().unwrap()[0].to_string();
            (arg.get_long().unwrap().to_owned(), kind, help::default(arg))
        })
        .collect();
    flags.sort();
    let expected: Vec<_> =
        FLAGS.iter().map(|(f, k, d)| (f.to_string(), k.to_string(), d.to_string())).collect();
    assert_eq!(flags, expected);
}

#[test]
fn help_names_every_flag_with_its_default() {
    let Ok(Request::Help(text)) = read(args(&["-h"])) else { panic!("no help") };
    let unwrapped = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (flag, kind, default) in FLAGS {
        let shown = if *kind == "bool" { format!("--{flag}[=bool] ") } else { format!("--{flag} {kind} ") };
        let (_, after) = unwrapped.split_once(&shown).unwrap_or_else(|| panic!("{shown} is not shown"));
        let (_, after) = after.split_once("(default ").unwrap();
        assert!(after.starts_with(&format!("{default})")), "{flag}: {after:.40}");
    }
    assert!(text.lines().all(|line| line.len() <= 120), "a line is too long");
}

#[test]
fn nothing_given_is_the_service_proxy_and_policy() {
    let defaults = options(&[]);
    assert_eq!(
        defaults.controllers,
        Controllers { service_proxy: true, network_policy: true, routes: false, load_balancer: false }
    );
    assert_eq!(defaults.families, Families { ipv4: true, ipv6: false });
    assert_eq!(defaults.endpoints.health, Some(Listen { host: String::new(), port: 20244 }));
    assert_eq!(defaults.endpoints.metrics, None);
    assert_eq!(defaults.service_proxy.sync_period.as_secs(), 60);
    assert_eq!(defaults.service_proxy.drain, None);
    assert_eq!(defaults.service_ips.cluster, ["10.96.0.0/12".parse().unwrap()]);
    assert_eq!(defaults.service_ips.node_ports, 30000..=32767);
    assert_eq!(defaults.bgp.asn, None);
    assert_eq!(defaults.warnings, Vec::<&str>::new());
    assert_eq!(unbuilt(&defaults), Vec::<&str>::new());
}

#[test]
fn switches_take_a_value_after_the_equals_sign_only() {
    let masquerade = |flags: &[&str]| options(flags).service_proxy.masquerade_all;
    assert!(masquerade(&["--masquerade-all"]));
    for value in ["1", "t", "T", "true", "TRUE", "True"] {
        assert!(masquerade(&[&format!("--masquerade-all={value}")]), "{value}");
    }
    for value in ["0", "f", "F", "false", "FALSE", "False"] {
        assert!(!masquerade(&["--masquerade-all", &format!("--masquerade-all={value}")]), "{value}");
    }
    assert_eq!(
        refusal(&["--masquerade-all", "false"]),
        Refusal::Positional("false".into(), " (a switch takes its value after an equals sign: --flag=false)")
    );
    assert!(matches!(refusal(&["--masquerade-all="]), Refusal::BadFlag(_)));
}

#[test]
fn values_follow_after_an_equals_sign_or_a_space() {
    assert_eq!(options(&["--metrics-port", "8080"]).endpoints.metrics.unwrap().0.port, 8080);
    assert_eq!(options(&["--metrics-port=0x1F90"]).endpoints.metrics.unwrap().0.port, 8080);
    assert_eq!(options(&["--bgp-port=010"]).bgp.port, 8);
    assert_eq!(options(&["--bgp-port=0o17"]).bgp.port, 15);
    assert_eq!(options(&["--bgp-port", "0b1"]).bgp.port, 1);
    assert_eq!(options(&["--ipvs-sync-period", "1m30s"]).service_proxy.sync_period.as_secs(), 90);
    assert_eq!(options(&["--hostname-override", "--odd"]).api.hostname_override.as_deref(), Some("--odd"));
}

#[test]
fn the_last_use_of_a_flag_counts() {
    let twice = options(&["--bgp-port=1", "--bgp-port=2", "--run-firewall=false", "--run-firewall"]);
    assert_eq!(twice.bgp.port, 2);
    assert!(twice.controllers.network_policy);
}

#[test]
fn lists_take_commas_and_repeats_and_the_first_use_replaces_the_default() {
    let ranges = |flags: &[&str]| {
        let nets = options(flags).service_ips.cluster;
        nets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ranges(&[]), "10.96.0.0/12");
    assert_eq!(ranges(&["--service-cluster-ip-range=10.0.0.0/16"]), "10.0.0.0/16");
    let both = "10.0.0.0/16 fd00::/112";
    assert_eq!(ranges(&["--enable-ipv6", "--service-cluster-ip-range=10.0.0.0/16,fd00::/112"]), both);
    let repeated = [
        "--enable-ipv6",
        "--service-cluster-ip-range",
        "10.0.0.0/16",
        "--service-cluster-ip-range=fd00::/112",
    ];
    assert_eq!(ranges(&repeated), both);
    assert_eq!(ranges(&["--enable-ipv6", "--service-cluster-ip-range=\"10.0.0.0/16\",fd00::/112"]), both);
    assert_eq!(options(&["--excluded-cidrs="]).service_proxy.excluded, Vec::<IpNet>::new());
    assert_eq!(
        options(&["--excluded-cidrs=", "--excluded-cidrs=10.0.0.1/8"]).service_proxy.excluded.len(),
        1
    );
}

#[test]
fn verbosity_has_all_its_spellings() {
    for flags in [&["-v", "3"][..], &["-v3"], &["-v=3"], &["--v=3"], &["--v", "3"]] {
        assert_eq!(options(flags).verbosity, 3, "{flags:?}");
    }
}

#[test]
fn help_and_version_win_over_bad_values_but_not_over_bad_syntax() {
    assert!(matches!(read(args(&["--version", "--router-id=nonsense"])), Ok(Request::Version)));
    assert!(matches!(read(args(&["-V"])), Ok(Request::Version)));
    assert!(matches!(read(args(&["-Vh"])), Ok(Request::Help(_))));
    assert!(matches!(read(args(&["--help=false"])), Ok(Request::Run(_))));
    assert!(matches!(read(args(&["--help", "--bgp-port=x"])), Err(Refusal::BadFlag(_))));
    assert!(matches!(read(args(&["--help", "more"])), Err(Refusal::Positional(..))));
    assert!(matches!(read(args(&["--cleanup-config"])), Ok(Request::CleanUp(_))));
}

#[test]
fn an_ipv6_node_needs_no_cluster_range() {
    let ipv6 = options(&["--enable-ipv4=false", "--enable-ipv6"]);
    assert_eq!(ipv6.service_ips.cluster, Vec::<IpNet>::new());
}

#[test]
fn addresses_to_listen_on_may_be_ipv6() {
    for flag in ["--health-addr=fd00::1", "--health-addr=[fd00::1]"] {
        assert_eq!(options(&[flag]).endpoints.health.unwrap().host, "fd00::1");
    }
    assert_eq!(options(&["--health-port=0"]).endpoints.health, None);
    assert!(options(&["--metrics-port=65535"]).endpoints.metrics.is_some());
}

#[test]
fn the_api_server_may_be_a_bare_address() {
    let master = |text: &str| options(&["--master", text]).api.master.unwrap().to_string();
    assert_eq!(master("http://127.0.0.1:8080"), "http://127.0.0.1:8080/");
    assert_eq!(master("127.0.0.1:8080"), "http://127.0.0.1:8080/");
    assert_eq!(master("https://[fd00::1]:6443"), "https://[fd00::1]:6443/");
}

#[test]
fn peers_are_zipped() {
    let bgp = options(&[
        "--peer-router-ips=192.0.2.1, 2001:db8::1",
        "--peer-router-asns=65000,4200000000",
        "--peer-router-ports=179,1790",
        "--peer-router-passwords=,aHVudGVyMg==",
        "--peer-router-multihop-ttl=1",
    ])
    .bgp;
    let peers: Vec<_> = bgp.peers.iter().map(|p| (p.ip.to_string(), p.asn.get(), p.port)).collect();
    assert_eq!(peers, [("192.0.2.1".into(), 65_000, 179), ("2001:db8::1".into(), 4_200_000_000, 1790)]);
    assert_eq!(bgp.peers[0].password, None);
    assert_eq!(bgp.peers[1].password.as_ref().map(|p| p.reveal()), Some("hunter2"));
    assert_eq!(bgp.multihop_ttl, None);
    assert!(!format!("{bgp:?}").contains("hunter2"));
}

#[test]
fn peers_may_tell_so_many_prefixes_or_any_number() {
    assert_eq!(options(&[]).bgp.max_prefixes, Some(100_000));
    assert_eq!(options(&["--bgp-max-prefixes=20"]).bgp.max_prefixes, Some(20));
    assert_eq!(options(&["--bgp-max-prefixes=0"]).bgp.max_prefixes, None);
}

#[test]
fn older_names_keep_working_and_name_their_successor() {
    let older = options(&[
        "--cluster-cidr=10.1.0.0/16",
        "--config-sync-period=5m",
        "--peer-router=192.0.2.1",
        "--peer-asn=65001",
        "--cluster-asn=64512",
    ]);
    assert_eq!(older.pod_cidrs, ["10.1.0.0/16".parse().unwrap()]);
    assert_eq!(older.bgp.peers[0].asn.get(), 65_001);
    assert_eq!(older.bgp.asn, Some(::bgp::Asn::DEFAULT));
    assert_eq!(older.warnings.len(), 4);
    assert!(
        older.warnings[2].contains("--peer-router-ips") && older.warnings[3].contains("--peer-router-asns")
    );
}

#[test]
fn flags_of_features_that_are_not_built_are_listed_when_given() {
    let given = options(&["--enable-bfd", "--run-loadbalancer", "--run-firewall=false", "--masquerade-all"]);
    assert_eq!(unbuilt(&given), ["enable-bfd", "run-loadbalancer"]);
    assert_eq!(unbuilt_controllers(&given), ["load-balancer addresses (--run-loadbalancer)"]);
    assert_eq!(unbuilt_controllers(&options(&[])), Vec::<&str>::new());
}

#[test]
fn a_refusal_names_flag_value_and_reason() {
    // (arguments, flag, value as shown, part of the reason)
    let cases: &[(&[&str], &str, &str, &str)] = &[
        (&["--masquerade-all=maybe"], "masquerade-all", "maybe", "neither true nor false"),
        (&["--health-port=65536"], "health-port", "65536", "16 bits"),
        (&["--health-port=-1"], "health-port", "-1", "whole number"),
        (&["--health-addr=http://x"], "health-addr", "http://x", "address to listen"),
        (&["--metrics-port=many"], "metrics-port", "many", "whole number"),
        (&["--metrics-path=metrics"], "metrics-path", "metrics", "slash"),
        (&["-v", "high"], "v", "high", "whole number"),
        (&["--enable-ipv4=false"], "enable-ipv4", "false", "no address family"),
        (&["--master=ftp://x"], "master", "ftp://x", "http"),
        (&["--master=http://a b"], "master", "http://a b", "URL"),
        (&["--cache-sync-timeout=0"], "cache-sync-timeout", "0s", "more than 0"),
        (&["--ipvs-sync-period=0"], "ipvs-sync-period", "0s", "more than 0"),
        (&["--ipvs-sync-period", "-1s"], "ipvs-sync-period", "-1s", "more than 0"),
        (&["--ipvs-sync-period=30"], "ipvs-sync-period", "30", "unit is missing"),
        (&["--ipvs-sync-period=1d"], "ipvs-sync-period", "1d", "unknown unit"),
        (&["--iptables-sync-period=0s"], "iptables-sync-period", "0s", "more than 0"),
        (&["--routes-sync-period=0s"], "routes-sync-period", "0s", "more than 0"),
        (&["--injected-routes-sync-period=-5m"], "injected-routes-sync-period", "-5m0s", "more than 0"),
        (&["--loadbalancer-sync-period=0"], "loadbalancer-sync-period", "0s", "more than 0"),
        (&["--ipvs-graceful-period=0"], "ipvs-graceful-period", "0s", "more than 0"),
        (&["--config-sync-period=0"], "config-sync-period", "0s", "more than 0"),
        (&["--service-tcp-timeout=-1s"], "service-tcp-timeout", "-1s", "below 0"),
        (&["--service-tcpfin-timeout=500ms"], "service-tcpfin-timeout", "500ms", "whole seconds"),
        (&["--service-udp-timeout=600h"], "service-udp-timeout", "600h0m0s", "at most"),
        (&["--excluded-cidrs=10.0.0.1"], "excluded-cidrs", "10.0.0.1", "not a CIDR"),
        (&["--excluded-cidrs=10.0.0.0/8,\"x"], "excluded-cidrs", "10.0.0.0/8,\"x", "quotes"),
        (&["--runtime-endpoint=/run/x.sock"], "runtime-endpoint", "/run/x.sock", "unix:///"),
        (&["--service-cluster-ip-range="], "service-cluster-ip-range", "", "one or two"),
        (
            &["--service-cluster-ip-range=10.0.0.0/8,11.0.0.0/8,12.0.0.0/8"],
            "service-cluster-ip-range",
            "10.0.0.0/8,11.0.0.0/8,12.0.0.0/8",
            "one or two",
        ),
        (
            &["--service-cluster-ip-range=fd00::/108"],
            "service-cluster-ip-range",
            "fd00::/108",
            "--enable-ipv6=false",
        ),
        (
            &["--service-external-ip-range=fd00::/64"],
            "service-external-ip-range",
            "fd00::/64",
            "family is off",
        ),
        (&["--loadbalancer-ip-range=10.0.0.0/33"], "loadbalancer-ip-range", "10.0.0.0/33", "not a CIDR"),
        (
            &["--enable-ipv6", "--enable-ipv4=false", "--loadbalancer-ip-range=10.0.0.0/8"],
            "loadbalancer-ip-range",
            "10.0.0.0/8",
            "--enable-ipv4=false",
        ),
        (&["--service-node-port-range=30000"], "service-node-port-range", "30000", "range of ports"),
        (&["--service-node-port-range=-32767"], "service-node-port-range", "-32767", "range of ports"),
        (&["--service-node-port-range=+1-2"], "service-node-port-range", "+1-2", "range of ports"),
        (&["--service-node-port-range=1-2-3"], "service-node-port-range", "1-2-3", "range of ports"),
        (&["--service-node-port-range=2:1"], "service-node-port-range", "2:1", "below the last"),
        (&["--service-node-port-range=5-5"], "service-node-port-range", "5-5", "below the last"),
        (&["--service-node-port-range=1-65536"], "service-node-port-range", "1-65536", "65535"),
        (&["--firewall-backend=nft"], "firewall-backend", "nft", "neither auto, iptables nor nftables"),
        (
            &["--firewall-backend=iptables", "--use-nftables-for-netpol"],
            "firewall-backend",
            "iptables",
            "--use-nftables-for-netpol says nftables",
        ),
        (&["--overlay-type=Full"], "overlay-type", "Full", "neither subnet nor full"),
        (&["--overlay-encap=gre"], "overlay-encap", "gre", "neither ipip nor fou"),
        (&["--overlay-encap-port=1023"], "overlay-encap-port", "1023", "1024 or more"),
        (&["--cluster-asn=100"], "cluster-asn", "100", "not private"),
        (&["--cluster-asn=4294967296"], "cluster-asn", "4294967296", "not an AS number"),
        (&["--bgp-port=0"], "bgp-port", "0", "1 to 65535"),
        (&["--bgp-port=65536"], "bgp-port", "65536", "1 to 65535"),
        (&["--bgp-max-prefixes=4294967296"], "bgp-max-prefixes", "4294967296", "32 bits"),
        (&["--bgp-max-prefixes=-1"], "bgp-max-prefixes", "-1", "whole number"),
        (&["--bgp-holdtime=2s"], "bgp-holdtime", "2s", "3s or more"),
        (&["--bgp-holdtime=65536s"], "bgp-holdtime", "18h12m16s", "at most 65535s"),
        (
            &["--bgp-graceful-restart", "--bgp-graceful-restart-time=4096s"],
            "bgp-graceful-restart-time",
            "1h8m16s",
            "4095s",
        ),
        (
            &["--bgp-graceful-restart", "--bgp-graceful-restart-deferral-time=0"],
            "bgp-graceful-restart-deferral-time",
            "0s",
            "1s or more",
        ),
        (&["--router-id=fd00::1"], "router-id", "fd00::1", "IPv4"),
        (&["--peer-router-ips=192.0.2.300"], "peer-router-ips", "192.0.2.300", "not an IP address"),
        (&["--peer-router-ips=192.0.2.1"], "peer-router-asns", "", "has 0 items, --peer-router-ips has 1"),
        (&["--peer-router-asns=65000"], "peer-router-asns", "65000", "has 1 items, --peer-router-ips has 0"),
        (
            &["--peer-router-ips=192.0.2.1", "--peer-router-asns=23456"],
            "peer-router-asns",
            "23456",
            "reserved",
        ),
        (
            &["--peer-router-ips=192.0.2.1", "--peer-router-asns=0xfde8"],
            "peer-router-asns",
            "0xfde8",
            "decimal",
        ),
        (
            &["--peer-router-ips=192.0.2.1", "--peer-router-asns=65000", "--peer-router-ports=1,2"],
            "peer-router-ports",
            "1,2",
            "has 2 items",
        ),
        (
            &["--peer-router-ips=192.0.2.1", "--peer-router-asns=65000", "--peer-router-ports=70000"],
            "peer-router-ports",
            "70000",
            "1 to 65535",
        ),
        (
            &["--peer-router-ips=192.0.2.1", "--peer-router-asns=65000", "--peer-router-passwords=hunter2!"],
            "peer-router-passwords",
            "***",
            "item 1 is not the base64",
        ),
        (&["--peer-router-passwords=hunter2,\"x"], "peer-router-passwords", "***", "quotes"),
        (&["--peer-router-passwords=aHVudGVyMg=="], "peer-router-passwords", "***", "has 1 items"),
        (&["--peer-router-multihop-ttl=256"], "peer-router-multihop-ttl", "256", "8 bits"),
        (&["--bfd-port=0"], "bfd-port", "0", "1 to 65535"),
        (&["--bfd-detection-multiplier=256"], "bfd-detection-multiplier", "256", "1 to 255"),
        (&["--bfd-desired-min-tx-interval=0"], "bfd-desired-min-tx-interval", "0", "1 to 4294967"),
        (
            &["--bfd-required-min-rx-interval=4294968"],
            "bfd-required-min-rx-interval",
            "4294968",
            "1 to 4294967",
        ),
        (&["--gobgp-admin-address=localhost"], "gobgp-admin-address", "localhost", "not an IP address"),
        (&["--peer-router=192.0.2.1", "--peer-router-ips=192.0.2.2"], "peer-router", "…", "means the same"),
        (&["--cluster-cidr=fd00::/48"], "cluster-cidr", "fd00::/48", "family is off"),
    ];
    for (flags, flag, value, reason) in cases {
        let refusal = refusal(flags);
        assert_eq!(refusal.exit_code(), 2, "{flags:?}");
        let Refusal::BadFlag(bad) = &refusal else { panic!("{flags:?}: {refusal}") };
        assert_eq!((bad.flag.as_str(), bad.value.as_str()), (*flag, *value), "{flags:?}: {refusal}");
        assert!(bad.reason.contains(reason), "{flags:?}: {refusal}");
        assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
    }
}

#[test]
fn upstreams_nftables_flag_is_ours_for_everything() {
    for (flags, backend) in [
        (&[][..], FirewallBackend::Auto),
        (&["--use-nftables-for-netpol=false"], FirewallBackend::Auto),
        (&["--use-nftables-for-netpol"], FirewallBackend::Nftables),
        (&["--use-nftables-for-netpol", "--firewall-backend=nftables"], FirewallBackend::Nftables),
        (&["--firewall-backend=iptables", "--use-nftables-for-netpol=false"], FirewallBackend::Iptables),
    ] {
        assert_eq!(options(flags).firewall, backend, "{flags:?}");
    }
}

#[test]
fn syntax_errors_say_what_is_missing_or_unknown() {
    for (flags, text, code) in [
        (&["--no-such-flag"][..], "unknown flag --no-such-flag", 2),
        (&["--no-such-flag=1"], "unknown flag --no-such-flag", 2),
        (&["-kubeconfig", "x"], "unknown flag -k", 2),
        (&["--bgp-port"], "--bgp-port needs a value", 2),
        (&["start"], "unexpected argument \"start\": kube-router takes flags only", 1),
        (&["--", "--bgp-port=1"], "unexpected argument \"--bgp-port=1\": kube-router takes flags only", 1),
    ] {
        let refusal = refusal(flags);
        assert_eq!((refusal.to_string().as_str(), refusal.exit_code()), (text, code), "{flags:?}");
    }
}
