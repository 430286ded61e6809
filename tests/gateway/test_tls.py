import os
import ssl
import subprocess

import pytest

from app.errors import ConfigError
from app.gateway.tls import Certificate


@pytest.fixture(scope="module")
def context(pair):
    return Certificate(*pair).context


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return made(tmp_path_factory.mktemp("tls"))


def made(folder):
    """A certificate and its key."""
    files = [str(folder / name) for name in ("cert.pem", "key.pem")]
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=h"
    )
    subprocess.run([*command.split(), "-out", files[0], "-keyout", files[1]], check=True, stderr=-3)
    return files


def shaken(server, version):
    """The version that both agree on. Raises SSLError."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.minimum_version = client.maximum_version = version
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(ours, theirs),
        server.wrap_bio(theirs, ours, server_side=True),
    ]
    while sides:
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)
            agreed = side.version()
    return agreed


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_that_are_spoken(context, version):
    assert shaken(context, version) == version.name.replace("_", ".")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_versions_that_are_not(context, version):
    with pytest.raises(ssl.SSLError):
        shaken(context, version)


def test_every_cipher_has_forward_secrecy_and_nobody_asks_for_a_second_handshake(context):
    for cipher in context.get_ciphers():
        kind = cipher["name"]
        assert kind.startswith(("TLS_", "ECDHE-", "DHE-")), cipher
    assert context.options & ssl.OP_NO_RENEGOTIATION and context.options & ssl.OP_NO_COMPRESSION


@pytest.mark.parametrize(
    "kind, said",
    [
        ("pipe", "cert.pem is not a file"),
        ("missing", "cert.pem: No such file"),
        ("exchanged", "key.pem holds no certificate in PEM"),
        ("nothing", "key.pem holds no private key in PEM"),
        ("torn", "PEM lib"),
        ("another's", "the key is not that of the certificate"),
        ("of another kind", "the key is not that of the certificate"),
        ("encrypted", "key.pem is encrypted: take the passphrase off"),
    ],
)
def test_files_that_cannot_be_used_are_told_as_what_they_are(pair, tmp_path, kind, said):
    certificate, key = made(tmp_path)
    if kind == "pipe":
        os.unlink(certificate)
        os.mkfifo(certificate)
    elif kind == "missing":
        os.unlink(certificate)
    elif kind == "exchanged":
        certificate, key = key, certificate
    elif kind in ("nothing", "torn"):
        text = "" if kind == "nothing" else "-----BEGIN PRIVATE KEY-----\nAA"
        (tmp_path / "key.pem").write_text(text)
    elif kind == "of another kind":
        command = f"openssl genpkey -algorithm ED25519 -out {key}"
        subprocess.run(command.split(), check=True)
    elif kind == "another's":
        key = pair[1]
    else:
        command = f"openssl pkey -in {pair[1]} -aes128 -passout pass:secret -out {key}"
        subprocess.run(command.split(), check=True)
    with pytest.raises(ConfigError, match=said):
        Certificate(certificate, key)


def test_an_encrypted_key_beside_the_certificate_is_not_the_key(pair, tmp_path):
    certificate, key = made(tmp_path)
    command = f"openssl pkey -in {pair[1]} -aes128 -passout pass:secret"
    other = subprocess.run(command.split(), check=True, stdout=subprocess.PIPE).stdout
    with open(certificate, "ab") as file:
        file.write(other)
    Certificate(certificate, key)
