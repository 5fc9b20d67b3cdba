//! Backups of a fleet: what was judged before, and what other runs wrote.

use std::fs;

use super::says;
use crate::support::bin::{Bin, Done, bin};
use crate::support::bucket::{Bucket, Shelf};
use crate::support::corpus;

/// `backups` of one snapshot.
fn backups(words: &str) -> Bin {
    bin().words("backups").words(words).arg(corpus::db("p1b-partial-migration"))
}

fn summarize(paths: &[&std::path::Path]) -> Done {
    paths.iter().fold(bin().words("backups --summarize"), Bin::arg).run()
}

#[test]
fn what_was_judged_before() {
    let dir = tempfile::tempdir().unwrap();
    let (foreign, new) = (dir.path().join("foreign"), dir.path().join("new"));
    fs::write(&foreign, "{}").unwrap();
    let with = |path: &std::path::Path| backups("").arg("--state").arg(path).run();
    says("give the file that `backups --state` made, or the name of a new one")
        .helps(&with(&foreign), |_| with(&new));
    says("give a path in a directory that can be written")
        .helps(&with(&dir.path().join("none/state")), |_| with(&new));
}

#[test]
fn reports_of_several_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (results, other) = (dir.path().join("results"), dir.path().join("other"));
    fs::create_dir(&results).unwrap();
    fs::create_dir(&other).unwrap();
    let put = |words: &str| backups(words).arg("--results").arg(&results).run();
    let nowhere = backups("").arg("--results").arg(dir.path().join("none")).run();
    says("give a directory that can be written, s3://, gs:// or az://")
        .helps(&nowhere, |_| put(""));
    says("give the place that --results of the runs named, or files of `-w json`")
        .helps(&summarize(&[&other]), |_| summarize(&[&results]));
    says("check the path")
        .helps(&summarize(&[&dir.path().join("none")]), |_| summarize(&[&results]));
    let foreign = dir.path().join("foreign.json");
    fs::write(&foreign, "{}").unwrap();
    says("give what `backups --results` or `backups -w json` wrote")
        .helps(&summarize(&[&foreign]), |_| summarize(&[&results]));
    says("give each backup's report once")
        .helps(&summarize(&[&results, &results]), |_| summarize(&[&results]));
    let half = backups("--shard 0/2").arg("--results").arg(&other).run();
    assert_eq!(half.code, Some(0), "{half}");
    says("give those of one run: each has its own --results")
        .helps(&summarize(&[&results, &other]), |_| summarize(&[&results]));
    let narrowed = |words: &str| bin().words(words).arg("--summarize").arg(&results).run();
    says("leave it out").helps(&narrowed("backups -n kube-system"), |_| narrowed("backups"));
}

#[test]
fn a_pod_of_a_job_and_its_bucket() {
    let pod = |index: &str, of: &str| {
        let pod = backups("").env("JOB_COMPLETION_INDEX", index).env("JOB_COMPLETIONS", of);
        pod.run()
    };
    says("set JOB_COMPLETIONS to the Job's completions, or give --shard I/N")
        .helps(&pod("2", "2"), |_| pod("2", "3"));
    let bucket = Bucket::start(Shelf::default());
    let put = |place: &str| {
        backups("")
            .arg("--results")
            .arg(place)
            .env("AWS_ENDPOINT_URL", &bucket.url)
            .env("AWS_REGION", "eu-test-1")
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_SKIP_SIGNATURE", "true")
            .run()
    };
    says("give a directory, s3://, gs:// or az://")
        .helps(&put("https://127.0.0.1:1/x"), |_| put("s3://box/results"));
}
