//! User and password for etcd: from the command line, a variable, a file, or asked for on the
//! terminal, as etcdctl asks.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use zeroize::Zeroizing;

use super::Ctx;
use super::failure::{Exit, Failure};
use crate::source::live::Credentials;

/// Nobody's password is longer, bytes.
const LIMIT: u64 = 64 << 10;
/// What to do instead of writing a password on a command line, or nowhere.
pub(super) const WAYS: &str = "--password-file FILE and ETCDCTL_PASSWORD keep it from others, and on a terminal --user NAME alone asks for it";

/// Those that were found, so that nobody is asked or warned twice, also where two sources are
/// opened at once.
static FOUND: Mutex<Option<Credentials>> = Mutex::new(None);

/// User and password, if a user is named.
///
/// # Errors
/// When there is a user without a password, a password file without a user, or one that cannot be
/// read.
pub fn of(ctx: &Ctx) -> Result<Option<Credentials>, Failure> {
    let mut known = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if known.is_none() {
        *known = find(ctx, ctx.global.user())?;
    }
    Ok(known.clone())
}

/// As [`of`], where the user stands elsewhere than in an option.
///
/// # Errors
/// As there.
#[cfg(feature = "datastore")]
pub fn of_user(ctx: &Ctx, user: &str) -> Result<Option<Credentials>, Failure> {
    find(ctx, Some(user))
}

fn find(ctx: &Ctx, user: Option<&str>) -> Result<Option<Credentials>, Failure> {
    let g = &ctx.global;
    let Some(user) = user else {
        if g.password_file.is_some() {
            return Err(Failure::usage("--password-file is given without --user"));
        }
        return Ok(None);
    };
    let on_line = ctx.given.has("password");
    let found = match (&g.password_file, &g.password) {
        (Some(_), Some(_)) if on_line => {
            return Err(Failure::usage("--password-file cannot be used together with --password"));
        }
        (Some(file), _) => Credentials::new(user, &from_file(ctx, file)?),
        (None, Some(password)) => {
            warn(ctx, on_line);
            Credentials::new(user, password.expose())
        }
        (None, None) => match user.split_once(':') {
            Some((user, password)) => {
                warn(ctx, ctx.given.has("user"));
                Credentials::new(user, password)
            }
            None => Credentials::new(user, &ask()?),
        },
    };
    Ok(Some(found))
}

fn warn(ctx: &Ctx, on_line: bool) {
    warn_of(ctx, on_line, WAYS);
}

/// Warns of a password on the command line, once, and tells of other ways.
pub fn warn_of(ctx: &Ctx, on_line: bool, ways: &str) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if on_line && !WARNED.swap(true, Ordering::Relaxed) {
        ctx.ui.warn(&format!(
            "every user of this machine can see the password on the command line (ps): {ways}"
        ));
    }
}

/// The first line of a file, which may be a pipe.
fn from_file(ctx: &Ctx, path: &Path) -> Result<Zeroizing<String>, Failure> {
    let unreadable = |e: &io::Error| {
        Failure::new(format!("cannot read the password file {}", path.display())).because(e)
    };
    let file = File::open(path).map_err(|e| unreadable(&e))?;
    let metadata = file.metadata().map_err(|e| unreadable(&e))?;
    if metadata.is_file() && metadata.mode() & 0o077 != 0 {
        ctx.ui.warn(&format!(
            "others may read the password file {} (mode {:o})",
            path.display(),
            metadata.mode() & 0o777
        ));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(LIMIT).read_to_string(&mut text).map_err(|e| unreadable(&e))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(Failure::new(format!("the password file {} is empty", path.display())));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// Asks on the terminal, without showing what is typed.
fn ask() -> Result<Zeroizing<String>, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage("--user is given without a password").hint(WAYS));
    }
    let silent = Silent::new(&stdin).map_err(|e| {
        Failure::new("the terminal cannot be kept from showing the password").because(&e)
    })?;
    // After silence began, so that nothing that follows the question is shown.
    let mut stderr = io::stderr();
    let _ = stderr.write_all(b"Password: ").and_then(|()| stderr.flush());
    let typed = line(&mut stdin.lock());
    drop(silent);
    let _ = stderr.write_all(b"\n");
    match typed {
        Ok(Some(line)) => Ok(line),
        Ok(None) => {
            Err(Failure { exit: Exit::Interrupted, ..Failure::new("no password was given") })
        }
        Err(e) => Err(Failure::new("cannot read the password").because(&e)),
    }
}

/// A terminal that shows nothing and leaves every key to this program: a Ctrl-C that ended it
/// would leave the terminal silent.
struct Silent {
    before: Termios,
}

impl Silent {
    fn new(stdin: &io::Stdin) -> io::Result<Self> {
        let before = termios::tcgetattr(stdin)?;
        let mut silent = before.clone();
        silent.local_modes -=
            LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        termios::tcsetattr(stdin, OptionalActions::Flush, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // A terminal that went away needs nothing.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// What is typed up to the end of a line; `None` for Ctrl-C, and for Ctrl-D or the terminal's end.
fn line(input: &mut impl io::Read) -> io::Result<Option<Zeroizing<String>>> {
    let mut typed = Zeroizing::new(Vec::with_capacity(256));
    loop {
        let mut byte = [0];
        match input.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        }
        match byte[0] {
            b'\r' | b'\n' => break,
            0x03 | 0x04 => return Ok(None),
            // Backspace takes a whole character.
            0x08 | 0x7f => while typed.pop().is_some_and(|b| b & 0xC0 == 0x80) {},
            // Ctrl-U
            0x15 => typed.clear(),
            byte => typed.push(byte),
        }
    }
    let text = std::str::from_utf8(&typed)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_terminal() {
        let typed = |keys: &str| line(&mut keys.as_bytes()).unwrap().map(|t| t.to_string());
        assert_eq!(typed("toor\nrest"), Some("toor".to_owned()));
        assert_eq!(typed("toö\u{7f}\u{8}oor\r"), Some("toor".to_owned()));
        assert_eq!(typed("wrong\u{15}toor\n"), Some("toor".to_owned()));
        assert_eq!(typed("\u{7f}\n"), Some(String::new()));
        for ends in ["too\u{3}", "\u{4}", "too"] {
            assert_eq!(typed(ends), None);
        }
        assert!(line(&mut &b"\xff\n"[..]).is_err());
    }
}
