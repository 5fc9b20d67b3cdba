//! `atrest exporter`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::observer::Told;
use super::{Ctx, duration, interrupt, open};
use crate::config::ConfigSet;
use crate::exporter::{Listener, ListenerError, Tls};
use crate::jobs::exporter::{Options, run as follow};
use crate::scan::judge_with;
use crate::source::live::Live;

/// Options of `exporter`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
It reads etcd once, then follows etcd's watch, and never writes. /metrics has the counts, /readyz
answers 200 while they are those of now, /healthz while the program runs.")]
pub struct Args {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9779")]
    listen: SocketAddr,

    /// Serve HTTPS with this certificate chain
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The key of --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Only answer clients that show a certificate of this authority
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,

    /// Read everything anew at least this often
    #[arg(long, value_name = "DURATION", default_value = "6h", value_parser = duration::parse)]
    rescan: Duration,

    #[command(flatten)]
    etcd: args::Etcd,

    #[command(flatten)]
    tempo: args::Tempo,

    #[command(flatten)]
    selection: args::Selection,

    #[command(flatten)]
    reading: args::Reading,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[&self.etcd, &self.tempo, &self.selection, &self.reading, &self.output])
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let configs = crate::cli::inside::configs(ctx)?;
    let selection = open::selection(ctx, configs.as_ref().map(ConfigSet::resources))?;
    let transformers = configs.as_ref().map(|c| open::transformers(ctx, c)).transpose()?;
    let judge = judge_with(transformers.as_ref(), false);
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => {
            Some(Tls { cert: cert.clone(), key: key.clone(), client_ca: args.client_ca.clone() })
        }
        _ => None,
    };
    let listener = Listener::start(args.listen, tls.as_ref())?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    ctx.ui.note(&format!("listening on {scheme}://{}", listener.address()));
    let stop = interrupt::tell();
    let options = Options {
        query: selection.query(None, false),
        locate: &|key| selection.locate(key),
        judge: judge.as_ref(),
        with_status: configs.is_some(),
        rescan: args.rescan,
    };
    let mut ready = false;
    let mut publish = |metrics: &crate::exporter::Metrics| {
        listener.publish(metrics);
        if metrics.watching && !std::mem::replace(&mut ready, true) {
            // Without a supervisor there is nobody to tell.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        }
    };
    let etcd = open::live_options(ctx)?;
    let mut connect = || Live::connect(&etcd);
    follow(&mut connect, &options, &mut publish, &stop, &mut Told::new(&ctx.ui))?;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    Ok(Exit::Ok)
}

impl From<ListenerError> for Failure {
    fn from(error: ListenerError) -> Self {
        Self::new(error.to_string()).because(&error)
    }
}
