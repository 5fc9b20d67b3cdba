#!/usr/bin/env python3
"""An OCI image (image-spec 1.0) of one static binary as an archive, without a daemon.

    scripts/oci.py BINARY OUT.tar --version V --architecture amd64 --revision COMMIT --created SECONDS

The image is FROM scratch and starts as a user that is not root; a manifest that reads a master's
root-owned files says `runAsUser: 0` itself. Equal input makes equal bytes."""

import argparse
import datetime
import gzip
import hashlib
import io
import json
import tarfile

NOBODY = 65532


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("out")
    for name in ("version", "architecture", "revision"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--created", type=int, required=True)
    args = parser.parse_args()

    def member(tar, name, data, mode=0o644, kind=tarfile.REGTYPE):
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.type, info.mtime = len(data), mode, kind, args.created
        tar.addfile(info, io.BytesIO(data))

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        member(tar, "etc", b"", 0o755, tarfile.DIRTYPE)
        member(tar, "etc/passwd", f"root:x:0:0::/:\nnonroot:x:{NOBODY}:{NOBODY}::/:\n".encode())
        member(tar, "tmp", b"", 0o1777, tarfile.DIRTYPE)
        member(tar, "usr", b"", 0o755, tarfile.DIRTYPE)
        member(tar, "usr/bin", b"", 0o755, tarfile.DIRTYPE)
        with open(args.binary, "rb") as file:
            member(tar, "usr/bin/atrest", file.read(), 0o755)
    packed = gzip.compress(layer.getvalue(), compresslevel=9, mtime=0)

    blobs = {}

    def blob(data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    created = datetime.datetime.fromtimestamp(args.created, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {
        "org.opencontainers.image.title": "atrest",
        "org.opencontainers.image.version": args.version,
        "org.opencontainers.image.revision": args.revision,
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.licenses": "Apache-2.0",
    }
    config = {
        "created": created,
        "architecture": args.architecture,
        "os": "linux",
        "config": {"User": f"{NOBODY}:{NOBODY}", "Entrypoint": ["/usr/bin/atrest"], "Env": ["PATH=/usr/bin"], "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()]},
        "history": [{"created": created, "created_by": "atrest"}],
    }

    def canonical(value):
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(canonical(config), "application/vnd.oci.image.config.v1+json"),
        "layers": [blob(packed, "application/vnd.oci.image.layer.v1.tar+gzip")],
        "annotations": labels,
    }
    entry = blob(canonical(manifest), "application/vnd.oci.image.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": args.version}
    entry["platform"] = {"os": "linux", "architecture": args.architecture}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    with tarfile.open(args.out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        member(tar, "oci-layout", canonical({"imageLayoutVersion": "1.0.0"}))
        member(tar, "index.json", canonical(index))
        for digest in sorted(blobs):
            member(tar, f"blobs/sha256/{digest}", blobs[digest])


if __name__ == "__main__":
    main()
