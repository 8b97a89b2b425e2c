"""A tiny COMET or BLEURT model with random weights, and its mean as its own documentation has it.

    PYTHON tiny_neural_models.py comet|bleurt MODEL
    PYTHON tiny_neural_models.py comet_mean|bleurt_mean MODEL TEXTS.json

Runs in the environment where the metric is installed. The tokenizer is trained on the spot.
"""

import json
import sys
from pathlib import Path

import torch

LINES = [
    f"The {kind} {who} {does} the {what}."
    for kind in ("red", "old", "small")
    for who in ("cat", "dog", "fox")
    for does in ("sees", "hears", "follows")
    for what in ("house", "mat", "river", "moon")
]
SIZES = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def comet(folder: Path) -> None:
    import yaml
    from comet.models import RegressionMetric
    from tokenizers.implementations import SentencePieceUnigramTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizerFast

    encoder = folder / "encoder"
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained = SentencePieceUnigramTokenizer()
    trained.train_from_iterator(LINES, 150, special_tokens=special, unk_token="<unk>")
    pair = [("<s>", 0), ("</s>", 2)]
    trained.post_processor = TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", pair)
    XLMRobertaTokenizerFast(tokenizer_object=trained._tokenizer).save_pretrained(encoder)
    positions = {"max_position_embeddings": 514, "pad_token_id": 1, "bos_token_id": 0}
    config = XLMRobertaConfig(**SIZES, **positions, eos_token_id=2, type_vocab_size=1)
    XLMRobertaModel(config).save_pretrained(encoder)
    model = RegressionMetric(
        encoder_model="XLM-RoBERTa", pretrained_model=str(encoder), hidden_sizes=[32, 16]
    )
    settings = dict(model.hparams)
    saved = {"state_dict": model.state_dict(), "hyper_parameters": settings}
    (folder / "checkpoints").mkdir()
    torch.save(
        saved | {"pytorch-lightning_version": "2.0.0"}, folder / "checkpoints" / "model.ckpt"
    )
    (folder / "hparams.yaml").write_text(yaml.safe_dump(settings))


def bleurt(folder: Path) -> None:
    import sentencepiece
    from bleurt_pytorch import BleurtConfig, BleurtForSequenceClassification

    folder.mkdir(parents=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_prefix=str(folder / "spm"),
        vocab_size=150,
        hard_vocab_limit=False,
        minloglevel=2,
        control_symbols="[CLS],[SEP],[MASK]",
        pad_id=0,
        pad_piece="[PAD]",
        unk_id=1,
        unk_piece="[UNK]",
        bos_id=-1,
        eos_id=-1,
    )
    config = BleurtConfig(**SIZES, embedding_size=16)
    BleurtForSequenceClassification(config).save_pretrained(folder)


def comet_mean(folder: Path, texts: str) -> None:
    from comet import load_from_checkpoint

    model = load_from_checkpoint(folder / "checkpoints" / "model.ckpt")
    data = json.loads(Path(texts).read_text())
    print(model.predict(data, batch_size=8, gpus=0, progress_bar=False)["system_score"])


def bleurt_mean(folder: Path, texts: str) -> None:
    from bleurt_pytorch import BleurtForSequenceClassification, BleurtTokenizer

    model = BleurtForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = BleurtTokenizer.from_pretrained(folder)
    data = json.loads(Path(texts).read_text())
    with torch.no_grad():
        scores = [
            model(
                **tokenizer(
                    text["ref"],
                    text["mt"],
                    truncation="longest_first",
                    max_length=512,
                    return_tensors="pt",
                )
            ).logits.item()
            for text in data
        ]
    print(sum(scores) / len(scores))


if __name__ == "__main__":
    torch.manual_seed(1)
    kind, model, *rest = sys.argv[1:]
    globals()[kind](Path(model).resolve(), *rest)
