"""Build the API documentation from the docstrings: `python docs/build.py [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path

import pdoc

MODULES = ["mlgpu", "mlgpu.autograd", "mlgpu.autograd.functional", "mlgpu.cuda", "mlgpu.data",
           "mlgpu.errors", "mlgpu.fft", "mlgpu.linalg", "mlgpu.memory", "mlgpu.nn",
           "mlgpu.nn.functional", "mlgpu.nn.init", "mlgpu.nn.utils", "mlgpu.optim",
           "mlgpu.optim.lr_scheduler", "mlgpu.special", "mlgpu.testing", "mlgpu.utils.checkpoint"]


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "site")
    pdoc.render.configure(docformat="markdown", footer_text="mlgpu")
    pdoc.pdoc(*MODULES, output_directory=folder)
    print(f"{sum(1 for _ in folder.rglob('*.html'))} pages in {folder}")


if __name__ == "__main__":
    main()
