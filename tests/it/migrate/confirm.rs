//! What running API servers say about the configuration that they have loaded.

use std::path::Path;

use atrest::apiserver::{hash, id_hash};

use super::servers::{filled, lease};
use super::{migrate, state};
use crate::support::apiserver::{ApiServer, Response};
use crate::support::bin::Bin;
use crate::support::certs::Certs;
use crate::support::{Etcd, corpus};

/// The metrics of the server on `host` that has loaded `file`.
pub fn metrics(host: &str, file: &[u8]) -> String {
    format!(
        "# HELP apiserver_encryption_config_controller_last_config_info [ALPHA] x\n\
         apiserver_encryption_config_controller_last_config_info{{apiserver_id_hash=\"{}\",hash=\"{}\"}} 1\n\
         kubernetes_build_info{{git_version=\"v1.36.0\"}} 1\n",
        id_hash(&format!("apiserver-{host}")),
        hash(file)
    )
}

fn server(certs: &Certs, answer: impl Fn(usize) -> Response + Send + Sync + 'static) -> ApiServer {
    ApiServer::start(certs, move |request| {
        assert_eq!((&*request.method, &*request.path), ("GET", "/metrics"));
        answer(request.connection)
    })
}

fn ask(etcd: &Etcd, kubeconfig: &Path, words: &str) -> Bin {
    let config = corpus::private_config("p1-secretbox");
    let words = format!("--confirm-apiserver -w json {words} --kubeconfig");
    migrate(etcd, &[&config], &words).arg(kubeconfig)
}

const APPLY: &str = "--apply --no-backup";

#[test]
fn nothing_is_written_unless_all_have_loaded_it() {
    let certs = Certs::new();
    let dir = tempfile::tempdir().unwrap();
    let etcd = filled(3);
    lease(&etcd, "cp-1", 2);
    lease(&etcd, "cp-2", 2);
    let file = std::fs::read(corpus::private_config("p1-secretbox")).unwrap();
    let before = state(&etcd);
    let refused = |kubeconfig: &Path, words: &str, why: &str| {
        ask(&etcd, kubeconfig, &format!("{APPLY} {words}")).run().fails_with_hint(1).says(why);
        assert!(state(&etcd) == before, "something was written");
    };

    // One of two has an old file.
    let (own, other) = (file.clone(), file.clone());
    let balanced = server(&certs, move |n| match n % 3 {
        0 => Response::new(200, metrics("cp-1", &own)),
        _ => Response::new(200, metrics("cp-2", b"old")),
    });
    let kubeconfig = balanced.kubeconfig(&certs, dir.path());
    refused(&kubeconfig, "", "the API server cp-2 has loaded another configuration: sha256:");
    let plan = ask(&etcd, &kubeconfig, "").run().ok().says("--apply would refuse").json();
    let asked = plan["apiservers"]["asked"].as_array().unwrap().clone();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().any(|a| a["host"] == "cp-2" && a["loaded"] == "other"));

    // One of two cannot be reached at this address.
    let first = server(&certs, move |_| Response::new(200, metrics("cp-1", &other)));
    let kubeconfig = first.kubeconfig_with_certificate(&certs, dir.path());
    refused(&kubeconfig, "", "the API server on cp-2, which etcd knows of, was not reached");
    refused(&kubeconfig, "--apiserver https://127.0.0.1:1", "was not asked: cannot connect");

    // Asked one by one, both have it.
    let second = server(&certs, move |_| Response::new(200, metrics("cp-2", &file)));
    let each = format!("{APPLY} --apiserver {} --apiserver {}", first.url, second.url);
    let done = ask(&etcd, &kubeconfig, &each).run().ok();
    assert!(!done.stderr.contains("every API server"), "{done}");
    let report = done.json();
    assert_eq!((&report["written"], &report["apiservers"]["confirmed"]), (&3.into(), &2.into()));
}

#[test]
fn who_does_not_say_is_no_confirmation() {
    let certs = Certs::new();
    let dir = tempfile::tempdir().unwrap();
    let etcd = filled(1);
    let older = server(&certs, |_| {
        Response::new(
            200,
            "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds{apiserver_id_hash=\"sha256:0\",status=\"success\"} 1.7e9\n\
             kubernetes_build_info{git_version=\"v1.29.3\"} 1\n",
        )
    });
    let kubeconfig = older.kubeconfig(&certs, dir.path());
    let done = ask(&etcd, &kubeconfig, APPLY).run().fails_with_hint(1);
    done.says("(v1.29.3) does not say which configuration");

    let forbidden = server(&certs, |_| {
        let message = "forbidden: User \"x\" cannot get path \"/metrics\"";
        Response::status(403, "Forbidden", message)
    });
    let kubeconfig = forbidden.kubeconfig(&certs, dir.path());
    ask(&etcd, &kubeconfig, APPLY).run().fails_with_hint(1).says("answers 403 to GET /metrics");
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    std::fs::write(&kubeconfig, text.replace("token: ", "token: wrong-")).unwrap();
    let done = ask(&etcd, &kubeconfig, APPLY).run().fails_with_hint(1).says("answers 401");
    assert!(!done.stderr.contains("wrong-made-up"), "the token was printed");
    // Without a kubeconfig nobody can be asked.
    ask(&etcd, Path::new("/nowhere/kubeconfig"), APPLY).run().fails(1).says("cannot read");
    assert!(state(&etcd).values().all(|row| row.version == 1));
}
