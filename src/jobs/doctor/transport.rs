//! Connections: flags, what they name, and what answers without them.

use super::{Adder, Attempt, Check, Layer, Options, Outcome, Probe, Prober, Program, certificates};
use crate::profile::Datastore;

/// A flag that has to name something, or to be on or off.
enum Wanted {
    Named,
    On,
    NotOn,
}

type Rule = (&'static str, &'static [&'static str], &'static [&'static str], Wanted);

/// Of kube-apiserver.
const API: [Rule; 6] = [
    ("apiserver-etcd-client-cert", &["1.2.23"], &["etcd-certfile", "etcd-keyfile"], Wanted::Named),
    ("apiserver-etcd-ca", &["1.2.26"], &["etcd-cafile"], Wanted::Named),
    (
        "apiserver-serving-cert",
        &["1.2.24"],
        &["tls-cert-file", "tls-private-key-file"],
        Wanted::Named,
    ),
    ("apiserver-client-ca", &["1.2.25"], &["client-ca-file"], Wanted::Named),
    (
        "apiserver-kubelet-client-cert",
        &["1.2.4"],
        &["kubelet-client-certificate", "kubelet-client-key"],
        Wanted::Named,
    ),
    ("apiserver-kubelet-ca", &["1.2.5"], &["kubelet-certificate-authority"], Wanted::Named),
];

/// Of etcd.
const ETCD: [Rule; 8] = [
    ("etcd-server-cert", &["2.1"], &["cert-file", "key-file"], Wanted::Named),
    ("etcd-client-cert-auth", &["2.2"], &["client-cert-auth"], Wanted::On),
    ("etcd-trusted-ca", &["2.2"], &["trusted-ca-file"], Wanted::Named),
    ("etcd-auto-tls", &["2.3"], &["auto-tls"], Wanted::NotOn),
    ("etcd-peer-cert", &["2.4"], &["peer-cert-file", "peer-key-file"], Wanted::Named),
    ("etcd-peer-client-cert-auth", &["2.5"], &["peer-client-cert-auth"], Wanted::On),
    ("etcd-peer-trusted-ca", &["2.5"], &["peer-trusted-ca-file"], Wanted::Named),
    ("etcd-peer-auto-tls", &["2.6"], &["peer-auto-tls"], Wanted::NotOn),
];

pub(super) fn check(
    options: &Options<'_>,
    api: Option<&Program>,
    etcd: Option<&Program>,
    probe: Option<&mut Prober<'_>>,
    checks: &mut Vec<Check>,
) {
    let mut add = Adder { layer: Layer::Transport, checks };
    match api {
        Some(api) => {
            rules(&mut add, api, "kube-apiserver", &API);
            let servers = api.flags.list("etcd-servers");
            let open: Vec<_> = servers.iter().filter(|s| s.starts_with("http://")).collect();
            let result = match (servers.is_empty(), open.is_empty()) {
                (true, _) => Outcome::Unknown,
                (_, true) => Outcome::Pass,
                (_, false) => Outcome::Fail,
            };
            let remedy = "kube-apiserver: --etcd-servers=https://…";
            add.add("apiserver-etcd-https", &[], result, vec![api.says("etcd-servers")], remedy);
            let weak = api
                .flags
                .last("tls-min-version")
                .is_some_and(|v| matches!(v, "VersionTLS10" | "VersionTLS11"));
            let result = if weak { Outcome::Fail } else { Outcome::Pass };
            let evidence = vec![api.says("tls-min-version"), api.says("tls-cipher-suites")];
            add.add(
                "apiserver-tls-version",
                &["1.2.29"],
                result,
                evidence,
                "kube-apiserver: --tls-min-version=VersionTLS12",
            );
        }
        None => add.add(
            "apiserver-flags",
            &["1.2.23", "1.2.24", "1.2.25", "1.2.26"],
            Outcome::Unknown,
            vec!["neither a manifest nor a process of kube-apiserver was found".to_owned()],
            "",
        ),
    }
    match etcd {
        Some(etcd) => {
            rules(&mut add, etcd, "etcd", &ETCD);
            urls(&mut add, etcd);
            own_ca(options, &mut add, api, etcd);
        }
        None => add.add(
            "etcd-flags",
            &["2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "2.7"],
            Outcome::Unknown,
            vec!["neither a manifest nor a process of etcd was found".to_owned()],
            "",
        ),
    }
    certificates::check(options, api, etcd, &mut add);
    let differs: Vec<String> =
        [api, etcd].into_iter().flatten().flat_map(|p| p.differs.clone()).collect();
    if [api, etcd].into_iter().flatten().any(|p| p.from.starts_with("process")) {
        let result = if differs.is_empty() { Outcome::Pass } else { Outcome::Warn };
        let same = || vec!["the running processes have the flags of their manifests".to_owned()];
        let evidence = if differs.is_empty() { same() } else { differs };
        add.add(
            "flags-in-force",
            &[],
            result,
            evidence,
            "restart what runs with other flags than its file says",
        );
    }
    if let Some(probe) = probe {
        probes(options, &mut add, probe);
    }
}

fn rules(add: &mut Adder<'_>, program: &Program, name: &str, rules: &[Rule]) {
    for (id, cis, flags, wanted) in rules {
        let fits = |flag: &&&str| match wanted {
            Wanted::Named => program.flags.last(flag).is_some_and(|v| !v.is_empty()),
            Wanted::On => program.flags.on(flag) == Some(true),
            Wanted::NotOn => program.flags.on(flag) != Some(true),
        };
        let wrong: Vec<_> = flags.iter().filter(|f| !fits(f)).collect();
        let result = if wrong.is_empty() { Outcome::Pass } else { Outcome::Fail };
        let set = |flag: &&&str| match wanted {
            Wanted::Named => format!("--{flag}=FILE"),
            Wanted::On => format!("--{flag}=true"),
            Wanted::NotOn => format!("--{flag}=false"),
        };
        let remedy: Vec<_> = wrong.iter().map(set).collect();
        let evidence = flags.iter().map(|f| program.says(f)).collect();
        add.add(id, cis, result, evidence, format!("{name}: {}", remedy.join(" ")));
    }
}

/// Where etcd listens and says that it does.
fn urls(add: &mut Adder<'_>, etcd: &Program) {
    let flags = [
        "listen-client-urls",
        "advertise-client-urls",
        "listen-peer-urls",
        "initial-advertise-peer-urls",
    ];
    let open = |flag: &str| etcd.flags.list(flag).iter().any(|u| u.starts_with("http://"));
    let wrong: Vec<_> = flags.iter().filter(|f| open(f)).map(|f| etcd.says(f)).collect();
    // etcd's own defaults are http.
    let unset: Vec<_> =
        flags.iter().filter(|f| etcd.flags.last(f).is_none()).map(|f| etcd.says(f)).collect();
    let result = match (wrong.is_empty(), unset.is_empty()) {
        (false, _) | (_, false) => Outcome::Fail,
        _ => Outcome::Pass,
    };
    let all = || flags.iter().map(|f| etcd.says(f)).collect();
    let evidence = if result == Outcome::Pass { all() } else { [wrong, unset].concat() };
    add.add(
        "etcd-https-urls",
        &["2.1", "2.4"],
        result,
        evidence,
        "etcd: https:// in each of these",
    );
    if etcd.flags.last("listen-metrics-urls").is_some() {
        let local = |u: &&str| {
            u.contains("://127.") || u.contains("://localhost") || u.contains("://[::1]")
        };
        let listed = etcd.flags.list("listen-metrics-urls");
        let fine = listed.iter().all(|u| u.starts_with("https://") || local(u));
        let result = if fine { Outcome::Pass } else { Outcome::Warn };
        add.add(
            "etcd-metrics",
            &[],
            result,
            vec![etcd.says("listen-metrics-urls")],
            "etcd: --listen-metrics-urls=http://127.0.0.1:2381",
        );
    }
}

/// A CA of etcd's own: who has any certificate of the cluster's would be let in else.
fn own_ca(options: &Options<'_>, add: &mut Adder<'_>, api: Option<&Program>, etcd: &Program) {
    let read = |program: &Program, flag: &str| {
        let path = program.file(options, flag)?;
        Some((path.display().to_string(), std::fs::read(&path).ok()?))
    };
    let theirs = read(etcd, "trusted-ca-file");
    let clusters = api.and_then(|api| read(api, "client-ca-file"));
    let (result, evidence) = match (theirs, clusters) {
        (Some((a, of_etcd)), Some((b, of_cluster))) => {
            let same = of_etcd == of_cluster;
            let word = if same { "the same" } else { "another" };
            let result = if same { Outcome::Fail } else { Outcome::Pass };
            (
                result,
                format!("{a} is {word} CA than {b}").replace("the same CA than", "the same CA as"),
            )
        }
        _ => (
            Outcome::Unknown,
            "the CAs of etcd and of the API server's clients are not both here".to_owned(),
        ),
    };
    add.add("etcd-own-ca", &["2.7"], result, vec![evidence], "give etcd a CA of its own");
}

fn probes(options: &Options<'_>, add: &mut Adder<'_>, probe: &mut Prober<'_>) {
    let Some(Datastore::Endpoints(endpoints)) = options.found.source.as_ref().map(|s| &s.value)
    else {
        return;
    };
    for (id, cis, attempt, remedy) in [
        (
            "etcd-refuses-no-certificate",
            &["2.2"][..],
            Attempt::WithoutCertificate,
            "etcd: --client-cert-auth=true --trusted-ca-file=FILE",
        ),
        (
            "etcd-refuses-plain-http",
            &["2.1"][..],
            Attempt::WithoutTls,
            "etcd: --listen-client-urls=https://…",
        ),
    ] {
        let (mut result, mut evidence) = (Outcome::Pass, Vec::new());
        for endpoint in endpoints {
            let (one, text) = match probe(endpoint, attempt) {
                Probe::Served => (Outcome::Fail, format!("{endpoint} served a read")),
                Probe::Refused(why) => (Outcome::Pass, format!("{endpoint}: {why}")),
                Probe::NoAnswer(why) => (Outcome::Unknown, format!("{endpoint}: {why}")),
            };
            result = result.max(one);
            evidence.push(text);
        }
        add.add(id, cis, result, evidence, remedy);
    }
}
