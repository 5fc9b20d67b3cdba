//! Everything that runs the binary, or a real etcd or plugin beside it, in one test program.
//!
//! A test that needs a tool fails when the tool is missing: `scripts/setup` installs them all.

// Test code: a panic is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod backups;
mod cases;
mod completion;
mod data_dir_property;
mod datastore;
mod decode;
mod delete_unreadable;
mod deploy;
mod diff;
mod doctor;
mod documentation;
mod encode;
mod export;
mod exporter;
mod fuzz;
mod get;
mod harness;
mod hints;
mod history;
mod hostile;
mod html;
mod interrupt;
mod judged;
mod kept;
mod keys;
mod kine;
mod kms;
mod live;
mod lost;
mod migrate;
mod nats;
mod nothing;
mod numbers;
mod objects;
mod options;
mod packed_dir;
mod past;
mod posture;
mod prefix;
mod profile;
mod remote;
mod residue;
mod residue_damage;
mod residue_kine;
mod residue_members;
mod restore;
mod rotate;
mod salvage;
mod scan;
mod scan_errors;
mod scan_formats;
mod scan_verify;
mod scrub;
mod scrub_kine;
mod sealed;
mod serve;
mod serve_truth;
mod transform_corpus;
mod try_keys;
mod untrue;
mod wrong_objects;
