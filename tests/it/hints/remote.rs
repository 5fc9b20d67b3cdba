//! Object stores that let nobody in.

use super::says;
use crate::support::bin::{Bin, Done, bin};
use crate::support::bucket::{Bucket, Shelf};
use crate::support::corpus;

const PHASE: &str = "p1b-partial-migration";
/// Throwaway values of the test.
const ID: &str = "AKIATESTONLYTESTONLY";
const SECRET: &str = "throwaway-secret-of-the-test";

/// A server with one backup, which asks for `authorization`.
fn store(authorization: &str) -> Bucket {
    let database = std::fs::read(corpus::db(PHASE)).unwrap();
    Bucket::start(Shelf {
        objects: [("box/a.db".to_owned(), database)].into(),
        authorization: authorization.to_owned(),
        ..Shelf::default()
    })
}

fn s3(bucket: &Bucket) -> Bin {
    bin()
        .env("AWS_ENDPOINT_URL", &bucket.url)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_REGION", "eu-test-1")
}

fn scan(run: Bin, scheme: &str) -> Done {
    run.arg("--snapshot").arg(format!("{scheme}://box/a.db")).arg("scan").run()
}

#[test]
fn credentials_of_s3() {
    let closed = store(&format!("Credential={ID}/"));
    let with =
        |id: &str| s3(&closed).env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", SECRET);
    let hint = says("set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION");
    hint.helps(&scan(with("SOMEBODY"), "s3"), |_| scan(with(ID), "s3"));
    let open = store("");
    hint.helps(&scan(with("SOMEBODY"), "s3"), |_| {
        scan(s3(&open).env("AWS_SKIP_SIGNATURE", "true"), "s3")
    });
}

/// A login at Google cannot be had in a test; what is read without one can.
#[test]
fn credentials_of_google() {
    let google = |bucket: &Bucket| {
        bin()
            .env("GOOGLE_BASE_URL", &bucket.url)
            .env("GOOGLE_ALLOW_HTTP", "true")
            .env("GOOGLE_SKIP_SIGNATURE", "true")
    };
    let (closed, open) = (store("Bearer "), store(""));
    says("set GOOGLE_APPLICATION_CREDENTIALS, or log in with")
        .helps(&scan(google(&closed), "gs"), |_| scan(google(&open), "gs"));
}
