//! A throwaway KMS plugin for tests and demonstrations. Its keys are public (the SHA-256 of the
//! key ID): never use it for anything else.
//!
//! ```text
//! cargo run --example kms_plugin -- --socket /tmp/kms.sock --key-id kek-2026-01
//! ```
//!
//! It serves KMS v1 and v2 on one socket (`@name` is a Linux abstract one) until it is
//! interrupted.

#[path = "../tests/it/support/kms_plugin.rs"]
mod kms_plugin;

use clap::Parser;
use kms_plugin::{Behaviour, Listen, Service, serve};

/// A throwaway KMS plugin for tests: its keys are public.
#[derive(Parser)]
struct Args {
    /// Where to listen: a path, or `@name` for an abstract socket. A socket left there is
    /// replaced.
    #[arg(long)]
    socket: String,
    /// The key ID. KMS v1 wraps with this key; v2 wraps with it and unwraps with any.
    #[arg(long, default_value = "kek-v1")]
    key_id: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let listen = match args.socket.strip_prefix('@') {
        Some(name) => Listen::Abstract(name.to_owned()),
        None => match std::fs::remove_file(&args.socket) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => Listen::Path(args.socket.clone().into()),
        },
    };
    let ready = || eprintln!("test KMS plugin: key {} at {}", args.key_id, args.socket);
    let stop = async {
        // Without a handler the signal ends the process all the same.
        let _ = tokio::signal::ctrl_c().await;
    };
    serve(listen, Service::new(Behaviour::new(&args.key_id)), ready, stop).await
}
