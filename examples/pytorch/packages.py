"""Packages written for PyTorch, as they are installed: a few training steps with each.

    python -m mlgpu.as_torch examples/pytorch/packages.py            # all that are installed
    python examples/pytorch/packages.py vit_pytorch                  # one, by torch itself

Weights and data come from NumPy's seeds, so both print the same losses (to rounding).
"""

import importlib.util
import sys

import numpy as np
import torch
import torch.nn.functional as F

STEPS = 3


def data(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def labels(seed, high, *shape):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, high, shape))


def seeded(module):
    """The module with weights that do not depend on anybody's random stream."""
    with torch.no_grad():
        for i, (name, p) in enumerate(module.named_parameters()):
            if p.dim() > 1 or name.endswith("bias"):
                scale = 0.5 / np.sqrt(p[0].numel() if p.dim() > 1 else 100)
                p.copy_(data(i, *p.shape) * float(scale))
    return module


def train(module, loss, optimizer=None):
    """Losses of a few steps on the same batch."""
    optimizer = optimizer or torch.optim.AdamW(module.parameters(), lr=1e-3)
    for step in range(STEPS):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        print(f"  step {step}  loss {value.item():.5f}")


def vit_pytorch():
    from vit_pytorch import ViT

    model = seeded(ViT(image_size=32, patch_size=8, num_classes=5, dim=32, depth=2, heads=2,
                       mlp_dim=64))
    x, y = data(0, 4, 3, 32, 32), labels(1, 5, 4)
    train(model, lambda: F.cross_entropy(model(x), y))


def vit_pytorch_more():
    from vit_pytorch.cct import CCT
    from vit_pytorch.max_vit import MaxViT
    from vit_pytorch.simple_vit import SimpleViT

    x, y = data(0, 2, 3, 32, 32), labels(1, 5, 2)
    print(" SimpleViT")
    simple = seeded(SimpleViT(image_size=32, patch_size=8, num_classes=5, dim=32, depth=1, heads=2,
                              mlp_dim=64))
    train(simple, lambda: F.cross_entropy(simple(x), y))
    print(" MaxViT")
    maxvit = seeded(MaxViT(num_classes=5, dim=8, dim_head=8, depth=(1, 1), dim_conv_stem=8,
                           window_size=4, mbconv_expansion_rate=2, dropout=0.0))
    train(maxvit, lambda: F.cross_entropy(maxvit(x), y))
    print(" CCT")
    cct = seeded(CCT(img_size=32, embedding_dim=32, n_conv_layers=1, num_layers=1, num_heads=2,
                     num_classes=5, mlp_ratio=2, stochastic_depth_rate=0.0, dropout_rate=0.0,
                     attention_dropout=0.0))
    train(cct, lambda: F.cross_entropy(cct(x), y))


def x_transformers():
    from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

    model = TransformerWrapper(num_tokens=20, max_seq_len=16, attn_layers=Decoder(
        dim=32, depth=2, heads=2, rotary_pos_emb=True, use_rmsnorm=True, ff_glu=True))
    wrapped = seeded(AutoregressiveWrapper(model))
    x = labels(0, 20, 2, 17)
    train(wrapped, lambda: wrapped(x))


def x_transformers_more():
    from x_transformers import Encoder, TransformerWrapper, XTransformer

    x = labels(0, 20, 2, 16)
    print(" encoder with ALiBi, query-key norm, flash attention")
    encoder = seeded(TransformerWrapper(num_tokens=20, max_seq_len=16, attn_layers=Encoder(
        dim=32, depth=2, heads=2, alibi_pos_bias=True, attn_flash=True)))
    train(encoder, lambda: F.cross_entropy(encoder(x).transpose(1, 2), x))
    print(" encoder and decoder")
    both = seeded(XTransformer(dim=32, enc_num_tokens=20, enc_depth=1, enc_heads=2,
                               enc_max_seq_len=16, dec_num_tokens=20, dec_depth=1, dec_heads=2,
                               dec_max_seq_len=16))
    train(both, lambda: both(x, x, mask=torch.ones_like(x).bool()))


def lion_pytorch():
    from lion_pytorch import Lion

    model = seeded(torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.GELU(),
                                       torch.nn.Linear(32, 1)))
    x, y = data(0, 16, 8), data(1, 16, 1)
    train(model, lambda: F.mse_loss(model(x), y),
          Lion(model.parameters(), lr=1e-3, weight_decay=1e-2))


def torchdiffeq():
    from torchdiffeq import odeint, odeint_adjoint

    field = seeded(torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(),
                                       torch.nn.Linear(16, 2)))

    class Field(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = field

        def forward(self, t, y):
            return self.net(y)

    model, start = Field(), data(0, 4, 2)
    t = torch.linspace(0.0, 1.0, 5)
    for method, solve in (("dopri5", odeint), ("rk4", odeint), ("dopri5", odeint_adjoint)):
        print(f" {solve.__name__} {method}")
        train(model, lambda solve=solve, method=method:
              solve(model, start, t, method=method)[-1].pow(2).mean())


def denoising_diffusion_pytorch():
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    unet = seeded(Unet(dim=8, dim_mults=(1, 2), channels=3, flash_attn=False))
    diffusion = GaussianDiffusion(unet, image_size=16, timesteps=20)
    x, noise = torch.sigmoid(data(0, 2, 3, 16, 16)), data(1, 2, 3, 16, 16)
    t = torch.tensor([3, 15])
    train(diffusion, lambda: diffusion.p_losses(diffusion.normalize(x), t, noise=noise))
    torch.manual_seed(0)
    print("  sampled", tuple(diffusion.sample(batch_size=1).shape))


def ema_pytorch():
    from ema_pytorch import EMA

    model = seeded(torch.nn.Linear(8, 4))
    ema = EMA(model, beta=0.9, update_after_step=0, update_every=1)
    x, y = data(0, 16, 8), data(1, 16, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        loss = F.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.update()
        print(f"  loss {loss.item():.5f}  average {F.mse_loss(ema(x), y).item():.5f}")


def rotary_embedding_torch():
    from rotary_embedding_torch import RotaryEmbedding

    rotary = RotaryEmbedding(dim=16)
    q = data(0, 1, 2, 8, 16).requires_grad_()
    turned = rotary.rotate_queries_or_keys(q)
    turned.square().mul(data(1, 1, 2, 8, 16)).sum().backward()
    print(f"  {turned.sum().item():.5f} {q.grad.abs().sum().item():.5f}")


def nystrom_attention():
    from nystrom_attention import NystromAttention

    attention = seeded(NystromAttention(dim=32, dim_head=16, heads=2, num_landmarks=4,
                                        pinv_iterations=3, residual=True))
    x, y = data(0, 1, 16, 32), data(1, 1, 16, 32)
    train(attention, lambda: F.mse_loss(attention(x), y))


def linear_attention_transformer():
    from linear_attention_transformer import LinearAttentionTransformerLM

    model = seeded(LinearAttentionTransformerLM(num_tokens=20, dim=32, heads=2, depth=1,
                                                max_seq_len=16, causal=True))
    x = labels(0, 20, 2, 16)
    train(model, lambda: F.cross_entropy(model(x).transpose(1, 2), x))


def local_attention():
    from local_attention import LocalAttention

    attention = LocalAttention(dim=16, window_size=4, causal=True, look_backward=1, autopad=True)
    q = data(0, 2, 2, 16, 16).requires_grad_()
    out = attention(q, data(1, 2, 2, 16, 16), data(2, 2, 2, 16, 16))
    out.square().sum().backward()
    print(f"  {out.sum().item():.5f} {q.grad.abs().sum().item():.5f}")


def einops():
    from einops import rearrange, reduce, repeat
    from einops.layers.torch import Rearrange

    x = data(0, 2, 3, 8, 8)
    model = seeded(torch.nn.Sequential(Rearrange("b c (h p) (w q) -> b (h w) (p q c)", p=4, q=4),
                                       torch.nn.Linear(48, 4)))
    y = rearrange(model(x), "b n d -> b d n")
    print(f"  {reduce(y, 'b d n -> d', 'mean').sum().item():.5f}",
          tuple(repeat(y, "b d n -> (k b) d n", k=3).shape))


def pytorch_metric_learning():
    from pytorch_metric_learning import losses, miners

    net = seeded(torch.nn.Linear(8, 4))
    x, y = data(0, 12, 8), labels(1, 3, 12)
    for loss in (losses.TripletMarginLoss(), losses.ContrastiveLoss(), losses.NTXentLoss(),
                 losses.MultiSimilarityLoss()):
        print(f" {type(loss).__name__}")
        miner = miners.MultiSimilarityMiner()
        train(net, lambda loss=loss, miner=miner: loss(net(x), y, miner(net(x), y)))


def torchmetrics():
    import torchmetrics.functional as metrics
    from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

    scores, y = data(0, 32, 4), labels(1, 4, 32)
    accuracy, f1 = MulticlassAccuracy(4), MulticlassF1Score(4)
    for part in range(2):
        accuracy.update(scores[part * 16:][:16], y[part * 16:][:16])
        f1.update(scores[part * 16:][:16], y[part * 16:][:16])
    print(f"  {accuracy.compute().item():.5f} {f1.compute().item():.5f}",
          f"{metrics.mean_squared_error(data(2, 8), data(3, 8)).item():.5f}",
          f"{metrics.auroc(scores.softmax(-1), y, task='multiclass', num_classes=4).item():.5f}")


def performer_pytorch():
    from performer_pytorch import PerformerLM

    model = seeded(PerformerLM(num_tokens=20, max_seq_len=16, dim=32, depth=1, heads=2,
                               feature_redraw_interval=None, generalized_attention=True))
    for name, buffer in model.named_buffers():
        if "projection" in name:  # drawn at the start
            buffer.copy_(data(5, *buffer.shape))
    x = labels(0, 20, 2, 16)
    train(model, lambda: F.cross_entropy(model(x).transpose(1, 2), x))


def reformer_pytorch():
    from reformer_pytorch import ReformerLM

    model = seeded(ReformerLM(num_tokens=20, dim=32, depth=1, max_seq_len=16, heads=2,
                              bucket_size=4, n_hashes=1, causal=True, full_attn_thres=64))
    x = labels(0, 20, 2, 16)
    train(model, lambda: F.cross_entropy(model(x).transpose(1, 2), x))


def perceiver_pytorch():
    from perceiver_pytorch import Perceiver

    model = seeded(Perceiver(input_channels=3, input_axis=2, num_freq_bands=3, max_freq=10.0,
                             depth=1, num_latents=8, latent_dim=32, num_classes=5,
                             cross_dim_head=16, latent_dim_head=16, latent_heads=2))
    x, y = data(0, 2, 8, 8, 3), labels(1, 5, 2)
    train(model, lambda: F.cross_entropy(model(x), y))


def vector_quantize_pytorch():
    from vector_quantize_pytorch import FSQ, VectorQuantize

    x = data(0, 1, 16, 3).requires_grad_()
    quantized, _ = FSQ(levels=[8, 5, 5])(x)
    quantized.square().sum().backward()
    print(f"  {quantized.sum().item():.5f} {x.grad.abs().sum().item():.5f}")
    quantized, indices, loss = VectorQuantize(dim=8, codebook_size=16)(data(0, 1, 32, 8))
    print(" ", tuple(quantized.shape), tuple(indices.shape))


def mlp_mixer_pytorch():
    from mlp_mixer_pytorch import MLPMixer

    model = seeded(MLPMixer(image_size=16, channels=3, patch_size=4, dim=16, depth=1,
                            num_classes=4))
    x, y = data(0, 4, 3, 16, 16), labels(1, 4, 4)
    train(model, lambda: F.cross_entropy(model(x), y))


def g_mlp_pytorch():
    from g_mlp_pytorch import gMLP

    model = seeded(gMLP(num_tokens=20, dim=16, depth=1, seq_len=16)).eval()
    x = labels(0, 20, 2, 16)
    train(model, lambda: F.cross_entropy(model(x).transpose(1, 2), x))


def soft_moe_pytorch():
    from soft_moe_pytorch import SoftMoE

    model = seeded(SoftMoE(dim=16, seq_len=8, num_experts=2))
    x, y = data(0, 2, 8, 16), data(1, 2, 8, 16)
    train(model, lambda: F.mse_loss(model(x), y))


def conformer():
    from conformer import ConformerBlock

    model = seeded(ConformerBlock(dim=32, dim_head=16, heads=2, ff_mult=2, conv_kernel_size=7))
    x, y = data(0, 2, 16, 32), data(1, 2, 16, 32)
    train(model, lambda: F.mse_loss(model(x), y))


def siren_pytorch():
    from siren_pytorch import SirenNet

    model = seeded(SirenNet(dim_in=2, dim_hidden=16, dim_out=3, num_layers=2, w0_initial=30.0))
    x, y = data(0, 16, 2), data(1, 16, 3)
    train(model, lambda: F.mse_loss(model(x), y))


def egnn_pytorch():
    from egnn_pytorch import EGNN

    model = seeded(EGNN(dim=16))
    feats, coors = data(0, 1, 6, 16), data(1, 1, 6, 3)
    train(model, lambda: sum(t.square().mean() for t in model(feats, coors)))


def efficientnet_pytorch():
    from efficientnet_pytorch import EfficientNet

    model = seeded(EfficientNet.from_name("efficientnet-b0", num_classes=3, image_size=32)).eval()
    x, y = data(0, 2, 3, 32, 32), labels(1, 3, 2)
    train(model, lambda: F.cross_entropy(model(x), y))


def timm():
    import timm

    x, y = data(0, 4, 3, 64, 64), labels(1, 3, 4)
    for name, options in (("resnet18", {}), ("mobilenetv3_small_050", {}),
                          ("vit_tiny_patch16_224", {"img_size": 64, "depth": 1}),
                          ("convnext_atto", {"depths": (1, 1, 1, 1)})):
        print(f" {name}")
        model = seeded(timm.create_model(name, num_classes=3, **options))
        train(model, lambda model=model: F.cross_entropy(model(x), y),
              torch.optim.SGD(model.parameters(), lr=1e-2))


def byol_pytorch():
    from byol_pytorch import BYOL
    from torchvision import models

    learner = BYOL(models.resnet18(), image_size=32, hidden_layer="avgpool")
    print(" ", tuple(learner(data(0, 2, 3, 32, 32)).shape), "(its views are drawn)")


def pytorch_tcn():
    from pytorch_tcn import TCN

    model = seeded(TCN(4, [8, 8], kernel_size=3, dropout=0.0))
    x = data(0, 2, 4, 20)
    train(model, lambda: model(x).square().mean())


def nflows():
    from nflows import distributions, flows, transforms

    model = seeded(flows.Flow(transforms.CompositeTransform([
        transforms.MaskedAffineAutoregressiveTransform(features=2, hidden_features=8),
        transforms.ReversePermutation(features=2)]), distributions.StandardNormal(shape=[2])))
    x = data(0, 16, 2)
    train(model, lambda: -model.log_prob(x).mean())


def torchsde():
    import torchsde

    class Drift(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def __init__(self):
            super().__init__()
            self.mu = torch.nn.Linear(2, 2)

        def f(self, t, y):
            return self.mu(y)

        def g(self, t, y):
            return 0.0 * y  # Brownian motion is each library's own

    model, start, times = seeded(Drift()), data(0, 3, 2), torch.linspace(0, 1, 3)
    train(model, lambda: torchsde.sdeint(model, start, times, dt=0.25,
                                         method="euler")[-1].square().mean())


def entmax():
    from entmax import entmax15, sparsemax

    x = data(0, 3, 5).requires_grad_()
    (sparsemax(x, dim=-1) + entmax15(x, dim=-1)).square().sum().backward()
    print(f"  {x.grad.abs().sum().item():.4f}")


def pytorch_msssim():
    from pytorch_msssim import ssim

    a, b = data(0, 1, 3, 32, 32).sigmoid(), data(1, 1, 3, 32, 32).sigmoid()
    print(f"  {ssim(a, (a + b) / 2, data_range=1.0).item():.4f}")


def _optimizers(*made):
    x, y = data(0, 16, 8), data(1, 16, 2)
    for make in made:
        model = seeded(torch.nn.Linear(8, 2))
        optimizer = make(model.parameters())
        print(f" {type(optimizer).__name__}")
        train(model, lambda model=model: F.mse_loss(model(x), y), optimizer)


def torch_optimizer():
    import torch_optimizer as o

    _optimizers(*(lambda p, kind=kind: kind(p, lr=1e-2)
                  for kind in (o.RAdam, o.Yogi, o.AdaBound, o.NovoGrad, o.Lamb)))


def adam_atan2_pytorch():
    from adam_atan2_pytorch import AdamAtan2

    _optimizers(lambda p: AdamAtan2(p, lr=1e-2))


def muon():
    from muon import SingleDeviceMuon

    _optimizers(lambda p: SingleDeviceMuon([q for q in p if q.dim() == 2], lr=1e-2))


def torch_ema():
    from torch_ema import ExponentialMovingAverage

    model = seeded(torch.nn.Linear(8, 2))
    ema = ExponentialMovingAverage(model.parameters(), decay=0.9)
    x, y = data(0, 16, 8), data(1, 16, 2)
    train(model, lambda: F.mse_loss(model(x), y))
    ema.update()
    with ema.average_parameters():
        print(f"  average {F.mse_loss(model(x), y).item():.5f}")


def torchinfo():
    from torchinfo import summary

    shown = summary(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU()),
                    input_size=(1, 1, 8, 8), verbose=0)
    print(" ", shown.total_params, shown.total_mult_adds)


PACKAGES = {f.__name__: f for f in (
    vit_pytorch, vit_pytorch_more, x_transformers, x_transformers_more, timm, lion_pytorch,
    torchdiffeq, denoising_diffusion_pytorch, ema_pytorch, rotary_embedding_torch,
    nystrom_attention, linear_attention_transformer, local_attention, performer_pytorch,
    reformer_pytorch, perceiver_pytorch, vector_quantize_pytorch, mlp_mixer_pytorch, g_mlp_pytorch,
    soft_moe_pytorch, conformer, siren_pytorch, egnn_pytorch, efficientnet_pytorch, byol_pytorch,
    pytorch_tcn, nflows, torchsde, entmax, pytorch_msssim, torch_optimizer, adam_atan2_pytorch,
    muon, torch_ema, torchinfo, einops, pytorch_metric_learning, torchmetrics)}


if __name__ == "__main__":
    for name in sys.argv[1:] or PACKAGES:
        package = name.removesuffix("_more")
        if importlib.util.find_spec(package) is None:
            print(f"{name}: not installed")
            continue
        print(name)
        PACKAGES[name]()
