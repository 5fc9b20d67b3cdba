//! The binary: hands over to [`atrest::cli`] and returns its exit code.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    atrest::cli::run()
}
