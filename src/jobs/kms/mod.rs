//! KMS continuity: do the plugins answer, and what depends on their keys.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`check`] | asks every configured plugin for everything once |
//! | [`uses`] | which plugins, key IDs and data keys stored values name |

#[cfg(feature = "live")]
pub mod check;
pub mod uses;
