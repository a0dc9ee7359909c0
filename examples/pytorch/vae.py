"""A variational autoencoder (Kingma and Welling, 2013) on small synthetic images."""

import numpy as np
import torch
from seeds import batches, seed_weights
from torch import nn, optim
from torch.nn import functional as F


class VAE(nn.Module):
    def __init__(self):
        super(VAE, self).__init__()
        self.fc1 = nn.Linear(64, 40)
        self.fc21 = nn.Linear(40, 5)
        self.fc22 = nn.Linear(40, 5)
        self.fc3 = nn.Linear(5, 40)
        self.fc4 = nn.Linear(40, 64)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar, eps):
        std = torch.exp(0.5 * logvar)
        return mu + eps * std

    def decode(self, z):
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

    def forward(self, x, eps):
        mu, logvar = self.encode(x.view(-1, 64))
        return self.decode(self.reparameterize(mu, logvar, eps)), mu, logvar


def loss_function(recon_x, x, mu, logvar):
    bce = F.binary_cross_entropy(recon_x, x.view(-1, 64), reduction="sum")
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return bce + kld


device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
model = seed_weights(VAE()).to(device)
optimizer = optim.Adam(model.parameters(), lr=1e-2)

model.train()
for epoch in range(4):
    train_loss = 0.0
    for step, data in enumerate(batches(seed=epoch, count=8, batch=32)):
        data = data.to(device)
        # the noise comes from NumPy, as the streams of two libraries differ
        noise = np.random.default_rng(1000 * epoch + step).standard_normal((32, 5))
        eps = torch.from_numpy(noise.astype(np.float32)).to(device)
        optimizer.zero_grad()
        recon_batch, mu, logvar = model(data, eps)
        loss = loss_function(recon_batch, data, mu, logvar)
        loss.backward()
        train_loss += loss.item()
        optimizer.step()
    print("====> Epoch: {} Average loss: {:.4f}".format(epoch, train_loss / 256))

model.eval()
with torch.no_grad():
    sample = model.decode(torch.zeros(1, 5, device=device)).cpu()
print(f"sample in [{sample.min():.3f}, {sample.max():.3f}]")
