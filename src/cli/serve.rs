//! `atrest serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::{Ctx, ending, open};
use crate::serve::{Api, Identity, KubeconfigError, Server};
use crate::source::pieces;

/// Options of `serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,

    /// Write the kubeconfig here, with mode 0600 [default: a temporary file]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Serve the data of Secrets instead of placeholders of the same length
    #[arg(long)]
    pub reveal: bool,

    /// Listen on an address that other machines reach
    #[arg(long)]
    pub allow_remote: bool,

    #[command(flatten)]
    source: args::Source,

    #[command(flatten)]
    prefix: args::Prefix,

    #[command(flatten)]
    revision: args::Revision,

    #[command(flatten)]
    reading: args::Decrypting,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[&self.source, &self.prefix, &self.revision, &self.reading, &self.output])
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let listen = args.listen;
    if !listen.ip().is_loopback() && !args.allow_remote {
        return Err(Failure::usage(format!("{listen} can be reached by other machines"))
            .hint("listen on 127.0.0.1, or add --allow-remote"));
    }
    let objects = super::inside::objects(ctx)?;
    let revision = ctx.global.revision;
    let pieces = pieces::of(open::source(ctx)?, revision)?;
    if let Some(visit) = pieces.opened() {
        ending::notes(ctx, visit);
        ending::damage(ctx, &visit.damage);
    }
    let location = pieces.info().location;
    let at = pieces.opened().map(|visit| visit.revision).or(revision);
    let api = Api::new(pieces, objects, open::scope(ctx), args.reveal, revision)?;
    api.catalogue().notes.iter().for_each(|note| ctx.ui.warn(note));

    let cannot = |e: &(dyn std::error::Error + 'static)| Failure::new("cannot serve").because(e);
    let server = Server::bind(listen).map_err(|e| cannot(&e))?;
    let address = server.address();
    let identity = Identity::new(&[address.ip().to_string()]).map_err(|e| cannot(&e))?;
    let (path, _temporary) = kubeconfig(args)?;
    identity.write_kubeconfig(&path, &address).map_err(|e| match &e {
        KubeconfigError::Foreign(_) => {
            Failure::new(e.to_string()).hint("name a file that does not exist yet")
        }
        KubeconfigError::Io(..) => cannot(&e),
    })?;
    let at = at.map_or_else(|| "its newest revision".to_owned(), |r| format!("revision {r}"));
    ctx.ui.note(&format!("serving {location} at {at}, read-only, on https://{address}"));
    if args.reveal {
        ctx.ui
            .warn("the data of Secrets are served to everybody who has the kubeconfig (--reveal)");
    } else {
        ctx.ui.note("the data of Secrets are replaced by placeholders of the same length; --reveal serves them");
    }
    ctx.ui.note(&format!("kubectl --kubeconfig {} get pods -A", path.display()));
    let ui = ctx.ui.clone();
    server.run(api, identity, Arc::new(move |text| ui.warn(text)));
    Ok(Exit::Ok)
}

type Temporary = Option<(tempfile::TempDir, crate::temporary::Noted)>;

/// Where the kubeconfig goes, and what removes it again if it is a temporary one.
fn kubeconfig(args: &Args) -> Result<(PathBuf, Temporary), Failure> {
    if let Some(path) = &args.kubeconfig {
        return Ok((path.clone(), None));
    }
    let made =
        crate::temporary::make(|| tempfile::Builder::new().prefix("atrest-serve-").tempdir());
    let (dir, noted) =
        made.map_err(|e| Failure::new("cannot make a directory for the kubeconfig").because(&e))?;
    Ok((dir.path().join("kubeconfig"), Some((dir, noted))))
}
