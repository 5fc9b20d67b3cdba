//! Why an object is left out or changed, each with a word for programs and a sentence for people.

/// A reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // `sentence` is their documentation
pub enum Reason {
    // Left out.
    ServerMade,
    InstallerMade,
    ControllerMade,
    MadeFromService,
    MirrorPod,
    Finished,
    Event,
    Lease,
    Node,
    StorageState,
    ServiceAccountToken,
    // Changed.
    Owner,
    Deletion,
    JobSelector,
    ServiceAddress,
    NodePort,
    VolumeBinding,
    ClaimUid,
    TokenContent,
    TokenReference,
    PodPlacement,
    Requester,
}

/// Every reason, in the order in which they are listed.
pub const REASONS: [Reason; 22] = {
    use Reason::{
        ClaimUid, ControllerMade, Deletion, Event, Finished, InstallerMade, JobSelector, Lease,
        MadeFromService, MirrorPod, Node, NodePort, Owner, PodPlacement, Requester, ServerMade,
        ServiceAccountToken, ServiceAddress, StorageState, TokenContent, TokenReference,
        VolumeBinding,
    };
    [
        ServerMade,
        InstallerMade,
        ControllerMade,
        MadeFromService,
        MirrorPod,
        Finished,
        Event,
        Lease,
        Node,
        StorageState,
        ServiceAccountToken,
        Owner,
        Deletion,
        JobSelector,
        ServiceAddress,
        NodePort,
        VolumeBinding,
        ClaimUid,
        TokenContent,
        TokenReference,
        PodPlacement,
        Requester,
    ]
};

impl Reason {
    /// The word in JSON output and in the field guide.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::ServerMade => "server-made",
            Self::InstallerMade => "installer-made",
            Self::ControllerMade => "controller-made",
            Self::MadeFromService => "made-from-service",
            Self::MirrorPod => "mirror-pod",
            Self::Finished => "finished",
            Self::Event => "event",
            Self::Lease => "lease",
            Self::Node => "node",
            Self::StorageState => "storage-state",
            Self::ServiceAccountToken => "service-account-token",
            Self::Owner => "owner",
            Self::Deletion => "deletion",
            Self::JobSelector => "job-selector",
            Self::ServiceAddress => "service-address",
            Self::NodePort => "node-port",
            Self::VolumeBinding => "volume-binding",
            Self::ClaimUid => "claim-uid",
            Self::TokenContent => "token-content",
            Self::TokenReference => "token-reference",
            Self::PodPlacement => "pod-placement",
            Self::Requester => "requester",
        }
    }

    /// What is done and why.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::ServerMade => "left out: every new cluster makes it by itself",
            Self::InstallerMade => {
                "left out: whoever installs a cluster writes it about that cluster, and the old \
                 one's addresses and certificates would break the new one"
            }
            Self::ControllerMade => {
                "left out: its owner is in the export, and the owner's controller makes it again; \
                 with both, two controllers would fight over it"
            }
            Self::MadeFromService => "left out: made again from the Service and the pods behind it",
            Self::MirrorPod => "left out: a node shows its own static pod there",
            Self::Finished => "left out: it has run to its end, and applied it would run again",
            Self::Event => "left out: tells what happened in the old cluster",
            Self::Lease => "left out: says who led in the old cluster, and would keep others out",
            Self::Node => "left out: nodes and their drivers register themselves",
            Self::StorageState => {
                "left out: says which volume is attached where, which is found out again"
            }
            Self::ServiceAccountToken => {
                "left out: a token of the old cluster, for a service account with another UID; it \
                 would be deleted, and is good for nothing"
            }
            Self::Owner => {
                "ownerReferences removed: the owner gets a new UID, and the garbage collector \
                 deletes what belongs to a UID that does not exist"
            }
            Self::Deletion => {
                "deletionTimestamp and finalizers removed: it was being deleted, and the rest of \
                 that would never come"
            }
            Self::JobSelector => {
                "selector and labels with the Job's old UID removed: they are made for each Job, \
                 and others are refused"
            }
            Self::ServiceAddress => "cluster IP removed: the new cluster has other ranges",
            Self::NodePort => "node ports removed: they may be taken in the new cluster",
            Self::VolumeBinding => {
                "what binds claim and volume removed, but for their names, by which they find \
                 each other again; else the claim would be Lost"
            }
            Self::ClaimUid => {
                "UID and version of the claim removed: they are those of the old claim, and the \
                 volume would be Released"
            }
            Self::TokenContent => {
                "token, certificate and UID removed: the new cluster fills in its own"
            }
            Self::TokenReference => "names of the old cluster's tokens removed",
            Self::PodPlacement => {
                "node, priority value and temporary containers removed: the new cluster decides \
                 them"
            }
            Self::Requester => "who asked is removed: the server writes down who applies it",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_once_and_its_sentence_fits() {
        let mut ids: Vec<_> = REASONS.iter().map(|r| r.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), REASONS.len());
        assert!(REASONS.is_sorted());
        let left_out = REASONS.iter().position(|r| !r.sentence().starts_with("left out: "));
        let last = REASONS.iter().rposition(|r| r.sentence().starts_with("left out: "));
        assert_eq!(left_out, last.map(|i| i + 1), "first those that leave out, then the others");
    }
}
