//! `atrest doctor`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::args::{self, Group, Output, Shared};
use super::failure::{Exit, Failure};
use super::observer::Told;
use super::{Ctx, apiserver, profile, ui};
use crate::chain::chain;
use crate::jobs::doctor::{self, Act, Attempt, Check, Options, Outcome, Probe};
use crate::profile::{Datastore, Distribution, Found, Host};
use crate::report::Format;
use crate::report::doctor::Report;
use crate::source::data_dir::DataDir;
use crate::source::kine::Kine;
use crate::source::live::{self, Live, LiveOptions};
use crate::source::snapshot::SnapshotOptions;
use crate::source::{EtcdError, KeyRange, Query, Source, SourceError, Story, TlsStory};

/// Options of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Run as root on a control-plane node, or with --root on its mounted disk. Nothing is written.")]
pub struct Args {
    #[command(flatten)]
    distribution: args::Distribution,
    #[command(flatten)]
    output: Output,

    /// Exit 3 when a check ends so: `warn` also matches `fail`
    #[arg(long, value_name = "RESULT")]
    fail_on: Option<FailOn>,

    /// The configuration of another API server, which must be byte for byte the same (repeatable)
    #[arg(long, value_name = "FILE")]
    confirm_config: Vec<PathBuf>,

    #[command(flatten)]
    apiserver: args::ApiServer,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", default_value = "table", value_parser = args::formats(&[Format::Table, Format::Json, Format::Html, Format::Sarif]), help_heading = "Output")]
    write_out: Format,
}

/// What `--fail-on` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// A check failed
    Fail,
    /// A check failed or warned
    Warn,
}

impl Args {
    /// The options that commands share. The distribution is what this command is about, and
    /// fills in nothing.
    pub fn shared(&self) -> Shared {
        Shared::of(&[&self.output])
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let mut wanted = Shared::default();
    args.distribution.put(&mut wanted);
    let (word, distribution) = profile::chosen(&wanted)?;
    let mut host =
        Host { root: wanted.root.clone(), profile: word, source: true, named: Vec::new() };
    let manifest = wanted.manifest.as_deref();
    // A machine whose datastore is out of reach has other layers all the same.
    let (found, missing) = match profile::find_for(&host, distribution, manifest) {
        Ok(found) => (found, None),
        Err(why) => {
            host.source = false;
            let found = profile::find_for(&host, distribution, manifest)?;
            (found, Some(why.message))
        }
    };
    for warning in &found.warnings {
        ctx.ui.warn(warning);
    }
    let mut opened = match missing {
        Some(why) => Err(why),
        None => open(&found).map_err(|e| chain(&e)),
    };
    let source = opened.as_mut().map(|s| &mut **s as &mut dyn Source).map_err(|e| e.clone());
    let servers = asked(args, wanted.root.is_some())
        .then(|| apiserver::clients(&args.apiserver))
        .transpose()?;
    let options = Options {
        host: &host,
        distribution,
        found: &found,
        confirm: &args.confirm_config,
        shown: &|endpoint| live::shown(endpoint, PATIENCE),
        command: &|act| command(act, distribution),
    };
    let mut probe = |endpoint: &str, attempt: Attempt| probe(&found, endpoint, attempt);
    let told = &mut Told::new(&ctx.ui);
    let checks = doctor::run(&options, source, Some(&mut probe), servers, told);
    let report = Report { profile: word, checks: &checks };
    ui::print(|out| report.write(args.write_out, ctx.ui.color, out))?;
    let matched = |worst: Outcome| checks.iter().any(|c: &Check| c.result >= worst);
    let found = match args.fail_on {
        None => false,
        Some(FailOn::Fail) => matched(Outcome::Fail),
        Some(FailOn::Warn) => matched(Outcome::Warn),
    };
    Ok(if found { Exit::Found } else { Exit::Ok })
}

/// Whether API servers are to be asked. The kubeconfig of the environment is this machine's, not
/// that of a disk that is mounted somewhere.
fn asked(args: &Args, mounted: bool) -> bool {
    let given = args.apiserver.kubeconfig.as_ref().filter(|path| {
        let set = std::env::var_os("KUBECONFIG").is_some_and(|v| v == path.as_os_str());
        !(path.as_os_str().is_empty() || set && mounted)
    });
    given.is_some() || !args.apiserver.apiserver.is_empty()
}

/// How long a server may take to show its certificate.
const PATIENCE: Duration = Duration::from_secs(5);

/// The command that does it.
fn command(act: Act<'_>, distribution: Distribution) -> String {
    let profile = distribution.as_str();
    match act {
        Act::NewConfig => "atrest config new --provider secretbox --out FILE".to_owned(),
        Act::CheckConfig(place) => format!("atrest config check {place}"),
        Act::AddProvider => {
            "atrest config rotate --step add --provider secretbox, then promote it".to_owned()
        }
        Act::Scan => "atrest scan".to_owned(),
        Act::Migrate => format!("atrest migrate --profile {profile} --apply"),
        Act::Residue => format!("atrest residue --profile {profile} says what removes it"),
        Act::BackupElsewhere => "atrest migrate --backup FILE".to_owned(),
        Act::ScanSnapshots => "atrest --snapshot FILE scan".to_owned(),
        Act::RenewCertificates => match distribution {
            Distribution::Kubeadm => "kubeadm certs renew all, then restart the static pods",
            Distribution::K3s => "k3s certificate rotate, with k3s stopped",
            Distribution::Rke2 => "rke2 certificate rotate, with rke2-server stopped",
            _ => "make it anew with whatever made it",
        }
        .to_owned(),
        Act::AskApiServers => {
            let kubeconfig = match distribution {
                Distribution::K3s => "/etc/rancher/k3s/k3s.yaml",
                Distribution::Rke2 => "/etc/rancher/rke2/rke2.yaml",
                _ => "/etc/kubernetes/admin.conf",
            };
            format!(
                "atrest doctor --profile {profile} --kubeconfig {kubeconfig} --apiserver URL, once for each server"
            )
        }
        Act::Verify => format!("atrest scan --profile {profile} --verify --list"),
    }
}

/// How to connect with what was found.
fn connection(found: &Found, endpoints: Vec<String>) -> LiveOptions {
    let [cacert, cert, key] = found.tls_files();
    LiveOptions {
        endpoints,
        cacert,
        cert,
        key,
        credentials: None,
        insecure_skip_tls_verify: false,
        insecure_transport: true,
        dial_timeout: Duration::from_secs(2),
        command_timeout: Duration::from_secs(5),
        keepalive_time: Duration::from_secs(10),
        keepalive_timeout: Duration::from_secs(6),
        tempo: crate::source::live::Tempo::default(),
    }
}

fn open(found: &Found) -> Result<Box<dyn Source>, SourceError> {
    let options = SnapshotOptions { skip_hash_check: false, salvage: false };
    match found.source.as_ref().map(|s| &s.value) {
        Some(Datastore::DataDir(dir)) => Ok(Box::new(DataDir::open(dir, &options)?)),
        Some(Datastore::Kine(path)) => Ok(Box::new(Kine::open(path)?)),
        Some(Datastore::Server(url)) => super::datastore::found(found, url),
        Some(Datastore::Endpoints(all)) => {
            Ok(Box::new(Live::connect(&connection(found, all.clone()))?))
        }
        None => Err(EtcdError::NoEndpoint.into()),
    }
}

/// Tries to read without what etcd should demand.
fn probe(found: &Found, endpoint: &str, attempt: Attempt) -> Probe {
    let bare = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let scheme = if attempt == Attempt::WithoutTls { "http" } else { "https" };
    if attempt == Attempt::WithoutCertificate && endpoint.starts_with("http://") {
        return Probe::NoAnswer("it is reached without TLS".to_owned());
    }
    let mut options = connection(found, vec![format!("{scheme}://{bare}")]);
    (options.cert, options.key) = (None, None);
    if attempt == Attempt::WithoutTls {
        options.cacert = None;
    }
    let key = KeyRange::single(b"/atrest/doctor");
    let query = Query { ranges: vec![key], revision: None, ordered: false };
    let read = Live::connect(&options)
        .and_then(|mut live| live.visit(&query, &mut |_| std::ops::ControlFlow::Break(())));
    match read {
        Ok(_) => Probe::Served,
        Err(e) => {
            let why = chain(&e);
            let demanded = match &e {
                SourceError::Etcd(EtcdError::Member(told)) => matches!(
                    told.story,
                    Story::Tls(TlsStory::ClientDemanded | TlsStory::Alert(_))
                        | Story::ClosedAfterHandshake
                        | Story::SpeaksTls
                        | Story::Mute
                        | Story::NotGrpc
                        | Story::UserDemanded
                        | Story::Denied(_)
                        | Story::Lost(_)
                ),
                SourceError::Etcd(EtcdError::Denied { .. }) => true,
                _ => false,
            };
            if demanded { Probe::Refused(why) } else { Probe::NoAnswer(why) }
        }
    }
}
