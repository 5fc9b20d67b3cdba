//! The steps: what others need comes first.

/// A step of a restore: a directory whose objects need nothing of a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // `directory` says what they are
pub enum Step {
    Namespaces,
    Definitions,
    PriorityClasses,
    StorageClasses,
    ServiceAccounts,
    Rbac,
    SecretsAndConfigMaps,
    Volumes,
    Claims,
    Network,
    CustomResources,
    Others,
    Workloads,
    Limits,
    Admission,
}

impl Step {
    /// The directory's name.
    #[must_use]
    pub fn directory(self) -> &'static str {
        match self {
            Self::Namespaces => "10-namespaces",
            Self::Definitions => "20-definitions",
            Self::PriorityClasses => "30-priority-classes",
            Self::StorageClasses => "35-storage-classes",
            Self::ServiceAccounts => "40-service-accounts",
            Self::Rbac => "45-rbac",
            Self::SecretsAndConfigMaps => "50-secrets-and-configmaps",
            Self::Volumes => "55-volumes",
            Self::Claims => "57-claims",
            Self::Network => "60-network",
            Self::CustomResources => "65-custom-resources",
            Self::Others => "70-others",
            Self::Workloads => "75-workloads",
            Self::Limits => "80-limits",
            Self::Admission => "90-admission",
        }
    }

    /// Why it has this place, for the plan.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::Namespaces => "everything in them needs them",
            Self::Definitions => "custom resources are refused until their kind is served",
            Self::PriorityClasses => "pods that name a missing one are refused",
            Self::StorageClasses => "claims without theirs stay unbound",
            Self::ServiceAccounts => "pods of a missing one are refused",
            Self::Rbac => "what starts next needs its rights",
            Self::SecretsAndConfigMaps | Self::Claims => "pods mount them",
            Self::Volumes => "claims bind to them",
            Self::Network => "pods are told of the Services that exist",
            Self::CustomResources => "operators find them when they start",
            Self::Others => "whatever nothing here waits for",
            Self::Workloads => "what they need is there by now",
            Self::Limits => "a quota counts what is there; it would refuse what is not counted yet",
            Self::Admission => {
                "webhooks and API services last: who answers them runs in the cluster, and until \
                 then they refuse everything"
            }
        }
    }

    /// The step of a resource (`secrets`, `deployments.apps`); `custom` is one that a definition
    /// or another API server serves.
    #[must_use]
    pub fn of(resource: &str, custom: bool) -> Self {
        if custom {
            return Self::CustomResources;
        }
        match resource {
            "namespaces" => Self::Namespaces,
            "customresourcedefinitions.apiextensions.k8s.io" => Self::Definitions,
            "priorityclasses.scheduling.k8s.io" => Self::PriorityClasses,
            "storageclasses.storage.k8s.io"
            | "csidrivers.storage.k8s.io"
            | "volumeattributesclasses.storage.k8s.io" => Self::StorageClasses,
            "serviceaccounts" => Self::ServiceAccounts,
            "secrets" | "configmaps" => Self::SecretsAndConfigMaps,
            "persistentvolumes" => Self::Volumes,
            "persistentvolumeclaims" => Self::Claims,
            "services" | "endpoints" | "endpointslices.discovery.k8s.io" => Self::Network,
            "pods"
            | "podtemplates"
            | "replicationcontrollers"
            | "jobs.batch"
            | "cronjobs.batch" => Self::Workloads,
            "resourcequotas"
            | "horizontalpodautoscalers.autoscaling"
            | "poddisruptionbudgets.policy" => Self::Limits,
            "apiservices.apiregistration.k8s.io" => Self::Admission,
            _ => match crate::resource::group_of(resource) {
                "rbac.authorization.k8s.io" => Self::Rbac,
                "networking.k8s.io" => Self::Network,
                "apps" => Self::Workloads,
                "admissionregistration.k8s.io" => Self::Admission,
                _ => Self::Others,
            },
        }
    }
}
