//! A command of the shell, run with bounds: bytes in, bytes out, in a given time, and nothing of it
//! left behind.

use std::io::{self, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use zeroize::Zeroizing;

use crate::visible::shortened;

/// Longest answer in bytes: no data key is longer, and what goes on and on must end.
pub(super) const MAX_ANSWER: usize = 4096;
/// What is kept of what it says on stderr, in bytes.
const MAX_SAID: usize = 4096;
/// Characters of that which are shown.
const SAID_SHOWN: usize = 300;
/// How long the end of a killed program's pipes is waited for: what it started may hold them.
const AFTER_KILL: Duration = Duration::from_secs(1);
/// How often the end of a program is looked for that has closed its stdout: first and at last.
const LOOK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// Process groups that run, so that none outlives this program.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Kills what runs. Nothing can be started after this: the program must end.
pub fn kill_all() {
    let running = lock(&RUNNING);
    for group in running.iter() {
        // Nobody is left to tell that it failed.
        let _ = kill_process_group(*group, Signal::KILL);
    }
    std::mem::forget(running);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why there is no answer.
pub(super) struct Failed {
    /// It could not be run or did not end, so that other input would not have helped.
    pub(super) silent: bool,
    /// What happened, to be read after the program's name.
    pub(super) cause: String,
}

impl Failed {
    fn cannot(error: &io::Error) -> Self {
        Self { silent: true, cause: format!("cannot be run: {error}") }
    }
}

/// Runs `command` with `variables` in its environment (`None` takes one out of it), `input` on
/// stdin, and returns what it writes to stdout, all of it, if it then ends well in time.
pub(super) fn run(
    command: &str,
    variables: &[(&str, Option<&str>)],
    input: Vec<u8>,
    timeout: Duration,
) -> Result<Zeroizing<Vec<u8>>, Failed> {
    let deadline = Instant::now() + timeout;
    let mut running = Running::start(command, variables).map_err(|e| Failed::cannot(&e))?;
    let pipes = Pipes::open(&mut running.child, input).map_err(|e| Failed::cannot(&e))?;
    let late = |said: &str| Failed {
        silent: true,
        cause: format!("did not end within {timeout:?}{said}"),
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let Ok(answer) = pipes.answer.recv_timeout(left) else {
        running.end(true).map_err(|e| Failed::cannot(&e))?;
        return Err(late(&pipes.said()));
    };
    let answer = answer.map_err(|e| Failed::cannot(&e))?;
    // Whoever says more than is listened to is not waited for.
    if answer.len() > MAX_ANSWER {
        let cause = format!("answered with more than {MAX_ANSWER} bytes");
        return Err(Failed { silent: false, cause });
    }
    match running.look(deadline).map_err(|e| Failed::cannot(&e))? {
        Some(true) => {
            running.end(false).map_err(|e| Failed::cannot(&e))?;
            Ok(answer)
        }
        Some(false) => {
            let status = running.end(true).map_err(|e| Failed::cannot(&e))?;
            // What the shell says when there is no such program.
            let silent = matches!(status.code(), Some(126 | 127));
            Err(Failed { silent, cause: format!("{}{}", ending(status), pipes.said()) })
        }
        None => {
            running.end(true).map_err(|e| Failed::cannot(&e))?;
            Err(late(&pipes.said()))
        }
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

/// A program in a process group of its own; killed and reaped at the latest when it is dropped.
struct Running {
    child: Child,
    group: Pid,
    reaped: bool,
}

impl Running {
    fn start(command: &str, variables: &[(&str, Option<&str>)]) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(command).process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (name, value) in variables {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        // Locked, so that none is started without being noted.
        let mut running = lock(&RUNNING);
        let child = shell.spawn()?;
        let group = Pid::from_child(&child);
        running.push(group);
        Ok(Self { child, group, reaped: false })
    }

    /// Whether it ended well; `None` if it has not ended by then. It stays to be reaped, so that
    /// its number is nobody else's.
    fn look(&self, deadline: Instant) -> io::Result<Option<bool>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let mut pause = LOOK.0;
        loop {
            if let Some(status) = waitid(WaitId::Pid(self.group), options)? {
                return Ok(Some(status.exit_status() == Some(0)));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(pause);
            pause = (2 * pause).min(LOOK.1);
        }
    }

    /// Reaps it, after killing all of its group if asked to.
    fn end(&mut self, kill: bool) -> io::Result<ExitStatus> {
        if kill && !self.reaped {
            // Whoever has ended meanwhile need not be killed.
            let _ = kill_process_group(self.group, Signal::KILL);
        }
        self.reaped = true;
        lock(&RUNNING).retain(|group| *group != self.group);
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            // What failed before has been told.
            let _ = self.end(true);
        }
    }
}

/// The other ends of its pipes, each served by a thread that ends with the pipe.
struct Pipes {
    answer: Receiver<io::Result<Zeroizing<Vec<u8>>>>,
    said: Arc<Mutex<Vec<u8>>>,
    said_all: Receiver<()>,
}

impl Pipes {
    fn open(child: &mut Child, input: Vec<u8>) -> io::Result<Self> {
        let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
        let mut stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let thread = |work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name("kms".to_owned()).spawn(work).map(drop)
        };
        // A program need not read what it is given.
        thread(Box::new(move || drop(stdin.write_all(&input))))?;
        let (sender, answer) = sync_channel(1);
        thread(Box::new(move || drop(sender.send(read(stdout)))))?;
        let (sender, said_all) = sync_channel(1);
        let said: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = Arc::clone(&said);
        thread(Box::new(move || listen(stderr, &kept, &sender)))?;
        Ok(Self { answer, said, said_all })
    }

    /// The beginning of what it said on stderr, if anything, for the end of a sentence.
    fn said(&self) -> String {
        // It has ended, or what it left running is not waited for.
        let _ = self.said_all.recv_timeout(AFTER_KILL);
        let said = lock(&self.said);
        let text = String::from_utf8_lossy(&said);
        match text.trim() {
            "" => String::new(),
            text => format!(": {}", shortened(text, SAID_SHOWN)),
        }
    }
}

/// One byte more than an answer may have, at most.
fn read(mut from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // Never grown, so that no copy is left behind.
    let mut bytes = Zeroizing::new(vec![0; MAX_ANSWER + 1]);
    let mut len = 0;
    while len < bytes.len() {
        match from.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// Keeps the beginning, and reads the rest so that nobody waits.
fn listen(mut from: impl Read, kept: &Mutex<Vec<u8>>, all: &SyncSender<()>) {
    let mut chunk = [0; 1024];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => {
                let mut kept = lock(kept);
                let room = MAX_SAID - kept.len();
                kept.extend_from_slice(&chunk[..n.min(room)]);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    // Whoever listens may have gone.
    let _ = all.send(());
}
