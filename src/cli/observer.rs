//! What a job tells, on stderr.

use super::progress::Progress;
use super::ui::Ui;
use crate::jobs::Observer;

/// Writes notes and warnings, and draws a progress bar on a terminal.
pub struct Told<'a> {
    ui: &'a Ui,
    progress: Option<Progress>,
}

impl<'a> Told<'a> {
    /// Tells it by way of `ui`.
    #[must_use]
    pub fn new(ui: &'a Ui) -> Self {
        Self { ui, progress: None }
    }

    /// Says something without a progress bar in the way.
    fn beside(&self, say: impl FnOnce(&Ui)) {
        match &self.progress {
            Some(progress) => progress.beside(|| say(self.ui)),
            None => say(self.ui),
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
