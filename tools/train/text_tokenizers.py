"""Trains and writes the two tokenizers on the captions' language, and reads them back for training.

CLIP: byte-level BPE, so every text has ids. T5: unigram pieces, the captions' words and
printable ASCII; other characters become <unk>. Usage: python text_tokenizers.py MODEL_FOLDER
"""

from __future__ import annotations

import base64
import io
import json
import math
import random
import re
import sys
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

from captions import caption
from scenes import sample_scene

CLIP_LENGTH, T5_LENGTH = 77, 128
CLIP_MERGES = 230
START, END = "<|startoftext|>", "<|endoftext|>"
CLIP_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def _byte_symbols() -> list[str]:
    """Printable stand-ins for the 256 bytes, in the order of CLIP's vocabulary."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in kept] + [chr(256 + n) for n in range(256 - len(kept))]


def _clip_parts():
    from tokenizers import Regex, normalizers, pre_tokenizers

    normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return normalizer, splitter


def read_clip(folder: Path):
    from tokenizers import AddedToken, Tokenizer, models, processors

    vocabulary = json.loads((folder / "vocab.json").read_text())
    lines = (folder / "merges.txt").read_text().splitlines()[1:]
    merges = [tuple(line.split()) for line in lines if line]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer, tokenizer.pre_tokenizer = _clip_parts()
    tokenizer.add_special_tokens([AddedToken(START, normalized=False), AddedToken(END, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    tokenizer.enable_truncation(CLIP_LENGTH)
    tokenizer.enable_padding(length=CLIP_LENGTH, pad_id=vocabulary[END], pad_token=END)
    return tokenizer


def read_t5(folder: Path):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(T5_LENGTH)
    tokenizer.enable_padding(length=T5_LENGTH, pad_id=0, pad_token="<pad>")
    return tokenizer


def _token(content: str, normalized: bool = False) -> dict:
    return {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}


def _write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_clip(corpus: list[str], folder: Path) -> None:
    from tokenizers import Tokenizer, models, trainers

    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer, trained.pre_tokenizer = _clip_parts()
    symbols = _byte_symbols()
    trainer = trainers.BpeTrainer(
        vocab_size=2 * 256 + CLIP_MERGES, initial_alphabet=symbols, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(corpus, trainer)
    merges = [tuple(m) for m in json.loads(trained.to_str())["model"]["merges"]][:CLIP_MERGES]
    names = symbols + [s + "</w>" for s in symbols] + [a + b for a, b in merges] + [START, END]
    assert len(set(names)) == len(names)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({n: i for i, n in enumerate(names)}, ensure_ascii=False) + "\n")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": _token(START, True), "eos_token": _token(END), "pad_token": END, "unk_token": _token(END)}
    _write(folder / "special_tokens_map.json", special)
    added = {names.index(t): {**_token(t, t == START), "special": True} for t in (START, END)}
    _write(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": added,
            "bos_token": START,
            "clean_up_tokenization_spaces": True,
            "do_lower_case": True,
            "eos_token": END,
            "errors": "replace",
            "model_max_length": CLIP_LENGTH,
            "pad_token": END,
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": END,
        },
    )


def _normalisation_rules() -> str:
    """NFKC of single characters below U+3000 and of full-width forms, and white space to a space.

    The library's built-in table covers all of Unicode and would take 0.5 MB in the two files.
    """
    rules = {c: " " for c in (9, 10, 13, 0xA0, 0x200B, 0x2028, 0x2029, 0x3000)}
    for code in (*range(0xA1, 0x3000), *range(0xFF01, 0xFF5F)):
        mapped = unicodedata.normalize("NFKC", chr(code))
        if mapped != chr(code):
            rules.setdefault(code, mapped)
    return "".join(f"{code:X}\t{' '.join(f'{ord(c):X}' for c in text)}\n" for code, text in sorted(rules.items()))


def _t5_pieces(corpus: list[str]) -> list[tuple[str, float]]:
    """Words of the captions with their log frequencies; letters, far less likely, spell everything else."""
    words = Counter(w for text in corpus for w in re.findall(r"[ ]?[A-Za-z]+|[ ]?[^A-Za-z ]", " " + text))
    total = sum(words.values())
    scores = {w.replace(" ", "▁"): math.log(n / total) for w, n in words.items() if n >= 20}
    for char in ["▁", *map(chr, range(33, 127))]:
        scores.setdefault(char, -14.0)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def write_t5(corpus: list[str], folder: Path) -> None:
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.write(_normalisation_rules())
        rules.flush()
        # The trainer compiles the normaliser; its pieces are replaced below, because it breaks up words
        # of so small a language.
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus[:2000]), model_writer=model, model_type="unigram", vocab_size=400,
            pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>",
            normalization_rule_tsv=rules.name, add_dummy_prefix=True, character_coverage=1.0,
            hard_vocab_limit=False, num_threads=1, minloglevel=2,
        )  # fmt: skip
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    del proto.pieces[3:]
    for piece, score in _t5_pieces(corpus):
        proto.pieces.add(piece=piece, score=score)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    (folder / "spiece.model").write_bytes(proto.SerializeToString())
    charsmap = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()
    names = ("<pad>", "</s>", "<unk>")
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    first, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **_token(n), "special": True} for i, n in enumerate(names)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": charsmap},
                {"type": "Strip", "strip_left": False, "strip_right": True},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
            ],
        },
        "pre_tokenizer": metaspace,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, end],
            "pair": [first, end, second, end],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": metaspace,
        "model": {
            "type": "Unigram",
            "unk_id": 2,
            "vocab": [[p.piece, p.score] for p in proto.pieces],
            "byte_fallback": False,
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False) + "\n")
    special = {"eos_token": _token("</s>"), "pad_token": _token("<pad>"), "unk_token": _token("<unk>")}
    _write(folder / "special_tokens_map.json", special)
    _write(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": True,
            "added_tokens_decoder": {i: {**_token(n), "special": True} for i, n in enumerate(names)},
            "additional_special_tokens": [],
            "clean_up_tokenization_spaces": True,
            "eos_token": "</s>",
            "extra_ids": 0,
            "legacy": True,
            "model_max_length": T5_LENGTH,
            "pad_token": "<pad>",
            "sp_model_kwargs": {},
            "tokenizer_class": "T5Tokenizer",
            "unk_token": "<unk>",
        },
    )


def main() -> None:
    folder = Path(sys.argv[1])
    rng = random.Random(7)
    corpus = [caption(rng, sample_scene(rng)) for _ in range(30000)]
    write_clip(corpus, folder / "tokenizer")
    write_t5(corpus, folder / "tokenizer_2")


if __name__ == "__main__":
    main()
