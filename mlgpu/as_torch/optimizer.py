"""torch.optim.optimizer beside mlgpu.optim: how old optimizers mark what has no default."""


class _RequiredParameter:
    """The default of an argument that has to be given."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _RequiredParameter()
