//! What a job tells, on stderr.

use indicatif::ProgressBar;

use super::progress::Progress;
use super::ui::Ui;
use crate::jobs::Observer;

/// Writes notes and warnings, and draws a progress bar on a terminal.
pub struct Told<'a> {
    ui: &'a Ui,
    progress: Option<Progress>,
    /// A live view that gives way to what is told.
    above: Option<ProgressBar>,
}

impl<'a> Told<'a> {
    /// Tells it by way of `ui`.
    #[must_use]
    pub fn new(ui: &'a Ui) -> Self {
        Self::above(ui, None)
    }

    /// As [`Told::new`], above a live view, which is taken off the terminal where a part of the
    /// job shows its own progress.
    #[must_use]
    pub fn above(ui: &'a Ui, view: Option<ProgressBar>) -> Self {
        Self { ui, progress: None, above: view }
    }

    /// Says something without a progress bar in the way.
    fn beside(&self, say: impl FnOnce(&Ui)) {
        match (&self.progress, &self.above) {
            (Some(progress), _) => progress.beside(|| say(self.ui)),
            (None, Some(view)) => view.suspend(|| say(self.ui)),
            (None, None) => say(self.ui),
        }
    }
}

impl Observer for Told<'_> {
    fn note(&mut self, text: &str) {
        self.beside(|ui| ui.note(text));
    }

    fn warning(&mut self, text: &str) {
        self.beside(|ui| ui.warn(text));
    }

    fn begin(&mut self, unit: &str, total: &mut dyn FnMut() -> Option<u64>) {
        if let Some(view) = &self.above {
            view.finish_and_clear();
        }
        self.progress = Some(Progress::new(self.ui, unit, total));
    }

    fn advance(&mut self, n: u64) {
        if let Some(progress) = &self.progress {
            progress.advance(n);
        }
    }

    fn end(&mut self) {
        self.progress = None;
    }
}
