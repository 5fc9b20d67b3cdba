//! What files begin with.

/// What Gardener's incremental snapshots begin with (gardener/etcd-backup-restore
/// `pkg/snapshot/snapshotter/snapshotter.go`: `handleDeltaWatchEvents`).
pub(super) const EVENTS: &[u8] = b"[{\"etcdEvent\":";

/// Whether bytes begin as a database of bbolt, in either byte order, with one damaged meta page at
/// most (etcd-io/bbolt `db.go`: `magic`).
pub(super) fn is_database(head: &[u8]) -> bool {
    const MAGIC: [u8; 4] = 0xED0C_DAEDu32.to_le_bytes();
    const SWAPPED: [u8; 4] = 0xED0C_DAEDu32.to_be_bytes();
    let pages = std::iter::once(0).chain((12..=16).map(|log| 1usize << log));
    pages
        .filter_map(|page| head.get(page + 16..page + 20))
        .any(|magic| magic == MAGIC || magic == SWAPPED)
}
