//! `atrest config new`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::print_text;
use super::write::{check_target, fresh_key, fresh_name, write};
use crate::cli::Ctx;
use crate::cli::args::{self, Shared};
use crate::cli::duration;
use crate::cli::failure::{Exit, Failure};
use crate::config::{self, New, Writer};
use crate::envelope;
use crate::report::Format;

/// Options of `config new`. The resources are those of `--resource` (default: secrets).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What encrypts
    #[arg(long, value_name = "PROVIDER")]
    pub provider: NewProvider,

    /// Name of the key [default: key-<today>]
    #[arg(long, value_name = "NAME")]
    pub key_name: Option<String>,

    /// Where the KMS plugin listens, `unix:///…`
    #[arg(long, value_name = "URL", required_if_eq("provider", "kms"))]
    pub kms_endpoint: Option<String>,

    /// Name of the KMS provider; part of everything it encrypts
    #[arg(long, value_name = "NAME", required_if_eq("provider", "kms"))]
    pub kms_name: Option<String>,

    /// Deadline of one call to the KMS plugin [default: 3s]
    #[arg(long, value_name = "DURATION", value_parser = go_duration)]
    pub timeout: Option<String>,

    /// The file to write, with mode 0600 (key material is not printed)
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Replace an existing file
    #[arg(long)]
    pub force: bool,

    #[command(flatten)]
    resources: args::Resources,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Yaml, Format::Json]), default_value = "yaml", help_heading = "Output")]
    pub write_out: Format,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[&self.resources, &self.output])
    }
}

/// `--provider` of `new`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NewProvider {
    /// XSalsa20-Poly1305
    Secretbox,
    /// AES-CBC, which does not notice changed ciphertext
    Aescbc,
    /// AES-GCM; the key must be rotated before 200,000 writes
    Aesgcm,
    /// A KMS v2 plugin
    Kms,
}

impl NewProvider {
    /// The static provider; none for KMS.
    pub(super) fn fixed(self) -> Option<envelope::Provider> {
        match self {
            Self::Secretbox => Some(envelope::Provider::Secretbox),
            Self::Aescbc => Some(envelope::Provider::AesCbc),
            Self::Aesgcm => Some(envelope::Provider::AesGcm),
            Self::Kms => None,
        }
    }
}

/// Checks a duration and keeps its spelling.
fn go_duration(text: &str) -> Result<String, String> {
    match duration::parse(text)? {
        Duration::ZERO => Err("must be more than zero".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let out = check_target(args.out.as_deref())?;
    let json = args.write_out == Format::Json;
    let mut resources = ctx.global.resource.clone();
    if ctx.global.all_resources {
        resources.push("*.*".to_owned());
    }
    if resources.is_empty() {
        resources.push("secrets".to_owned());
    }
    let name = args.key_name.clone().unwrap_or_else(|| fresh_name(|_| false));
    let secret = fresh_key()?;
    let writer = if let Some(provider) = args.provider.fixed() {
        if args.kms_endpoint.is_some() || args.kms_name.is_some() || args.timeout.is_some() {
            return Err(Failure::usage(
                "--kms-endpoint, --kms-name and --timeout go with --provider kms",
            ));
        }
        Writer::Static { provider, name: &name, secret: &secret }
    } else {
        if args.key_name.is_some() {
            return Err(Failure::usage(
                "--key-name does not go with --provider kms: the plugin holds the keys",
            ));
        }
        let (Some(endpoint), Some(name)) = (&args.kms_endpoint, &args.kms_name) else {
            return Err(Failure::usage("--provider kms needs --kms-endpoint and --kms-name"));
        };
        Writer::Kms { name, endpoint, timeout: args.timeout.as_deref() }
    };
    let text = config::generate(&New { resources: &resources, writer }, json);
    // Names and resources come from the user: the API server's rules decide about them.
    let parsed = config::parse(text.as_bytes()).map_err(|e| {
        let mut failure = Failure::usage("the API server would refuse this configuration");
        failure.causes = e.errors.iter().map(|f| format!("{}: {}", f.path, f.message)).collect();
        failure
    })?;
    write(out, &text, args.force)?;
    for warning in parsed.advice() {
        ctx.ui.warn(&format!("{}: {}", warning.path, warning.message));
    }
    let out = out.display();
    print_text(&format!(
        "wrote {out} (mode 0600)\n\
         next:\n  \
         1. copy it, the same bytes, to every control plane machine\n  \
         2. give it to every kube-apiserver with --encryption-provider-config, and restart them\n  \
         3. atrest migrate --encryption-config {out}          (what would be rewritten)\n  \
         4. atrest migrate --encryption-config {out} --apply  (encrypt what is stored already)\n"
    ))?;
    Ok(Exit::Ok)
}
