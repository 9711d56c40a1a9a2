"""The names of a certificate, the same in every overlay: another one can take it over."""

DNS_NAMES = (
    "noderestrict.noderestrict.svc",
    "noderestrict.noderestrict.svc.cluster.local",
    "localhost",
)
LOOPBACK = "127.0.0.1"
CERTIFICATE_NAMES = (*DNS_NAMES, LOOPBACK)
