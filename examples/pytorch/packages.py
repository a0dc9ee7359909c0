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


def transformers():
    import transformers as t

    t.logging.set_verbosity_error()
    ids = labels(0, 50, 2, 12)
    seen = torch.ones_like(ids)
    seen[1, 8:] = 0
    small = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 64}
    print(" GPT-2")
    gpt2 = seeded(t.GPT2LMHeadModel(t.GPT2Config(vocab_size=50, n_positions=32, n_embd=32,
                                                 n_layer=2, n_head=2))).eval()
    train(gpt2, lambda: gpt2(ids, labels=ids, attention_mask=seen).loss)
    print(" ", gpt2.generate(ids[:1, :4], max_new_tokens=5, do_sample=False,
                             pad_token_id=0).tolist())
    print(" BERT")
    bert = seeded(t.BertForSequenceClassification(t.BertConfig(**small, num_labels=3))).eval()
    train(bert, lambda: bert(ids, attention_mask=seen, labels=torch.tensor([0, 2])).loss)
    print(" Llama")
    llama = seeded(t.LlamaForCausalLM(t.LlamaConfig(**small, num_key_value_heads=2)))
    train(llama, lambda: llama(ids, labels=ids, attention_mask=seen).loss)
    print(" ", llama.generate(ids[:2, :4], max_new_tokens=5, do_sample=False,
                              pad_token_id=0).tolist())


def transformers_more():
    import transformers as t

    ids = labels(0, 50, 2, 12)
    small = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 64}
    print(" T5")
    t5 = seeded(t.T5ForConditionalGeneration(t.T5Config(
        vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0,
        decoder_start_token_id=0)))
    train(t5, lambda: t5(ids, labels=ids[:, :6].contiguous()).loss)
    print(" Mistral, Qwen2")
    for kind, config in ((t.MistralForCausalLM, t.MistralConfig), (t.Qwen2ForCausalLM,
                                                                   t.Qwen2Config)):
        model = seeded(kind(config(**small, num_key_value_heads=2)))
        train(model, lambda model=model: model(ids, labels=ids).loss)
    print(" ViT")
    vit = seeded(t.ViTForImageClassification(t.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        image_size=16, patch_size=4, num_labels=3))).eval()
    x = data(0, 2, 3, 16, 16)
    train(vit, lambda: vit(x, labels=torch.tensor([0, 2])).loss)


def peft():
    import transformers as t
    from peft import LoraConfig, get_peft_model

    base = seeded(t.GPT2LMHeadModel(t.GPT2Config(vocab_size=50, n_positions=32, n_embd=32,
                                                 n_layer=1, n_head=2)))
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=["c_attn"],
                                            fan_in_fan_out=True)).eval()
    with torch.no_grad():
        for i, (name, p) in enumerate(model.named_parameters()):
            if "lora_" in name:
                p.copy_(data(100 + i, *p.shape) * 0.1)
    ids = labels(0, 50, 2, 12)
    train(model, lambda: model(input_ids=ids, labels=ids).loss)
    print(" ", sum(p.numel() for p in model.parameters() if p.requires_grad))


def accelerate():
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = seeded(torch.nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data(0, 16, 8),
                                                                        data(1, 16, 2)), 8)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for x, y in loader:
        loss = F.mse_loss(model(x), y)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(f"  loss {loss.item():.5f}")


def lightning():
    import lightning as L

    class Model(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = seeded(torch.nn.Linear(8, 2))

        def training_step(self, batch, batch_idx):
            loss = F.mse_loss(self.net(batch[0]), batch[1])
            self.log("loss", loss)
            print(f"  loss {loss.item():.5f}")
            return loss

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data(0, 16, 8),
                                                                        data(1, 16, 2)), 8)
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(Model(), loader)


def kornia():
    import kornia as k

    x = torch.sigmoid(data(0, 2, 3, 16, 16)).requires_grad_()
    blurred = k.filters.gaussian_blur2d(x, (3, 3), (1.5, 1.5))
    edges = k.filters.sobel(x)
    grey = k.color.rgb_to_grayscale(x)
    lab = k.color.rgb_to_hsv(x)
    turned = k.geometry.transform.rotate(x, torch.tensor([30.0, 45.0]))
    ssim = k.losses.ssim_loss(x, blurred.detach(), 5)
    (blurred.sum() + edges.sum() + grey.sum() + lab.sum() + turned.sum() + ssim).backward()
    print(f"  {edges.sum().item():.3f} {turned.sum().item():.3f} {ssim.item():.4f}",
          f"{x.grad.abs().sum().item():.2f}")


def torch_geometric():
    from torch_geometric.data import Batch, Data
    from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv, global_mean_pool

    edges, x = labels(0, 10, 2, 30), data(1, 10, 8)
    for name, make in (("GCN", lambda: GCNConv(8, 4)), ("GAT", lambda: GATConv(8, 2, heads=2)),
                       ("SAGE", lambda: SAGEConv(8, 4)),
                       ("GIN", lambda: GINConv(torch.nn.Linear(8, 4)))):
        print(f" {name}")
        layer = seeded(make())
        train(layer, lambda layer=layer: layer(x, edges).square().mean())
    batch = Batch.from_data_list([Data(x=x, edge_index=edges), Data(x=x[:4], edge_index=edges % 4)])
    print(f"  {global_mean_pool(batch.x, batch.batch).sum().item():.5f}", tuple(batch.x.shape))


def tab_transformer_pytorch():
    from tab_transformer_pytorch import FTTransformer

    categories, numbers, y = labels(0, 4, 4, 2), data(1, 4, 3), data(2, 4, 1)
    model = seeded(FTTransformer(categories=(4, 4), num_continuous=3, dim=16, dim_out=1, depth=1,
                                 heads=2, attn_dropout=0.0, ff_dropout=0.0))
    train(model, lambda: F.mse_loss(model(categories, numbers), y))


def pytorch_tabnet():
    from pytorch_tabnet.tab_network import TabNet

    model = seeded(TabNet(6, 2, n_d=4, n_a=4, n_steps=2, virtual_batch_size=8,
                          group_attention_matrix=torch.eye(6)))
    x, y = data(0, 16, 6), labels(1, 2, 16)
    train(model, lambda: F.cross_entropy(model(x)[0], y))


def gpytorch():
    import gpytorch as g

    x = torch.linspace(0, 1, 20)
    y = torch.sin(6 * x) + 0.1 * data(0, 20)

    class Model(g.models.ExactGP):
        def __init__(self, likelihood):
            super().__init__(x, y, likelihood)
            self.mean_module = g.means.ConstantMean()
            self.covar_module = g.kernels.ScaleKernel(g.kernels.RBFKernel())

        def forward(self, x):
            return g.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    likelihood = g.likelihoods.GaussianLikelihood()
    model = Model(likelihood)
    loss = g.mlls.ExactMarginalLogLikelihood(likelihood, model)
    train(model, lambda: -loss(model(x), y), torch.optim.Adam(model.parameters(), lr=0.1))
    model.eval()
    likelihood.eval()
    with torch.no_grad():
        found = likelihood(model(torch.tensor([0.25, 0.6])))
        print(f"  {found.mean.sum().item():.4f} {found.variance.sum().item():.4f}")


def pyro():
    import pyro
    import pyro.distributions as dist
    from pyro.infer import SVI, Trace_ELBO
    from pyro.infer.autoguide import AutoDelta

    x = data(0, 20)

    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, scale), obs=x)

    pyro.clear_param_store()
    svi = SVI(model, AutoDelta(model, init_loc_fn=pyro.infer.autoguide.init_to_value(
        values={"mean": torch.tensor(0.5), "scale": torch.tensor(2.0)})),
        pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(STEPS):
        print(f"  loss {svi.step(x):.4f}")


def normflows():
    import normflows as nf

    flows = []
    for _ in range(2):
        flows += [nf.flows.AffineCouplingBlock(nf.nets.MLP([1, 8, 2], init_zeros=True)),
                  nf.flows.Permute(2, mode="swap")]
    model = seeded(nf.NormalizingFlow(nf.distributions.DiagGaussian(2), flows))
    x = data(0, 16, 2)
    train(model, lambda: model.forward_kld(x))


def zuko():
    import zuko

    x = data(0, 16, 3)
    for kind in (zuko.flows.MAF, zuko.flows.NSF):
        print(f" {kind.__name__}")
        flow = seeded(kind(3, 0, transforms=2, hidden_features=(8, 8)))
        train(flow, lambda flow=flow: -flow().log_prob(x).mean())


def diffusers():
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

    unet = seeded(UNet2DModel(sample_size=16, in_channels=1, out_channels=1, layers_per_block=1,
                              block_out_channels=(8, 16), norm_num_groups=4,
                              down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                              up_block_types=("AttnUpBlock2D", "UpBlock2D")))
    schedule = DDPMScheduler(num_train_timesteps=20)
    x, noise, t = data(0, 2, 1, 16, 16), data(1, 2, 1, 16, 16), torch.tensor([3, 15])
    train(unet, lambda: F.mse_loss(unet(schedule.add_noise(x, noise, t), t).sample, noise))
    steps = DDIMScheduler(num_train_timesteps=20)
    steps.set_timesteps(2)
    with torch.no_grad():
        for step in steps.timesteps:
            noise = steps.step(unet(noise, step).sample, step, noise).prev_sample
    print(f"  sampled {noise.abs().sum().item():.2f}")


def schedulefree():
    from schedulefree import AdamWScheduleFree

    model = seeded(torch.nn.Linear(8, 2))
    optimizer = AdamWScheduleFree(model.parameters(), lr=1e-2)
    optimizer.train()
    x, y = data(0, 16, 8), data(1, 16, 2)
    train(model, lambda: F.mse_loss(model(x), y), optimizer)
    optimizer.eval()
    print(f"  average {F.mse_loss(model(x), y).item():.5f}")


def prodigyopt():
    from prodigyopt import Prodigy

    _optimizers(lambda p: Prodigy(p, lr=1.0))


def came_pytorch():
    from came_pytorch import CAME

    _optimizers(lambda p: CAME(p, lr=1e-2, betas=(0.9, 0.999, 0.9999)))


def pytorch_optimizer():
    import pytorch_optimizer as o

    _optimizers(*(lambda p, kind=kind: kind(p, lr=1e-2)
                  for kind in (o.AdaBelief, o.Lion, o.Adan, o.Ranger, o.StableAdamW)))


def thop():
    import thop

    shown = thop.profile(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()),
                         inputs=(data(0, 1, 3, 8, 8),), verbose=False)
    print(" ", *map(int, shown))


def captum():
    from captum.attr import DeepLift, GradientShap, IntegratedGradients, Saliency

    model = seeded(torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(),
                                       torch.nn.Linear(8, 3))).eval()
    x = data(0, 4, 6)
    for kind in (IntegratedGradients, Saliency, DeepLift):
        print(f"  {kind.__name__} {kind(model).attribute(x, target=1).abs().sum().item():.4f}")
    assert GradientShap(model).attribute(x, baselines=x * 0, target=1).shape == x.shape


def torchcde():
    import torchcde

    class Field(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(4, 12)

        def forward(self, t, z):
            return self.net(z).tanh().view(*z.shape, 3)

    field, path, start = seeded(Field()), data(0, 2, 6, 3), data(1, 2, 4)
    spline = torchcde.CubicSpline(torchcde.hermite_cubic_coefficients_with_backward_differences(
        path))
    train(field, lambda: torchcde.cdeint(X=spline, func=field, z0=start, t=spline.interval,
                                         method="rk4", adjoint=False,
                                         options={"step_size": 1.0})[:, -1].square().mean())


def torchdyn():
    from torchdyn.core import NeuralODE

    model = NeuralODE(seeded(torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(),
                                                 torch.nn.Linear(8, 2))),
                      solver="rk4", sensitivity="autograd")
    x, span = data(0, 4, 2), torch.linspace(0, 1, 5)
    train(model, lambda: model(x, span)[1][-1].square().mean())


def monai():
    from monai.losses import DiceLoss
    from monai.networks.nets import UNETR, UNet

    x, y = data(0, 2, 1, 16, 16), labels(1, 2, 2, 1, 16, 16)
    unet = seeded(UNet(spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8, 16),
                       strides=(2, 2)))
    loss = DiceLoss(to_onehot_y=True, softmax=True)
    train(unet, lambda: loss(unet(x), y))
    print(" UNETR")
    unetr = seeded(UNETR(in_channels=1, out_channels=2, img_size=(16, 16, 16), feature_size=4,
                         hidden_size=12, mlp_dim=16, num_heads=2))
    volume, z = data(2, 1, 1, 16, 16, 16), labels(3, 2, 1, 1, 16, 16, 16)
    train(unetr, lambda: loss(unetr(volume), z))


def open_clip():
    from open_clip.loss import ClipLoss
    from open_clip.model import CLIP

    model = seeded(CLIP(16, {"image_size": 16, "layers": 1, "width": 32, "head_width": 16,
                             "patch_size": 8},
                        {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2,
                         "layers": 1}))
    with torch.no_grad():
        model.visual.class_embedding.copy_(data(9, 32) * 0.1)
    x, text, loss = data(0, 4, 3, 16, 16), labels(1, 50, 4, 8), ClipLoss()
    train(model, lambda: loss(*model(x, text)))


def segment_anything():
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        TwoWayTransformer,
    )

    encoder = seeded(ImageEncoderViT(img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2,
                                     out_chans=16, use_rel_pos=True, window_size=2))
    prompts = seeded(PromptEncoder(16, (4, 4), (32, 32), 4))
    prompts.pe_layer.positional_encoding_gaussian_matrix.copy_(data(9, 2, 8))
    decoder = seeded(MaskDecoder(transformer_dim=16, transformer=TwoWayTransformer(1, 16, 2, 32)))
    x, points = data(0, 1, 3, 32, 32), (torch.tensor([[[4.0, 5.0]]]), torch.tensor([[1]]))

    def loss():
        sparse, dense = prompts(points, None, None)
        masks, quality = decoder(encoder(x), prompts.get_dense_pe(), sparse, dense, True)
        return masks.square().mean() + quality.square().mean()

    train(torch.nn.ModuleList([encoder, decoder]), loss)


def skorch():
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(seeded(torch.nn.Linear(8, 3)), criterion=torch.nn.CrossEntropyLoss,
                              lr=0.1, max_epochs=3, train_split=None, verbose=0,
                              iterator_train__shuffle=False)
    x, y = data(0, 32, 8).numpy(), labels(1, 3, 32).numpy()
    net.fit(x, y)
    print(" ", *(f"{row['train_loss']:.5f}" for row in net.history), net.predict(x)[:5].tolist())


def ignite():
    from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
    from ignite.metrics import Accuracy, Loss

    model = seeded(torch.nn.Linear(8, 3))
    loader = [(data(i, 8, 8), labels(i, 3, 8)) for i in range(2)]
    trainer = create_supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1),
                                        torch.nn.CrossEntropyLoss())
    evaluator = create_supervised_evaluator(model, {
        "accuracy": Accuracy(), "loss": Loss(torch.nn.CrossEntropyLoss())})

    @trainer.on(Events.EPOCH_COMPLETED)
    def _(engine):
        found = evaluator.run(loader).metrics
        print(f"  {found['accuracy']:.5f} {found['loss']:.5f}")

    trainer.run(loader, max_epochs=2)


def geomloss():
    from geomloss import SamplesLoss

    x, y = data(0, 8, 2).requires_grad_(), data(1, 8, 2)
    for name in ("sinkhorn", "gaussian", "energy"):
        loss = SamplesLoss(name, blur=0.5, backend="tensorized")(x, y)
        grad, = torch.autograd.grad(loss, x)
        print(f"  {name} {loss.item():.5f} {grad.abs().sum().item():.5f}")


def bert_pytorch():
    from bert_pytorch.model import BERT, BERTLM

    model = seeded(BERTLM(BERT(20, hidden=16, n_layers=1, attn_heads=2), 20)).eval()
    x, segments, nxt = labels(0, 19, 2, 8) + 1, labels(1, 2, 2, 8), torch.tensor([0, 1])

    def loss():
        is_next, words = model(x, segments)
        return F.nll_loss(is_next, nxt) + F.nll_loss(words.transpose(1, 2), x)

    train(model, loss)


def axial_attention():
    from axial_attention import AxialAttention

    attention = seeded(AxialAttention(dim=8, dim_index=1, heads=2, num_dimensions=2))
    x = data(0, 1, 8, 6, 6)
    train(attention, lambda: attention(x).square().mean())


def adabelief_pytorch():
    from adabelief_pytorch import AdaBelief

    _optimizers(lambda p: AdaBelief(p, lr=1e-2, eps=1e-16, print_change_log=False))


def pytorch_warmup():
    import pytorch_warmup as warmup

    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    warm = warmup.UntunedLinearWarmup(optimizer)
    for _ in range(STEPS):
        optimizer.step()
        with warm.dampening():
            schedule.step()
        print(f"  {optimizer.param_groups[0]['lr']:.7f}")


def memory_efficient_attention_pytorch():
    from memory_efficient_attention_pytorch import Attention

    attention = seeded(Attention(dim=16, heads=2, dim_head=8, memory_efficient=True, causal=True,
                                 q_bucket_size=4, k_bucket_size=4))
    x = data(0, 2, 8, 16)
    train(attention, lambda: attention(x).square().mean())


def fvcore():
    from fvcore.nn import giou_loss, sigmoid_focal_loss, smooth_l1_loss

    a, b = data(0, 8, 4), data(1, 8, 4)
    boxes = torch.cat([b[:, :2], b[:, :2] + b[:, 2:].abs() + 1], 1)
    other = torch.cat([a[:, :2], a[:, :2] + a[:, 2:].abs() + 1], 1)
    print(f"  {giou_loss(other, boxes, 'mean').item():.5f}",
          f"{sigmoid_focal_loss(a, (b > 0).float(), reduction='mean').item():.5f}",
          f"{smooth_l1_loss(a, b, 0.5, 'mean').item():.5f}")


PACKAGES = {f.__name__: f for f in (
    vit_pytorch, vit_pytorch_more, x_transformers, x_transformers_more, timm, lion_pytorch,
    torchdiffeq, denoising_diffusion_pytorch, ema_pytorch, rotary_embedding_torch,
    nystrom_attention, linear_attention_transformer, local_attention, performer_pytorch,
    reformer_pytorch, perceiver_pytorch, vector_quantize_pytorch, mlp_mixer_pytorch, g_mlp_pytorch,
    soft_moe_pytorch, conformer, siren_pytorch, egnn_pytorch, efficientnet_pytorch, byol_pytorch,
    pytorch_tcn, nflows, torchsde, entmax, pytorch_msssim, torch_optimizer, adam_atan2_pytorch,
    muon, torch_ema, torchinfo, einops, pytorch_metric_learning, torchmetrics, transformers,
    transformers_more, peft, accelerate, lightning, kornia, torch_geometric,
    tab_transformer_pytorch, pytorch_tabnet, gpytorch, pyro, normflows, zuko, diffusers,
    schedulefree, prodigyopt, came_pytorch, pytorch_optimizer, thop, captum, torchcde, torchdyn,
    monai, open_clip, segment_anything, skorch, ignite, geomloss, bert_pytorch, axial_attention,
    adabelief_pytorch, pytorch_warmup, memory_efficient_attention_pytorch, fvcore)}


if __name__ == "__main__":
    for name in sys.argv[1:] or PACKAGES:
        package = name.removesuffix("_more")
        if importlib.util.find_spec(package) is None:
            print(f"{name}: not installed")
            continue
        print(name)
        PACKAGES[name]()
