//! `atrest config rotate`.

mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueEnum;
use zeroize::Zeroizing;

use super::print_text;
use super::write::{check_target, fresh_key, fresh_name, write};
use crate::cli::Ctx;
use crate::cli::args::{self, Shared};
use crate::cli::configuration;
use crate::cli::failure::{Exit, Failure};
use crate::cli::open;
use crate::config::{
    self, Choice, EncryptionConfig, LoadError, Loaded, RotateError, Rotated, Step, Which,
};
use crate::envelope::Provider;
use crate::jobs::retire as job;
use crate::jobs::rotation::Key;
use crate::source::Damage;

/// Options of `config rotate`. The configuration is that of `--encryption-config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The step: add the new key last, promote it to first, retire the old one
    #[arg(long, value_name = "STEP")]
    pub step: StepName,

    /// The key to add, promote or retire (or the KMS provider) [default: what the steps before
    /// leave no doubt about]
    #[arg(long, value_name = "NAME")]
    pub key_name: Option<String>,

    /// The key's provider, where it is not the one that writes now
    #[arg(long, value_name = "PROVIDER")]
    pub provider: Option<ProviderName>,

    /// Only the entries of the configuration that list these resources (repeatable)
    #[arg(long, value_name = "RES", value_delimiter = ',')]
    pub resource: Vec<String>,

    /// The file to write, with mode 0600 (key material is not printed)
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Replace an existing file; retire without a source to look whether the key is in use
    #[arg(long)]
    pub force: bool,

    #[command(flatten)]
    source: args::Source,

    #[command(flatten)]
    prefix: args::Prefix,

    #[command(flatten)]
    reading: args::Reading,

    #[command(flatten)]
    identities: args::Identities,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[&self.source, &self.prefix, &self.reading, &self.identities, &self.output])
    }
}

/// `--step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StepName {
    /// Every API server learns to read the new key; none writes with it
    Add,
    /// Every API server writes with it and reads the old one
    Promote,
    /// The old key goes, when nothing is stored under it
    Retire,
}

/// `--provider` of `rotate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProviderName {
    /// XSalsa20-Poly1305
    Secretbox,
    /// AES-CBC
    Aescbc,
    /// AES-GCM
    Aesgcm,
    /// A KMS plugin (promote and retire)
    Kms,
    /// No encryption (promote and retire)
    Identity,
}

impl From<ProviderName> for Provider {
    fn from(name: ProviderName) -> Self {
        match name {
            ProviderName::Secretbox => Self::Secretbox,
            ProviderName::Aescbc => Self::AesCbc,
            ProviderName::Aesgcm => Self::AesGcm,
            ProviderName::Kms => Self::Kms,
            ProviderName::Identity => Self::Identity,
        }
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let out = check_target(args.out.as_deref())?;
    no_source_needed(ctx, args)?;
    let file = the_file(ctx)?;
    let old = &file.loaded.config;
    let rotated = config::rotate(&file.text, &step(args, old)?, &args.resource)
        .map_err(|e| refused(&e, &file.loaded.location))?;
    if args.step == StepName::Retire {
        check_unused(ctx, args, old, &rotated)?;
    }
    write(out, &rotated.text, args.force)?;
    print_text(&words::next_steps(args.step, &rotated, out))?;
    Ok(Exit::Ok)
}

/// Only what retires a key looks whether it is in use.
fn no_source_needed(ctx: &Ctx, args: &Args) -> Result<(), Failure> {
    let named = ["endpoints", "snapshot", "data-dir", "kine", "prefix", "proxy-namespace"];
    let named = named.into_iter().find(|name| ctx.given.has(name));
    match named.or_else(|| ctx.given.connection()) {
        Some(name) if args.step != StepName::Retire => {
            Err(Failure::usage(format!("--{name} goes with --step retire only"))
                .hint("the other steps read no source"))
        }
        _ => Ok(()),
    }
}

/// A configuration file, as it stands and as it is understood.
struct File {
    text: Zeroizing<String>,
    loaded: Loaded,
}

/// The one configuration file; what a Secret or an archive holds cannot be rotated in its place.
fn the_file(ctx: &Ctx) -> Result<File, Failure> {
    let [path] = ctx.global.encryption_config.as_slice() else {
        return Err(Failure::usage("`config rotate` works on one file")
            .hint("give it with --encryption-config FILE"));
    };
    let content = configuration::read(path)?;
    if let Some(warning) = &content.exposed {
        ctx.ui.warn(warning);
    }
    let not_the_file = || {
        Failure::new(format!("{} is not the configuration file itself", content.origin))
            .hint("take the configuration out of its Secret or archive, then rotate that")
    };
    let mut loaded = configuration::load(&content)?;
    let text = std::str::from_utf8(&content.bytes).map_err(|_| not_the_file())?;
    match (loaded.pop(), loaded.is_empty()) {
        (Some(one), true) if one.location == content.origin => {
            Ok(File { text: Zeroizing::new(text.to_owned()), loaded: one })
        }
        _ => Err(not_the_file()),
    }
}

fn step(args: &Args, old: &EncryptionConfig) -> Result<Step, Failure> {
    let provider = args.provider.map(Provider::from);
    let which = Which { provider, name: args.key_name.clone() };
    Ok(match args.step {
        StepName::Promote => Step::Promote(which),
        StepName::Retire => Step::Retire(which),
        StepName::Add => {
            let taken = |name: &str| old.providers().any(|s| s.provider.names().any(|n| n == name));
            let name = args.key_name.clone().unwrap_or_else(|| fresh_name(taken));
            Step::Add { provider, name, secret: fresh_key()? }
        }
    })
}

/// Why a step cannot be made, and what would say more.
pub fn refused(error: &RotateError, origin: &str) -> Failure {
    match error {
        RotateError::Invalid(errors) => configuration::failure(&LoadError::Invalid {
            location: origin.to_owned(),
            form: "a configuration file",
            errors: errors.clone(),
        }),
        RotateError::Ambiguous(unclear) => {
            Failure::usage(error.to_string()).hint(match unclear.missing {
                Choice::Provider => "--provider says which static provider shall encrypt",
                Choice::Key => "name it with --key-name",
            })
        }
        RotateError::Taken(_) => {
            Failure::new(error.to_string()).hint("choose another name with --key-name")
        }
        other => Failure::new(other.to_string()),
    }
}

/// Refuses to let a key go that something is stored under.
fn check_unused(
    ctx: &Ctx,
    args: &Args,
    old: &EncryptionConfig,
    rotated: &Rotated,
) -> Result<(), Failure> {
    let what = Key::new(rotated.provider, rotated.name.as_deref());
    let g = &ctx.global;
    let given = !g.endpoints.is_empty()
        || g.snapshot.is_some()
        || g.data_dir.is_some()
        || g.kine.is_some()
        || g.profile.is_some();
    if !given {
        if args.force {
            ctx.ui.warn(&format!("nobody looked whether something is stored under {what}"));
            return Ok(());
        }
        return Err(Failure::new(format!("cannot tell whether something is stored under {what}"))
            .hint("give the source (--endpoints, --snapshot, …), or --force if you know that nothing is"));
    }
    let mut source = open::source(ctx)?;
    let options = job::Options { scope: open::scope(ctx), old, rotated };
    let usage = job::run(source.as_mut(), &options)?;
    if !usage.visit.damage.is_empty() && !args.force {
        return Err(unread(&what, &usage.visit.damage));
    }
    if !usage.entries.is_empty() {
        return Err(in_use(&what, &usage.entries));
    }
    ctx.ui.note(&format!(
        "nothing is stored under {what} at revision {} of {}",
        usage.visit.revision,
        source.info().location
    ));
    Ok(())
}

fn unread(what: &Key, damage: &[Damage]) -> Failure {
    let mut failure = Failure::new(format!(
        "parts of the source cannot be read, so something may still be stored under {what}"
    ));
    failure.causes = damage.iter().map(|d| format!("{}: {}", d.location, d.what)).collect();
    failure
}

fn in_use(what: &Key, entries: &BTreeMap<String, u64>) -> Failure {
    let total: u64 = entries.values().sum();
    let noun = if total == 1 { "entry is" } else { "entries are" };
    let mut failure = Failure::new(format!("{total} {noun} still stored under {what}"));
    failure.causes = entries.iter().map(|(resource, n)| format!("{resource}: {n}")).collect();
    failure.hint(if what.provider == Provider::Identity {
        "encrypt them first: atrest migrate --apply with this configuration"
    } else {
        "rewrite them first: atrest migrate --apply with this configuration"
    })
}
