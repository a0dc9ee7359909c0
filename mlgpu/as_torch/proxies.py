"""torch.fx.experimental: what a tracer would say, of which there is none."""


def get_proxy_mode() -> None:
    """None: nothing is being traced."""
    return


def is_fake(x: object) -> bool:
    """False."""
    return False
