"""Speech Commands: words of a second, spoken by many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlgpu.data.arrays import PathLike
from mlgpu.data.audio import read_wav
from mlgpu.data.datasets.archive import unpack
from mlgpu.data.datasets.download import obtain
from mlgpu.data.datasets.labelled import LabelledDataset, Transform
from mlgpu.errors import FormatError
from mlgpu.ops.interop import from_numpy

__all__ = ["SpeechCommands"]

SUBSETS = ("training", "validation", "testing")


class SpeechCommands(LabelledDataset):
    """One word, one second: (sound (1, frames) float32 in [-1, 1), word), at 16 kHz; 35 words.

    subset: "training" (84,843), "validation" (9,981), "testing" (11,005), or None for all, as the
    set's own lists part them.  Most sounds have 16,000 frames, some fewer: pad them in
    `transform`.  `data` are the paths in `<root>/SpeechCommands/speech_commands_v0.02`, `classes`
    the words; `speaker` tells who speaks, `noises` where the long background noises lie.  (Warden,
    "Speech Commands: a dataset for limited-vocabulary speech recognition", 2018.)
    """

    url = "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
    sha256 = "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"
    sample_rate = 16000

    def __init__(self, root: PathLike, subset: str | None = "training",
                 transform: Transform | None = None, target_transform: Transform | None = None,
                 download: bool = False) -> None:
        super().__init__(root, subset == "training", transform, target_transform)
        if subset is not None and subset not in SUBSETS:
            raise ValueError(f"SpeechCommands: subset must be one of {SUBSETS} or None, got "
                             f"{subset!r}")
        self.folder = obtain("SpeechCommands", self.root / "SpeechCommands/speech_commands_v0.02",
                             self.url, download=download, checksum=f"sha256:{self.sha256}",
                             unpack=unpack)
        self.classes = sorted(entry.name for entry in self.folder.iterdir()
                              if entry.is_dir() and not entry.name.startswith(("_", ".")))
        files = {f"{word}/{path.name}" for word in self.classes
                 for path in (self.folder / word).glob("*.wav")}
        parts = {name: self._list(f"{name}_list.txt") for name in SUBSETS[1:]}
        chosen = (files if subset is None else parts[subset] if subset in parts
                  else files.difference(*parts.values()))
        if not chosen or not chosen <= files:
            raise FormatError(f"SpeechCommands: {self.folder} lacks sounds of the subset {subset!r}"
                              f", such as {next(iter(chosen - files), 'any')}")
        self.data = [self.folder / name for name in sorted(chosen)]
        self.targets = from_numpy(np.array([self.class_to_idx[path.parent.name]
                                            for path in self.data], np.int64))

    @property
    def noises(self) -> list[Path]:
        """Long sounds without words, to mix or to cut silence from."""
        return sorted((self.folder / "_background_noise_").glob("*.wav"))

    def speaker(self, index: int) -> str:
        """Who speaks, as a code: the same speaker says several words."""
        return str(self.data[index].name.partition("_nohash_")[0])

    def _list(self, name: str) -> set[str]:
        return set((self.folder / name).read_text(encoding="utf-8").split())

    def _sample(self, at: int) -> Any:
        sound, rate = read_wav(self.data[at])
        if rate != self.sample_rate:
            raise FormatError(f"SpeechCommands: {self.data[at]} has {rate} frames a second, "
                              f"{self.sample_rate} are expected")
        return sound
