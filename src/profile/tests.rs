#![allow(clippy::unwrap_used)] // a panic is a failed test

use std::path::Path;

use super::*;

const KUBEADM: &str = "
apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver, namespace: kube-system}
spec:
  containers:
  - name: sidecar
    command: [kms-plugin, --etcd-servers=https://wrong:1]
  - name: kube-apiserver
    command:
    - kube-apiserver
    - --advertise-address=10.0.0.1
    - --etcd-servers=https://10.0.0.1:2379,https://10.0.0.2:2379
    - --etcd-cafile
    - /etc/kubernetes/pki/etcd/ca.crt
    - --etcd-certfile=/etc/kubernetes/pki/old.crt
    args:
    - --etcd_certfile=/etc/kubernetes/pki/apiserver-etcd-client.crt
    - --etcd-keyfile=/etc/kubernetes/pki/../pki/apiserver-etcd-client.key
    - --encryption-provider-config=/enc/config.yaml
    - --allow-privileged
    - --etcd-prefix=/registry
    volumeMounts:
    - {mountPath: /etc/kubernetes/pki, name: k8s-certs, readOnly: true}
    - {mountPath: /etc/kubernetes/pki/etcd/, name: etcd-certs}
    - {mountPath: /enc, name: enc, subPath: live}
    - {mountPath: /generated, name: nowhere}
  volumes:
  - {hostPath: {path: /etc/kubernetes/pki, type: DirectoryOrCreate}, name: k8s-certs}
  - {hostPath: {path: /srv/etcd-certs}, name: etcd-certs}
  - {hostPath: {path: /srv/enc}, name: enc}
  - {emptyDir: {}, name: nowhere}
";

#[test]
fn the_flags_of_a_static_pod() {
    let (flags, mounts) = pod(KUBEADM).unwrap();
    assert_eq!(
        ApiServer::of(&flags),
        ApiServer {
            etcd_servers: vec!["https://10.0.0.1:2379".into(), "https://10.0.0.2:2379".into()],
            etcd_servers_overrides: vec![],
            etcd_cafile: Some("/etc/kubernetes/pki/etcd/ca.crt".into()),
            etcd_certfile: Some("/etc/kubernetes/pki/apiserver-etcd-client.crt".into()),
            etcd_keyfile: Some("/etc/kubernetes/pki/../pki/apiserver-etcd-client.key".into()),
            etcd_prefix: Some("/registry/".into()),
            encryption_provider_config: Some("/enc/config.yaml".into()),
        }
    );
    let host = |path: &str| mounts.host(Path::new(path)).map(|p| p.to_string_lossy().into_owned());
    // The deepest mount counts, by whole names.
    assert_eq!(host("/etc/kubernetes/pki/etcd/ca.crt"), Ok("/srv/etcd-certs/ca.crt".into()));
    assert_eq!(
        host("/etc/kubernetes/pki/etcd2/ca.crt"),
        Ok("/etc/kubernetes/pki/etcd2/ca.crt".into())
    );
    assert_eq!(host("/etc/kubernetes/pki/../pki/a.key"), Ok("/etc/kubernetes/pki/a.key".into()));
    assert_eq!(host("/enc/config.yaml"), Ok("/srv/enc/live/config.yaml".into()));
    assert_eq!(host("/enc"), Ok("/srv/enc/live".into()));
    assert_eq!(host("/elsewhere/x"), Ok("/elsewhere/x".into()));
    assert_eq!(host("/generated/x"), Err("nowhere"));
}

#[test]
fn a_container_of_another_name_is_known_by_its_program() {
    let text = "kind: Pod
spec:
  containers:
  - {name: proxy, command: [etcd-proxy, --etcd-servers=no]}
  - name: api
    env: [{name: IP, value: 10.1.1.1}]
    command: [/usr/local/bin/kube-apiserver]
    args: ['--etcd-servers=https://$(IP):2379', --etcd-servers, 'https://b:2379']
";
    let server = ApiServer::of(&pod(text).unwrap().0);
    assert_eq!(server.etcd_servers, ["https://10.1.1.1:2379", "https://b:2379"]);
}

#[test]
fn a_shell_s_line_is_taken_apart() {
    let text = r#"{"kind":"Pod","spec":{"containers":[{"name":"kube-apiserver","command":["/bin/sh","-c",
        "exec kube-apiserver --etcd-servers=http://a:1 --etcd-prefix kubernetes.io\n"]}]}}"#;
    let server = ApiServer::of(&pod(text).unwrap().0);
    assert_eq!(server.etcd_servers, ["http://a:1"]);
    assert_eq!(server.etcd_prefix.as_deref(), Some("/kubernetes.io/"));
}

#[test]
fn what_is_no_manifest_is_told() {
    let wrong = |text: &str| pod(text).err().unwrap();
    assert_eq!(wrong("kind: Deployment\nspec: {}\n"), ManifestError::Kind("pod"));
    assert_eq!(wrong(""), ManifestError::Kind("pod"));
    assert_eq!(
        wrong("kind: Pod\nspec: {containers: [{name: etcd, command: [etcd]}]}\n"),
        ManifestError::NoApiServer
    );
    let (flags, _) = pod("kind: Pod\nspec: {containers: [{name: kube-apiserver}]}\n").unwrap();
    assert!(ApiServer::of(&flags).etcd_servers.is_empty());
    let broken = wrong("kind: Pod\nspec: {hunter2\n");
    assert!(matches!(broken, ManifestError::Syntax { .. }));
    assert!(!broken.to_string().contains("hunter2"), "{broken}");
}

#[test]
fn openshift_s_arguments_are_lists() {
    let text = "kind: KubeAPIServerConfig
apiServerArguments:
  etcd-servers: [https://10.0.0.5:2379, https://localhost:2379]
  etcd-prefix: [kubernetes.io]
  etcd-certfile: [/etc/kubernetes/static-pod-resources/secrets/etcd-client/tls.crt]
  encryption-provider-config: [/etc/kubernetes/static-pod-resources/secrets/encryption-config/encryption-config]
";
    let server = ApiServer::of(&openshift_config(text).unwrap());
    assert_eq!(server.etcd_servers, ["https://10.0.0.5:2379", "https://localhost:2379"]);
    assert_eq!(server.etcd_prefix.as_deref(), Some("/kubernetes.io/"));
    assert!(server.encryption_provider_config.is_some());
    assert!(openshift_config("kind: Pod").is_err());
}
