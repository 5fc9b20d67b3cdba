//! Integration tests, in one binary.

// Test code: a panic is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kms;
mod support;
mod transform_corpus;
