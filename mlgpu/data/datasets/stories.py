"""TinyStories as tokens: text that a small model can learn to write."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlgpu.data.arrays import PathLike, TokenDataset, write_tokens
from mlgpu.data.datasets.download import obtain
from mlgpu.errors import FormatError
from mlgpu.io.lock import alone

__all__ = ["TinyStories"]

_END = "<|endoftext|>"
_PIECE = 1 << 22

Tokenizer = Callable[[str], "Sequence[int] | np.ndarray[Any, Any]"]


class TinyStories(TokenDataset):
    """Pieces of short stories as (tokens, the same one later), each (length,) int64.

    tokenizer: the tokens of a story, with what ends it (default: its bytes in UTF-8, then 0).  They
    are written once to `<root>/TinyStories/<name>-train` (or -valid), mapped from there, and taken
    from there later: `name` stands for the tokenizer, so another one needs another name.  dtype as
    in `write_tokens`.  download: fetch the text (2.2 GB to train on).  (Eldan, Li,
    "TinyStories: how small can language models be and still speak coherent English?", 2023; the
    second version, written by GPT-4.)
    """

    url = "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/main/"

    def __init__(self, root: PathLike, train: bool = True, *, length: int,
                 stride: int | None = None, tokenizer: Tokenizer | None = None,
                 name: str | None = None, dtype: str = "uint16", download: bool = False) -> None:
        if (tokenizer is None) != (name is None):
            raise ValueError("TinyStories: a tokenizer of your own needs a name, and a name one")
        folder = Path(root).expanduser() / "TinyStories"
        part = "train" if train else "valid"
        tokens = folder / f"{name or 'bytes'}-{part}"
        if not (tokens / "index.json").exists():
            file = f"TinyStoriesV2-GPT4-{part}.txt"
            text = obtain("TinyStories", folder / file, self.url + file, download=download)
            with alone(tokens):
                if not (tokens / "index.json").exists():
                    write_tokens(tokens, map(tokenizer or story_bytes, stories(text)), dtype=dtype)
        super().__init__(tokens, length, stride)

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenDataset, (self.path, self.length, self.stride)


def story_bytes(story: str) -> np.ndarray[Any, Any]:
    """The bytes of a text in UTF-8, and 0 for its end: 256 tokens in all."""
    return np.frombuffer(story.encode() + b"\0", np.uint8)


def stories(path: PathLike) -> Iterator[str]:
    """The stories of a file, without what parts them.  FormatError where nothing does."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    rest, found = "", 0
    with open(path, "rb") as file:
        try:
            while piece := file.read(_PIECE):
                *whole, rest = (rest + decoder.decode(piece)).split(_END)
                for story in filter(None, map(str.strip, whole)):
                    found += 1
                    yield story
            rest += decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise FormatError(f"TinyStories: {path} is no text in UTF-8: {error}") from None
    if not found:
        raise FormatError(f"TinyStories: {path} has no {_END!r}, which parts its stories")
    if rest.strip():
        yield rest.strip()
