#!/usr/bin/env python3
"""Seals values as kubeseal does, with Python's `cryptography`, for the tests of `posture`.

    scripts/sealed.py > fixtures/posture/sealed.json

Writes a list of objects: two sealing keys (one rotated out), SealedSecrets of each scope, and one
that no key opens. All keys are made anew and thrown away: they protect nothing.
"""

import base64
import json
import os
import struct

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def b64(data):
    return base64.b64encode(data).decode()


def key(form):
    private = rsa.generate_private_key(65537, 2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, form, serialization.NoEncryption()
    )
    return private.public_key(), pem


def seal(public, label, value):
    session = os.urandom(32)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label.encode())
    wrapped = public.encrypt(session, oaep)
    # A session key seals one value, so its nonce is zero.
    return b64(struct.pack(">H", len(wrapped)) + wrapped + AESGCM(session).encrypt(bytes(12), value, None))


def sealing_key(name, pem, created, state):
    labels = {"sealedsecrets.bitnami.com/sealed-secrets-key": state}
    metadata = {"name": name, "namespace": "kube-system", "labels": labels, "creationTimestamp": created}
    return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": metadata, "data": {"tls.crt": b64(b"none"), "tls.key": b64(pem)}}


def sealed(name, scope, data):
    annotations = {f"sealedsecrets.bitnami.com/{scope}": "true"} if scope else {}
    metadata = {"name": name, "namespace": "shop", "annotations": annotations}
    return {"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": metadata,
            "spec": {"encryptedData": data, "template": {"metadata": metadata}}}


old, old_pem = key(serialization.PrivateFormat.TraditionalOpenSSL)
new, new_pem = key(serialization.PrivateFormat.PKCS8)
lost, _ = key(serialization.PrivateFormat.PKCS8)
value = b"throwaway"
print(json.dumps([
    sealing_key("sealed-secrets-keyold", old_pem, "2026-01-01T00:00:00Z", "compromised"),
    sealing_key("sealed-secrets-keynew", new_pem, "2026-02-01T00:00:00Z", "active"),
    sealed("strict-old", None, {"a": seal(old, "shop/strict-old", value)}),
    sealed("strict-new", None, {"a": seal(new, "shop/strict-new", value), "b": seal(new, "shop/strict-new", value)}),
    sealed("both", None, {"a": seal(old, "shop/both", value), "b": seal(new, "shop/both", value)}),
    sealed("wide", "namespace-wide", {"a": seal(new, "shop", value)}),
    sealed("everywhere", "cluster-wide", {"a": seal(new, "", value)}),
    # Sealed strictly for another name, so that it cannot be renamed to this one.
    sealed("renamed", None, {"a": seal(new, "shop/original", value)}),
    sealed("lost", None, {"a": seal(lost, "shop/lost", value)}),
    sealed("half-lost", None, {"a": seal(new, "shop/half-lost", value), "b": seal(lost, "shop/half-lost", value)}),
], indent=1))
