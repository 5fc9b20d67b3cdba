//! `--state`: what was judged before.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::cli::Ctx;
use crate::cli::failure::Failure;
use crate::config::ConfigSet;
use crate::jobs::backups::saved::State;
use crate::jobs::backups::{Backup, Earlier};

/// How often it is written while backups are judged: a run that is ended loses no more.
const OFTEN: Duration = Duration::from_secs(10);

/// The file, and what it will hold.
pub struct Kept {
    path: PathBuf,
    by: String,
    judged: BTreeMap<PathBuf, Backup>,
    written: Instant,
}

impl Kept {
    /// What the file has, if there is one, and how to go on with it.
    ///
    /// # Errors
    /// When it cannot be read, or is something else.
    pub fn open(
        ctx: &Ctx,
        path: &Path,
        configs: Option<&ConfigSet>,
    ) -> Result<(Self, Earlier), Failure> {
        let by = judged_by(ctx, configs);
        let earlier = match std::fs::read(path) {
            Ok(bytes) => State::read(&bytes, &by).map_err(|e| {
                Failure::new(format!("{} cannot be used", path.display()))
                    .because(&e)
                    .hint("give the file that `backups --state` made, or the name of a new one")
            })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Some(Earlier::new()),
            Err(e) => {
                return Err(Failure::new(format!("cannot read {}", path.display())).because(&e));
            }
        };
        let earlier = earlier.unwrap_or_else(|| {
            ctx.ui.note(&format!(
                "{} is of another configuration, selection or version: every backup is judged anew",
                path.display()
            ));
            Earlier::new()
        });
        let judged =
            earlier.iter().map(|(at, backup)| (PathBuf::from(at), backup.clone())).collect();
        Ok((Self { path: path.to_owned(), by, judged, written: Instant::now() }, earlier))
    }

    /// Takes one in, and writes the file if that was long ago.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, backup: &Backup) -> Result<(), Failure> {
        self.judged.insert(backup.location.clone(), backup.clone());
        if self.written.elapsed() < OFTEN { Ok(()) } else { self.write(self.judged.values()) }
            .map(|()| self.written = Instant::now())
    }

    /// Writes what a finished run found, and nothing of what is no longer there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(&self, all: &[Backup]) -> Result<(), Failure> {
        self.write(all.iter())
    }

    fn write<'b>(&self, all: impl Iterator<Item = &'b Backup>) -> Result<(), Failure> {
        let state = State::of(self.by.clone(), all);
        let written =
            state.write().and_then(|bytes| crate::temporary::write(&self.path, &bytes, true));
        written.map_err(|e| {
            Failure::new(format!("cannot write {}", self.path.display()))
                .because(&e)
                .hint("give a path in a directory that can be written")
        })
    }
}

/// What a judgement depends on besides the backup: the version, the configurations, and what is
/// selected. As a hash: paths of others are nobody's business.
fn judged_by(ctx: &Ctx, configs: Option<&ConfigSet>) -> String {
    let g = &ctx.global;
    let configs: Vec<_> =
        configs.into_iter().flat_map(ConfigSet::files).map(|file| &file.sha256).collect();
    let selected =
        (&g.prefix, &g.proxy_namespace, &g.resource, g.all_resources, &g.namespace, &configs);
    let all = format!("{} {selected:?}", env!("CARGO_PKG_VERSION"));
    crate::hex::hex(&Sha256::digest(all.as_bytes()))
}
