//! Which distributions there are, and their well-known places.

/// A distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distribution {
    /// kubeadm, and inside the nodes of kind and minikube.
    Kubeadm,
    /// k3s.
    K3s,
    /// RKE2.
    Rke2,
    /// `OpenShift`.
    Openshift,
    /// `MicroShift`.
    Microshift,
    /// k0s.
    K0s,
    /// `MicroK8s`.
    Microk8s,
    /// kops.
    Kops,
    /// RKE, the first.
    Rke1,
    /// Talos.
    Talos,
}

impl Distribution {
    /// All of them, in the order in which they are looked for.
    pub const ALL: [Self; 10] = [
        Self::K3s,
        Self::Rke2,
        Self::Openshift,
        Self::Microshift,
        Self::K0s,
        Self::Microk8s,
        Self::Talos,
        Self::Kops,
        Self::Rke1,
        Self::Kubeadm,
    ];

    /// As `--profile` names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kubeadm => "kubeadm",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
            Self::Openshift => "openshift",
            Self::Microshift => "microshift",
            Self::K0s => "k0s",
            Self::Microk8s => "microk8s",
            Self::Kops => "kops",
            Self::Rke1 => "rke1",
            Self::Talos => "talos",
        }
    }

    /// A file or directory that only this distribution has.
    pub(super) fn marks(self) -> &'static [&'static str] {
        match self {
            Self::Kubeadm => &[KUBEADM_MANIFEST],
            Self::K3s => &["/var/lib/rancher/k3s/server", "/etc/rancher/k3s/config.yaml"],
            Self::Rke2 => &["/var/lib/rancher/rke2/server", "/etc/rancher/rke2/config.yaml"],
            Self::Openshift => &[OPENSHIFT_MANIFEST],
            Self::Microshift => &[MICROSHIFT],
            Self::K0s => &[K0S, "/etc/k0s/k0s.yaml"],
            Self::Microk8s => &[MICROK8S],
            Self::Kops => &[KOPS_MANIFEST],
            Self::Rke1 => &["/etc/kubernetes/ssl/kube-ca.pem"],
            Self::Talos => &["/system/secrets/kubernetes", "/system/state/config.yaml"],
        }
    }
}

/// kubeadm's manifest (kubernetes/kubernetes `cmd/kubeadm/app/constants/constants.go`).
pub(super) const KUBEADM_MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
/// kops' manifest (kubernetes/kops `nodeup/pkg/model/kube_apiserver.go`).
pub(super) const KOPS_MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.manifest";
/// `OpenShift`'s manifest (openshift/cluster-kube-apiserver-operator
/// `bindata/assets/kube-apiserver/pod.yaml`), which names the revision in force.
pub(super) const OPENSHIFT_MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver-pod.yaml";
/// In the directory of an `OpenShift` revision.
pub(super) const OPENSHIFT_CONFIG: &str = "configmaps/config/config.yaml";
/// `MicroShift`'s data directory.
pub(super) const MICROSHIFT: &str = "/var/lib/microshift";
/// k0s' data directory (k0sproject/k0s `pkg/constant/constant_posix.go`).
pub(super) const K0S: &str = "/var/lib/k0s";
/// `MicroK8s`' files in force (canonical/microk8s `microk8s-resources/default-args`).
pub(super) const MICROK8S: &str = "/var/snap/microk8s/current";
/// Talos' rendered secrets (siderolabs/talos `pkg/machinery/constants/constants.go`).
pub(super) const TALOS_SECRETS: &str = "/system/secrets";
/// Where an etcd beside its API server listens.
pub(super) const LOCAL_ETCD: &str = "https://127.0.0.1:2379";
