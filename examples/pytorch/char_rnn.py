"""A character-level LSTM: it learns a short text and then writes it."""

import numpy as np
import torch
import torch.nn as nn
from seeds import seed_weights

TEXT = "the quick brown fox jumps over the lazy dog. " * 8
chars = sorted(set(TEXT))
char_to_ix = {ch: i for i, ch in enumerate(chars)}
ix_to_char = {i: ch for i, ch in enumerate(chars)}


class CharRNN(nn.Module):
    def __init__(self, vocab, hidden=48, layers=2):
        super().__init__()
        self.hidden, self.layers = hidden, layers
        self.embed = nn.Embedding(vocab, hidden)
        self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True)
        self.decoder = nn.Linear(hidden, vocab)

    def forward(self, x, state):
        out, state = self.lstm(self.embed(x), state)
        return self.decoder(out), state

    def init_hidden(self, batch):
        weight = next(self.parameters())
        return (weight.new_zeros(self.layers, batch, self.hidden),
                weight.new_zeros(self.layers, batch, self.hidden))


device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
data = torch.LongTensor([char_to_ix[c] for c in TEXT]).to(device)
model = seed_weights(CharRNN(len(chars))).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.RMSprop(model.parameters(), lr=5e-3)
rng = np.random.default_rng(0)
length, batch = 30, 8

for step in range(60):
    starts = rng.integers(0, len(data) - length - 1, batch)
    x = torch.stack([data[s:s + length] for s in starts])
    y = torch.stack([data[s + 1:s + length + 1] for s in starts])
    hidden = tuple(h.detach() for h in model.init_hidden(batch))
    output, hidden = model(x, hidden)
    loss = criterion(output.reshape(-1, len(chars)), y.reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if step % 10 == 0 or step == 59:
        print(f"step {step:3d}  loss {loss.item():.4f}")

model.eval()
with torch.no_grad():
    hidden, ix, written = model.init_hidden(1), data[:1].view(1, 1), TEXT[0]
    for _ in range(30):
        output, hidden = model(ix, hidden)
        ix = output[:, -1].argmax(dim=-1, keepdim=True)
        written += ix_to_char[ix.item()]
print(repr(written))
