"""`python -m mlgpu.as_torch script.py ...` and `python -m mlgpu.as_torch -m module ...`."""

from __future__ import annotations

import sys

from mlgpu.as_torch.run import run_module, run_script

USAGE = """usage: python -m mlgpu.as_torch script.py [ARG ...]
       python -m mlgpu.as_torch -m module [ARG ...]

Runs a program written for PyTorch with `import torch` answered by mlgpu."""


def main(argv: list[str]) -> int:
    """Run the program that the arguments name; it sees those after its own name."""
    if argv[:1] in ([], ["-h"], ["--help"]) or argv == ["-m"]:
        print(USAGE, file=sys.stdout if argv and argv != ["-m"] else sys.stderr)
        return 0 if argv and argv != ["-m"] else 2
    if argv[0] == "-m":
        run_module(argv[1], argv[2:])
    else:
        run_script(argv[0], argv[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
