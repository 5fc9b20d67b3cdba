//! The files of a rotation on the disk: its state, and the configurations beside it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Args, Given};
use crate::cli::config::write::{fresh_key, fresh_name, write};
use crate::cli::failure::Failure;
use crate::cli::{Ctx, configuration};
use crate::config::RotateError;
use crate::envelope::Provider;
use crate::jobs::rotation::{
    self, Adopted, Chain, File as Known, FilesError, Role, State, Status, Step, StepSeen, Wanted,
};

/// The files of one rotation.
pub struct Files {
    path: PathBuf,
    /// What is remembered; none before the first step.
    pub state: Option<State>,
    /// What the configurations are, or would be.
    pub chain: Chain,
    /// The first file, as it was given.
    start: Known,
    /// The resources that the rotation is restricted to.
    resources: Vec<String>,
}

/// Keeps other runs from taking steps of rotations in the same directory.
///
/// # Errors
/// When another run does.
pub fn lock(state: &Path) -> Result<File, Failure> {
    let directory = directory_of(state);
    let cannot = |e: &io::Error| {
        Failure::new(format!("cannot use the directory {}", directory.display())).because(e)
    };
    let file = File::open(directory).map_err(|e| cannot(&e))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let text = format!("another `rotate --apply` is at work in {}", directory.display());
            Err(Failure::new(text).hint("wait until it has ended, or end it"))
        }
        Err(e) => Err(cannot(&e.into())),
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Files {
    /// What there is of the rotation, or what there would be.
    ///
    /// # Errors
    /// When the state is none, a file of it is missing or changed, or the rotation cannot be begun.
    pub fn open(args: &Args, given: &[Given]) -> Result<Self, Failure> {
        let path = args.state.clone();
        match std::fs::read(&path) {
            Ok(bytes) => {
                let state = State::read(&bytes).map_err(|e| {
                    Failure::new(format!("{} cannot be used", path.display()))
                        .because(&e)
                        .hint("give the file that `rotate --apply --state` made, or the name of a new one")
                })?;
                Self::resume(path, args, state, given)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::begin(path, args, given),
            Err(e) => Err(Failure::new(format!("cannot read {}", path.display())).because(&e)),
        }
    }

    fn begin(path: PathBuf, args: &Args, given: &[Given]) -> Result<Self, Failure> {
        let [start] = given else {
            return Err(Failure::usage(
                "a rotation begins with the file that API servers read now",
            )
            .hint("give it, and no other, with --encryption-config FILE"));
        };
        let Ok(text) = std::str::from_utf8(&start.bytes) else {
            return Err(Failure::new(format!("{} is no text", start.origin)));
        };
        let wanted = Wanted {
            provider: args.provider.map(Provider::from),
            name: args.key_name.clone(),
            resources: args.resource.clone(),
        };
        let start = Known { file: start.origin.clone(), sha256: start.hash.clone() };
        let (origin, place) = (start.file.clone(), path.clone());
        // A run that was ended at a bad moment has left the file and no memory of it.
        let added = beside(&place, Role::Added, &extension(&origin));
        let resources = wanted.resources.clone();
        let done = |chain| Self { path, state: None, chain, start, resources };
        if let Ok(bytes) = std::fs::read(&added).map(Zeroizing::new) {
            let there = std::str::from_utf8(&bytes).unwrap_or_default();
            return match rotation::adopt(text, there, &wanted) {
                Adopted::Ours(chain) => Ok(done(*chain)),
                Adopted::Foreign => {
                    Err(refused(&FilesError::Foreign(added.display().to_string()), &origin))
                }
            };
        }
        let secret = fresh_key()?;
        let config = crate::config::parse(text.as_bytes());
        let taken = |name: &str| {
            config
                .as_ref()
                .is_ok_and(|p| p.config.providers().any(|s| s.provider.names().any(|n| n == name)))
        };
        let chain = rotation::begin(text, &wanted, &fresh_name(taken), || secret)
            .map_err(|e| refused(&e, &origin))?;
        Ok(done(chain))
    }

    fn resume(path: PathBuf, args: &Args, state: State, given: &[Given]) -> Result<Self, Failure> {
        let other = |what: &str, is: &str| {
            Failure::usage(format!(
                "{what} is not that of the rotation in {}: {is}",
                path.display()
            ))
            .hint("leave it out; another rotation has another --state")
        };
        if args.key_name.is_some() && args.key_name != state.new.name {
            return Err(other("--key-name", &state.new.to_string()));
        }
        if args.provider.is_some_and(|p| Provider::from(p) != state.new.provider) {
            return Err(other("--provider", &state.new.to_string()));
        }
        if !args.resource.is_empty() && args.resource != state.resources {
            return Err(other("--resource", &state.resources.join(", ")));
        }
        let added = state
            .file(Role::Added)
            .cloned()
            .unwrap_or_else(|| Known { file: String::new(), sha256: String::new() });
        let here = directory_of(&path).join(&added.file);
        let own = configuration::read(&here).ok().map(|c| c.bytes);
        let all = own.iter().chain(given.iter().map(|g| &g.bytes));
        let mut all = all.filter(|bytes| crate::apiserver::hash(bytes) == added.sha256);
        let text = all.next().and_then(|bytes| std::str::from_utf8(bytes).ok());
        let Some(text) = text else {
            let what = if here.exists() { "was changed" } else { "is not there" };
            return Err(Failure::new(format!("{} {what} ({})", here.display(), added.sha256))
                .hint("bring back the file with that hash, from a machine it was copied to; it holds the only copy of the new key"));
        };
        let chain = rotation::chain(text, &state.new, &state.resources)
            .map_err(|e| refused(&e, &added.file))?;
        for role in [Role::Promoted, Role::Retired] {
            if let Some(file) = state.file(role)
                && chain.hash(role).as_ref() != Some(&file.sha256)
            {
                return Err(Failure::new(format!(
                    "{} is not what follows from {}",
                    file.file, added.file
                ))
                .hint("another version of this program wrote it: go on with that one"));
            }
        }
        let start = state.file(Role::Start).cloned().unwrap_or(added);
        let resources = state.resources.clone();
        Ok(Self { path, state: Some(state), chain, start, resources })
    }

    /// The name of a file, whether it is written or not, and its hash, where that is certain.
    #[must_use]
    pub fn shown(&self, role: Role) -> (String, Option<String>) {
        let known = self.state.as_ref().and_then(|s| s.file(role));
        if let Some(file) = known {
            return (file.file.clone(), Some(file.sha256.clone()));
        }
        if role == Role::Start {
            return (self.start.file.clone(), Some(self.start.sha256.clone()));
        }
        let path = self.place(role);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Without the first of them, the key that it will have is not made yet.
        (name, self.state.as_ref().and_then(|_| self.chain.hash(role)))
    }

    /// Where a file lies, or will.
    #[must_use]
    pub fn place(&self, role: Role) -> PathBuf {
        match self.state.as_ref().and_then(|s| s.file(role)) {
            Some(file) => directory_of(&self.path).join(&file.file),
            None => beside(&self.path, role, &extension(&self.start.file)),
        }
    }

    /// Where the file that API servers read was, when the rotation began.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.start.file
    }

    /// Writes the file of a step; `before` is what was seen of the step before it.
    ///
    /// # Errors
    /// When something else lies there, or it cannot be written.
    pub fn write(
        &mut self,
        step: Step,
        before: Option<&StepSeen>,
        ctx: &Ctx,
    ) -> Result<(), Failure> {
        let Some(role) = step.role() else { return Ok(()) };
        let path = self.place(role);
        let text = self.chain.text(role).unwrap_or_default();
        match std::fs::read(&path).map(Zeroizing::new) {
            // A run was ended before it could remember that it wrote this.
            Ok(there) if *there == text.as_bytes() => {}
            Ok(_) => {
                let error = FilesError::Foreign(path.display().to_string());
                return Err(refused(&error, ""));
            }
            Err(_) => write(&path, text, false)?,
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let sha256 = self.chain.hash(role).unwrap_or_default();
        ctx.ui.note(&format!("wrote {} (mode 0600)", path.display()));
        let now = now();
        if self.state.is_none() {
            let keys = (self.chain.new.clone(), self.chain.old.clone());
            let resources = self.resources.clone();
            self.state = Some(State::new(now.clone(), self.start.clone(), keys, resources));
        }
        let seen = before.filter(|b| b.status == Status::Done && b.step.role() != Some(role));
        self.change(|state, now| {
            if let Some(seen) = seen {
                let what = format!("{}: {}", seen.step.as_str(), seen.facts.join("; "));
                state.log.push((now.clone(), what));
            }
            state.log.push((now, format!("wrote {file} ({sha256})")));
            state.wrote(role, Known { file, sha256 });
        })
    }

    /// Changes what is remembered, on the disk too. `change` is told the time.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn change(&mut self, change: impl FnOnce(&mut State, String)) -> Result<(), Failure> {
        let Some(state) = &mut self.state else { return Ok(()) };
        change(state, now());
        let bytes = state.write().map_err(|e| {
            Failure::new(format!("cannot write {}", self.path.display())).because(&e)
        })?;
        write(&self.path, bytes, true)
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn extension(file: &str) -> String {
    match Path::new(file).extension().and_then(|e| e.to_str()) {
        Some(known @ ("yaml" | "yml" | "json" | "conf")) => known.to_owned(),
        _ => "yaml".to_owned(),
    }
}

/// `rotation.json` → `rotation-1-added.yaml`.
fn beside(state: &Path, role: Role, extension: &str) -> PathBuf {
    let stem = state.file_stem().unwrap_or_default().to_string_lossy();
    let name = format!("{stem}-{}-{}.{extension}", role as usize, role.as_str());
    directory_of(state).join(name)
}

fn refused(error: &FilesError, origin: &str) -> Failure {
    let FilesError::Step { error: inner, .. } = error else {
        let failure = Failure::new(error.to_string());
        return match error {
            FilesError::Several(_) => failure.hint(
                "rotate one after the other: --resource names the entry, each with its own --state",
            ),
            _ => failure.hint("move it away, or choose another --state"),
        };
    };
    match inner {
        RotateError::Invalid(errors) => {
            let mut failure =
                Failure::new(format!("{origin} is not a valid encryption configuration"));
            failure.causes = errors.errors.iter().map(ToString::to_string).collect();
            failure
        }
        // What is missing is chosen by the options that `config rotate` has.
        inner => {
            let Failure { hint, exit, .. } = super::super::config::rotate::refused(inner, origin);
            Failure { hint, exit, ..Failure::new(error.to_string()) }
        }
    }
}
