"""Certificates and keys that a balancer's file names."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from balancer.config.texts import RULE, file
from kit.certificates import Certificates
from timewait.balancer.config import files
from timewait.balancer.config.read import ConfigError, configuration, read


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    for pair in (made.good, made.other_name, made.expired):
        pair.key.chmod(0o600)
    return made


def https(certificate: Path | str, key: Path | str, rules: str = RULE) -> str:
    pair = f'[[listener.tls.certificate]]\ncertificate = "{certificate}"\nkey = "{key}"\n'
    return file(listener='protocol = "https"', rules=rules + pair)


def refused(text: str, name: str = "clb.toml") -> str:
    with pytest.raises(ConfigError) as caught:
        configuration(text, name)
    assert len(caught.value.sentences) == 1
    return str(caught.value)


def test_a_pair_is_taken_relative_to_the_file(certificates: Certificates) -> None:
    good = certificates.good
    reading = read(https(good.certificate.name, good.key.name), str(good.key.parent / "clb.toml"))
    pair = reading.configuration.listener[0].tls.certificate[0]
    assert (pair.certificate, pair.key) == (str(good.certificate), str(good.key))
    assert reading.warnings == ()


def test_what_is_no_pair_is_said(certificates: Certificates, tmp_path: Path) -> None:
    good, other = certificates.good, certificates.other_name
    assert f"is not the key of certificate {good.certificate}" in refused(https(good.certificate, other.key))
    assert "cannot be read (No such file or directory)" in refused(https("none.pem", good.key))
    assert "cannot be read (Is a directory)" in refused(https(good.certificate, tmp_path))
    assert "has no certificate in PEM" in refused(https(good.key, good.key))
    assert "has no private key in PEM" in refused(https(good.certificate, good.certificate))
    torn = tmp_path / "torn.pem"
    torn.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert "is refused by OpenSSL together with its key" in refused(https(torn, good.key))


def test_an_encrypted_key_is_not_waited_for(certificates: Certificates, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(certificates.good.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    encryption = serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    assert "is encrypted, and nobody will be there to type its password" in refused(
        https(certificates.good.certificate, locked)
    )


def test_what_clients_will_refuse_is_a_warning(certificates: Certificates) -> None:
    expired, good = certificates.expired, certificates.good
    (warning,) = read(https(expired.certificate, expired.key), "clb.toml").warnings
    assert "has expired on " in warning
    rules = RULE + '[[listener.rule]]\ndomain = "www.x.test"\npool = "app"\n'
    (warning,) = read(https(good.certificate, good.key, rules), "clb.toml").warnings
    assert "no certificate of listener web is for www.x.test; its clients will see the first one" in warning
    good.key.chmod(0o644)
    try:
        (warning,) = read(https(good.certificate, good.key), "clb.toml").warnings
    finally:
        good.key.chmod(0o600)
    assert "can be read by every user of this machine; chmod 600 mends it" in warning


def test_a_certificate_that_ends_soon_is_told_with_its_days(certificates: Certificates) -> None:
    from cryptography import x509

    made = configuration(https(certificates.good.certificate, certificates.good.key), "clb.toml")
    last = x509.load_pem_x509_certificates(certificates.good.certificate.read_bytes())[0].not_valid_after_utc
    (soon,) = files.warnings(made, last - datetime.timedelta(days=3, hours=1))
    assert "in 3 days; renew it" in soon.sentence
    assert list(files.warnings(made, last - datetime.timedelta(days=15))) == []
    (early,) = files.warnings(made, datetime.datetime(1999, 1, 1, tzinfo=datetime.UTC))
    assert "is not valid before" in early.sentence


def test_tls_where_there_is_none(certificates: Certificates) -> None:
    good = certificates.good
    plain = https(good.certificate, good.key).replace('"https"', '"http"')
    assert 'but http has no TLS; write protocol = "https"' in refused(plain)
    again = https(good.certificate, good.key)
    pair = again[again.index("[[listener.tls.certificate]]") : again.index("[[pool]]")]
    assert "stands twice" in refused(again.replace(pair, pair + pair))
