//! `atrest rotate`: a rotation of an encryption key, followed to its end.

mod files;
mod look;
mod words;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::args::{self, Shared};
use super::config::rotate::ProviderName;
use super::failure::{Exit, Failure};
use super::{Ctx, apiserver, configuration, duration, inside, interrupt, migrate, open, ui};
use crate::config::{self, ConfigSet};
use crate::jobs::migrate::{Options, Writer};
use crate::jobs::rotation::{self, Looked, Role, Said, Seen, Status, Step, StepSeen};
use crate::report::rotate::Report;
use crate::resource::Selection;
use crate::source::live::Live;
use files::Files;

/// Options of `rotate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --apply nothing is written. With it, everything is done that can be done safely from here,
until somebody has to copy a file or restart an API server: run the same command again afterwards.
What cannot be seen is never taken for done.")]
#[allow(clippy::struct_excessive_bools)] // flags are what a command line has
pub struct Args {
    /// Where the rotation remembers its keys' names and its files, without any secret; the files
    /// it writes lie beside it. The first --apply makes it
    #[arg(long, value_name = "FILE")]
    pub state: PathBuf,

    /// Take the steps that can be taken from here: write the next file, migrate
    #[arg(long)]
    pub apply: bool,

    /// Show the commands of every step, not only of the next
    #[arg(long, conflicts_with = "apply")]
    pub dry_run: bool,

    /// With --apply: how long to wait, each time, for API servers that are still to load a file
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, requires = "apply")]
    pub wait: Option<Duration>,

    /// The name of the new key; one that the configuration has already is only promoted [default:
    /// named for the day]
    #[arg(long, value_name = "NAME")]
    pub key_name: Option<String>,

    /// The new key's provider, where it is not the one that writes now
    #[arg(long, value_name = "PROVIDER")]
    pub provider: Option<ProviderName>,

    /// Only the entries of the configuration that list these resources (repeatable)
    #[arg(long, value_name = "RES", value_delimiter = ',')]
    pub resource: Vec<String>,

    /// Ask every running API server which configuration it has loaded (Kubernetes 1.34 and later
    /// say so)
    #[arg(long)]
    pub confirm_apiserver: bool,

    /// API servers before 1.34 do not say what they have loaded: with --apply, before the new key
    /// writes, put a made-up Secret or config map under it into etcd for a moment, and see whether
    /// each can read it
    #[arg(long, requires = "confirm_apiserver", conflicts_with = "via_api")]
    pub canary: bool,

    /// You have made sure that every API server has loaded the file with this hash: for those that
    /// do not say it
    #[arg(long, value_name = "SHA256", requires = "apply")]
    pub loaded: Option<String>,

    /// Look which backups below this directory need the old key (repeatable)
    #[arg(long, value_name = "LOCATION")]
    pub backups: Vec<PathBuf>,

    /// Have the API server write each stale object anew, instead of writing to etcd
    #[arg(long)]
    pub via_api: bool,

    #[command(flatten)]
    writing: migrate::Writing,

    #[command(flatten)]
    source: args::Etcd,

    #[command(flatten)]
    prefix: args::Prefix,

    #[command(flatten)]
    reading: args::Decrypting,

    #[command(flatten)]
    pub format: args::TableOrJson,

    #[command(flatten)]
    apiserver: args::ApiServer,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        let groups: [&dyn args::Group; 4] =
            [&self.source, &self.prefix, &self.reading, &self.output];
        Shared { reads_several: !self.backups.is_empty(), ..Shared::of(&groups) }
    }
}

/// Between two looks at API servers that are still to load a file.
const PAUSE: Duration = Duration::from_secs(2);
/// How soon an interrupt is noticed meanwhile.
const BLINK: Duration = Duration::from_millis(100);

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let given = given(ctx)?;
    let _lock = if args.apply { Some(files::lock(&args.state)?) } else { None };
    let mut files = Files::open(args, &given)?;
    if let Some(word) = &args.loaded {
        said(&mut files, word)?;
    }
    let mut run = Run {
        ctx,
        args,
        given: given.iter().map(|g| (g.origin.clone(), g.hash.clone())).collect(),
        interrupted: if args.apply { interrupt::tell() } else { Arc::default() },
        waiting: None,
        failed: None,
    };
    let backups = look::backups(ctx, &args.backups, &files.chain.old)?;
    let (looked, steps) = run.follow(&mut files)?;
    let hosts = look::hosts(&looked);
    let commands = |step: &StepSeen| words::commands(step, &hosts, &files, args);
    let commands: Vec<Vec<String>> = steps.iter().map(commands).collect();
    let state = args.state.display().to_string();
    let names = Role::ALL.map(|role| files.shown(role));
    let report = Report {
        state: &state,
        begun: files.state.as_ref().map(|s| s.begun.as_str()),
        applied: args.apply,
        all: args.dry_run,
        chain: &files.chain,
        files: &names,
        resources: &args.resource,
        steps: &steps,
        commands: &commands,
        looked: &looked,
        backups: backups.as_ref(),
    };
    ui::print(|out| report.write(args.format.write_out, ctx.ui.color, out))?;
    Ok(run.conclude(&steps))
}

/// A configuration file as it lies somewhere.
struct Given {
    origin: String,
    hash: String,
    bytes: zeroize::Zeroizing<Vec<u8>>,
}

fn given(ctx: &Ctx) -> Result<Vec<Given>, Failure> {
    let mut all = Vec::new();
    for path in &ctx.global.encryption_config {
        if path.to_str().is_some_and(|text| text.starts_with(inside::SCHEME)) {
            return Err(Failure::usage("`rotate` works on the configuration file itself")
                .hint("give the API server's file with --encryption-config FILE"));
        }
        let content = configuration::read(path)?;
        if let Some(warning) = &content.exposed {
            ctx.ui.warn(warning);
        }
        let hash = crate::apiserver::hash(&content.bytes);
        all.push(Given { origin: content.origin, hash, bytes: content.bytes });
    }
    Ok(all)
}

/// Takes down what the user says about the API servers.
fn said(files: &mut Files, word: &str) -> Result<(), Failure> {
    /// Digits of a hash below which it could be a slip.
    const ENOUGH: usize = 12;
    let digits = word.strip_prefix("sha256:").unwrap_or(word);
    let fits = |hash: &str| {
        let hash = hash.trim_start_matches("sha256:");
        digits.len() >= ENOUGH && hash.starts_with(digits)
    };
    let known = files.state.as_ref();
    let found = Role::ALL
        .into_iter()
        .skip(1)
        .filter_map(|role| known.and_then(|s| s.file(role)))
        .find(|file| fits(&file.sha256))
        .map(|file| file.sha256.clone());
    let Some(sha256) = found else {
        return Err(Failure::usage(format!(
            "--loaded {word}: no file of this rotation has that hash"
        ))
        .hint("sha256sum on each control plane machine says it; 12 digits are enough"));
    };
    files.change(|state, now| state.said.push(Said { sha256, at: now }))
}

/// One invocation.
struct Run<'a> {
    ctx: &'a Ctx,
    args: &'a Args,
    given: Vec<(String, String)>,
    interrupted: Arc<AtomicBool>,
    /// The step that API servers are waited for at, and since when.
    waiting: Option<(Step, Instant)>,
    /// Why the migration did not come to its end.
    failed: Option<Exit>,
}

impl Run<'_> {
    /// Looks, and takes steps as long as there are some for this program.
    fn follow(&mut self, files: &mut Files) -> Result<(Looked, Vec<StepSeen>), Failure> {
        let mut looked = look::all(self.ctx, self.args, files)?;
        look::show(self.ctx, self.args, files, &mut looked.servers, &self.interrupted)?;
        loop {
            let steps = self.steps(&looked, files);
            let next = steps.iter().find(|s| s.status != Status::Done);
            let Some(next) = next.filter(|_| self.args.apply && self.failed.is_none()) else {
                return Ok((looked, steps));
            };
            match (next.step, next.status) {
                (Step::Add | Step::Promote | Step::Retire, Status::Next) => {
                    let before = steps.iter().rev().find(|s| s.status == Status::Done);
                    files.write(next.step, before, self.ctx)?;
                    // An interrupt that came while waiting is no reason to lose what was seen.
                    looked = look::all(self.ctx, self.args, files)?;
                }
                (Step::Migrate, Status::Next) => {
                    self.migrate(files)?;
                    looked = look::all(self.ctx, self.args, files)?;
                }
                (step, Status::Next | Status::Unknown)
                    if step.is_for_people() && self.wait(step) =>
                {
                    looked.servers = look::servers_again(self.ctx, self.args, files)?;
                }
                _ => return Ok((looked, steps)),
            }
        }
    }

    fn steps(&self, looked: &Looked, files: &Files) -> Vec<StepSeen> {
        rotation::steps(&Seen { state: files.state.as_ref(), given: &self.given, looked })
    }

    /// Waits a little, as long as there is time for this step; false when there is none.
    fn wait(&mut self, step: Step) -> bool {
        let now = Instant::now();
        let since = self.waiting.filter(|(of, _)| *of == step).map_or(now, |(_, since)| since);
        self.waiting = Some((step, since));
        let again = now + PAUSE;
        if again.duration_since(since) > self.args.wait.unwrap_or_default() {
            return false;
        }
        while Instant::now() < again {
            if self.interrupted.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(BLINK);
        }
        true
    }

    /// Rewrites everything that the configuration serves.
    fn migrate(&mut self, files: &mut Files) -> Result<(), Failure> {
        let ctx = self.ctx;
        let text = &files.chain.promoted.text;
        let loaded = config::load(text.as_bytes(), &files.shown(Role::Promoted).0)
            .map_err(|e| configuration::failure(&e))?;
        let Some(configs) = ConfigSet::new(loaded) else { return Ok(()) };
        let transformers = open::transformers(ctx, &configs)?;
        let selection = Selection {
            scope: open::scope(ctx),
            resources: configs.resources(),
            namespaces: Vec::new(),
        };
        let mut live: Live = open::live(ctx)?;
        let (args, writing) = (self.args, &self.args.writing);
        let client = args.via_api.then(|| apiserver::client(&args.apiserver)).transpose()?;
        let options = Options {
            selection: &selection,
            configured: configs.resources(),
            transformers: &transformers,
            apply: true,
            backup: writing.place(),
            quota: writing.quota_backend_bytes,
            writer: client.as_ref().map_or(Writer::Etcd { batch: 1 }, Writer::Api),
            concurrency: writing.concurrency,
            qps: writing.qps,
            servers: None,
            stop: &self.interrupted,
        };
        let outcome = migrate::perform(ctx, &mut live, &options)?;
        let backup = outcome.backup.as_ref();
        let backup = backup.map_or(String::new(), |b| format!(", backup {}", b.display()));
        let (written, remaining) = (outcome.done.written, outcome.remaining);
        files.change(|state, now| {
            let what = format!("migrated: {written} rewritten, {remaining} remaining{backup}");
            state.log.push((now, what));
        })?;
        let exit = migrate::conclude(ctx, true, &outcome);
        // Once is enough where something is left: the same would be left again.
        self.failed = (exit != Exit::Ok).then_some(exit);
        Ok(())
    }

    /// What the end of this invocation means.
    fn conclude(&self, steps: &[StepSeen]) -> Exit {
        if let Some(exit) = self.failed {
            return exit;
        }
        if self.interrupted.load(Ordering::Relaxed) {
            self.ctx.ui.note("interrupted; run it again to continue");
            return Exit::Interrupted;
        }
        let Some(next) = steps.iter().find(|s| s.status != Status::Done) else { return Exit::Ok };
        match next.status {
            Status::Wrong if self.args.apply => {
                let mut failure = Failure::new(format!(
                    "the rotation stops at `{}`: something is not as it should be",
                    next.step.as_str()
                ))
                .hint(words::advice(next.step));
                failure.causes.clone_from(&next.facts);
                self.ctx.ui.failure(&failure);
                Exit::Failed
            }
            Status::Wrong | Status::Unknown => Exit::Partial,
            Status::Done | Status::Next | Status::Later => Exit::Ok,
        }
    }
}
