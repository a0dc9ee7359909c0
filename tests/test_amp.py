"""Mixed precision: which operation runs in which dtype, and the scale of the loss."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from guide import ROOT, run, sections

import mlgpu
from mlgpu import nn, optim
from mlgpu.amp import GradScaler, autocast, custom_bwd, custom_fwd, policy
from mlgpu.errors import DeviceError, DTypeError, GraphError
from mlgpu.nn import functional as F

HALVES = [mlgpu.float16, mlgpu.bfloat16]
LOWER, FULL = "lower", "full"

# What PyTorch's table for CUDA says; x is float32, h is of a half type, both (4, 4).
RULES = {
    "@": (LOWER, lambda x, h: x @ x),
    "matmul": (LOWER, lambda x, h: mlgpu.matmul(h, x)),
    "mm": (LOWER, lambda x, h: x.mm(h)),
    "addmm": (LOWER, lambda x, h: mlgpu.addmm(x, x, h)),
    "einsum": (LOWER, lambda x, h: mlgpu.einsum("ij,jk->ik", x, h)),
    "linear": (LOWER, lambda x, h: F.linear(x, x)),
    "conv2d": (LOWER, lambda x, h: F.conv2d(x[None, None], x[None, None])),
    "attention": (LOWER, lambda x, h: F.scaled_dot_product_attention(x[None], x[None], h[None])),
    "prelu": (LOWER, lambda x, h: F.prelu(x, x[0])),
    "exp": (FULL, lambda x, h: h.exp()),
    "log": (FULL, lambda x, h: mlgpu.log(h)),
    "**": (FULL, lambda x, h: h**2),
    "pow": (FULL, lambda x, h: h.pow(1.5)),
    "2 **": (FULL, lambda x, h: 2**h),
    "rsqrt": (FULL, lambda x, h: h.rsqrt()),
    "sum": (FULL, lambda x, h: h.sum()),
    "cumsum": (FULL, lambda x, h: h.cumsum(0)),
    "norm": (FULL, lambda x, h: h.norm()),
    "softmax": (FULL, lambda x, h: h.softmax(-1)),
    "softplus": (FULL, lambda x, h: F.softplus(h)),
    "layer_norm": (FULL, lambda x, h: F.layer_norm(h, (4,), x[0], x[0])),
    "cross_entropy": (FULL, lambda x, h: F.cross_entropy(h, x)),
    "mse_loss": (FULL, lambda x, h: F.mse_loss(h, h)),
    "deform_conv2d": (FULL, lambda x, h: F.deform_conv2d(
        h[None, None], mlgpu.stack([h, h])[None], x[:1, :1][None, None])),
    "det": (FULL, lambda x, h: mlgpu.linalg.det(h)),
    "cat": (FULL, lambda x, h: mlgpu.cat([x, h])),
    "cat of halves": (LOWER, lambda x, h: mlgpu.cat([h, h])),
    "+": (FULL, lambda x, h: x + h),
    "+ of halves": (LOWER, lambda x, h: h + h),
    "relu": (LOWER, lambda x, h: h.relu()),
    "mean": (LOWER, lambda x, h: h.mean()),
    "max_pool2d": (LOWER, lambda x, h: F.max_pool2d(h[None], 2)),
    "gelu": (LOWER, lambda x, h: F.gelu(h)),
}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_operations_choose_their_dtype(device, dtype):
    x = mlgpu.rand(4, 4) + 0.5
    for name, (rule, operation) in RULES.items():
        h = x.to(dtype)
        with autocast(x.device.type, dtype):
            found = operation(x, h)
        assert found.dtype is (dtype if rule == LOWER else mlgpu.float32), name
        if rule == LOWER:  # what the operation gives of arguments in that dtype
            np.testing.assert_array_equal(found.float().cpu().numpy(),
                                          operation(h, h).float().cpu().numpy(), err_msg=name)


def test_the_table_names_functions_that_exist():
    known = {*dir(mlgpu), *dir(F), *dir(mlgpu.linalg), *dir(mlgpu.fft)}
    assert not (policy.LOWER | policy.FULL | policy.WIDEST) - known - {
        "linalg_cross", "linalg_norm", "recurrent_layer", "self_attention"}
    assert not policy.LOWER & policy.FULL | policy.FULL & policy.WIDEST


def test_float64_and_integers_are_left_alone(device):
    x = mlgpu.ones(3, 3, dtype=mlgpu.float64)
    n = mlgpu.ones(3, 3, dtype=mlgpu.int64)
    with autocast(x.device.type):
        assert (x @ x).dtype is mlgpu.float64
        assert n.sum().dtype is mlgpu.int64


def test_another_device_type_is_not_meant(device):
    x = mlgpu.ones(3, 3)
    with autocast("cuda" if x.device.type == "cpu" else "cpu"):
        assert (x @ x).dtype is mlgpu.float32


def layers():
    """Modules with what they take, whose outputs are products."""
    x = mlgpu.randn(3, 2, 8)
    return [(nn.Linear(8, 4), (x,)), (nn.LSTM(8, 4, 2, bidirectional=True), (x,)),
            (nn.GRU(8, 4), (x,)), (nn.RNN(8, 4), (x,)), (nn.LSTMCell(8, 4), (x[0],)),
            (nn.GRUCell(8, 4), (x[0],)), (nn.MultiheadAttention(8, 2), (x, x + 1, x)),
            (nn.Conv1d(2, 3, 3, padding=1), (x,)), (nn.Bilinear(8, 8, 3), (x, x))]


def test_layers_run_in_the_half_type_and_their_weights_stay(device):
    for layer, inputs in layers():
        with autocast(inputs[0].device.type, mlgpu.bfloat16):
            out = layer(*inputs)
        while isinstance(out, tuple):
            out = out[0]
        assert out.dtype is mlgpu.bfloat16, layer
        out.float().square().sum().backward()
        for name, parameter in layer.named_parameters():
            assert parameter.dtype is mlgpu.float32, (layer, name)
            assert parameter.grad.dtype is mlgpu.float32, (layer, name)
            assert parameter.grad.isfinite().all(), (layer, name)


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_residual_stream_stays_in_float32(device, norm_first):
    """In the fused layer as in one that is made of products and sums."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=norm_first)
    x = mlgpu.randn(2, 5, 8)
    expected = layer(x)
    with autocast(x.device.type, mlgpu.bfloat16):
        found = layer(x)
    assert found.dtype is mlgpu.float32
    assert (found - expected).abs().max() < 0.1


def test_weights_are_cast_once(device):
    linear, x = nn.Linear(4, 4), mlgpu.randn(2, 4)
    casts = []
    with mlgpu.autograd.graph.saved_tensors_hooks(lambda t: casts.append(t) or t, lambda t: t), \
            autocast(x.device.type, mlgpu.bfloat16):
        first, second = F.linear(x, linear.weight), F.linear(x, linear.weight)
        nodes = [y.grad_fn.next_functions[1][0] for y in (first, second)]
        assert nodes[0] is nodes[1]
        with mlgpu.no_grad():
            linear.weight.mul_(2.0)
        third = F.linear(x, linear.weight)
        assert third.grad_fn.next_functions[1][0] is not nodes[0]
    np.testing.assert_array_equal(third.float().detach().cpu().numpy(),
                                  (2 * first).float().detach().cpu().numpy())
    (first + third).float().sum().backward()
    assert linear.weight.grad is not None


def test_a_cast_without_a_graph_is_not_used_with_one(device):
    linear, x = nn.Linear(4, 4), mlgpu.randn(2, 4)
    with autocast(x.device.type):
        with mlgpu.no_grad():
            linear(x)
        linear(x).float().sum().backward()
    assert linear.weight.grad is not None


def test_nesting_decorators_and_threads(device):
    x = mlgpu.ones(2, 2)
    kind = x.device.type

    @autocast(kind, mlgpu.bfloat16)
    def product():
        return x @ x

    assert product().dtype is mlgpu.bfloat16
    assert not mlgpu.amp.is_autocast_enabled(kind)
    found = []
    with autocast(kind, mlgpu.float16):
        assert mlgpu.amp.is_autocast_enabled(kind)
        assert mlgpu.amp.get_autocast_dtype(kind) is mlgpu.float16
        with autocast(kind, enabled=False):
            assert (x @ x).dtype is mlgpu.float32
        with autocast(kind, mlgpu.float32):
            assert (x @ x).dtype is mlgpu.float32
        thread = threading.Thread(target=lambda: found.append((x @ x).dtype))
        thread.start()
        thread.join()
        assert (x @ x).dtype is mlgpu.float16
    assert found == [mlgpu.float32]
    with pytest.raises(ZeroDivisionError), autocast(kind):
        raise ZeroDivisionError
    assert not mlgpu.amp.is_autocast_enabled(kind)


def test_checkpoints_run_again_in_the_same_precision(device):
    from mlgpu.utils.checkpoint import checkpoint

    layer, x = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2)), mlgpu.randn(3, 4)
    grads = []
    for way in (layer, lambda x: checkpoint(layer, x)):
        layer.zero_grad()
        with autocast(x.device.type, mlgpu.bfloat16):
            out = way(x)
        out.float().square().sum().backward()  # outside
        grads.append([p.grad.cpu().numpy() for p in layer.parameters()])
    for first, second in zip(*grads, strict=True):
        np.testing.assert_array_equal(first, second)


def test_custom_functions(device):
    seen = []

    class Product(mlgpu.autograd.Function):
        @staticmethod
        @custom_fwd(device_type="cpu", cast_inputs=mlgpu.float32)
        def forward(ctx, a, b):
            seen.append((a.dtype, (a @ b).dtype))
            ctx.save_for_backward(a, b)
            return a @ b

        @staticmethod
        @custom_bwd(device_type="cpu")
        def backward(ctx, dy):
            a, b = ctx.saved_tensors
            return dy @ b.mT, a.mT @ dy

    a = mlgpu.randn(3, 3, requires_grad=True, device="cpu")
    with autocast("cpu"):
        out = Product.apply(a.bfloat16(), a)
    assert seen == [(mlgpu.float32, mlgpu.float32)]
    out.sum().backward()
    assert a.grad is not None


@pytest.mark.parametrize(("kind", "dtype", "error", "message"), [
    ("xpu", None, DeviceError, "device_type must be 'cuda' or 'cpu', got 'xpu'"),
    ("cpu", mlgpu.float64, DTypeError, "float32, got float64"),
])
def test_what_autocast_refuses(kind, dtype, error, message):
    with pytest.raises(error, match=message):
        autocast(kind, dtype)


# --- the scale of the loss -----------------------------------------------------------------------


def problem(kind="SGD"):
    mlgpu.manual_seed(0)
    model = nn.Linear(4, 2)
    options = {"momentum": 0.9} if kind == "SGD" else {}
    return model, getattr(optim, kind)(model.parameters(), lr=0.1, **options)


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_a_scaled_step_is_a_step(device, kind):
    """Powers of two change no digit; a step with an infinity changes nothing at all."""
    x = mlgpu.randn(8, 4)
    models = []
    for scaled in (False, True):
        model, optimizer = problem(kind)
        scaler = GradScaler(init_scale=2.0**10, growth_interval=2, enabled=scaled)
        for step in range(5):
            optimizer.zero_grad()
            scaler.scale(model(x).square().mean()).backward()
            if step == 2:
                if not scaled:
                    continue
                model.bias.grad[1] = math.inf if kind == "SGD" else math.nan
            scaler.step(optimizer)
            scaler.update()
        models.append(model)
        if scaled:
            # grown after two steps, halved by the infinity, grown after two more
            assert scaler.get_scale() == 2.0**11
            steps = [s["step"].item() for s in optimizer.state.values() if "step" in s]
            assert steps in ([], [4.0, 4.0])
    for one, two in zip(*(m.parameters() for m in models), strict=True):
        np.testing.assert_array_equal(one.detach().cpu().numpy(), two.detach().cpu().numpy())


def test_gradients_can_be_clipped_between(device):
    model, optimizer = problem()
    scaler = GradScaler(init_scale=4.0)
    x = mlgpu.randn(8, 4)
    model(x).sum().backward()
    plain = model.weight.grad.cpu().numpy()
    optimizer.zero_grad()
    scaler.scale(model(x).sum()).backward()
    np.testing.assert_array_equal(model.weight.grad.cpu().numpy(), 4 * plain)
    scaler.unscale_(optimizer)
    np.testing.assert_array_equal(model.weight.grad.cpu().numpy(), plain)
    with pytest.raises(GraphError, match="called twice"):
        scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    with pytest.raises(GraphError, match="step: called twice"):
        scaler.step(optimizer)
    with pytest.raises(GraphError, match="step was called already"):
        scaler.unscale_(optimizer)
    scaler.update()


def test_two_optimizers_share_a_scale(device):
    (one, first), (two, second) = problem(), problem("AdamW")
    scaler = GradScaler(init_scale=8.0)
    x = mlgpu.randn(3, 4)
    losses = scaler.scale([one(x).sum(), two(x).sum()])
    for loss in losses:
        loss.backward()
    two.bias.grad[0] = math.nan
    before = two.weight.detach().cpu().numpy()
    scaler.step(first)
    scaler.step(second)
    scaler.update()
    assert scaler.get_scale() == 4.0
    np.testing.assert_array_equal(two.weight.detach().cpu().numpy(), before)
    assert not first.state[one.weight]["momentum_buffer"].eq(0).all()


def test_an_optimizer_that_does_not_read_the_flag_is_asked(device):
    class Plain(optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})
            self.steps = 0

        def update(self, group):
            self.steps += 1

    model, _ = problem()
    optimizer, scaler = Plain(model.parameters()), GradScaler()
    for bad in (True, False):
        scaler.scale(model(mlgpu.ones(1, 4)).sum()).backward()
        if bad:
            model.bias.grad[0] = math.inf
        scaler.step(optimizer)
        scaler.update()
        assert optimizer.steps == (not bad)
        optimizer.zero_grad()


def test_the_state_goes_on(device):
    model, optimizer = problem()
    scaler = GradScaler(init_scale=32.0, growth_interval=3)
    for _ in range(2):
        optimizer.zero_grad()
        scaler.scale(model(mlgpu.ones(1, 4)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    state = scaler.state_dict()
    assert state == {"scale": 32.0, "growth_factor": 2.0, "backoff_factor": 0.5,
                     "growth_interval": 3, "_growth_tracker": 2}
    other = GradScaler()
    other.load_state_dict(state)
    assert other.state_dict() == state
    optimizer.zero_grad()
    other.scale(model(mlgpu.ones(1, 4)).sum()).backward()
    other.step(optimizer)
    other.update()
    assert other.get_scale() == 64.0
    other.update(16.0)
    assert other.get_scale() == 16.0
    assert GradScaler(enabled=False).state_dict() == {}
    with pytest.raises(GraphError, match="enabled=False"):
        other.load_state_dict({})


def test_what_a_scaler_refuses(device):
    model, optimizer = problem()
    scaler = GradScaler()
    with pytest.raises(GraphError, match="no loss was scaled"):
        scaler.step(optimizer)
    with pytest.raises(GraphError, match="no loss was scaled"):
        scaler.update()
    loss = scaler.scale(model(mlgpu.ones(1, 4)).sum())
    with pytest.raises(GraphError, match="no parameter of the optimizer has a gradient"):
        GradScaler.step(scaler, optimizer)
    loss.backward()
    with pytest.raises(TypeError, match="closures"):
        scaler.step(optimizer, lambda: loss)
    half = nn.Linear(2, 2).to(mlgpu.float16)
    scaler.scale(half(mlgpu.ones(1, 2).half()).float().sum()).backward()
    with pytest.raises(DTypeError, match="keep parameters in float32"):
        scaler.unscale_(optim.SGD(half.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="growth_factor must be above 1"):
        GradScaler(growth_factor=1.0)


def test_small_gradients_survive_float16(device):
    """2^-26 is below float16's smallest step; without a scale the gradient is lost."""
    weight = nn.Parameter(mlgpu.full((4, 4), 2.0**-12))
    grads = []
    for enabled in (False, True):
        scaler = GradScaler(init_scale=2.0**16, enabled=enabled)
        optimizer = optim.SGD([weight], lr=1.0)
        weight.grad = None
        with autocast(weight.device.type, mlgpu.float16):
            loss = (F.linear(mlgpu.full((2, 4), 2.0**-13), weight).float() * 2.0**-13).sum()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        grads.append(float(weight.grad.abs().max().item()))
    assert grads == [0.0, 2.0**-25]


def test_losses_are_those_of_pytorch():
    torch = pytest.importorskip("torch", reason="comparison with PyTorch needs it installed")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 16), np.float32), rng.integers(0, 4, 64)
    weights = [rng.standard_normal(s, np.float32) / 4 for s in ((32, 16), (32,), (4, 32), (4,))]
    runs = []
    for lib in (mlgpu, torch):
        model = lib.nn.Sequential(lib.nn.Linear(16, 32), lib.nn.GELU(), lib.nn.Linear(32, 4))
        with lib.no_grad():
            for parameter, weight in zip(model.parameters(), weights, strict=True):
                parameter.copy_(lib.from_numpy(weight))
        optimizer = lib.optim.SGD(model.parameters(), lr=0.5)
        scaler = lib.amp.GradScaler("cpu", init_scale=1024.0)
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            with lib.amp.autocast("cpu", lib.bfloat16):
                loss = lib.nn.functional.cross_entropy(model(lib.from_numpy(x)),
                                                       lib.from_numpy(y))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
        runs.append(losses)
    # Half a step of bfloat16 in the scores moves a loss by about 2^-8 of its size.
    np.testing.assert_allclose(runs[0], runs[1], rtol=0.02)
    assert runs[0][-1] < runs[0][0] / 2


def test_the_guide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for section in sections((ROOT / "docs" / "mixed-precision.md").read_text(encoding="utf-8")):
        run(section, "mixed-precision.md", "")


def test_the_half_type_of_a_device_is_a_choice():
    assert mlgpu.is_autocast_available("cpu")
    assert not mlgpu.is_autocast_available("mps")
    before = mlgpu.get_autocast_dtype("cpu")
    mlgpu.set_autocast_dtype("cpu", mlgpu.float16)
    try:
        with autocast("cpu"):
            assert mlgpu.get_autocast_dtype("cpu") is mlgpu.float16
            assert (mlgpu.ones(2, 2) @ mlgpu.ones(2, 2)).dtype is mlgpu.float16
    finally:
        mlgpu.set_autocast_dtype("cpu", before)
    with pytest.raises(DTypeError, match="set_autocast_dtype"):
        mlgpu.set_autocast_dtype("cpu", mlgpu.float64)


def test_the_class_is_found_however_the_package_was_used():
    assert mlgpu.autocast is autocast
    assert mlgpu.amp.autocast is autocast
