"""The files that a probe needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from revip.config import load
from revip.errors import ConfigError
from tests.config.conftest import GOOD, Asker, Loader, within

READABLE = 0o640


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> dict[str, Path]:
    leaf, other = authority.issue_cert("n1"), authority.issue_cert("n2")
    contents = {
        "ca": authority.cert_pem.bytes(),
        "certificate": leaf.cert_chain_pems[0].bytes(),
        "key": leaf.private_key_pem.bytes(),
        "other_key": other.private_key_pem.bytes(),
        "token": b"abc.def-123\n",
        "empty": b"",
        "words": b"not PEM at all\n",
        "spaced": b"two words\n",
    }
    contents["encrypted"] = serialization.load_pem_private_key(
        contents["key"], password=None
    ).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    paths = {name: tmp_path / f"{name}.file" for name in contents}
    for name, path in paths.items():
        path.write_bytes(contents[name])
        path.chmod(READABLE)
    return {**paths, "none": tmp_path / "none", "directory": tmp_path}


def probe(**keys: Path) -> str:
    written = ", ".join(f"{key}: {path}" for key, path in keys.items())
    return within(GOOD, probe=f"{{{written}}}")


def test_good_files_are_taken_without_a_word(spec_of: Loader, files: dict[str, Path]) -> None:
    spec = spec_of(
        probe(
            ca=files["ca"],
            client_certificate=files["certificate"],
            client_key=files["key"],
            token_file=files["token"],
        )
    )
    assert spec.virtual_servers[0].probe.ca == files["ca"]
    assert spec.warnings == ()


@pytest.mark.parametrize(
    ("key", "file", "expected"),
    [
        ("ca", "none", "does not exist"),
        ("ca", "directory", "is a directory"),
        ("ca", "words", "holds no PEM certificate"),
        ("ca", "empty", "holds no PEM certificate"),
        ("ca", "key", "holds no PEM certificate"),
        ("token_file", "none", "does not exist"),
        ("token_file", "empty", "is an empty file"),
        ("token_file", "spaced", "does not hold a bearer token"),
    ],
)
def test_a_file_that_cannot_serve_is_named_with_its_key(
    problems_of: Asker, files: dict[str, Path], key: str, file: str, expected: str
) -> None:
    (problem,) = problems_of(probe(**{key: files[file]}))
    assert problem.key == f"virtual_servers[0].probe.{key}"
    assert problem.value == str(files[file])[:59] + "…" or problem.value == str(files[file])
    assert expected in problem.mend


@pytest.mark.parametrize(
    ("certificate", "key", "expected"),
    [
        ("certificate", "other_key", "is not the key of"),
        ("certificate", "encrypted", "is encrypted"),
        ("certificate", "words", "its PEM key"),
        ("words", "key", "must hold a PEM certificate"),
        ("certificate", "none", "does not exist"),
    ],
)
def test_a_certificate_needs_its_own_key(
    problems_of: Asker, files: dict[str, Path], certificate: str, key: str, expected: str
) -> None:
    text = probe(client_certificate=files[certificate], client_key=files[key])
    (problem,) = problems_of(text)
    assert expected in problem.mend


@pytest.fixture
def unreadable(files: dict[str, Path]) -> Path:
    files["ca"].chmod(0)
    return files["ca"]


@pytest.fixture
def nobody() -> Iterator[None]:
    """Be a user whom modes bind: root may read everything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_an_unreadable_file_is_told(unreadable: Path, nobody: None) -> None:
    environ = {
        "REVIP_VIP": "10.0.1.10",
        "REVIP_INTERFACE": "eth0",
        "REVIP_OWNER": "n1",
        "REVIP_BACKENDS": "10.0.1.16",
        "REVIP_PROBE_CA": str(unreadable),
    }
    with pytest.raises(ConfigError) as caught:
        load(None, environ, "host")
    (problem,) = caught.value.problems
    assert (problem.origin, problem.key) == ("REVIP_PROBE_CA", "virtual_servers[0].probe.ca")
    assert problem.mend == "cannot be read: permission denied"


def test_a_secret_that_everybody_may_read_is_warned_of(
    spec_of: Loader, files: dict[str, Path]
) -> None:
    files["token"].chmod(0o644)
    (warning,) = spec_of(probe(token_file=files["token"])).warnings
    assert "everybody on this host may read it: chmod o= " in warning


def test_a_token_is_never_quoted(problems_of: Asker, files: dict[str, Path]) -> None:
    (problem,) = problems_of(probe(token_file=files["spaced"]))
    assert "two words" not in str(problem)
