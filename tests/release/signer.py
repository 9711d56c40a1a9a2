"""A certificate as Fulcio gives it to a workflow, from an authority of our own.

The workflow signs with such a certificate, for a key that it forgets. Here cosign is given both.
"""

from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.pki.pairs import authority, usage

#: Who says that it is the workflow, in a certificate of Fulcio.
_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_UTF8_STRING = 0x0C


def write(folder: Path, identity: str, issuer: str) -> None:
    """Write ca.pem, tls.pem and tls-key.pem to a folder.

    Args:
        folder: for the files.
        identity: of the workflow.
        issuer: who says so.
    """
    text = issuer.encode()
    name = x509.UnrecognizedExtension(_ISSUER, bytes((_UTF8_STRING, len(text))) + text)
    ca = authority()
    leaf = ca.issue(
        extensions=(
            (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]), True),
            (usage(sign=False), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False),
            (name, False),
        )
    )
    (folder / "ca.pem").write_bytes(ca.pem)
    (folder / "tls.pem").write_bytes(leaf.pem)
    (folder / "tls-key.pem").write_bytes(leaf.key)
