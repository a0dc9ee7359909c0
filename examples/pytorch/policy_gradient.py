"""REINFORCE (Williams, 1992) with a baseline, and torch.distributions, on a bandit with states."""

import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim
from seeds import seed_weights
from torch.distributions import Categorical

rng = np.random.default_rng(0)
eps = np.finfo(np.float32).eps.item()


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine1 = nn.Linear(4, 24)
        self.dropout = nn.Dropout(p=0.0)
        self.affine2 = nn.Linear(24, 3)
        self.saved_log_probs, self.rewards = [], []

    def forward(self, x):
        return torch.softmax(self.affine2(torch.relu(self.dropout(self.affine1(x)))), dim=1)


policy = seed_weights(Policy())
optimizer = optim.Adam(policy.parameters(), lr=1e-2)


def select_action(state):
    probs = policy(torch.from_numpy(state).float().unsqueeze(0))
    m = Categorical(probs)
    # drawn with NumPy's numbers instead of m.sample(): the streams of two libraries differ
    action = torch.tensor([int((rng.random() > m.probs[0].cumsum(0)).sum())]) \
        .clamp(max=2)
    policy.saved_log_probs.append(m.log_prob(action))
    return action.item(), m.entropy()


for episode in range(12):
    entropies = []
    for t in range(20):
        state = rng.standard_normal(4).astype(np.float32)
        action, entropy = select_action(state)
        entropies.append(entropy)
        policy.rewards.append(1.0 if action == int(np.argmax(state[:3])) else 0.0)
    returns = torch.tensor(policy.rewards)
    returns = (returns - returns.mean()) / (returns.std() + eps)
    loss = torch.cat([-lp * r for lp, r in zip(policy.saved_log_probs, returns)]).sum()
    loss = loss - 0.01 * torch.stack(entropies).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"episode {episode:2d}  reward {sum(policy.rewards):4.1f}  loss {loss.item():.4f}")
    del policy.rewards[:], policy.saved_log_probs[:]
