//! What `scan --watch` shows.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::failure::Failure;
use crate::cli::{Ctx, scan, ui};
use crate::jobs::watch::State;
use crate::report::scan::Report;
use crate::report::{Format, table, wire};
use crate::scan::{GroupKey, Tally};
use crate::source::{SourceInfo, Visit};

/// What the rate is measured over.
const RATE_WINDOW: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A live view on the terminal, and a table at the end.
    Bar,
    /// One JSON document a line.
    Json,
    /// One sentence a line.
    Text,
}

/// What all states have in common.
pub(super) struct Shown {
    /// Which etcd.
    pub info: SourceInfo,
    /// What is counted, in words.
    pub looked_for: String,
    /// The configuration that statuses are relative to.
    pub config: Option<wire::Config>,
    /// Values are decrypted.
    pub verified: bool,
    /// The table at the end is coloured.
    pub color: bool,
}

/// Shows each state that differs from the one before.
pub(super) struct View {
    shown: Shown,
    mode: Mode,
    bar: Option<ProgressBar>,
    before: Option<(Vec<(GroupKey, Tally)>, u64)>,
    /// When how many were left.
    past: VecDeque<(Instant, u64)>,
}

impl View {
    pub(super) fn new(ctx: &Ctx, format: Option<Format>, shown: Shown) -> Self {
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
        Self { shown, mode, bar, before: None, past: VecDeque::new() }
    }

    /// The live view, if there is one.
    pub(super) fn bar(&self) -> Option<ProgressBar> {
        self.bar.clone()
    }

    /// Shows a state.
    pub(super) fn show(&mut self, state: &State) -> Result<(), Failure> {
        if self.bar.is_some() {
            self.draw(state);
            return Ok(());
        }
        let elsewhere = state.remaining_elsewhere();
        let groups = state.counts().groups();
        let same = self.before.as_ref().is_some_and(|(before, n)| {
            *n == elsewhere && before.iter().map(|(k, t)| (k, *t)).eq(groups.iter().copied())
        });
        if same {
            return Ok(());
        }
        let groups = groups.into_iter().map(|(key, tally)| (key.clone(), tally)).collect();
        self.before = Some((groups, elsewhere));
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        let remaining = (state.remaining(), elsewhere);
        self.report(state, |report, out| match self.mode {
            Mode::Json => report.write_line(&now, remaining, out),
            _ => writeln!(out, "{now} {}", sentence(state, self.shown.config.is_some())),
        })
    }

    /// Shows the state at the end.
    pub(super) fn last(&mut self, state: &State) -> Result<(), Failure> {
        if self.mode == Mode::Bar {
            let color = self.shown.color;
            return self.report(state, |report, out| report.write(Format::Table, color, out));
        }
        self.show(state)
    }

    fn report(
        &self,
        state: &State,
        write: impl FnOnce(&Report<'_>, &mut dyn std::io::Write) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        let visit = Visit { revision: state.revision(), ..Visit::default() };
        let report = Report {
            source: &self.shown.info,
            visit: &visit,
            config: self.shown.config.clone(),
            reads: Vec::new(),
            counts: state.counts(),
            also: &[],
            left_behind: &BTreeMap::new(),
            looked_for: self.shown.looked_for.clone(),
            verified: self.shown.verified,
            entries: None,
            timestamp: scan::now(),
        };
        ui::print(|out| write(&report, out))
    }

    fn draw(&mut self, state: &State) {
        let Some(bar) = &self.bar else { return };
        // A scan had taken it off the terminal.
        if bar.is_finished() {
            bar.reset();
            self.past.clear();
        }
        let (now, left, all) = (Instant::now(), state.remaining(), state.judged().entries);
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

    /// Takes the live view off the terminal.
    pub(super) fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn sentence(state: &State, with_status: bool) -> String {
    let totals = state.counts().totals();
    let mut text = format!(
        "revision {}: {}: {} plaintext, {} encrypted",
        state.revision(),
        table::entries(totals.entries),
        table::count(totals.plaintext),
        table::count(totals.encrypted)
    );
    let (count, elsewhere) = (table::count, state.remaining_elsewhere());
    if with_status {
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
