"""`export --push`: what is shown, asked and sent, to a stand-in of the hub."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, digests, talk_to
from huggingface_hub import ModelCard
from messages import says
from tiny_runs import Run, refused

from tell_lightning.cli import main

pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning"  # huggingface_hub 2.4 sends files to LFS the old way
)


class Terminal(io.StringIO):
    """A standard input on which somebody types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The hub of this process is a stand-in."""
    store = tmp_path / "store"
    store.mkdir()
    with HubServer(store) as server:
        talk_to(server, monkeypatch)
        yield server


def test_the_folder_is_sent_after_its_files_were_shown_and_a_yes(
    hub: HubServer,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    folder = tmp_path / "letters"
    license_ = "--data.tasks.turn.license=cc-by-4.0"
    main(["export", str(run.folder), "--to", str(folder), "--push", "me/letters", license_])
    shown, _, sent = capsys.readouterr().out.partition("Send these files? [y/N] ")
    assert "To push to me/letters (new, private):" in shown
    base = run.record["base"]["name"]
    assert f"adapter_config.json names the base by its folder here: {base}" in shown
    assert all(f"\n{path} " in shown for path in digests(folder))
    assert sent.startswith(f"Sent: {hub.url}/me/letters/commit/")
    repository = hub.repositories["me/letters"]
    assert repository.private
    assert repository.digests == digests(folder)
    text = ModelCard(repository.files["README.md"].decode()).text
    assert "hf download me/letters --local-dir letters" in text
    assert "| cc-by-4.0 |" in text
    assert str(tmp_path) not in text
    assert base not in text


@pytest.mark.long
def test_nothing_is_sent_after_a_no(
    hub: HubServer,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("\n"))
    folder = tmp_path / "letters"
    main(["export", str(run.folder), "--to", str(folder), "--push", "me/letters"])
    later = f"hf upload me/letters {folder} . --private"
    assert f"Nothing was sent. Later: {later}" in capsys.readouterr().out
    assert hub.repositories == {}
    assert folder.is_dir()


@pytest.mark.long
def test_nothing_is_sent_if_a_check_fails(
    hub: HubServer,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tell_lightning.commands.export.compare_prompts", lambda *_: False)
    begin = ["export", str(run.folder), "--to", str(tmp_path / "letters")]
    with pytest.raises(SystemExit) as exit_:
        main([*begin, "--push", "me/letters", "--yes"])
    assert exit_.value.code == 1
    assert "Not pushed, because of what differs above: hf upload" in capsys.readouterr().out
    assert hub.repositories == {}


def test_options_of_push_that_do_not_fit_are_refused_before_anything_is_made(
    hub: HubServer, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = ["export", str(run.folder), "--to", str(tmp_path / "letters")]
    said = refused(capsys, *begin, "--push", "me/letters")
    assert said == says("--push", rule="ask", got="no terminal", cure="--yes")
    said = refused(capsys, *begin, "--public")
    assert said == says("--public", rule="--push", got="it alone", cure="Add --push")
    said = refused(capsys, *begin, "--push", "letters", "--yes")
    assert said == says("--push", rule="OWNER/NAME", got="'letters'", cure="slash")
    hub.refuses["/api/whoami-v2"] = 500
    said = refused(capsys, *begin, "--push", "me/letters", "--yes")
    assert said == says("--push", rule=hub.url, got="500: Not today", cure="Check the network")
    assert not (tmp_path / "letters").exists()
    assert hub.repositories == {}
