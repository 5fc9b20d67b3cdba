//! Progress on stderr, only for a terminal.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::ui::Ui;

/// A progress bar, or nothing.
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Counts `unit`s; `total` is asked only when there is somebody to show it to.
    pub fn new(ui: &Ui, unit: &str, total: impl FnOnce() -> Option<u64>) -> Self {
        if !ui.progress {
            return Self(None);
        }
        let total = total();
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
        let template = if total.is_some() {
            format!("{{bar:30}} {{human_pos}}/{{human_len}} {unit}  {{rate}}  {{eta}} left")
        } else {
            format!("{{spinner}} {{human_pos}} {unit}  {{rate}}  {{elapsed}}")
        };
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.with_key("rate", rate));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(Some(bar))
    }

    /// Adds to the count.
    pub fn advance(&self, n: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(n);
        }
    }

    /// Prints while the bar is off the terminal.
    pub fn beside(&self, print: impl FnOnce()) {
        match &self.0 {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Takes the bar off the terminal.
    pub fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Whole units a second: more digits only flicker.
fn rate(state: &ProgressState, out: &mut dyn Write) {
    let whole = format!("{:.0}", state.per_sec()).parse().unwrap_or_default();
    // Nowhere to report a failure to.
    let _ = write!(out, "{}/s", HumanCount(whole));
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
