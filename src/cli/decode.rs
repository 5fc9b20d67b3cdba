//! `atrest decode`: the same as `get`, for bytes on stdin.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Read as _};
use std::os::unix::ffi::OsStringExt;

use zeroize::Zeroizing;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::{Ctx, open, stdin, ui};
use crate::envelope::{Envelope, Provider};
use crate::jobs::get::{self, Object};
use crate::objects::Objects;
use crate::pasted::{self, Form, NotAValue, Pasted, Whole};
use crate::report::{Format, objects};

/// Options of `decode`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Reads a stored value in any of these forms:
  etcdctl get KEY       as it is, or with -w json, -w fields, --hex, --print-value-only
  jq                    .kvs, .kvs[0] or .kvs[0].value of etcdctl's JSON
  -w fields             the line that begins with \"Value\", or the quoted string alone
  hexdump -C, xxd       whole, from offset 0; plain digits as xxd -p prints them
  base64                bare or in quotes, as in a file of a rancher-backup archive
  sqlite3               quote(value), hex(value), value or * of a row of kine
--key gives the etcd key of a value that comes without one; AES-GCM and KMS need it, because the
API server authenticates it with the value. rancher-backup authenticates NAMESPACE#NAME, or NAME
for what has no namespace: give that.")]
pub struct Args {
    /// The etcd key of a value that comes without one
    #[arg(long, value_name = "KEY")]
    pub key: Option<OsString>,

    /// Show secret data instead of their lengths
    #[arg(long)]
    pub reveal: bool,

    /// Read what no provider reads with whichever configured secret fits, whatever its name
    #[arg(long)]
    pub try_keys: bool,

    /// Keep metadata.managedFields, which kubectl hides as well
    #[arg(long)]
    pub show_managed_fields: bool,

    #[command(flatten)]
    distribution: args::Distribution,

    #[command(flatten)]
    prefix: args::Prefix,

    #[command(flatten)]
    reading: args::Decrypting,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Yaml, Format::Json, Format::Fields]), default_value = "yaml", help_heading = "Output")]
    pub write_out: Format,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[&self.distribution, &self.prefix, &self.reading, &self.output])
    }
}

/// Refuses more than this: etcd itself stops far below.
const LARGEST: u64 = 64 << 20;

/// What is on stdin instead of a value, and what to do with that.
fn no_value(e: NotAValue) -> Failure {
    let failure = Failure::new(format!("no stored value on stdin, but {e}"));
    failure.hint(match e.whole {
        Some(Whole::Sqlite) => "read it with `atrest scan --kine FILE`".to_owned(),
        Some(Whole::Database) => "read it with `atrest scan --snapshot FILE`".to_owned(),
        Some(Whole::Packed) => {
            "unpack it, and give one stored value; a whole backup is read with --snapshot"
                .to_owned()
        }
        None => e.give,
    })
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let input = read()?;
    let given = args.key.clone().map(OsStringExt::into_vec);
    let (form, all) = pasted::read(&input, given.as_deref()).map_err(no_value)?;
    let encrypted =
        |one: &Pasted| one.readings[0].value.starts_with(crate::envelope::ENCRYPTED_PREFIX);
    if input.windows(3).any(|w| w == "\u{FFFD}".as_bytes()) && all.iter().any(encrypted) {
        ctx.ui.warn(
            "the value contains replacement characters, as a terminal leaves them: bytes were lost; pipe it instead of copying it, or use `etcdctl get -w json`",
        );
    }
    let reader = super::inside::objects(ctx)?
        .managed_fields(args.show_managed_fields)
        .try_keys(args.try_keys);
    let mut shown = Vec::new();
    let mut exit = Exit::Ok;
    for one in &all {
        match show(ctx, &reader, one, given.as_deref(), args.reveal) {
            Ok(object) => {
                if !object.unknown.is_empty() {
                    exit = Exit::Partial;
                }
                shown.push(object);
            }
            Err(reason) => {
                let mut failure = Failure::new(format!("cannot decode the value: {reason}"));
                failure.exit = Exit::Partial;
                if let Some(hint) = hint(ctx, form, one, given.is_some()) {
                    failure = failure.hint(hint);
                }
                ctx.ui.failure(&failure);
                exit = Exit::Partial;
            }
        }
    }
    ui::print(|out| objects::write(args.write_out, shown, out))?;
    Ok(exit)
}

/// What stdin holds.
fn read() -> Result<Zeroizing<Vec<u8>>, Failure> {
    if std::io::stdin().is_terminal() {
        return Err(Failure::usage("nothing on stdin")
            .hint("pipe a value in: etcdctl get /registry/secrets/NS/NAME | atrest decode"));
    }
    let mut input = Zeroizing::new(Vec::new());
    stdin::claim()?
        .take(LARGEST + 1)
        .read_to_end(&mut input)
        .map_err(|e| Failure::new("cannot read stdin").because(&e))?;
    if input.len() as u64 > LARGEST {
        return Err(Failure::new("more than 64 MiB on stdin: give fewer entries"));
    }
    if input.is_empty() {
        return Err(Failure::new("nothing on stdin")
            .hint("etcdctl prints nothing for a key that does not exist"));
    }
    Ok(input)
}

/// The object of the first reading that is one.
fn show(
    ctx: &Ctx,
    reader: &Objects,
    one: &Pasted,
    key: Option<&[u8]>,
    reveal: bool,
) -> Result<Object, String> {
    let scope = open::scope(ctx);
    let mut first = None;
    for reading in &one.readings {
        let shown = if pasted::is_value(&reading.value) {
            let entry = one.entry(reading, key);
            get::show(reader, &scope, &entry, reveal).map_err(|not| not.words())
        } else {
            let len = reading.value.len();
            Err(format!("{len} bytes that begin as nothing the API server stores as an object"))
        };
        match shown {
            Ok(object) => {
                super::get::tell(ctx, &object);
                if reading.carriage_returns {
                    ctx.ui.warn(
                        "a terminal had put carriage returns into the value; they were taken out (`kubectl exec` and `docker exec` without -t leave the bytes as they are)",
                    );
                }
                return Ok(object);
            }
            Err(reason) => {
                first.get_or_insert(reason);
            }
        }
    }
    Err(first.unwrap_or_default())
}

/// What may be wrong with a value that could not be decoded.
fn hint(ctx: &Ctx, form: Form, one: &Pasted, key_given: bool) -> Option<&'static str> {
    let value = &one.readings[0].value;
    let envelope = Envelope::of(value);
    let authenticated = matches!(envelope.provider, Provider::AesGcm | Provider::Kms);
    if form == Form::Lines && memchr::memmem::find(value, b"\n/").is_some() {
        Some("if the input holds several entries, give them as `etcdctl get -w json` prints them")
    } else if envelope.is_plaintext() {
        None
    } else if ctx.global.encryption_config.is_empty() {
        Some("give the API server's file with --encryption-config")
    } else if authenticated && one.key.is_none() && !key_given {
        Some(if form == Form::QuotedBase64 {
            "give the etcd key with --key, or NAMESPACE#NAME for a file of a rancher-backup archive: AES-GCM and KMS values cannot be decrypted without it"
        } else {
            "give the etcd key with --key; AES-GCM and KMS values cannot be decrypted without it"
        })
    } else if form == Form::SqlRow {
        Some(
            "sqlite3 prints a value only up to its first zero byte, and several rows run into one another: give what `select name, hex(value) from kine` prints",
        )
    } else {
        None
    }
}
