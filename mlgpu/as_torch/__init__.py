"""Programs written for PyTorch, run by mlgpu: `python -m mlgpu.as_torch script.py ...`.

In a process where `install()` was called, `import torch` and the modules below it are answered by
mlgpu, whether or not torch is installed.  A module of PyTorch's is a view of mlgpu's modules of the
same purpose (`modules.py` has the table), with the few names that only a program for PyTorch needs
in a file here.  What mlgpu lacks raises MissingNameError (an AttributeError) or MissingModuleError
(a ModuleNotFoundError), which name it.  docs/as-torch.md says what is answered and what differs.
"""

from mlgpu.as_torch.finder import install

__all__ = ["install"]
