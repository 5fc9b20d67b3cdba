//! The manifests in `deploy/` are built by the real kubectl and fit the API server's schema.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{openapi, served};

fn built(folder: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes").join(folder);
    let output = Command::new(served::kubectl()).arg("kustomize").arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

#[test]
fn the_manifests_are_what_an_api_server_takes() {
    let api = openapi::v1_36();
    let objects = built("base");
    let kinds: Vec<_> = objects.iter().map(|o| o["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Namespace", "Service", "CronJob", "DaemonSet"]);
    let mut judged = 0;
    for object in &objects {
        assert_eq!(api.faults(object), [""; 0], "{}", object["kind"]);
        judged += usize::from(api.knows(object));
        let spec = &object["spec"]["template"]["spec"];
        if object["kind"] == "DaemonSet" {
            assert_eq!(spec["automountServiceAccountToken"], false);
            let mounts = spec["containers"][0]["volumeMounts"].as_array().unwrap();
            assert!(mounts.iter().all(|m| m["readOnly"] == true), "{mounts:?}");
        }
    }
    assert_eq!(judged, objects.len(), "the schema has no definition of one of {kinds:?}");
    assert_eq!(built("monitoring").len(), objects.len() + 2);
    let [job] = &built("backups")[..] else { panic!("one Job") };
    assert!(api.knows(job), "{job}");
    assert_eq!(api.faults(job), [""; 0]);
    let completions = job["spec"]["completions"].to_string();
    let variables = &job["spec"]["template"]["spec"]["containers"][0]["env"];
    let told = variables.as_array().unwrap().iter().find(|v| v["name"] == "JOB_COMPLETIONS");
    assert_eq!(told.unwrap()["value"], completions, "each pod must know how many there are");
}
