"""What a configuration says about this machine: files that must be there, paths that begin at the file's folder.

The only part of this room that touches the file system.
"""

from __future__ import annotations

import datetime
import os
import pwd
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path as File

import msgspec

from timewait.balancer.config.model import Certificate, Configuration, Listener
from timewait.balancer.config.problem import Problem, nearest, quoted
from timewait.balancer.engine import BalancerError
from timewait.balancer.routing.domains import DEFAULT
from timewait.toml_lines import Path

RENEW_DAYS = 14


def anchored(configuration: Configuration, folder: File) -> Configuration:
    """Every path made absolute: in the file it is relative to the file's own folder."""

    def whole(path: str) -> str:
        return os.path.abspath(folder / path) if path not in ("", "-") else path  # noqa: PTH100  Path keeps `..`

    def with_files(listener: Listener) -> Listener:
        pairs = [
            Certificate(certificate=whole(one.certificate), key=whole(one.key)) for one in listener.tls.certificate
        ]
        tls = msgspec.structs.replace(listener.tls, certificate=tuple(pairs))
        return msgspec.structs.replace(listener, tls=tls)

    return msgspec.structs.replace(
        configuration,
        access_log=whole(configuration.access_log),
        admin=msgspec.structs.replace(configuration.admin, socket=whole(configuration.admin.socket)),
        listener=tuple(map(with_files, configuration.listener)),
    )


def problems(configuration: Configuration) -> Iterator[Problem]:
    """What this machine lacks of what the file names."""
    for field, path in (("access_log", configuration.access_log), ("admin.socket", configuration.admin.socket)):
        if path not in ("", "-") and not File(path).parent.is_dir():
            at = tuple(field.split("."))
            yield Problem(
                at, f"{field} = {quoted(path)} is in a folder that does not exist; create it, or choose another"
            )
    if configuration.user and not _is_user(configuration.user):
        hint = nearest(configuration.user, (entry.pw_name for entry in pwd.getpwall()))
        what = f"user = {quoted(configuration.user)} is no user of this machine"
        yield Problem(("user",), f'{what}; {hint}write one that is, or leave it out for "nobody"')
    for index, listener in enumerate(configuration.listener):
        for number, pair in enumerate(listener.tls.certificate):
            yield from _pair(pair, ("listener", index, "tls", "certificate", number))


def warnings(configuration: Configuration, now: datetime.datetime) -> Iterator[Problem]:
    """What clients, or others on this machine, will make of the certificates."""
    for index, listener in enumerate(configuration.listener):
        at: Path = ("listener", index, "tls", "certificate")
        for number, pair in enumerate(listener.tls.certificate):
            if File(pair.key).stat().st_mode & stat.S_IROTH:
                what = f"key {pair.key} can be read by every user of this machine"
                yield Problem((*at, number, "key"), f"{what}; chmod 600 mends it")
            if sentence := _out_of_date(pair.certificate, now):
                yield Problem((*at, number, "certificate"), f"certificate {pair.certificate} {sentence}")
        if listener.tls.certificate:
            yield from _uncovered(listener, ("listener", index))


def _out_of_date(path: str, now: datetime.datetime) -> str:
    """The end of a sentence, or nothing."""
    from cryptography import x509  # heavy, and needed with TLS only

    try:
        certificate = x509.load_pem_x509_certificates(File(path).read_bytes())[0]
    except (OSError, ValueError, IndexError):
        return ""  # OpenSSL took it
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < first:
        return f"is not valid before {first:%Y-%m-%d}; clients will refuse it until then"
    if now > last:
        return f"has expired on {last:%Y-%m-%d}; clients will refuse it"
    days = (last - now).days
    return f"expires on {last:%Y-%m-%d}, in {days} days; renew it" if days < RENEW_DAYS else ""


def _uncovered(listener: Listener, at: Path) -> Iterator[Problem]:
    """Domains of rules that no certificate is for."""
    from timewait.balancer.embedded.certificates import ByName, names

    try:
        known = ByName([names(pair.certificate) for pair in listener.tls.certificate])
    except BalancerError:
        return  # OpenSSL took it
    for number, rule in enumerate(listener.rule):
        exact = rule.domain != DEFAULT and not rule.domain.startswith(("~", "*")) and not rule.domain.endswith("*")
        if exact and known.find(rule.domain) is None:
            what = f"no certificate of listener {listener.name} is for {rule.domain}"
            yield Problem((*at, "rule", number, "domain"), f"{what}; its clients will see the first one")


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _pair(pair: Certificate, at: Path) -> Iterator[Problem]:
    texts = {}
    for field in ("certificate", "key"):
        name: str = getattr(pair, field)
        try:
            texts[field] = File(name).read_bytes()
        except OSError as error:
            what = f"{field} = {quoted(name)} cannot be read ({error.strerror})"
            yield Problem((*at, field), f"{what}; it must be a PEM file this user may read")
    if len(texts) == 2 and (found := _mismatch(pair, texts["certificate"], texts["key"])):
        field, sentence = found
        yield Problem((*at, field), f"{field} = {quoted(getattr(pair, field))} {sentence}")


def _mismatch(pair: Certificate, certificate: bytes, key: bytes) -> tuple[str, str] | None:
    """Which of the two is wrong, and why; None where OpenSSL takes them."""
    if b"-----BEGIN CERTIFICATE-----" not in certificate:
        return "certificate", "has no certificate in PEM (-----BEGIN CERTIFICATE-----); name the file that has"
    if b"PRIVATE KEY-----" not in key:
        return "key", "has no private key in PEM (-----BEGIN PRIVATE KEY-----); name the file that has"
    if b"ENCRYPTED" in key:
        return "key", "is encrypted, and nobody will be there to type its password; decrypt it: openssl pkey -in FILE"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(pair.certificate, pair.key, lambda: b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "key", f"is not the key of certificate {pair.certificate}; name the one it was issued for"
        return "certificate", f"is refused by OpenSSL together with its key ({error.reason or error}); renew them"
    except (OSError, ValueError) as error:
        return "certificate", f"is refused by OpenSSL together with its key ({error}); renew them"
    return None
