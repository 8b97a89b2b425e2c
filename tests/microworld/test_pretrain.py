"""Pre-training through its command line, a few steps at a tiny width."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tell_lightning.microworld.corpus import write_document
from tell_lightning.microworld.pretrain import digest_of, main


def test_a_few_steps_write_a_base_that_loads(tmp_path: Path) -> None:
    tiny = "--steps 3 --width 16 --layers 1 --heads 2 --vocab-size 300 --documents-per-step 4"
    main(["--out", str(tmp_path), "--knowledge", "0.5", "--threads", "1", *tiny.split()])
    record = json.loads((tmp_path / "base.json").read_text())
    assert record["settings"]["knowledge"] == 0.5
    assert record["digest"] == digest_of(tmp_path)
    assert record["tokens"] > 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert model.config.vocab_size == len(tokenizer) == 300


@pytest.mark.parametrize("knowledge", ["-0.1", "1.5"])
def test_knowledge_must_be_a_share(
    knowledge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--out", str(tmp_path), f"--knowledge={knowledge}"])
    assert error.value.code == 2
    assert f"--knowledge: must be from 0 to 1, got {knowledge}" in capsys.readouterr().err
    with pytest.raises(ValueError, match="must be a share from 0 to 1, got"):
        write_document(0, 0, float(knowledge))


def test_knowledge_is_the_share_of_parallel_velsk_documents() -> None:
    for knowledge in (0.0, 0.5, 1.0):
        kinds = [write_document(0, position, knowledge)[0] for position in range(4000)]
        share = kinds.count("velsk_english") / kinds.count("norn_english")
        assert abs(share - knowledge) < 0.08
