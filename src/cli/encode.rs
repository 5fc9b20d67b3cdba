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
use crate::report::table;
use crate::resource::is_namespaced;
use crate::resource::kind::builtin;
use crate::secret::Plaintext;
use crate::storage;

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
    reading: args::Reading,

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
    let mut object = read(args)?;
    let encoded = storage::encode(&object)
        .map_err(|e| Failure::new("the object cannot be encoded").because(&e));
    let key = key(ctx, args, &object);
    storage::wipe(&mut object);
    let plain = Plaintext::new(encoded?.to_vec());
    let key = key?;
    let configs = crate::cli::inside::configs(ctx)?;
    let value = match &configs {
        None => Zeroizing::new(plain.expose().to_vec()),
        Some(set) => {
            let key = key.as_deref().ok_or_else(|| {
                Failure::usage("the etcd key of this kind is not known")
                    .hint("give it with --key: it is authenticated with the value")
            })?;
            let location = open::scope(ctx).locate_named(key);
            let transformers = open::transformers(ctx, set)?;
            let resource = transformers.for_resource(&location.resource);
            let value = resource
                .write(key, &plain)
                .map_err(|e| Failure::new("the value cannot be encrypted").because(&e))?;
            // A value that nobody can read again must never leave this program.
            let back = resource
                .read(key, &value)
                .map_err(|e| Failure::new("the encrypted value cannot be read back").because(&e))?;
            if !back.plaintext.same(&plain) {
                return Err(Failure::new("the encrypted value reads back differently"));
            }
            Zeroizing::new(value)
        }
    };
    if let Some(key) = &key {
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

/// The etcd key: `--key`, or where the API server keeps such an object.
fn key(ctx: &Ctx, args: &Args, object: &Value) -> Result<Option<Vec<u8>>, Failure> {
    let inside = object["metadata"]["namespace"].as_str();
    let asked_for = &ctx.global.namespace;
    if let Some(inside) = inside.filter(|_| !asked_for.is_empty())
        && !asked_for.iter().any(|n| n == inside)
    {
        return Err(Failure::new(format!(
            "the object is of namespace {inside}, not {}",
            asked_for.join(", ")
        )));
    }
    let text = if let Some(key) = &args.key {
        let Some(text) = key.to_str() else { return Ok(Some(key.as_bytes().to_vec())) };
        text.to_owned()
    } else {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kind = builtin(&word(&object["apiVersion"]), &word(&object["kind"]));
        let name = word(&object["metadata"]["name"]);
        let Some(resource) = kind.filter(|_| !name.is_empty()) else { return Ok(None) };
        let namespace = inside.map_or_else(String::new, |namespace| format!("{namespace}/"));
        format!("{resource}/{namespace}{name}")
    };
    let named = open::keys(ctx, std::slice::from_ref(&text))?;
    let key =
        named.into_iter().filter(|key| !key.is_prefix).find_map(|k| k.keys.into_iter().next());
    let key = key.ok_or_else(|| Failure::usage(format!("`{text}` is no key of an object")))?;
    let location = open::scope(ctx).locate_named(&key);
    if args.key.is_none()
        && location.namespace.is_none()
        && is_namespaced(&location.resource) == Some(true)
    {
        return Err(Failure::new(format!("the object of {} has no namespace", location.resource))
            .hint("give it with -n NAMESPACE"));
    }
    Ok(Some(key))
}
