//! Whole reads of a live etcd: a state as pages, the past and what follows as watches, and what
//! members say about themselves.

pub(super) mod backup;
pub(super) mod follow;
pub(super) mod member;
mod narrow;
mod pace;
pub(super) mod pages;
pub(super) mod past;
mod stride;
mod watch;
