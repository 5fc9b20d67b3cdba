//! Ctrl-C and other signals: most commands just end; one that is in the middle of something can ask
//! to be told instead.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{SignalKind, signal};

use super::failure::Exit;

/// Set for a command that ends by itself.
static TOLD: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// What a shell adds to the number of a signal that ended a program.
const SIGNALLED: i32 = 128;

/// From now on an interrupt ends the program with its documented exit code, and whatever signal
/// ends it, the temporary files go first. Without threads or signals to be had, the system's own
/// way stays.
pub fn watch() {
    use rustix::process::Signal;
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    let of = |s: Signal| signal(SignalKind::from_raw(s.as_raw()));
    let signals = {
        let _inside = runtime.enter();
        let get = || {
            Ok::<_, std::io::Error>((
                of(Signal::INT)?,
                of(Signal::TERM)?,
                of(Signal::HUP)?,
                of(Signal::QUIT)?,
            ))
        };
        get()
    };
    let Ok((mut interrupt, mut terminate, mut hang_up, mut quit)) = signals else { return };
    let wait = move || loop {
        let code = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => i32::from(Exit::Interrupted.code()),
                _ = terminate.recv() => SIGNALLED + Signal::TERM.as_raw(),
                _ = hang_up.recv() => SIGNALLED + Signal::HUP.as_raw(),
                _ = quit.recv() => SIGNALLED + Signal::QUIT.as_raw(),
            }
        });
        // Whoever asks twice does not want to wait.
        if TOLD.get().is_none_or(|flag| flag.swap(true, Ordering::Relaxed)) {
            crate::kms::kill_all();
            crate::temporary::remove_all();
            std::process::exit(code);
        }
    };
    // The thread ends with the program.
    drop(std::thread::Builder::new().name("signals".to_owned()).spawn(wait));
}

/// The first interrupt sets the flag instead of ending the program; the second ends it.
#[must_use]
pub fn tell() -> Arc<AtomicBool> {
    Arc::clone(TOLD.get_or_init(Arc::default))
}

/// As [`tell`], with a flag that is there already.
pub fn tell_by(flag: &Arc<AtomicBool>) {
    TOLD.get_or_init(|| Arc::clone(flag));
}
