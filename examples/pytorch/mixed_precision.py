"""The loop of mixed precision: autocast, a scaled loss, gradients unscaled before clipping."""

import torch
from seeds import normal, seed_weights
from torch import nn

device_type = "cuda" if torch.cuda.is_available() else "cpu"
dtype = torch.float16 if device_type == "cuda" else torch.bfloat16
model = seed_weights(nn.Sequential(nn.Linear(16, 64), nn.LayerNorm(64), nn.GELU(),
                                   nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 4)))
model = model.to(device_type)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
scaler = torch.amp.GradScaler(device_type, enabled=True, init_scale=1024.0)
loss_fn = nn.CrossEntropyLoss()
x = normal(0, 64, 16).to(device_type)
y = (x @ normal(1, 16, 4).to(device_type)).argmax(dim=1)

for step in range(20):
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device_type=device_type, dtype=dtype):
        output = model(x)
        assert output.dtype is dtype
        loss = loss_fn(output, y)
        assert loss.dtype is torch.float32
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
    scaler.step(optimizer)
    scaler.update()
    if step % 5 == 4:
        # float32 would agree to four digits; half types round each library's own way
        print(f"step {step:2d}  loss {loss.item():.1f}  scale {scaler.get_scale():.0f}")
assert loss.item() < 0.7, loss
