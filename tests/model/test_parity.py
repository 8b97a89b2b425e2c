"""The gradient of an optimizer batch is the same however the batch is cut."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from tell_lightning.model.loss import token_losses

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

TOLERANCE = 1e-5
NAIVE_ERROR = 0.05


@pytest.fixture(scope="module")
def whole_batch(training: ModuleType, llama_folder: Path) -> dict[str, Tensor]:
    """The gradients of transformers' own token mean over all eight examples."""
    module = training.make_module(training.TellModule, llama_folder)
    module.configure_model()
    training.warm_up(module)
    batch = training.batch_of(range(8))
    model: PeftModel = module.model
    mask = (batch.examples >= 0).long()
    model(input_ids=batch.input_ids, attention_mask=mask, labels=batch.labels).loss.backward()
    gradients: dict[str, Tensor] = training.gradients_of(module)
    return gradients


@pytest.fixture(scope="module")
def two_ranks(
    training: ModuleType, llama_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What two processes of micro-batch 2 x accumulation 2 found."""
    out = tmp_path_factory.mktemp("ddp") / "found.pt"
    command = [sys.executable, training.__file__, str(llama_folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = torch.load(out, weights_only=True)
    return found


def test_label_counts_differ_threefold(training: ModuleType) -> None:
    assert max(training.LABEL_COUNTS) >= 3 * min(training.LABEL_COUNTS)


def test_one_batch_of_eight(
    training: ModuleType, llama_folder: Path, whole_batch: dict[str, Tensor]
) -> None:
    run = training.fit(llama_folder, micro_batch=8, accumulate=1)
    assert training.relative_error(run.gradients[0], whole_batch) < TOLERANCE


def test_accumulation_equals_the_whole_batch(
    training: ModuleType, llama_folder: Path, whole_batch: dict[str, Tensor]
) -> None:
    run = training.fit(llama_folder, micro_batch=2, accumulate=4)
    error = training.relative_error(run.gradients[0], whole_batch)
    print(f"accumulation 4 x micro-batch 2: relative error {error:.2e}")
    assert error < TOLERANCE


def test_a_mean_of_means_over_accumulation_fails_the_same_comparison(
    training: ModuleType, llama_folder: Path, whole_batch: dict[str, Tensor]
) -> None:
    run = training.fit(llama_folder, micro_batch=2, accumulate=4, kind=training.MeanOfMeans)
    error = training.relative_error(run.gradients[0], whole_batch)
    print(f"naive, accumulation 4 x micro-batch 2: relative error {error:.1%}")
    assert error > NAIVE_ERROR


@pytest.mark.ddp
def test_two_ranks_equal_the_whole_batch(
    training: ModuleType, two_ranks: dict[str, Any], whole_batch: dict[str, Tensor]
) -> None:
    error = training.relative_error(two_ranks["TellModule"]["gradients"], whole_batch)
    print(f"2 ranks x micro-batch 2 x accumulation 2: relative error {error:.2e}")
    assert error < TOLERANCE


@pytest.mark.ddp
def test_a_mean_of_means_over_ranks_fails_the_same_comparison(
    training: ModuleType, two_ranks: dict[str, Any], whole_batch: dict[str, Tensor]
) -> None:
    error = training.relative_error(two_ranks["MeanOfMeans"]["gradients"], whole_batch)
    print(f"naive, 2 ranks x micro-batch 2 x accumulation 2: relative error {error:.1%}")
    assert error > NAIVE_ERROR


@pytest.mark.ddp
def test_two_ranks_log_what_one_process_logs(
    training: ModuleType, llama_folder: Path, two_ranks: dict[str, Any]
) -> None:
    run = training.fit(llama_folder, micro_batch=8, accumulate=1)
    assert two_ranks["TellModule"]["logged"] == [pytest.approx(row) for row in run.logged]


def test_a_micro_batch_without_labels_weighs_nothing(
    training: ModuleType, llama_folder: Path
) -> None:
    run = training.fit(llama_folder, micro_batch=2, accumulate=4, kind=training.OneWithoutLabels)
    module = training.make_module(training.TellModule, llama_folder)
    module.configure_model()
    training.warm_up(module)
    losses, _ = token_losses(module.model, training.batch_of([0, 1, 4, 5, 6, 7]))
    losses.mean().backward()
    assert training.relative_error(run.gradients[0], training.gradients_of(module)) < TOLERANCE


def test_clipping_sees_the_scaled_gradients(training: ModuleType, llama_folder: Path) -> None:
    free = training.fit(llama_folder, micro_batch=2, accumulate=4)
    norm = free.logged[0]["train/grad_norm"]
    assert norm == pytest.approx(_norm(free.gradients[0]))
    clipped = training.fit(
        llama_folder, micro_batch=2, accumulate=4, trainer={"gradient_clip_val": norm / 2}
    )
    assert clipped.logged[0]["train/grad_norm"] == pytest.approx(norm)
    assert _norm(clipped.gradients[0]) == pytest.approx(norm / 2, rel=1e-4)


def _norm(gradients: Mapping[str, Tensor]) -> float:
    return float(torch.nn.utils.get_total_norm(list(gradients.values())))
