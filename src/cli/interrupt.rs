//! Ctrl-C and SIGTERM: most commands just end; one that is in the middle of something can ask to
//! be told instead.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{SignalKind, signal};

use super::failure::Exit;

/// Set for a command that ends by itself.
static TOLD: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// What a shell reports for a program that SIGTERM ended.
const TERMINATED: i32 = 143;

/// From now on an interrupt ends the program with its documented exit code. Without threads or
/// signals to be had, the system's own way stays.
pub fn watch() {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    let signals = {
        let _inside = runtime.enter();
        signal(SignalKind::interrupt()).and_then(|i| Ok((i, signal(SignalKind::terminate())?)))
    };
    let Ok((mut interrupt, mut terminate)) = signals else { return };
    let wait = move || loop {
        let code = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => i32::from(Exit::Interrupted.code()),
                _ = terminate.recv() => TERMINATED,
            }
        });
        // Whoever asks twice does not want to wait.
        if TOLD.get().is_none_or(|flag| flag.swap(true, Ordering::Relaxed)) {
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
