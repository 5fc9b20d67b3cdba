//! Is this machine's encryption at rest real? Every layer that it rests on, checked one by one, by
//! what is there and not by what a flag promises. Reads only.
//!
//! | file | layer |
//! | --- | --- |
//! | `filesystem` | modes and owners, encrypted block devices, swap, backups, room |
//! | `device` | from a path to the block devices under it, by `/proc` and `/sys` |
//! | `transport` | flags of kube-apiserver and etcd, certificates, what answers without them |
//! | `certificates` | of the transport: when certificates end, their keys, names and authorities |
//! | `application` | the configuration, what is stored, the audit policy, versions |
//! | `apiserver` | what running API servers say that they have loaded and done |
//!
//! Identifiers of checks are those of the CIS Kubernetes Benchmark where it has one.

#[cfg(feature = "live")]
mod apiserver;
mod application;
mod certificates;
mod device;
mod filesystem;
mod transport;

use std::path::PathBuf;

use super::Observer;
use crate::profile::{Distribution, Flags, Found, Host, Mounts};
use crate::source::Source;

/// Where a check belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Files and the devices under them.
    Filesystem,
    /// Connections.
    Transport,
    /// What the API server does, and what is stored.
    Application,
    /// What the running API servers say.
    Apiserver,
}

impl Layer {
    /// The word in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filesystem => "filesystem",
            Self::Transport => "transport",
            Self::Application => "application",
            Self::Apiserver => "apiserver",
        }
    }
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// As it should be.
    Pass,
    /// It could not be decided.
    Unknown,
    /// It should be better.
    Warn,
    /// It is not encrypted, or open.
    Fail,
}

impl Outcome {
    /// The word in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, which stays.
    pub id: &'static str,
    /// Where it belongs.
    pub layer: Layer,
    /// How it ended.
    pub result: Outcome,
    /// What that rests on: files, flags, counts. Nothing secret.
    pub evidence: Vec<String>,
    /// What makes it pass, as a command where there is one.
    pub remedy: Option<String>,
    /// Checks of the CIS Kubernetes Benchmark (1.9) that it answers.
    pub cis: &'static [&'static str],
}

/// What an attempt to connect came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The server served a read.
    Served,
    /// It refused, for want of what was left out.
    Refused(String),
    /// Nobody knows: there was no connection.
    NoAnswer(String),
}

/// How to connect for a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// TLS without a client certificate.
    WithoutCertificate,
    /// No TLS at all.
    WithoutTls,
}

/// Asks a server by its endpoint.
pub type Prober<'p> = dyn FnMut(&str, Attempt) -> Probe + 'p;

/// What is examined.
pub struct Options<'a> {
    /// The machine.
    pub host: &'a Host,
    /// Its distribution.
    pub distribution: Distribution,
    /// What its files and processes say of the storage.
    pub found: &'a Found,
    /// Configurations of the other API servers, to compare with.
    pub confirm: &'a [PathBuf],
    /// The certificate, in DER, that the server at an endpoint shows, or why there is none.
    pub shown: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
    /// How the caller is told to do something itself.
    pub command: &'a dyn Fn(Act<'_>) -> String,
}

/// What the caller can do so that a check passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act<'a> {
    /// Make a configuration that encrypts.
    NewConfig,
    /// Say what is wrong with the configuration at this place.
    CheckConfig(&'a str),
    /// Let another provider write.
    AddProvider,
    /// Say how entries are stored.
    Scan,
    /// Rewrite what is stored otherwise than the configuration says.
    Migrate,
    /// Say what removes old plaintext.
    Residue,
    /// Save the backup of a migration elsewhere.
    BackupElsewhere,
    /// Say what snapshots hold.
    ScanSnapshots,
    /// Make new certificates.
    RenewCertificates,
    /// Ask the running API servers too.
    AskApiServers,
    /// Decrypt every entry, and say which cannot be read.
    Verify,
}

/// A program of the control plane: flags in force, and what its container sees of the host.
struct Program {
    flags: Flags,
    from: String,
    mounts: Mounts,
    /// Flags that its file has otherwise.
    differs: Vec<String>,
    image: Option<String>,
}

/// Runs every check. `source` is the open source, or why there is none; `probe` connects, where
/// this is the running machine; `apiservers` are asked for what they have loaded.
pub fn run(
    options: &Options<'_>,
    mut source: Result<&mut dyn Source, String>,
    probe: Option<&mut Prober<'_>>,
    #[cfg(feature = "live")] apiservers: Option<Vec<crate::apiserver::Client>>,
    observer: &mut dyn Observer,
) -> Vec<Check> {
    let api = program(options, "kube-apiserver");
    let etcd = program(options, "etcd");
    let mut checks = Vec::new();
    filesystem::check(options, etcd.as_ref(), &mut checks);
    transport::check(options, api.as_ref(), etcd.as_ref(), probe, &mut checks);
    let opened = match &mut source {
        Ok(source) => Ok(&mut **source as &mut dyn Source),
        Err(why) => Err(why.clone()),
    };
    let programs = (api.as_ref(), etcd.as_ref());
    let loaded = application::check(options, programs, opened, observer, &mut checks);
    #[cfg(feature = "live")]
    apiserver::check(options, apiservers, loaded, source.ok(), observer, &mut checks);
    #[cfg(not(feature = "live"))]
    drop(loaded);
    checks
}

/// Manifests of a program, where distributions keep them.
fn manifests(options: &Options<'_>, name: &str) -> Vec<PathBuf> {
    let host = options.host;
    let places: &[&str] = match options.distribution {
        Distribution::Rke2 => &["/var/lib/rancher/rke2/agent/pod-manifests"],
        _ => &["/etc/kubernetes/manifests"],
    };
    let endings = [".yaml", ".manifest", "-pod.yaml"];
    let mut all: Vec<PathBuf> = places
        .iter()
        .flat_map(|p| endings.iter().map(move |e| host.at(format!("{p}/{name}{e}"))))
        .collect();
    if name == "etcd" {
        all.extend(places.iter().map(|p| host.at(format!("{p}/etcd-main.yaml"))));
    }
    all.retain(|p| p.is_file());
    all
}

fn program(options: &Options<'_>, name: &str) -> Option<Program> {
    let file = manifests(options, name).into_iter().find_map(|path| {
        let text = std::fs::read_to_string(&path).ok()?;
        let (flags, mounts) = crate::profile::program(&text, name).ok()??;
        let image = text
            .lines()
            .filter_map(|l| l.trim().trim_start_matches("- ").strip_prefix("image:"))
            .map(|i| i.trim().trim_matches(['"', '\'']).to_owned())
            .find(|i| i.contains(name));
        Some((flags, mounts, path.display().to_string(), image))
    });
    let running = crate::profile::running(&options.host.at("/proc"), name);
    let process = running.iter().find_map(|p| {
        let flags = p.flags(name);
        (!flags.is_empty()).then_some((flags, format!("process {}", p.pid)))
    });
    match (process, file) {
        (None, None) => None,
        (None, Some((flags, mounts, from, image))) => {
            Some(Program { flags, from, mounts, differs: Vec::new(), image })
        }
        (Some((flags, from)), None) => Some(Program {
            flags,
            from,
            mounts: Mounts::default(),
            differs: Vec::new(),
            image: None,
        }),
        (Some((flags, from)), Some((written, mounts, path, image))) => {
            let differs = flags.differing(&written);
            let differs =
                differs.iter().map(|name| format!("--{name}: {from} and {path}")).collect();
            Some(Program { flags, from, mounts, differs, image })
        }
    }
}

impl Program {
    /// A flag with where it stands, for evidence.
    fn says(&self, name: &str) -> String {
        match self.flags.last(name) {
            Some(value) => format!("--{name}={value} ({})", self.from),
            None => format!("--{name} is not set ({})", self.from),
        }
    }

    /// A file that a flag names, on the host.
    fn file(&self, options: &Options<'_>, name: &str) -> Option<PathBuf> {
        let path = self.flags.last(name).filter(|v| !v.is_empty())?;
        let host = self.mounts.host(std::path::Path::new(path)).ok()?;
        Some(options.host.at(host))
    }
}

/// Adds checks of one layer.
struct Adder<'c> {
    layer: Layer,
    checks: &'c mut Vec<Check>,
}

impl Adder<'_> {
    fn add(
        &mut self,
        id: &'static str,
        cis: &'static [&'static str],
        result: Outcome,
        evidence: Vec<String>,
        remedy: impl Into<String>,
    ) {
        let remedy = (result != Outcome::Pass).then(|| remedy.into()).filter(|r| !r.is_empty());
        self.checks.push(Check { id, layer: self.layer, result, evidence, remedy, cis });
    }
}
