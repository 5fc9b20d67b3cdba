//! Snapshots and backups in object stores and behind HTTPS, against servers of the test.

use std::sync::atomic::Ordering;

use serde_json::Value;

use crate::support::apiserver::{ApiServer, Response};
use crate::support::bin::Bin;
use crate::support::bucket::{Bucket, Shelf};
use crate::support::certs::Certs;
use crate::support::{bin, corpus};

const PHASE: &str = "p1b-partial-migration";
/// Throwaway values of the test.
const ID: &str = "AKIATESTONLYTESTONLY";
const SECRET: &str = "throwaway-secret-of-the-test";

fn database() -> Vec<u8> {
    std::fs::read(corpus::db(PHASE)).unwrap()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn s3(bucket: &Bucket) -> Bin {
    bin()
        .env("AWS_ENDPOINT_URL", &bucket.url)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_REGION", "eu-test-1")
        .env("AWS_ACCESS_KEY_ID", ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
}

fn google(bucket: &Bucket) -> Bin {
    bin()
        .env("GOOGLE_BASE_URL", &bucket.url)
        .env("GOOGLE_ALLOW_HTTP", "true")
        .env("GOOGLE_SKIP_SIGNATURE", "true")
}

fn azure(bucket: &Bucket) -> Bin {
    bin()
        .env("AZURE_STORAGE_ACCOUNT", "account")
        .env("AZURE_STORAGE_ENDPOINT", &bucket.url)
        .env("AZURE_ALLOW_HTTP", "true")
        .env("AZURE_SKIP_SIGNATURE", "true")
}

/// What a scan says, but for where the file is.
fn scan(run: Bin) -> Value {
    let mut document = run.words("scan -w json --list").run().ok().json();
    document["source"]["location"].take();
    document
}

fn local() -> Value {
    scan(bin().arg("--snapshot").arg(corpus::db(PHASE)))
}

fn shelf(objects: Vec<(&str, Vec<u8>)>) -> Shelf {
    let objects = objects.into_iter().map(|(path, bytes)| (path.to_owned(), bytes)).collect();
    Shelf { objects, ..Shelf::default() }
}

#[test]
fn a_snapshot_in_a_store_is_read_like_a_file() {
    let authorization = format!("Credential={ID}/");
    let signed = Bucket::start(Shelf {
        authorization,
        ..shelf(vec![("backups/etcd/a b.db", database()), ("backups/x.zst", packed(&database()))])
    });
    let expected = local();
    let done = s3(&signed).arg("--snapshot").arg("s3://backups/etcd/a b.db");
    assert_eq!(scan(done), expected);
    assert_eq!(scan(s3(&signed).words("--snapshot s3://backups/x.zst")), expected);
    let open = Bucket::start(shelf(vec![("box/a.db", database())]));
    assert_eq!(scan(google(&open).words("--snapshot gs://box/a.db")), expected);
    assert_eq!(scan(azure(&open).words("--snapshot az://box/a.db")), expected);
    let anonymous = bin()
        .env("AWS_ENDPOINT_URL", &open.url)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_SKIP_SIGNATURE", "true");
    assert_eq!(scan(anonymous.words("--snapshot s3://box/a.db")), expected);
}

#[test]
fn one_fetch_serves_a_command_that_reads_twice() {
    let bucket = Bucket::start(shelf(vec![("box/a.db", database())]));
    let dir = tempfile::tempdir().unwrap();
    s3(&bucket)
        .words("--snapshot s3://box/a.db residue --resource secrets --recover")
        .arg(dir.path().join("out"))
        .run()
        .ok();
    assert_eq!(bucket.sent.load(Ordering::SeqCst), database().len());
    let same = s3(&bucket)
        .words("diff snapshot:s3://box/a.db")
        .arg(format!("snapshot:{}", corpus::db(PHASE).display()));
    same.run().ok();
}

#[test]
fn a_bucket_of_backups_is_judged_like_a_directory() {
    let cut = database()[..database().len() - 8192].to_vec();
    let mut noise = vec![7u8; 3 << 20];
    noise[..4].copy_from_slice(b"nope");
    let bucket = Bucket::start(Shelf {
        broken: vec!["box/etcd/broken.db".to_owned()],
        ..shelf(vec![
            ("box/etcd/snapshot-1767225600", database()),
            ("box/etcd/old/packed.zst", packed(&database())),
            ("box/etcd/cut.db", cut),
            ("box/etcd/broken.db", database()),
            ("box/etcd/film.bin", noise),
            ("box/etcd/notes.txt", b"no backup".to_vec()),
            ("box/etcd-other/a.db", database()),
        ])
    });
    let run = |run: Bin, address: &str| {
        let done = run.words("backups -w json --encryption-config");
        done.arg(corpus::private_config("p1-secretbox")).arg(address).run().code(4).json()
    };
    let document = run(s3(&bucket), "s3://box/etcd");
    let backups = document["backups"].as_array().unwrap();
    let locations: Vec<_> = backups.iter().map(|b| b["location"].as_str().unwrap()).collect();
    assert_eq!(
        locations,
        [
            "s3://box/etcd/broken.db",
            "s3://box/etcd/cut.db",
            "s3://box/etcd/film.bin",
            "s3://box/etcd/notes.txt",
            "s3://box/etcd/old/packed.zst",
            "s3://box/etcd/snapshot-1767225600"
        ]
    );
    let [broken, cut, film, notes, packed, whole] = &backups[..] else { panic!() };
    assert_eq!((&whole["kind"], &whole["error"]), (&"snapshot".into(), &Value::Null));
    assert_eq!(whole["taken"], "2026-01-01T00:00:00Z");
    assert_eq!(whole["revision"], corpus::entries(PHASE).revision);
    for field in ["revision", "totals", "keys", "residue"] {
        assert_eq!(packed[field], whole[field], "{field}");
    }
    assert_eq!(packed["taken"], "2026-01-02T03:04:05Z");
    for bad in [broken, cut] {
        assert!(bad["error"].is_string(), "{bad}");
        assert_eq!(bad["totals"], Value::Null);
    }
    for other in [film, notes] {
        assert_eq!((&other["kind"], &other["error"]), (&"not-a-backup".into(), &Value::Null));
    }
    // The same in the other stores, whose listings are other documents.
    for (other, scheme) in [(google(&bucket), "gs"), (azure(&bucket), "az")] {
        let there = run(other, &format!("{scheme}://box/etcd"));
        for (there, here) in there["backups"].as_array().unwrap().iter().zip(backups) {
            let location = here["location"].as_str().unwrap().replace("s3:", &format!("{scheme}:"));
            assert_eq!(there["location"], location);
            for field in ["kind", "taken", "revision", "totals", "keys", "residue"] {
                assert_eq!(there[field], here[field], "{location} {field}");
            }
        }
        assert_eq!(there["keys"], document["keys"]);
    }
    let one = s3(&bucket).words("backups -w json s3://box/etcd/snapshot-1767225600").run().ok();
    assert_eq!(one.json()["backups"].as_array().unwrap().len(), 1);
}

#[test]
fn what_cannot_be_fetched_is_told_without_a_credential() {
    let refusing = Bucket::start(Shelf {
        authorization: "nobody".to_owned(),
        refusal: format!("{ID} {SECRET} https://x/?sig={SECRET}"),
        ..shelf(vec![("box/a.db", database())])
    });
    let denied = s3(&refusing).words("--snapshot s3://box/a.db scan").run().fails_with_hint(1);
    let denied = denied.says("AccessDenied").says("AWS_ACCESS_KEY_ID");
    let listing = s3(&refusing).words("backups s3://box/x").run().fails_with_hint(1);
    let of_azure = azure(&refusing)
        .env("AZURE_STORAGE_SAS_TOKEN", format!("sv=2020&sig={SECRET}"))
        .env("AZURE_SKIP_SIGNATURE", "false")
        .words("--snapshot az://box/a.db scan")
        .run()
        .fails_with_hint(1);
    let empty = Bucket::start(Shelf::default());
    let missing = s3(&empty).words("--snapshot s3://box/none.db scan").run().fails_with_hint(1);
    let missing = missing.says("there is no s3://box/none.db");
    let nothing = s3(&empty).words("backups s3://box/none").run().fails_with_hint(1);
    let plain = s3(&empty).env("AWS_ALLOW_HTTP", "false");
    let plain = plain.words("--snapshot s3://box/a.db scan").run().fails_with_hint(1);
    let signed = format!("https://user:{SECRET}@127.0.0.1:1/a.db?X-Amz-Signature={SECRET}");
    let gone = bin().arg("--snapshot").arg(&signed).arg("scan").run().fails_with_hint(1);
    let gone = gone.says("https://…@127.0.0.1:1/a.db?…");
    for done in [&denied, &listing, &of_azure, &missing, &nothing, &plain, &gone] {
        assert!(!done.stderr.contains(SECRET) && !done.stderr.contains(ID), "{done}");
    }
}

#[test]
fn an_address_that_is_none_is_wrong_usage() {
    for text in ["s3://", "ftp://host/a.db", "http://127.0.0.1/a.db", "https:///a", "s3://box/a//b"]
    {
        bin().arg("--snapshot").arg(text).arg("scan").run().fails_with_hint(2);
    }
    bin().words("backups https://127.0.0.1:1/etcd/").run().fails_with_hint(2);
    bin().words("backups nats://127.0.0.1:1/etcd").run().fails_with_hint(2);
}

#[test]
fn https_follows_redirections_and_trusts_the_named_ca() {
    let certs = Certs::new();
    let bytes = database();
    let server = ApiServer::open(&certs, move |request| match request.path.as_str() {
        "/moved?sig=abc" => Response::new(302, "").with("Location", &"/a.db?sig=def"),
        "/a.db?sig=def" => Response::new(200, bytes.clone()),
        "/round" => Response::new(302, "").with("Location", &"/round"),
        "/down" => Response::new(302, "").with("Location", &"http://127.0.0.1:1/a.db"),
        _ => Response::new(404, "<html>nothing</html>"),
    });
    let with_ca = || bin().env("SSL_CERT_FILE", &certs.ca);
    let moved = format!("{}/moved?sig=abc", server.url);
    assert_eq!(scan(with_ca().arg("--snapshot").arg(&moved)), local());
    let done = with_ca().arg("backups").arg("-w").arg("json").arg(&moved).run().ok();
    let location = format!("{}/moved?…", server.url);
    assert_eq!(done.json()["backups"][0]["location"], location);
    for (path, code) in [("round", 1), ("down", 1), ("none", 1)] {
        let address = format!("{}/{path}", server.url);
        with_ca().arg("--snapshot").arg(address).arg("scan").run().fails_with_hint(code);
    }
    let stranger = bin().env("SSL_CERT_FILE", &certs.other_ca).arg("--snapshot").arg(&moved);
    stranger.arg("scan").run().fails_with_hint(1).says("cannot be trusted");
}
