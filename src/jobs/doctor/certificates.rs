//! The certificates that flags name, and those that servers show.

use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;

use super::{Act, Adder, Options, Outcome, Program};
use crate::certificate::{self, Certificate, SOON};
use crate::profile::Datastore;

/// Flags of kube-apiserver and of etcd that name certificates or authorities.
const API: [&str; 6] = [
    "tls-cert-file",
    "etcd-certfile",
    "kubelet-client-certificate",
    "client-ca-file",
    "etcd-cafile",
    "kubelet-certificate-authority",
];
const ETCD: [&str; 4] = ["cert-file", "peer-cert-file", "trusted-ca-file", "peer-trusted-ca-file"];
/// Longest way from a certificate to an authority.
const LONGEST: usize = 8;

/// What a flag names.
struct Named {
    program: &'static str,
    flag: &'static str,
    path: PathBuf,
    found: Vec<Certificate>,
    /// Why there is none.
    missing: Option<String>,
}

/// Checks the files, and the certificates that etcd's members show.
pub(super) fn check(
    options: &Options<'_>,
    api: Option<&Program>,
    etcd: Option<&Program>,
    add: &mut Adder<'_>,
) {
    let mut all = Vec::new();
    for (program, name, flags) in [(api, "kube-apiserver", &API[..]), (etcd, "etcd", &ETCD[..])] {
        let Some(program) = program else { continue };
        all.extend(flags.iter().filter_map(|flag| named(options, program, name, flag)));
    }
    if !all.is_empty() {
        valid(options, add, &all);
        keys(options, add, &all);
        chains(options, add, &all);
    }
    let server = all.iter().find(|n| n.program == "etcd" && n.flag == "cert-file");
    let server = server.and_then(|n| Some((n, n.found.first()?)));
    if let (Some(etcd), Some((file, leaf))) = (etcd, server) {
        names(options, add, etcd, file, leaf);
    }
    in_use(options, add, server.map(|(_, leaf)| leaf));
}

fn named(
    options: &Options<'_>,
    program: &Program,
    name: &'static str,
    flag: &'static str,
) -> Option<Named> {
    let path = program.file(options, flag)?;
    let (found, missing) = match std::fs::read(&path) {
        Ok(bytes) => (certificate::in_pem(&bytes), "it holds no certificate".to_owned()),
        Err(e) => (Vec::new(), e.to_string()),
    };
    let missing = found.is_empty().then_some(missing);
    Some(Named { program: name, flag, path, found, missing })
}

impl Named {
    fn place(&self) -> String {
        format!("{} (--{} of {})", self.path.display(), self.flag, self.program)
    }
}

/// How the validity of one is to be judged, where there is something to say.
fn when(certificate: &Certificate) -> Option<(Outcome, String)> {
    let now = Timestamp::now();
    let Certificate { subject, starts, ends, .. } = certificate;
    if now < *starts {
        Some((Outcome::Fail, format!("{subject} is not valid before {starts}")))
    } else if *ends < now {
        Some((Outcome::Fail, format!("{subject} ended {ends}")))
    } else if ends.as_second() - now.as_second() < SOON {
        Some((Outcome::Warn, format!("{subject} ends {ends}")))
    } else {
        None
    }
}

fn valid(options: &Options<'_>, add: &mut Adder<'_>, all: &[Named]) {
    let (mut result, mut evidence) = (Outcome::Pass, Vec::new());
    for named in all {
        let told = named.missing.iter().map(|why| (Outcome::Unknown, why.clone()));
        for (one, text) in told.chain(named.found.iter().filter_map(when)) {
            result = result.max(one);
            evidence.push(format!("{}: {text}", named.place()));
        }
    }
    let found = all.iter().flat_map(|n| n.found.iter().map(move |c| (n, c)));
    if let Some((named, first)) = found.clone().min_by_key(|(_, c)| c.ends) {
        let all = found.count();
        let certificates = if all == 1 { "certificate" } else { "certificates" };
        let (subject, ends, place) = (&first.subject, first.ends, named.place());
        evidence
            .push(format!("{all} {certificates}, of which {subject} ends first: {ends}, {place}"));
    }
    let remedy = (options.command)(Act::RenewCertificates);
    add.add("certificates-valid", &[], result, evidence, remedy);
}

fn keys(options: &Options<'_>, add: &mut Adder<'_>, all: &[Named]) {
    let (mut result, mut evidence) = (Outcome::Pass, Vec::new());
    for named in all {
        for one in &named.found {
            // A root is trusted for what it is, not for its signature.
            let hash = one.weak_hash && one.subject != one.issuer;
            let words = format!("{}: {}, {}", named.place(), one.subject, one.key);
            if one.key.is_weak() {
                result = Outcome::Fail;
                evidence.push(format!("{words}: shorter than is safe"));
            } else if hash {
                result = result.max(Outcome::Warn);
                evidence.push(format!("{words}: signed over SHA-1 or MD5"));
            } else if matches!(one.key, certificate::Key::Other(_)) {
                result = result.max(Outcome::Unknown);
                evidence.push(words);
            }
        }
    }
    let found = all.iter().flat_map(|n| &n.found);
    let mut kinds: Vec<String> = found.map(|c| c.key.to_string()).collect();
    kinds.sort();
    kinds.dedup();
    if kinds.is_empty() {
        result = Outcome::Unknown;
        evidence.push("no certificate could be read".to_owned());
    } else {
        evidence.push(format!("keys: {}", kinds.join(", ")));
    }
    let remedy = (options.command)(Act::RenewCertificates);
    add.add("certificate-keys", &[], result, evidence, remedy);
}

/// Whether the first certificate of a file leads to one of the authorities; `None` where a
/// signature cannot be computed.
fn leads(chain: &[Certificate], authorities: &[Certificate]) -> Option<bool> {
    let mut current = chain.first()?;
    for _ in 0..LONGEST {
        let mut unsure = false;
        for authority in authorities {
            match current.signed_by(authority) {
                Some(true) => return Some(true),
                Some(false) => {}
                None => unsure = true,
            }
        }
        if unsure {
            return None;
        }
        match chain.iter().find(|c| *c != current && current.signed_by(c) == Some(true)) {
            Some(next) => current = next,
            None => return Some(false),
        }
    }
    Some(false)
}

/// What has to be signed by whom, so that the two sides trust each other.
fn chains(options: &Options<'_>, add: &mut Adder<'_>, all: &[Named]) {
    const PAIRS: [(&str, &str, &str, &str); 3] = [
        ("etcd", "cert-file", "kube-apiserver", "etcd-cafile"),
        ("kube-apiserver", "etcd-certfile", "etcd", "trusted-ca-file"),
        ("etcd", "peer-cert-file", "etcd", "peer-trusted-ca-file"),
    ];
    let of = |program: &str, flag: &str| {
        all.iter().find(|n| n.program == program && n.flag == flag && n.missing.is_none())
    };
    let (mut result, mut evidence) = (Outcome::Pass, Vec::new());
    for (program, flag, by, authority) in PAIRS {
        let (Some(leaf), Some(authority)) = (of(program, flag), of(by, authority)) else {
            continue;
        };
        let (leaf_at, at) = (leaf.place(), authority.path.display());
        let (one, text) = match leads(&leaf.found, &authority.found) {
            Some(true) => (Outcome::Pass, format!("{leaf_at} is signed by {at}")),
            Some(false) => (
                Outcome::Fail,
                format!("{leaf_at}, of {}, is not signed by {at}", leaf.found[0].issuer),
            ),
            None => (Outcome::Unknown, format!("{leaf_at}: its signature cannot be checked here")),
        };
        result = result.max(one);
        evidence.push(text);
    }
    if evidence.is_empty() {
        result = Outcome::Unknown;
        evidence.push("no certificate is here together with its authority".to_owned());
    }
    let remedy = (options.command)(Act::RenewCertificates);
    add.add("certificate-chains", &[], result, evidence, remedy);
}

/// The host of a URL, unless it stands for all addresses.
fn host(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or_default();
    let host = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
        Some((host, _)) => host,
        None => rest.rsplit_once(':').map_or(rest, |(host, _)| host),
    };
    let everywhere = host.parse::<IpAddr>().is_ok_and(|a| a.is_unspecified());
    (!host.is_empty() && !everywhere).then(|| host.to_owned())
}

/// Whether clients that verify names accept etcd's certificate at the addresses it tells them.
fn names(
    options: &Options<'_>,
    add: &mut Adder<'_>,
    etcd: &Program,
    file: &Named,
    leaf: &Certificate,
) {
    let flags = ["advertise-client-urls", "listen-client-urls"];
    let mut hosts: Vec<String> = flags
        .iter()
        .flat_map(|f| etcd.flags.list(f))
        .filter(|url| url.starts_with("https://"))
        .filter_map(host)
        .collect();
    hosts.sort();
    hosts.dedup();
    let missing: Vec<_> = hosts.iter().filter(|h| !leaf.is_for(h)).cloned().collect();
    let at = file.place();
    let (result, evidence) = if hosts.is_empty() {
        (Outcome::Unknown, "etcd's flags name no address".to_owned())
    } else if missing.is_empty() {
        (Outcome::Pass, format!("{at} is for {}", hosts.join(", ")))
    } else {
        let (missing, names) = (missing.join(", "), leaf.names.join(", "));
        (Outcome::Fail, format!("{at} is not for {missing}; it is for {names}"))
    };
    let remedy = (options.command)(Act::RenewCertificates);
    add.add("etcd-cert-names", &[], result, vec![evidence], remedy);
}

/// What the members show, which may be another certificate than the file's.
fn in_use(options: &Options<'_>, add: &mut Adder<'_>, file: Option<&Certificate>) {
    let Some(Datastore::Endpoints(endpoints)) = options.found.source.as_ref().map(|s| &s.value)
    else {
        return;
    };
    let (mut result, mut evidence) = (Outcome::Pass, Vec::new());
    for endpoint in endpoints.iter().filter(|e| !e.starts_with("http://")) {
        let shown = (options.shown)(endpoint).and_then(|der| {
            Certificate::from_der(&der).ok_or_else(|| "its certificate is malformed".to_owned())
        });
        let shown = match shown {
            Ok(shown) => shown,
            Err(why) => {
                result = result.max(Outcome::Unknown);
                evidence.push(format!("{endpoint}: {why}"));
                continue;
            }
        };
        let Certificate { subject, issuer, ends, key, .. } = &shown;
        let words = format!("{endpoint} shows {subject} of {issuer}, {key}, until {ends}");
        let (mut one, mut text) = when(&shown)
            .map_or((Outcome::Pass, words.clone()), |(one, why)| (one, format!("{words}: {why}")));
        if shown.key.is_weak() {
            (one, text) = (Outcome::Fail, format!("{text}: the key is shorter than is safe"));
        }
        // One endpoint is this machine's member; others have certificates of their own.
        if endpoints.len() == 1 && file.is_some_and(|f| *f != shown) {
            one = one.max(Outcome::Warn);
            text = format!("{text}: another one than --cert-file of etcd");
        }
        result = result.max(one);
        evidence.push(text);
    }
    if evidence.is_empty() {
        return;
    }
    let remedy = (options.command)(Act::RenewCertificates);
    add.add("etcd-cert-in-use", &[], result, evidence, remedy);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_urls() {
        let some = |url: &str| host(url).unwrap();
        assert_eq!(some("https://10.0.0.1:2379"), "10.0.0.1");
        assert_eq!(some("https://[fd00::1]:2379/"), "fd00::1");
        assert_eq!(some("https://etcd-0.example"), "etcd-0.example");
        assert_eq!(host("https://0.0.0.0:2379"), None);
        assert_eq!(host("https://[::]:2379"), None);
    }
}
