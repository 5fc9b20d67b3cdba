//! `atrest man`.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Arg, Command};
use clap_mangen::Man;

use super::failure::{Exit, Failure};
use super::ui;

/// Options of `man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one page for every command into this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Exit codes are interface, so the page lists them.
const EXIT_STATUS: &str = r".SH EXIT STATUS
.TP
.B 0
all well
.TP
.B 1
the job could not be done: cannot connect, file unreadable, bad configuration
.TP
.B 2
wrong usage
.TP
.B 3
\-\-fail\-on matched, or config check found an error
.TP
.B 4
done, but some entries could not be read or decoded; each is reported
.TP
.B 130
interrupted
";

/// Runs the command.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    if let Some(dir) = &args.out {
        pages(dir)
            .map_err(|e| Failure::new(format!("cannot write to {}", dir.display())).because(&e))?;
    } else {
        ui::print(|out| out.write_all(&one_page()?))?;
    }
    Ok(Exit::Ok)
}

fn pages(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(super::command(), dir)
}

/// atrest(1): every command with its own options, then those that several share, once.
fn one_page() -> io::Result<Vec<u8>> {
    let command = super::command().disable_help_subcommand(true);
    let root = Man::new(command.clone());
    let mut page = Vec::new();
    root.render_title(&mut page)?;
    root.render_name_section(&mut page)?;
    root.render_synopsis_section(&mut page)?;
    root.render_description_section(&mut page)?;
    commands(&command, "atrest", &mut page)?;
    writeln!(page, ".SH SHARED OPTIONS")?;
    writeln!(page, "A command takes those that its own section names.")?;
    let shared = Man::new(with_shared(Command::new("atrest").disable_help_flag(true), &command));
    section(&mut page, |w| shared.render_options_section(w))?;
    page.extend_from_slice(EXIT_STATUS.as_bytes());
    root.render_version_section(&mut page)?;
    Ok(page)
}

/// Whether several commands take the option: those stand under a heading in the help.
fn is_shared(arg: &Arg) -> bool {
    arg.get_help_heading().is_some() && arg.get_id() != "write_out"
}

/// `all` with each shared option of the commands below `parent`, once.
fn with_shared(mut all: Command, parent: &Command) -> Command {
    for sub in parent.get_subcommands() {
        for arg in sub.get_arguments().filter(|arg| is_shared(arg)) {
            if all.get_arguments().all(|known| known.get_id() != arg.get_id()) {
                all = all.arg(arg.clone().required(false));
            }
        }
        all = with_shared(all, sub);
    }
    all
}

fn commands(parent: &Command, path: &str, page: &mut Vec<u8>) -> io::Result<()> {
    for sub in parent.get_subcommands().filter(|s| !s.is_hide_set()) {
        let path = format!("{path} {}", sub.get_name());
        let own = sub
            .clone()
            .disable_help_flag(true)
            .disable_help_subcommand(true)
            .mut_args(|arg| if is_shared(&arg) { arg.hide(true) } else { arg });
        let man = Man::new(own.bin_name(path.clone()).display_name(path.clone()));
        writeln!(page, ".SH {}", path.to_uppercase())?;
        section(page, |w| man.render_synopsis_section(w))?;
        writeln!(page, ".PP")?;
        section(page, |w| man.render_description_section(w))?;
        section(page, |w| man.render_options_section(w))?;
        let shared: Vec<_> = sub
            .get_arguments()
            .filter(|arg| is_shared(arg) && !arg.is_hide_set())
            .filter_map(|arg| Some(format!("\\-\\-{}", arg.get_long()?.replace('-', "\\-"))))
            .collect();
        if !shared.is_empty() {
            writeln!(page, ".PP\nShared options: {}", shared.join(", "))?;
        }
        commands(sub, &path, page)?;
    }
    Ok(())
}

/// A section's body under the command's own heading.
fn section(
    page: &mut Vec<u8>,
    render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    let mut text = Vec::new();
    render(&mut text)?;
    for line in text.split_inclusive(|b| *b == b'\n') {
        if !line.starts_with(b".SH") {
            page.extend_from_slice(line);
        }
    }
    Ok(())
}
