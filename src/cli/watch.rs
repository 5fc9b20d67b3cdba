//! `atrest scan --watch`: one scan, then what changes.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::failure::{Exit, Failure};
use super::open::{self, Selection};
use super::progress::Progress;
use super::{Ctx, ending, interrupt, nothing, scan, ui};
use crate::config::ConfigSet;
use crate::entry::EntryRef;
use crate::report::Format;
use crate::report::scan::Report;
use crate::report::table;
use crate::scan::{ByPrefix, ByReading, Follower, GroupKey, Judge, Prefixes, Tally, Totals};
use crate::source::live::{Changes, Live, Notice};
use crate::source::{Record, Source, SourceInfo, Visit};

/// At most one line in this time; also how often the live view is drawn.
const BEAT: Duration = Duration::from_millis(200);
/// What the rate is measured over.
const RATE_WINDOW: Duration = Duration::from_secs(30);
/// How often a scan after a compacted watch is tried.
const RESCANS: u32 = 10;

/// Runs the command.
pub fn run(ctx: &Ctx, args: &scan::Args) -> Result<Exit, Failure> {
    let g = &ctx.global;
    if g.snapshot.is_some() || g.data_dir.is_some() || g.kine.is_some() {
        return Err(Failure::usage("--watch follows a live etcd, not a file")
            .hint("name the etcd with --endpoints"));
    }
    if g.revision.is_some() {
        return Err(Failure::usage("--watch follows what is written now; --revision is the past"));
    }
    let format = args.write_out;
    if let Some(other) =
        format.filter(|f| !matches!(f, Format::Table | Format::Json | Format::Jsonl))
    {
        return Err(Failure::usage(format!(
            "--watch does not write `{}`; it writes table, json, jsonl",
            other.as_str()
        )));
    }
    let configs = crate::cli::inside::configs(ctx)?;
    if configs.is_none() && args.verify {
        return Err(scan::verify_needs_keys());
    }
    let selection = open::selection(ctx, configs.as_ref().map(ConfigSet::resources))?;
    // "Done" is a verdict; the view alone is of what was asked for.
    let judged = if args.until_done {
        selection.judged(configs.as_ref().map(ConfigSet::resources))
    } else {
        selection.clone()
    };
    let transformers = configs.as_ref().map(|set| open::transformers(ctx, set)).transpose()?;
    let transformers = transformers.map(|t| t.try_keys(args.try_keys));
    let judge: Box<dyn Judge + '_> = match (&transformers, args.verify) {
        (None, _) => Box::new(Prefixes),
        (Some(t), false) => Box::new(ByPrefix(t)),
        (Some(t), true) => Box::new(ByReading::new(t)),
    };
    if args.until_done && judged_beyond(ctx, &selection, &judged) {
        ctx.ui.note(
            "--until-done waits for everything that is served, not only for what was asked for",
        );
    }
    let unexamined = open::unexamined(ctx, &judged);
    ending::damage(ctx, &unexamined);
    let mut live = open::live(ctx)?;
    nothing::look(ctx, &mut live, &selection)?;
    let mut watch = Watch {
        ctx,
        info: live.info(),
        selection: &selection,
        judged: &judged,
        judge: judge.as_ref(),
        configs: configs.as_ref(),
        verified: args.verify,
        follower: Follower::default(),
        elsewhere: Follower::default(),
        revision: 0,
    };
    watch.scan(&mut live, &AtomicBool::new(false))?;
    let interrupted = interrupt::tell();
    let mut view = View::new(ctx, format);
    let result = watch.follow(&mut live, &mut view, args.until_done, &interrupted);
    view.close();
    let exit = result?;
    if view.mode == Mode::Bar {
        watch.report(|report, out| report.write(Format::Table, ctx.ui.color, out))?;
    }
    let mut totals = watch.totals();
    let elsewhere = watch.elsewhere.counts().totals();
    totals.unreadable += elsewhere.unreadable;
    totals.misplaced += elsewhere.misplaced;
    let Totals { unreadable, misplaced, .. } = totals;
    if exit == Exit::Ok && unreadable > 0 {
        ctx.ui.warn(&format!("{} cannot be read with this configuration", entries(unreadable)));
    }
    if exit == Exit::Ok && misplaced > 0 {
        let held = if misplaced == 1 { "holds" } else { "hold" };
        ctx.ui.warn(&format!("{} {held} another object than the key says", entries(misplaced)));
    }
    if exit == Exit::Ok && unreadable + misplaced > 0 {
        return Ok(Exit::Partial);
    }
    // Nothing is left of what can be seen from here.
    if exit == Exit::Ok && !unexamined.is_empty() {
        return Ok(Exit::Partial);
    }
    Ok(exit)
}

/// Whether more is judged than was asked for.
fn judged_beyond(ctx: &Ctx, selection: &Selection, judged: &Selection) -> bool {
    !selection.namespaces.is_empty()
        || !ctx.global.resource.is_empty() && judged.resources.len() > selection.resources.len()
}

/// What is counted, and of what.
struct Watch<'a> {
    ctx: &'a Ctx,
    info: SourceInfo,
    selection: &'a Selection,
    /// What decides whether something is left, and so when it is done.
    judged: &'a Selection,
    judge: &'a dyn Judge,
    configs: Option<&'a ConfigSet>,
    verified: bool,
    /// Of what was asked for.
    follower: Follower,
    /// Of what is judged beside it.
    elsewhere: Follower,
    /// The newest revision that the counts hold.
    revision: i64,
}

impl Watch<'_> {
    fn totals(&self) -> Totals {
        self.follower.counts().totals()
    }

    /// What is still to be rewritten, everywhere.
    fn remaining(&self) -> u64 {
        self.left(&self.follower) + self.remaining_elsewhere()
    }

    /// What is still to be rewritten of what was not asked for.
    fn remaining_elsewhere(&self) -> u64 {
        self.left(&self.elsewhere)
    }

    fn left(&self, follower: &Follower) -> u64 {
        let totals = follower.counts().totals();
        if self.configs.is_some() { totals.stale + totals.unknown } else { totals.plaintext }
    }

    fn entries(&self) -> u64 {
        self.totals().entries + self.elsewhere.counts().totals().entries
    }

    fn groups(&self) -> Vec<(GroupKey, Tally)> {
        self.follower.counts().groups().into_iter().map(|(k, t)| (k.clone(), t)).collect()
    }

    /// Counts everything anew. Stopped or failed, the counts are those from before.
    fn scan(&mut self, live: &mut Live, stop: &AtomicBool) -> Result<(), Failure> {
        let query = self.judged.query(None, false);
        let progress = Progress::entries(&self.ctx.ui, || live.estimate(&query));
        let before = (
            std::mem::take(&mut self.follower),
            std::mem::take(&mut self.elsewhere),
            std::mem::take(&mut self.revision),
        );
        let visit = live.visit(&query, &mut |entry| {
            progress.advance(1);
            self.put(entry);
            if stop.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        let stopped = stop.load(Ordering::Relaxed);
        if stopped || visit.is_err() {
            (self.follower, self.elsewhere, self.revision) = before;
        }
        if stopped {
            return Ok(());
        }
        let visit = visit?;
        self.revision = visit.revision;
        ending::notes(self.ctx, &visit);
        Ok(())
    }

    fn put(&mut self, entry: EntryRef<'_>) -> bool {
        let Some(location) = self.judged.locate(entry.key) else { return false };
        let asked_for = self.selection.locate(entry.key).is_some();
        if location.internal {
            // Counted once: nobody waits for what is never encrypted.
            self.follower.counts_mut().internal += u64::from(asked_for && self.revision == 0);
            return false;
        }
        let value = entry.stored();
        let judged = self.judge.judge_at(&location, entry.key, value);
        let follower = if asked_for { &mut self.follower } else { &mut self.elsewhere };
        follower.put(entry.key, &location.resource, &judged, value.len())
    }

    fn apply(&mut self, changes: &Changes) -> Result<bool, Failure> {
        let mut differs = false;
        changes.each(|record| {
            let revision = match record {
                Record::Put(entry) => {
                    differs |= self.put(entry);
                    entry.mod_revision
                }
                Record::Delete { key, revision } => {
                    differs |= self.follower.delete(key) | self.elsewhere.delete(key);
                    revision
                }
            };
            self.revision = self.revision.max(revision);
            ControlFlow::Continue(())
        })?;
        Ok(differs)
    }

    fn report<T>(
        &self,
        write: impl FnOnce(&Report<'_>, &mut dyn std::io::Write) -> std::io::Result<T>,
    ) -> Result<T, Failure> {
        let visit = Visit { revision: self.revision, ..Visit::default() };
        let report = Report {
            source: &self.info,
            visit: &visit,
            config: self.configs.map(open::config_wire),
            reads: Vec::new(),
            counts: self.follower.counts(),
            looked_for: self.selection.words(),
            verified: self.verified,
            entries: None,
            timestamp: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |d| d.as_secs()),
        };
        ui::print(|out| write(&report, out))
    }

    /// Follows changes until nothing is left, if that is wanted, or somebody interrupts.
    fn follow(
        &mut self,
        live: &mut Live,
        view: &mut View,
        until_done: bool,
        interrupted: &AtomicBool,
    ) -> Result<Exit, Failure> {
        let ranges = self.judged.query(None, false).ranges;
        loop {
            view.update(self)?;
            if until_done && self.remaining() == 0 {
                view.flush(self)?;
                return Ok(Exit::Ok);
            }
            let compacted = {
                let mut watcher = live.watch(&ranges, self.revision)?;
                loop {
                    if interrupted.load(Ordering::Relaxed) {
                        view.flush(self)?;
                        return Ok(Exit::Interrupted);
                    }
                    match watcher.next(view.wait())? {
                        None => {
                            view.update(self)?;
                            // A moment without changes: what the ranges told belongs together.
                            if until_done && self.remaining() == 0 && view.is_settled() {
                                view.flush(self)?;
                                return Ok(Exit::Ok);
                            }
                        }
                        Some(Notice::Changes(changes)) => {
                            view.dirty |= self.apply(&changes)?;
                            view.update(self)?;
                        }
                        Some(Notice::Lost(error)) => {
                            view.say(|| self.ctx.ui.warn(&format!("{error}; trying again")));
                        }
                        Some(Notice::Back) => view.say(|| self.ctx.ui.note("connected again")),
                        Some(Notice::Compacted(revision)) => break revision,
                    }
                }
            };
            view.say(|| {
                self.ctx.ui.note(&format!(
                    "etcd compacted revision {compacted} before its changes were seen; scanning again"
                ));
            });
            view.hide();
            self.rescan(live, interrupted)?;
            if interrupted.load(Ordering::Relaxed) {
                return Ok(Exit::Interrupted);
            }
            view.dirty = true;
        }
    }

    /// As [`Watch::scan`], when the cluster has just shown that it is busy.
    fn rescan(&mut self, live: &mut Live, interrupted: &AtomicBool) -> Result<(), Failure> {
        let mut tries = 0;
        loop {
            match self.scan(live, interrupted) {
                Err(e) if tries == RESCANS => return Err(e),
                Err(_) => {
                    tries += 1;
                    std::thread::sleep(Duration::from_secs(1));
                }
                Ok(()) => return Ok(()),
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A live view on the terminal, and a table at the end.
    Bar,
    /// One JSON document a line.
    Json,
    /// One sentence a line.
    Text,
}

/// Shows the counts: at most once a beat, and never an older state last.
struct View {
    mode: Mode,
    bar: Option<ProgressBar>,
    /// Counts have changed since they were last shown.
    dirty: bool,
    shown: Option<(Vec<(GroupKey, Tally)>, u64)>,
    last: Option<Instant>,
    /// When how many were left.
    past: VecDeque<(Instant, u64)>,
}

impl View {
    fn new(ctx: &Ctx, format: Option<Format>) -> Self {
        let terminal = ctx.ui.progress && std::io::stdout().is_terminal();
        let mode = match format {
            None | Some(Format::Table) if terminal => Mode::Bar,
            Some(Format::Table) => Mode::Text,
            _ => Mode::Json,
        };
        let bar = (mode == Mode::Bar).then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(10);
            let bar = ProgressBar::with_draw_target(Some(0), target);
            if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:30} {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { mode, bar, dirty: true, shown: None, last: None, past: VecDeque::new() }
    }

    /// How long to wait for something new.
    fn wait(&self) -> Duration {
        match self.last {
            Some(last) if self.dirty => BEAT.saturating_sub(last.elapsed()),
            _ => BEAT,
        }
    }

    /// Everything is shown.
    fn is_settled(&self) -> bool {
        !self.dirty
    }

    fn update(&mut self, watch: &Watch<'_>) -> Result<(), Failure> {
        if self.last.is_some_and(|last| last.elapsed() < BEAT) {
            return Ok(());
        }
        if self.mode == Mode::Bar {
            self.draw(watch);
            self.last = Some(Instant::now());
            self.dirty = false;
            return Ok(());
        }
        if self.dirty { self.flush(watch) } else { Ok(()) }
    }

    /// Shows the counts if they differ from what is shown.
    fn flush(&mut self, watch: &Watch<'_>) -> Result<(), Failure> {
        self.dirty = false;
        if self.mode == Mode::Bar {
            return Ok(());
        }
        let remaining = (watch.remaining(), watch.remaining_elsewhere());
        let state = (watch.groups(), remaining.1);
        if self.shown.as_ref() == Some(&state) {
            return Ok(());
        }
        self.last = Some(Instant::now());
        self.shown = Some(state);
        let text = format!("revision {}: {}", watch.revision, sentence(watch));
        let now = now();
        watch.report(|report, out| match self.mode {
            Mode::Json => report.write_line(&now, remaining, out),
            _ => writeln!(out, "{now} {text}"),
        })
    }

    fn draw(&mut self, watch: &Watch<'_>) {
        let Some(bar) = &self.bar else { return };
        let (now, left, all) = (Instant::now(), watch.remaining(), watch.entries());
        while self.past.front().is_some_and(|(at, _)| now - *at > RATE_WINDOW) {
            self.past.pop_front();
        }
        self.past.push_back((now, left));
        bar.set_length(all);
        bar.set_position(all - left.min(all));
        let (left, all) = (table::count(left), table::count(all));
        bar.set_message(format!("{left} of {all} left{}", pace(&self.past)));
        bar.tick();
    }

    /// Prints beside the live view.
    fn say(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Takes the live view off the terminal until it is drawn again.
    fn hide(&mut self) {
        if let Some(bar) = &self.bar {
            bar.suspend(|| {});
        }
        self.past.clear();
    }

    fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn entries(n: u64) -> String {
    table::entries(n)
}

fn sentence(watch: &Watch<'_>) -> String {
    let totals = watch.totals();
    let mut text = format!(
        "{}: {} plaintext, {} encrypted",
        entries(totals.entries),
        table::count(totals.plaintext),
        table::count(totals.encrypted)
    );
    let (count, elsewhere) = (table::count, watch.remaining_elsewhere());
    if watch.configs.is_some() {
        let _ = write!(text, "; {}", crate::report::scan::statuses(&totals));
    }
    if totals.misplaced > 0 {
        let _ = write!(text, "; {} misplaced", count(totals.misplaced));
    }
    if elsewhere > 0 {
        let _ = write!(text, "; {} to rewrite that were not asked for", count(elsewhere));
    }
    text
}

/// Rate and time left, once there is something to tell them from.
fn pace(past: &VecDeque<(Instant, u64)>) -> String {
    let (Some((from, before)), Some((to, left))) = (past.front(), past.back()) else {
        return String::new();
    };
    let seconds = (*to - *from).as_secs_f64();
    #[allow(clippy::cast_precision_loss)] // shown with three digits
    let (done, left) = (before.saturating_sub(*left) as f64, *left as f64);
    if done <= 0.0 || seconds < 1.0 || left <= 0.0 {
        return String::new();
    }
    let rate = done / seconds;
    let time = Duration::try_from_secs_f64(left / rate).unwrap_or(Duration::MAX);
    let digits = usize::from(rate < 10.0);
    format!("  {rate:.digits$}/s  {} left", indicatif::HumanDuration(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_needs_progress_and_time() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        assert_eq!(pace(&VecDeque::new()), "");
        assert_eq!(pace(&[(at(0), 50)].into()), "");
        assert_eq!(pace(&[(at(0), 50), (at(5), 50)].into()), "");
        assert_eq!(pace(&[(at(0), 50), (at(5), 60)].into()), "");
        assert_eq!(pace(&[(at(0), 5000), (at(10), 3000)].into()), "  200/s  15 seconds left");
    }
}
