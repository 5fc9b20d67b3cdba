//! What the commands of `kms` print.

#[cfg(feature = "live")]
pub mod check;
#[cfg(feature = "cli")]
pub mod escrow;
#[cfg(feature = "cli")]
pub mod needs;
