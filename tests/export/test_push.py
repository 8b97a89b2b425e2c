"""`export --push`: what arrives at a hub, and what is refused before anything is sent."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import READ_TOKEN, HubServer, SentRepository, digests, talk_to
from huggingface_hub import constants
from messages import Says, says

from tell_lightning.errors import TellError
from tell_lightning.export.push import find_repository, listing, send, upload_line

pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning"  # huggingface_hub 2.4 sends files to LFS the old way
)
CARD = "---\nlicense: mit\nbase_model: owner/base\n---\n\n# letters\n"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The hub of this process is a stand-in."""
    store = tmp_path / "xet"
    store.mkdir()
    with HubServer(store) as server:
        talk_to(server, monkeypatch)
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An exported folder."""
    made = tmp_path / "letters"
    (made / "additional_chat_templates").mkdir(parents=True)
    contents = {
        "README.md": CARD.encode(),
        "adapter_model.safetensors": bytes(range(256)) * 400,
        "anchor.json": '{"text": "Þýddu"}\n'.encode(),
        "additional_chat_templates/turn.jinja": b"{{ messages }}",
        "empty.txt": b"",
    }
    for path, content in contents.items():
        (made / path).write_bytes(content)
    return made


@pytest.mark.parametrize("xet", [False, True])
def test_every_file_arrives_with_its_digest_in_one_commit_of_a_private_repository(
    xet: bool, hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not xet)
    repository = find_repository("me/letters", public=False)
    assert not repository.exists
    assert repository.shown == "me/letters (new, private)"
    assert hub.repositories == {}  # asking makes nothing
    address = send(folder, repository)
    sent = hub.repositories["me/letters"]
    assert sent.private
    assert sent.digests == digests(folder)
    assert len(sent.commits) == 1
    assert address.startswith(f"{hub.url}/me/letters/commit/")
    weights = (folder / "adapter_model.safetensors").read_bytes()
    assert list(sent.sha256) == ["adapter_model.safetensors"]  # not in the commit itself
    assert list(hub.lfs.values()) == ([] if xet else [weights])
    assert any(path.is_file() for path in hub.store.rglob("*")) == xet
    assert set(hub.cards) == {CARD}  # checked before anything is sent


def test_a_card_that_is_there_is_kept_and_other_files_are_replaced(
    hub: HubServer, folder: Path
) -> None:
    old = {"README.md": b"mine", "anchor.json": b"{}", "notes.md": b"of 2024"}
    hub.repositories["Our-Org/letters"] = SentRepository(private=True, files=dict(old))
    repository = find_repository("Our-Org/letters", public=False)
    assert repository.shown == "Our-Org/letters (private)"
    fates = {path: fate for path, _, fate in listing(folder, repository)}
    assert fates == {
        "README.md": "not sent: the card there is kept",
        "adapter_model.safetensors": "",
        "additional_chat_templates/turn.jinja": "",
        "anchor.json": "replaces the one there",
        "empty.txt": "",
        "notes.md": "stays there",
    }
    send(folder, repository)
    files = hub.repositories["Our-Org/letters"].files
    assert files["README.md"] == b"mine"
    assert files["notes.md"] == b"of 2024"
    assert files["anchor.json"] == (folder / "anchor.json").read_bytes()
    assert upload_line(folder, repository).endswith(". --private --exclude README.md")


def test_a_repository_is_public_only_by_request(hub: HubServer, folder: Path) -> None:
    repository = find_repository("me/open", public=True)
    assert repository.shown == "me/open (new, public: everybody can read it)"
    assert "--private" not in upload_line(folder, repository)
    send(folder, repository)
    assert not hub.repositories["me/open"].private
    with pytest.raises(TellError) as error:
        find_repository("me/open", public=False)
    wanted = says("--push", rule=["private", "--public"], got="'me/open'", cure="Add --public")
    assert str(error.value) == wanted
    hub.repositories["me/open"].private = True  # the owner has hidden it since
    assert not find_repository("me/open", public=True).public


def refused(name: str = "me/letters") -> str:
    with pytest.raises(TellError) as error:
        find_repository(name, public=False)
    return str(error.value)


@pytest.mark.parametrize("name", ["letters", "me/", "/letters", "a/b/c", "me/let ters", "me/a--b"])
def test_a_name_that_cannot_be_one_is_refused_without_asking(name: str, hub: HubServer) -> None:
    assert refused(name) == says("--push", rule="OWNER/NAME", got=f"'{name}'", cure="slash")
    assert hub.asked == []


@pytest.mark.parametrize(
    ("token", "wanted"),
    [
        ("", says("--push", rule="token", got="none", cure=["hf auth login", "HF_TOKEN"])),
        ("hf_wrong", says("--push", rule="the hub", got="401", cure="hf auth whoami")),
        (READ_TOKEN, says("HF_TOKEN", rule="write", got="one that may only read", cure="--force")),
    ],
)
def test_a_token_that_may_not_write_is_refused(
    token: str, wanted: Says, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert refused() == wanted
    assert hub.repositories == {}


def test_somebody_elses_name_is_refused(hub: HubServer) -> None:
    wanted = says("--push", rule=["me", "Our-Org"], got="'you'", cure="Change the name")
    assert refused("you/letters") == wanted


def test_a_hub_that_does_not_answer_is_told_in_one_line(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        rule = ["needs the hub", constants.ENDPOINT]
        assert refused() == says("--push", rule=rule, cure="Check the network")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refused() == says("--push", rule="needs the hub", got="HF_HUB_OFFLINE", cure="Unset it")


@pytest.mark.parametrize(
    "where", ["/api/repos/create", "/validate-yaml", "/preupload/", "/commit/"]
)
@pytest.mark.parametrize("xet", [False, True])
def test_what_the_hub_refuses_midway_is_told_with_the_command_to_go_on(
    xet: bool, where: str, hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not xet)
    repository = find_repository("me/letters", public=False)
    hub.refuses[where] = 403
    with pytest.raises(TellError) as error:
        send(folder, repository)
    again = f"`hf upload me/letters {folder} . --private`"
    assert str(error.value) == says("--push", rule=str(folder), got="403: Not today", cure=again)
    hub.refuses.clear()
    send(folder, repository)
    assert hub.repositories["me/letters"].digests == digests(folder)


def test_metadata_that_the_hub_does_not_take_is_told(hub: HubServer, folder: Path) -> None:
    (folder / "README.md").write_text(CARD.replace("mit", "mine"))
    with pytest.raises(TellError) as error:
        send(folder, find_repository("me/letters", public=False))
    assert '"license" must be one of' in str(error.value)
    assert "\n" not in str(error.value)
