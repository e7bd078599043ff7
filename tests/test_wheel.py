"""What the built wheel promises: one abi3 file for CPython 3.11 on, glibc only, typed, no test-only code."""

import re
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# glibc's own libraries, and GCC's unwinder: Rust's standard library links it dynamically, every glibc distribution
# installs it (glibc itself loads it for pthread_cancel), and the manylinux policy lists it.
ALLOWED = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libgcc_s.so.1"}


@pytest.fixture(scope="module")
def wheel() -> Path:
    wheels = sorted((ROOT / "dist").glob("*.whl"))
    assert len(wheels) == 1, f"`make wheel` leaves exactly one wheel in dist/, found {[path.name for path in wheels]}"
    return wheels[0]


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory


def native(directory: Path) -> Path:
    return directory / "millpond" / "_native.abi3.so"


def test_the_name_says_abi3_from_3_11_on_manylinux(wheel: Path) -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert re.fullmatch(
        rf"millpond-{re.escape(version[1])}-cp311-abi3-manylinux_2_\d+_(x86_64|aarch64)\.whl", wheel.name
    )


def test_only_glibc_is_needed(unpacked: Path) -> None:
    listed = subprocess.run(["readelf", "-d", native(unpacked)], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", listed))
    assert "libc.so.6" in needed
    assert {name for name in needed if not name.startswith("ld-linux")} <= ALLOWED
    assert "RUNPATH" not in listed
    assert "RPATH" not in listed


def test_no_symbol_is_newer_than_the_tag(unpacked: Path, wheel: Path) -> None:
    tag = re.search(r"manylinux_2_(\d+)_", wheel.name)
    assert tag is not None
    table = subprocess.run(["readelf", "-VW", native(unpacked)], capture_output=True, text=True, check=True).stdout
    minors = [int(minor) for minor in re.findall(r"GLIBC_2\.(\d+)", table)]
    assert minors
    assert max(minors) <= int(tag[1])


def test_it_is_typed_and_carries_the_servers_settings(unpacked: Path) -> None:
    package = unpacked / "millpond"
    assert (package / "py.typed").is_file()
    assert "def " in (package / "_native.pyi").read_text()
    for path in sorted(path for path in (ROOT / "config").rglob("*") if path.is_file()):
        carried = package / "local" / "config" / path.relative_to(ROOT / "config")
        assert carried.read_bytes() == path.read_bytes(), path


def test_it_holds_every_module_and_nothing_of_ours_by_accident(unpacked: Path) -> None:
    source = ROOT / "python" / "millpond"
    ours = {str(path.relative_to(source)) for path in source.rglob("*.py")}
    carried = {str(path.relative_to(unpacked / "millpond")) for path in (unpacked / "millpond").rglob("*.py")}
    assert carried == ours
    assert {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")} == {"millpond"}
    assert [path.name for path in unpacked.rglob("*.so")] == ["_native.abi3.so"]


def test_metadata_names_the_extras_and_the_licence(unpacked: Path) -> None:
    (metadata,) = unpacked.glob("*.dist-info/METADATA")
    text = metadata.read_text()
    assert set(re.findall(r"^Provides-Extra: (.+)$", text, re.MULTILINE)) == {"airflow", "local", "notebook", "spark"}
    assert "Requires-Python: >=3.11" in text
    assert "License-Expression: Apache-2.0" in text


def test_the_test_only_feature_is_not_in_it(unpacked: Path) -> None:
    assert b"MILLPOND_SABOTAGE" not in native(unpacked).read_bytes()


def test_the_sabotaged_build_has_what_the_wheel_must_not() -> None:
    """The check above can fail: the same text is found where the feature is on."""
    assert b"MILLPOND_SABOTAGE" in native(ROOT / ".build" / "sabotage").read_bytes()
