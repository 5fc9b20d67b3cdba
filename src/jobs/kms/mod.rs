//! KMS continuity: do the plugins answer, and what depends on their keys.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`check`] | asks every configured plugin for everything once |
//! | [`needs`] | counts what depends on which key, and says what breaks without it |
//! | [`uses`] | which plugins, key IDs and data keys stored values name |

#[cfg(feature = "live")]
pub mod check;
#[cfg(feature = "cli")]
pub mod needs;
pub mod uses;
