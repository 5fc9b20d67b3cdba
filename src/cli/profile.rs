//! `--profile`: what a distribution's own files say stands in for options that were not given; and
//! `atrest profile`, which shows it.

use std::path::Path;

use super::args::{self, Group, Output, Profile, Shared};
use super::failure::profile::{failure, option};
use super::failure::{Exit, Failure};
use super::{Ctx, ui};
use crate::chain::chain;
use crate::profile::{Datastore, Distribution, Found, Host, ProfileError, Setting, find, present};
use crate::report::Format;
use crate::report::profile::Report;

/// Options of `profile`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    distribution: args::Distribution,
    #[command(flatten)]
    output: Output,
    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", default_value = "table", value_parser = args::formats(&[Format::Table, Format::Json]), help_heading = "Output")]
    write_out: Format,
}

impl Args {
    /// The options that commands share. The distribution is what this command is about, and
    /// fills in nothing.
    pub fn shared(&self) -> Shared {
        Shared::of(&[&self.output])
    }
}

/// Shows what was found and where each value came from: of one distribution, or of all that left
/// something on this machine.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let mut wanted = Shared::default();
    args.distribution.put(&mut wanted);
    let host =
        |profile| Host { root: wanted.root.clone(), profile, source: true, named: Vec::new() };
    let manifest = wanted.manifest.as_deref();
    let all = candidates(&wanted)?;
    let mut found = Vec::new();
    for (word, distribution) in all {
        match find(&host(word), distribution, manifest) {
            Ok(one) => found.push((word, one)),
            Err(e) if wanted.profile.is_some() => return Err(failure(&e, manifest)),
            Err(e) => ctx.ui.warn(&format!("{word}: {}", chain(&e))),
        }
    }
    if found.is_empty() {
        return Err(Failure::new("nothing that was found says where the objects are")
            .hint("name the distribution with --profile"));
    }
    for (word, one) in &found {
        for warning in &one.warnings {
            ctx.ui.warn(&format!("{word}: {warning}"));
        }
    }
    let report = Report { found: &found, option };
    ui::print(|out| report.write(args.write_out, ctx.ui.color, out))?;
    Ok(Exit::Ok)
}

/// The distribution that was named, or all that left something on the machine.
fn candidates(wanted: &Shared) -> Result<Vec<(&'static str, Distribution)>, Failure> {
    let manifest = wanted.manifest.as_deref();
    let host = Host { root: wanted.root.clone(), profile: "", source: true, named: Vec::new() };
    if let Some(profile) = wanted.profile {
        takes_manifest(profile, manifest)?;
        return Ok(vec![(profile.word(), profile.distribution())]);
    }
    let all: Vec<_> = if manifest.is_some() {
        vec![("kubeadm", Distribution::Kubeadm)]
    } else {
        present(&host).into_iter().map(|d| (d.as_str(), d)).collect()
    };
    if all.is_empty() {
        return Err(Failure::new("no Kubernetes control plane is known here").hint(
            "run on a control-plane node, or give --root DIR for the disk of one, or name the distribution with --profile",
        ));
    }
    Ok(all)
}

/// The one distribution that a command is about.
///
/// # Errors
/// When there is none, or several and none is named.
pub fn chosen(wanted: &Shared) -> Result<(&'static str, Distribution), Failure> {
    match candidates(wanted)?.as_slice() {
        [one] => Ok(*one),
        all => {
            let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
            let names = names.join(", ");
            Err(Failure::usage(format!("several distributions left something here: {names}"))
                .hint("name one with --profile"))
        }
    }
}

/// As [`find`], in words for a person.
///
/// # Errors
/// As there.
pub fn find_for(
    host: &Host,
    distribution: Distribution,
    manifest: Option<&Path>,
) -> Result<Found, Failure> {
    find(host, distribution, manifest).map_err(|e| failure(&e, manifest))
}

/// Fills in what `--profile` says and no option on the command line does. Variables of the
/// environment are no request: the profile counts more.
///
/// # Errors
/// When a file of the distribution is missing, cannot be read or does not say what is needed.
pub fn apply(ctx: &mut Ctx) -> Result<(), Failure> {
    let g = &ctx.global;
    let Some(profile) = g.profile else {
        return match (&g.manifest, &g.root) {
            (Some(_), _) => {
                Err(Failure::usage("--manifest says nothing without --profile kubeadm"))
            }
            (None, Some(_)) => Err(Failure::usage("--root says nothing without --profile")),
            (None, None) => Ok(()),
        };
    };
    takes_manifest(profile, g.manifest.as_deref())?;
    let host = Host {
        root: g.root.clone(),
        profile: profile.word(),
        source: g.takes_source && !g.is_file() && !ctx.given.has("endpoints"),
        named: not_needed(ctx),
    };
    let manifest = g.manifest.clone();
    let found = find(&host, profile.distribution(), manifest.as_deref())
        .map_err(|e| failure(&e, manifest.as_deref()))?;
    for warning in &found.warnings {
        ctx.ui.warn(warning);
    }
    fill(ctx, &host, found).map_err(|e| failure(&e, manifest.as_deref()))
}

/// Settings whose files a profile need not find: those that are given, and certificates where no
/// etcd is connected to.
fn not_needed(ctx: &Ctx) -> Vec<Setting> {
    let g = &ctx.global;
    let live = g.takes_source && !g.is_file();
    let given = |setting: Setting| match setting {
        Setting::Config => !g.encryption_config.is_empty(),
        other => !live || ctx.given.has(option(other).trim_start_matches('-')),
    };
    [Setting::CaCert, Setting::Cert, Setting::Key, Setting::Config]
        .into_iter()
        .filter(|setting| given(*setting))
        .collect()
}

fn takes_manifest(profile: Profile, manifest: Option<&Path>) -> Result<(), Failure> {
    let of_pods = matches!(profile.distribution(), Distribution::Kubeadm | Distribution::Kops);
    if manifest.is_some() && !of_pods {
        return Err(Failure::usage(
            "--manifest goes with --profile kubeadm, kind, minikube or kops only",
        ));
    }
    Ok(())
}

fn fill(ctx: &mut Ctx, host: &Host, found: Found) -> Result<(), ProfileError> {
    let given = ctx.given.clone();
    let g = &mut ctx.global;
    let mut live = g.takes_source && !g.is_file();
    if live {
        // An etcd that was named is examined; the others of the API server are not.
        let named: Vec<String> = match &found.source {
            _ if given.has("endpoints") => g.endpoints.clone(),
            Some(source) => match &source.value {
                Datastore::Endpoints(all) => all.clone(),
                _ => Vec::new(),
            },
            None => Vec::new(),
        };
        g.overrides = found.overrides_beside(&named);
    }
    if host.source {
        match found.source.map(|s| s.value) {
            Some(Datastore::Endpoints(endpoints)) => g.endpoints = endpoints,
            Some(Datastore::DataDir(dir)) => {
                g.data_dir = Some(dir);
                live = false;
            }
            Some(Datastore::Kine(path)) => {
                g.kine = Some(args::Kine::File(path));
                live = false;
            }
            Some(Datastore::Server(url)) => {
                ctx.global.kine = Some(args::Kine::Url(url));
                super::datastore::forget_variables(ctx);
            }
            None => {}
        }
    }
    let g = &mut ctx.global;
    if live {
        if let (Some(path), false) = (found.cacert, given.has("cacert")) {
            host.readable(&path.value, Setting::CaCert)?;
            g.cacert = Some(path.value);
        }
        // A certificate and its key go together.
        let own = given.has("cert") || given.has("key");
        if let (Some(cert), Some(key), false) = (found.cert, found.key, own) {
            host.readable(&cert.value, Setting::Cert)?;
            host.readable(&key.value, Setting::Key)?;
            (g.cert, g.key) = (Some(cert.value), Some(key.value));
        }
    }
    if let (Some(path), true) = (found.config, g.encryption_config.is_empty()) {
        host.readable(&path.value, Setting::Config)?;
        g.encryption_config.push(path.value);
    }
    if g.prefix.is_none() {
        g.prefix = found.prefix.map(|p| p.value);
    }
    Ok(())
}

impl Profile {
    fn word(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Minikube => "minikube",
            other => other.distribution().as_str(),
        }
    }

    fn distribution(self) -> Distribution {
        match self {
            Self::Kubeadm | Self::Kind | Self::Minikube => Distribution::Kubeadm,
            Self::K3s => Distribution::K3s,
            Self::Rke2 => Distribution::Rke2,
            Self::Rke1 => Distribution::Rke1,
            Self::K0s => Distribution::K0s,
            Self::Microk8s => Distribution::Microk8s,
            Self::Kops => Distribution::Kops,
            Self::Talos => Distribution::Talos,
            Self::Openshift => Distribution::Openshift,
            Self::Microshift => Distribution::Microshift,
        }
    }
}
