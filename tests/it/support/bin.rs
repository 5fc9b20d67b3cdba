//! Runs the built binary in a clean environment.

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// No command of the tests takes this long; one that does hangs.
const DEADLINE: Duration = Duration::from_mins(2);

/// One run of `atrest`, being put together.
pub struct Bin {
    command: Command,
    stdin: Vec<u8>,
}

/// `atrest` with no arguments and an environment of its own: no `ETCDCTL_*`, no colour settings.
pub fn bin() -> Bin {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atrest"));
    command.env_clear();
    for name in ["PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("LC_ALL", "C.UTF-8").env("RUST_BACKTRACE", "0");
    Bin { command, stdin: Vec::new() }
}

impl Bin {
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// The words of `line`, split at white space.
    pub fn words(self, line: &str) -> Self {
        self.args(line.split_whitespace())
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn current_dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Starts it with piped output and leaves it running.
    pub fn spawn(mut self) -> std::process::Child {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts")
    }

    /// Runs it to its end on a terminal: stdin is nothing that anybody typed, and stdout and stderr
    /// come together, as stderr.
    pub fn on_a_terminal(self) -> Done {
        const SCRIPT: &str = "import os, pty, sys\n\
            code = pty.spawn(sys.argv[1:])\n\
            sys.exit(os.waitstatus_to_exitcode(code))";
        let mut python = Command::new("python3");
        python.arg("-c").arg(SCRIPT).arg(self.command.get_program());
        python.args(self.command.get_args()).env_clear().env("NO_COLOR", "1");
        python.envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut done = Self { command: python, stdin: self.stdin }.run();
        done.stderr =
            String::from_utf8_lossy(&std::mem::take(&mut done.stdout)).replace("\r\n", "\n");
        done
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Done {
        let line = format!("{:?}", self.command);
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut input = child.stdin.take().unwrap();
        let bytes = self.stdin;
        // A program that stops before reading all of its input is no failure of the test.
        let feeder = thread::spawn(move || drop(input.write_all(&bytes)));
        let stdout = drain(child.stdout.take().unwrap());
        let stderr = drain(child.stderr.take().unwrap());
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > DEADLINE {
                child.kill().unwrap();
                child.wait().unwrap();
                let stderr = String::from_utf8_lossy(&stderr.join().unwrap()).into_owned();
                panic!("{line} did not end within {DEADLINE:?}; stderr:\n{stderr}");
            }
            thread::sleep(Duration::from_millis(2));
        };
        feeder.join().unwrap();
        let done = Done {
            line,
            stdout: stdout.join().unwrap(),
            stderr: String::from_utf8(stderr.join().unwrap()).expect("stderr is UTF-8"),
            code: status.code(),
        };
        assert!(!done.stderr.contains("panicked at"), "a panic: {done}");
        assert!(done.code.is_some(), "killed by a signal ({status}): {done}");
        done
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        pipe.read_to_end(&mut all).unwrap();
        all
    })
}

/// A run that ended by itself, without a panic.
pub struct Done {
    line: String,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub code: Option<i32>,
}

impl std::fmt::Display for Done {
    /// Not stdout: it may hold decrypted values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nstatus {:?}, stderr:\n{}", self.line, self.code, self.stderr)
    }
}

impl Done {
    /// Fails unless the program ended with `code`.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Exit 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    /// stdout as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("stdout is UTF-8")
    }

    /// stdout as one JSON document.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|e| panic!("stdout is not one JSON document: {e}; {self}"))
    }

    /// stdout as JSON documents, one a line.
    #[track_caller]
    pub fn jsonl(&self) -> Vec<serde_json::Value> {
        let parse =
            |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON: {e}; {self}"));
        self.text().lines().map(parse).collect()
    }

    /// The rule for every job that could not be done: that exit code, nothing on stdout, on stderr
    /// one `error:` line and at most one `hint:` line, causes indented.
    #[track_caller]
    pub fn fails(self, code: i32) -> Self {
        let this = self.code(code);
        assert!(this.stdout.is_empty(), "a partial result beside an error: {this}");
        let starting = |word: &str| this.stderr.lines().filter(|l| l.starts_with(word)).count();
        assert_eq!(starting("error:"), 1, "{this}");
        assert!(starting("hint:") <= 1, "{this}");
        this
    }

    /// As [`Done::fails`], and the user is told what to do.
    #[track_caller]
    pub fn fails_with_hint(self, code: i32) -> Self {
        let this = self.fails(code);
        assert!(this.stderr.lines().any(|l| l.starts_with("hint:")), "no hint: {this}");
        this
    }

    /// stderr has `text`.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "stderr lacks {text:?}: {self}");
        self
    }

    /// stdout, stderr and status as one text, for comparing with an expectation. `replace` turns
    /// what differs between runs (paths, ports) into names.
    pub fn transcript(&self, replace: &[(&str, &str)]) -> String {
        let mut text = format!(
            "--- stdout\n{}--- stderr\n{}--- status\n{}\n",
            self.text(),
            self.stderr,
            self.code.unwrap_or(-1)
        );
        for (from, to) in replace {
            text = text.replace(from, to);
        }
        text
    }
}
