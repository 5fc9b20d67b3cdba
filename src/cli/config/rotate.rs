//! `atrest config rotate`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::print_text;
use super::write::{check_target, fresh_key, fresh_name, write};
use crate::cli::Ctx;
use crate::cli::args::{self, Shared};
use crate::cli::configuration;
use crate::cli::failure::{Exit, Failure};
use crate::cli::open;
use crate::config::{self, Choice, EncryptionConfig, LoadError, RotateError, Rotated, Step, Which};
use crate::envelope::Provider;
use crate::jobs::rotate as job;
use crate::jobs::rotation::Key;

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
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[&self.source, &self.prefix, &self.reading, &self.output])
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
    let [path] = ctx.global.encryption_config.as_slice() else {
        return Err(Failure::usage("`config rotate` works on one file")
            .hint("give it with --encryption-config FILE"));
    };
    let content = configuration::read(path)?;
    if let Some(warning) = &content.exposed {
        ctx.ui.warn(warning);
    }
    let loaded = configuration::load(&content)?;
    let ([old], Ok(text)) = (loaded.as_slice(), std::str::from_utf8(&content.bytes)) else {
        return Err(not_the_file(&content.origin));
    };
    if old.location != content.origin {
        return Err(not_the_file(&content.origin));
    }
    let rotated = config::rotate(text, &step(args, &old.config)?, &args.resource)
        .map_err(|e| refused(&e, &content.origin))?;
    if args.step == StepName::Retire {
        check_unused(ctx, args, &old.config, &rotated)?;
    }
    write(out, &rotated.text, args.force)?;
    print_text(&next_steps(args.step, &rotated, out))?;
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

fn not_the_file(origin: &str) -> Failure {
    Failure::new(format!("{origin} is not the configuration file itself"))
        .hint("take the configuration out of its Secret or archive, then rotate that")
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
    let damage = &usage.visit.damage;
    if !damage.is_empty() && !args.force {
        let mut failure = Failure::new(format!(
            "parts of the source cannot be read, so something may still be stored under {what}"
        ));
        failure.causes = damage.iter().map(|d| format!("{}: {}", d.location, d.what)).collect();
        return Err(failure);
    }
    if !usage.entries.is_empty() {
        let total: u64 = usage.entries.values().sum();
        let noun = if total == 1 { "entry is" } else { "entries are" };
        let mut failure = Failure::new(format!("{total} {noun} still stored under {what}"));
        failure.causes = usage.entries.iter().map(|(r, n)| format!("{r}: {n}")).collect();
        failure.hint = Some(match rotated.provider {
            Provider::Identity => {
                "encrypt them first: atrest migrate --apply with this configuration".to_owned()
            }
            _ => "rewrite them first: atrest migrate --apply with this configuration".to_owned(),
        });
        return Err(failure);
    }
    ctx.ui.note(&format!(
        "nothing is stored under {what} at revision {} of {}",
        usage.visit.revision,
        source.info().location
    ));
    Ok(())
}

/// What changed and which commands come next.
fn next_steps(step: StepName, rotated: &Rotated, out: &Path) -> String {
    let what = Key::new(rotated.provider, rotated.name.as_deref());
    let resources: Vec<_> = rotated
        .entries
        .iter()
        .flat_map(|e| rotated.config.entries[*e].resources.iter().map(String::as_str))
        .collect();
    let out = out.display();
    let mut text = format!("wrote {out} (mode 0600), for {}\n", resources.join(", "));
    let name = rotated.name.as_ref().map_or_else(String::new, |n| format!(" --key-name '{n}'"));
    let provider = format!(" --provider {}", rotated.provider);
    let distribute = "copy it, the same bytes, to every control plane machine, and restart every kube-apiserver\n     (or wait a minute where it runs with --encryption-provider-config-automatic-reload)";
    let _ = match step {
        StepName::Add => writeln!(
            text,
            "{what} can be read, nothing is written with it yet\nnext:\n  \
             1. {distribute}\n  \
             2. atrest config check {out} FILE…     (the files of the other machines: no difference)\n  \
             3. atrest config rotate --step promote{provider}{name} --encryption-config {out} --out NEXT"
        ),
        StepName::Promote => {
            let old = rotated.previous.as_ref();
            let retire = old.map_or_else(String::new, |(provider, name)| {
                let name = name.as_ref().map_or_else(String::new, |n| format!(" --key-name '{n}'"));
                format!(" --provider {provider}{name}")
            });
            writeln!(
                text,
                "{what} writes from now on\nnext:\n  \
                 1. {distribute}\n  \
                 2. atrest migrate --encryption-config {out}            (what would be rewritten)\n  \
                 3. atrest migrate --encryption-config {out} --apply\n  \
                 4. atrest scan --encryption-config {out} --verify --fail-on stale,unreadable\n  \
                 5. atrest config rotate --step retire{retire} --encryption-config {out} --endpoints … --out NEXT"
            )
        }
        StepName::Retire => writeln!(
            text,
            "{what} is gone from the configuration\nnext:\n  \
             1. {distribute}\n  \
             2. keep the file before this one for as long as you keep backups from its time:\n     \
             without it they cannot be read\n  \
             3. atrest residue --encryption-config {out} --endpoints …  (what history still holds)"
        ),
    };
    text
}
