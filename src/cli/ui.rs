//! stdout for results, stderr for everything else.
//!
//! What is said on stderr goes through here, and whatever of it others have sent (a server's
//! status, a name in an archive) cannot move the cursor or begin a line of its own.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use super::args::{ColorWhen, Shared};
use super::failure::{Exit, Failure};
use crate::report::table;

/// How this run talks.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // independent decisions, not states
pub struct Ui {
    quiet: bool,
    /// Progress is drawn: stderr is a terminal and nobody asked for silence.
    pub progress: bool,
    /// Results may be coloured.
    pub color: bool,
    /// Messages may be coloured.
    color_err: bool,
}

impl Ui {
    /// Decides from the options and the terminals.
    #[must_use]
    pub fn new(global: &Shared) -> Self {
        let err_tty = io::stderr().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let color = |tty: bool| match global.color {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => tty && !no_color && !dumb,
        };
        Self {
            quiet: global.quiet,
            progress: err_tty && !dumb && !global.no_progress && !global.quiet,
            color: color(io::stdout().is_terminal()),
            color_err: color(err_tty),
        }
    }

    /// `error:` with its causes and hint, on stderr.
    pub fn failure(&self, failure: &Failure) {
        let message = table::visible(&failure.message);
        let mut text = format!("{} {message}\n", self.label("error:", "31"));
        for cause in &failure.causes {
            text.push_str("  ");
            text.push_str(&table::visible(cause));
            text.push('\n');
        }
        if let Some(hint) = &failure.hint {
            text.push_str(&self.label("hint:", "36"));
            text.push(' ');
            text.push_str(&table::visible(hint));
            text.push('\n');
        }
        write_err(&text);
    }

    /// Something the user must know although the job goes on. Not silenced by `--quiet`.
    pub fn warn(&self, text: &str) {
        write_err(&format!("{} {}\n", self.label("warning:", "33"), table::visible(text)));
    }

    /// A remark.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            write_err(&format!("{} {}\n", self.label("note:", "36"), table::visible(text)));
        }
    }

    fn label(&self, word: &str, colour: &str) -> String {
        if self.color_err { format!("\x1b[1;{colour}m{word}\x1b[0m") } else { word.to_owned() }
    }
}

/// Nothing is left to report to when stderr is gone.
fn write_err(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Buffered stdout.
#[must_use]
pub fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(1 << 16, io::stdout().lock())
}

/// Writes results to stdout, all of them.
pub fn print<T>(
    write: impl FnOnce(&mut BufWriter<StdoutLock<'static>>) -> io::Result<T>,
) -> Result<T, Failure> {
    let mut out = stdout();
    let written = write(&mut out).and_then(|value| out.flush().map(|()| value));
    written.map_err(|e| write_failure(&e))
}

/// A failed write of results. A reader that went away (`| head`) is no failure of ours.
#[must_use]
pub fn write_failure(e: &io::Error) -> Failure {
    if e.kind() == io::ErrorKind::BrokenPipe {
        // As other tools killed by SIGPIPE: quiet, and not a success.
        return Failure {
            exit: Exit::Failed,
            ..Failure::new("the reader of the output went away")
        };
    }
    Failure::new("cannot write the result").because(e)
}
