//! Messages generated from `proto/`.

#![allow(missing_docs, clippy::pedantic)]

pub(super) mod v1beta1 {
    include!(concat!(env!("OUT_DIR"), "/v1beta1.rs"));
}

pub(super) mod v2 {
    include!(concat!(env!("OUT_DIR"), "/v2.rs"));
}
