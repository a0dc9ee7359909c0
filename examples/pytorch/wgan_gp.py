"""A Wasserstein GAN with gradient penalty (Gulrajani et al., 2017): derivatives of derivatives."""

import numpy as np
import torch
import torch.nn as nn
from seeds import normal, seed_weights
from torch.autograd import Variable
from torch.autograd import grad as torch_grad

Tensor = torch.cuda.FloatTensor if torch.cuda.is_available() else torch.FloatTensor


class Generator(nn.Module):
    def __init__(self):
        super(Generator, self).__init__()

        def block(in_feat, out_feat, normalize=True):
            layers = [nn.Linear(in_feat, out_feat)]
            if normalize:
                layers.append(nn.BatchNorm1d(out_feat, 0.8))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            return layers

        self.model = nn.Sequential(*block(4, 24, normalize=False), *block(24, 24), nn.Linear(24, 2))

    def forward(self, z):
        return self.model(z)


def compute_gradient_penalty(D, real_samples, fake_samples, seed):
    alpha = Tensor(np.random.default_rng(seed).random((real_samples.size(0), 1)))
    interpolates = (alpha * real_samples + ((1 - alpha) * fake_samples)).requires_grad_(True)
    d_interpolates = D(interpolates)
    fake = Variable(Tensor(real_samples.shape[0], 1).fill_(1.0), requires_grad=False)
    gradients = torch_grad(outputs=d_interpolates, inputs=interpolates, grad_outputs=fake,
                           create_graph=True, retain_graph=True, only_inputs=True)[0]
    gradients = gradients.view(gradients.size(0), -1)
    return ((gradients.norm(2, dim=1) - 1) ** 2).mean()


generator = seed_weights(Generator(), 1)
discriminator = seed_weights(nn.Sequential(nn.Linear(2, 24), nn.LeakyReLU(0.2, inplace=True),
                                           nn.Linear(24, 24), nn.LeakyReLU(0.2, inplace=True),
                                           nn.Linear(24, 1)), 2)
if torch.cuda.is_available():
    generator.cuda()
    discriminator.cuda()
optimizer_G = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.9))
optimizer_D = torch.optim.Adam(discriminator.parameters(), lr=2e-3, betas=(0.5, 0.9))
lambda_gp, n_critic = 10, 3

for i in range(24):
    angle = normal(i, 32, 1)
    real_imgs = torch.cat([angle.cos(), angle.sin()], 1).type(Tensor)
    optimizer_D.zero_grad()
    z = Variable(normal(1000 + i, 32, 4).type(Tensor))
    fake_imgs = generator(z)
    gradient_penalty = compute_gradient_penalty(discriminator, real_imgs.data, fake_imgs.data, i)
    d_loss = (-torch.mean(discriminator(real_imgs)) + torch.mean(discriminator(fake_imgs))
              + lambda_gp * gradient_penalty)
    d_loss.backward()
    optimizer_D.step()
    optimizer_G.zero_grad()
    if i % n_critic == 0:
        fake_imgs = generator(z)
        g_loss = -torch.mean(discriminator(fake_imgs))
        g_loss.backward()
        optimizer_G.step()
    if i % 6 == 5:
        print("[Batch %d] [D loss: %.4f] [G loss: %.4f]" % (i, d_loss.item(), g_loss.item()))
