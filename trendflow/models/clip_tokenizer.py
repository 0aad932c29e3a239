"""The byte-pair tokenizer of CLIP, from the vocabulary file of its publication.

Radford et al. (ICML 2021), section 2.4: lower-cased text, split into letters, single digits, contractions and runs of
other signs, then merged pair by pair (Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units",
ACL 2016) over bytes.
"""

from __future__ import annotations

import gzip
import io
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MARKS = ("<|startoftext|>", "<|endoftext|>")
_END_OF_WORD = "</w>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_BYTES = 256
_MAX_UNPACKED = 16 << 20
"""Bytes; the published vocabulary has three million. A small gzip file can unpack to any size."""


def clip_tokenizer(vocabulary: bytes, size: int) -> Tokenizer:
    """A tokenizer with `size` tokens.

    `vocabulary` is a gzip file: a header line, then one merge per line, the most frequent first. Tokens are the bytes,
    the bytes that end a word, the first `size − 514` merges and, last, the marks of start and end. The names of the
    marks in a text are plain text. Raises `ValueError` when the file holds fewer merges or is no such vocabulary.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    lines = _unpacked(vocabulary).splitlines()
    count = size - 2 * _BYTES - 2
    merges = [_pair(line) for line in lines[1 : 1 + count]]
    if len(merges) != count or count < 0:
        raise ValueError(f"{len(lines) - 1} merges make no vocabulary of {size} tokens")
    symbols = _byte_symbols()
    tokens = [*symbols, *(symbol + _END_OF_WORD for symbol in symbols)]
    tokens += [first + second for first, second in merges]
    tokens += _MARKS
    ids = {token: index for index, token in enumerate(tokens)}
    if len(ids) != size or not all(part in ids for merge in merges for part in merge):
        raise ValueError("a merge occurs twice or joins what no merge before it made")
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, end_of_word_suffix=_END_OF_WORD))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def _unpacked(vocabulary: bytes) -> str:
    try:
        with gzip.open(io.BytesIO(vocabulary)) as stream:
            text = stream.read(_MAX_UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as exc:
        raise ValueError("no whole gzip file") from exc
    if len(text) > _MAX_UNPACKED:
        raise ValueError(f"more than {_MAX_UNPACKED} bytes unpacked")
    return text.decode("utf-8")


def _pair(line: str) -> tuple[str, str]:
    first, second = line.split(" ")
    return first, second


def _byte_symbols() -> list[str]:
    """One visible character per byte, visible bytes first: the order of the vocabulary.

    Bytes without a visible character of their own take those from U+0100 on (Radford et al., "Language Models are
    Unsupervised Multitask Learners", 2019, section 2.2).
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*map(chr, visible), *(chr(_BYTES + index) for index in range(_BYTES - len(visible)))]
