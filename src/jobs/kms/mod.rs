//! KMS continuity: do the plugins answer, and what depends on their keys.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`check`] | asks every configured plugin for everything once |
//! | [`escrow`] | unwraps every data key that is needed, into a file for age identities |
//! | [`left`] | counts what a source no longer serves and its files still hold |
//! | [`needs`] | counts what depends on which key, and says what breaks without it |
//! | [`uses`] | which plugins, key IDs and data keys stored values name |

#[cfg(feature = "live")]
pub mod check;
#[cfg(feature = "escrow")]
pub mod escrow;
#[cfg(feature = "cli")]
pub mod left;
#[cfg(feature = "cli")]
pub mod needs;
pub mod uses;
