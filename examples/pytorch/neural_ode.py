"""A neural ODE (Chen et al., 2018) without a package: Runge-Kutta steps and the adjoint method."""

import torch
import torch.nn as nn
from seeds import normal, seed_weights


class ODEFunc(nn.Module):
    def __init__(self):
        super(ODEFunc, self).__init__()
        self.net = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 2))
        for m in self.net.modules():
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, mean=0, std=0.1)
                nn.init.constant_(m.bias, val=0)

    def forward(self, t, y):
        return self.net(y ** 3)


def rk4(f, y, t0, t1, steps):
    h = (t1 - t0) / steps
    for i in range(steps):
        t = t0 + i * h
        k1 = f(t, y)
        k2 = f(t + h / 2, y + h / 2 * k1)
        k3 = f(t + h / 2, y + h / 2 * k2)
        k4 = f(t + h, y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y


class OdeintAdjoint(torch.autograd.Function):
    """Backward solves the adjoint equation instead of keeping the forward's steps."""

    @staticmethod
    def forward(ctx, y0, t1, func, *params):
        with torch.no_grad():
            y1 = rk4(func, y0, 0.0, t1, 8)
        ctx.func, ctx.t1 = func, t1
        ctx.save_for_backward(y1, *params)
        return y1

    @staticmethod
    def backward(ctx, grad_y):
        y1, *params = ctx.saved_tensors
        func = ctx.func

        def augmented(t, state):
            y, a = state[0], state[1]
            with torch.enable_grad():
                y = y.detach().requires_grad_(True)
                f = func(t, y)
                grads = torch.autograd.grad(f, (y, *params), a, allow_unused=True)
            flat = torch.cat([g.reshape(-1) for g in grads[1:]])
            return f.detach(), -grads[0], -flat

        count = sum(p.numel() for p in params)
        state = (y1, grad_y, torch.zeros(count))
        h, t = -ctx.t1 / 8, ctx.t1
        for _ in range(8):
            k1 = augmented(t, state)
            k2 = augmented(t + h / 2, [s + h / 2 * k for s, k in zip(state, k1)])
            k3 = augmented(t + h / 2, [s + h / 2 * k for s, k in zip(state, k2)])
            k4 = augmented(t + h, [s + h * k for s, k in zip(state, k3)])
            state = [s + h / 6 * (a + 2 * b + 2 * c + d)
                     for s, a, b, c, d in zip(state, k1, k2, k3, k4)]
            t += h
        grads, at = [], 0
        for p in params:
            grads.append(state[2][at:at + p.numel()].view_as(p))
            at += p.numel()
        return (state[1], None, None, *grads)


true_A = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])
y0 = normal(0, 16, 2) * 0.8
with torch.no_grad():
    target = rk4(lambda t, y: torch.mm(y ** 3, true_A), y0, 0.0, 0.5, 8)

for name in ("backpropagated", "adjoint"):
    print(name)
    func = seed_weights(ODEFunc())
    optimizer = torch.optim.RMSprop(func.parameters(), lr=1e-2)
    for itr in range(15):
        optimizer.zero_grad()
        if name == "adjoint":
            pred = OdeintAdjoint.apply(y0, 0.5, func, *func.parameters())
        else:
            pred = rk4(func, y0, 0.0, 0.5, 8)
        loss = torch.mean(torch.abs(pred - target))
        loss.backward()
        optimizer.step()
        if itr % 5 == 4:
            print("  Iter {:02d} | Total Loss {:.4f}".format(itr, loss.item()))
