//! `atrest encode`.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use serde_json::Value;
use zeroize::Zeroizing;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::{Ctx, open, stdin, ui};
use crate::jobs::encode as job;
use crate::report::table;

/// Options of `encode`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Writes the bytes that the API server would store: protobuf for built-in kinds, JSON for others,
encrypted with the first provider of its resource when --encryption-config is given.
The key is derived from the object unless --key gives it; it is printed on stderr:

  atrest encode --encryption-config FILE <login.yaml | etcdctl put /registry/secrets/NS/login")]
pub struct Args {
    /// A manifest in YAML or JSON; `-` is stdin
    #[arg(default_value = "-", value_name = "FILE")]
    pub file: PathBuf,

    /// The etcd key, or RESOURCE/NAMESPACE/NAME [default: derived from the object]
    #[arg(long, value_name = "KEY")]
    pub key: Option<OsString>,

    /// Write to this new file (mode 0600) instead of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    #[command(flatten)]
    distribution: args::Distribution,

    #[command(flatten)]
    prefix: args::Prefix,

    #[command(flatten)]
    namespaces: args::Namespaces,

    #[command(flatten)]
    reading: args::Decrypting,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[
            &self.distribution,
            &self.prefix,
            &self.namespaces,
            &self.reading,
            &self.output,
        ])
    }
}

/// etcd refuses larger requests by default, and the API server larger objects.
const LARGEST: u64 = 16 << 20;

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    if args.out.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::usage("the bytes to store are not for a terminal")
            .hint("pipe them on, or write them to a file with --out"));
    }
    let given = args.key.as_ref().map(|key| key.as_bytes().to_vec());
    let namespaces = ctx.global.namespace.clone();
    let options = job::Options { scope: open::scope(ctx), namespaces, key: given };
    let encoded = job::run(read(args)?, &options)?;
    let configs = crate::cli::inside::configs(ctx)?;
    let transformers = configs.as_ref().map(|set| open::transformers(ctx, set)).transpose()?;
    let value = match &transformers {
        None => Zeroizing::new(encoded.plaintext.expose().to_vec()),
        Some(transformers) => encoded.encrypt(transformers, &options)?,
    };
    if let Some(key) = &encoded.key {
        ctx.ui.note(&format!("etcd key {}", table::visible(&String::from_utf8_lossy(key))));
    }
    if let Some(path) = &args.out {
        super::config::write::write(path, &*value, false)?;
    } else {
        ui::print(|out| out.write_all(&value))?;
    }
    Ok(Exit::Ok)
}

fn read(args: &Args) -> Result<Value, Failure> {
    let mut text = Zeroizing::new(Vec::new());
    let is_stdin = args.file.as_os_str() == "-";
    let result = if is_stdin {
        stdin::claim()?.take(LARGEST + 1).read_to_end(&mut text)
    } else {
        std::fs::File::open(&args.file).and_then(|f| f.take(LARGEST + 1).read_to_end(&mut text))
    };
    let name = if is_stdin { "stdin".to_owned() } else { args.file.display().to_string() };
    result.map_err(|e| Failure::new(format!("cannot read {name}")).because(&e))?;
    if text.len() as u64 > LARGEST {
        return Err(Failure::new(format!("{name} has more than 16 MiB; no object is that large")));
    }
    let text = std::str::from_utf8(&text)
        .map_err(|_| Failure::new(format!("{name} is no manifest: it is not UTF-8")))?;
    // JSON is YAML, but only its own reader keeps numbers of any size.
    if text.trim_start().starts_with('{')
        && let Ok(object) = serde_json::from_str(text)
    {
        return Ok(object);
    }
    // `no` and `y` are text, as kubectl's reader has it where the type is not known beforehand.
    let options = serde_saphyr::options! { strict_booleans: true };
    // The parser's own message may quote the line, which may be secret.
    serde_saphyr::from_str_with_options::<Value>(text, options).map_err(|e| {
        let place = e
            .location()
            .map_or_else(String::new, |l| format!(" at line {} column {}", l.line(), l.column()));
        Failure::new(format!("{name} is neither YAML nor JSON of one object{place}"))
    })
}
