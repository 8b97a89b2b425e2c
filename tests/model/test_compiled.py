"""The compiled decoder layer trains as the ordinary one, whatever the shapes, and files stay."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from messages import says
from tiny_models import tiny_llama
from torch._dynamo.backends.debugging import aot_eager
from torch._inductor import config as inductor
from torch._inductor.utils import fresh_cache

from tell_lightning.commands.check import check, check_training
from tell_lightning.data.batches import Batch, collate, collate_unpacked, indexed
from tell_lightning.model import module as module_file
from tell_lightning.model import settings as model_settings
from tell_lightning.model.attention import use_packed_kernel
from tell_lightning.model.compiled import CompileError, check_compiler, compile_layers
from tell_lightning.model.lora import add_adapters
from tell_lightning.model.loss import token_losses
from tell_lightning.model.settings import LoraSettings
from tell_lightning.settings import ConfigError

# Dynamo looks at the gradient of what a layer is given.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
OLD = pytest.mark.filterwarnings("ignore")  # PyTorch's compiler uses what PyTorch deprecates


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Layers are traced, forward and backward, but without machine code, which takes longer.

    Yields:
        Grows by one number for each graph that is compiled.
    """
    found: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        found.append(len(inputs))
        return aot_eager(graph, inputs)

    ordinary = torch.nn.Module.compile

    def compile_traced(layer: Any, **options: Any) -> None:
        ordinary(layer, backend=backend, **options)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_traced)
    monkeypatch.setattr(module_file, "check_compiler", lambda device_type: None)
    torch._dynamo.reset()
    yield found
    torch._dynamo.reset()


def adapted(layers: int = 2, dropout: float = 0.0) -> Any:
    """A model whose adapters have an effect, in the mode of training."""
    model = add_adapters(
        tiny_llama(num_hidden_layers=layers).requires_grad_(False),
        LoraSettings(rank=4, dropout=dropout),
        seed=1,
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


@pytest.fixture
def shapes(training: ModuleType) -> list[Batch]:
    """Batches of other widths, rows and numbers of examples; every second one is packed."""
    items = training.items()
    return [
        indexed(batch)
        for batch in (
            collate_unpacked(items[:4], training.NAMES),
            collate([items[:3], items[3:]], training.NAMES),
            collate_unpacked(items[3:], training.NAMES),
            collate([items[:2], items[2:4], items[4:]], training.NAMES),
        )
    ]


def losses_and_gradients(model: Any, batch: Batch) -> list[torch.Tensor]:
    model.zero_grad()
    losses, _ = token_losses(model, batch)
    losses.sum().backward()
    return [losses.detach(), *(p.grad.clone() for p in model.parameters() if p.requires_grad)]


@pytest.mark.long
@pytest.mark.parametrize(("kernel", "checkpointing"), [("masks", False), ("packed", True)])
def test_losses_and_gradients_are_those_of_ordinary_layers(
    kernel: str, checkpointing: bool, graphs: list[int], shapes: list[Batch]
) -> None:
    ordinary, model = adapted(), adapted()
    if checkpointing:
        model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    compile_layers(model)
    if kernel == "packed":
        assert all(use_packed_kernel(each, "cpu") for each in (ordinary, model))
    for batch in shapes:
        wanted, found = (losses_and_gradients(each, batch) for each in (ordinary, model))
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert graphs


@pytest.mark.long
def test_layers_share_their_code_and_shapes_are_compiled_once(
    graphs: list[int], shapes: list[Batch]
) -> None:
    numbers = []
    for layers in (2, 5):
        torch._dynamo.reset()
        graphs.clear()
        model = adapted(layers)
        compile_layers(model)
        assert use_packed_kernel(model, "cpu")
        losses_and_gradients(model, shapes[0])
        losses_and_gradients(model, shapes[1])
        numbers.append(len(graphs))
        losses_and_gradients(model, shapes[2])
        assert len(graphs) == numbers[-1]
        losses_and_gradients(model, shapes[3])
        assert len(graphs) <= numbers[-1] + 1  # the loop over its bins, of which there are three
    assert numbers[0] == numbers[1] > 0


@pytest.mark.long
def test_scoring_computes_as_ever(graphs: list[int], shapes: list[Batch]) -> None:
    ordinary, model = adapted().eval(), adapted()
    compile_layers(model)
    model.eval()
    with torch.no_grad():
        for batch in shapes:
            assert torch.equal(token_losses(model, batch)[0], token_losses(ordinary, batch)[0])
    assert not graphs
    losses_and_gradients(model.train(), shapes[0])
    assert graphs


@pytest.mark.long
def test_a_run_has_the_losses_and_the_checkpoints_of_an_ordinary_one(
    graphs: list[int],
    training: ModuleType,
    llama_folder: Path,
    tmp_path: Path,
) -> None:
    found, keys = {}, {}
    for asked in (False, True):
        run = training.fit(
            llama_folder,
            micro_batch=2,
            accumulate=2,
            steps=3,
            compile=asked,
        )
        path = tmp_path / f"{asked}.ckpt"
        run.trainer.save_checkpoint(path)
        keys[asked] = list(torch.load(path, weights_only=True)["state_dict"])
        found[asked] = run
        assert bool(graphs) == asked
    assert keys[True] == keys[False]
    for one, other in zip(found[True].gradients, found[False].gradients, strict=True):
        assert training.relative_error(one, other) < 1e-5
    for one, other in zip(found[True].logged, found[False].logged, strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=1e-5)


@OLD
@pytest.mark.long
def test_machine_code_has_the_losses_of_ordinary_layers_and_a_resume_is_exact(
    training: ModuleType, llama_folder: Path, tmp_path: Path
) -> None:
    """Also with dropout, whose random numbers are those of the step."""
    run = {"micro_batch": 2, "accumulate": 2}
    ordinary = training.fit(llama_folder, **run, steps=2)
    compiled = training.fit(llama_folder, **run, steps=2, compile=True)
    for one, other in zip(compiled.logged, ordinary.logged, strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=1e-5)
    for one, other in zip(compiled.gradients, ordinary.gradients, strict=True):
        assert training.relative_error(one, other) < 1e-5
    dropping = {**run, "compile": True, "lora": LoraSettings(rank=4, alpha=8, dropout=0.2)}
    whole = training.fit(llama_folder, **dropping, steps=3)
    assert whole.logged[0]["train/loss"] != compiled.logged[0]["train/loss"]
    recomputed = training.fit(llama_folder, **dropping, activation_checkpointing=True)
    assert training.relative_error(recomputed.gradients[0], whole.gradients[0]) < 1e-5
    half = training.fit(llama_folder, **dropping, steps=2)
    path = tmp_path / "half.ckpt"
    half.trainer.save_checkpoint(path)
    rest = training.fit(llama_folder, **dropping, steps=3, checkpoint=path)
    for name, gradient in rest.gradients[0].items():
        assert torch.equal(gradient, whole.gradients[2][name])


@pytest.mark.long
@pytest.mark.ddp
def test_two_ranks_have_the_gradients_of_ordinary_layers(
    training: ModuleType, llama_folder: Path, tmp_path: Path
) -> None:
    """Also where the backward pass computes layers again, and DDP sends in between."""
    out = tmp_path / "found.pt"
    command = [sys.executable, training.__file__, str(llama_folder), str(out), "compiled"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "compile a layer" in done.stderr
    gradients = torch.load(out, weights_only=True)["TellModule"]["gradients"]
    ordinary = training.fit(llama_folder, micro_batch=8, accumulate=1)
    assert training.relative_error(gradients, ordinary.gradients[0]) < 1e-5


# What cannot be compiled


@OLD
def test_a_missing_compiler_is_one_line_before_training(
    training: ModuleType, llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    check_compiler.cache_clear()
    torch._dynamo.reset()  # what this process has compiled before
    refusal = says(
        "model.compile",
        rule="torch.compile",
        got="InvalidCxxCompiler",
        cure=["C++ compiler", "model.compile: false"],
    )
    with fresh_cache(), pytest.raises(ConfigError, check=refusal):
        training.fit(llama_folder, micro_batch=2, accumulate=1, compile=True)
    check_compiler.cache_clear()


def test_layers_that_cannot_be_compiled_are_named(
    shapes: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(graph: Any, inputs: Any) -> Any:
        raise ValueError("no such operator\nin a long list")

    model = adapted()
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda layer, **options: setattr(
            layer, "_compiled_call_impl", torch.compile(layer._call_impl, backend=refuse)
        ),
    )
    compile_layers(model)
    refusal = says(
        "model.compile", got="LlamaDecoderLayer: ValueError: no such operator", cure="false"
    )
    with pytest.raises(CompileError, check=refusal):
        token_losses(model, shapes[0])


def test_a_model_that_does_not_name_its_layers_is_refused() -> None:
    model = tiny_llama()
    model._no_split_modules = None
    refusal = says("model.compile", rule="_no_split_modules", got="LlamaForCausalLM", cure="false")
    with pytest.raises(CompileError, check=refusal):
        compile_layers(model)


@pytest.mark.parametrize(
    ("option", "got"),
    [
        ("--trainer.strategy=fsdp2", "true with the strategy fsdp2"),
        ("--model.quantize=nf4", "true with model.quantize: nf4"),
    ],
)
def test_what_does_not_go_with_compiling_is_refused_before_anything_is_loaded(
    option: str, got: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_settings, "find_spec", lambda name: name)
    config = check(["-c", "microworld", "--model.compile=true", option])
    with pytest.raises(ConfigError, check=says("model.compile", got=got, cure="Leave one")):
        check_training(config)
