"""A network that puts images of the same kind close together: triplet and contrastive loss."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from seeds import images, seed_weights


class EmbeddingNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.convnet = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.PReLU(), nn.MaxPool2d(2, stride=2),
            nn.Conv2d(8, 16, 3, padding=1), nn.PReLU(), nn.AdaptiveMaxPool2d(2))
        self.fc = nn.Sequential(nn.Linear(64, 32), nn.PReLU(), nn.Linear(32, 2))

    def forward(self, x):
        output = self.convnet(x)
        output = output.view(output.size()[0], -1)
        return self.fc(output)


class ContrastiveLoss(nn.Module):
    def __init__(self, margin):
        super().__init__()
        self.margin, self.eps = margin, 1e-9

    def forward(self, output1, output2, target, size_average=True):
        distances = (output2 - output1).pow(2).sum(1)
        losses = 0.5 * (target.float() * distances + (1 + -1 * target).float()
                        * F.relu(self.margin - (distances + self.eps).sqrt()).pow(2))
        return losses.mean() if size_average else losses.sum()


x = images(0, 96)
labels = (x.flatten(1).argmax(1) % 8 >= 4).int()  # left or right
left, right = x[labels == 0][:32], x[labels == 1][:32]
n = min(len(left), len(right)) // 2

print("triplet")
net = seed_weights(EmbeddingNet())
optimizer = torch.optim.SGD(net.parameters(), lr=5e-2, momentum=0.9)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 6, gamma=0.5)
for step in range(12):
    anchor, positive, negative = net(left[:n]), net(left[n:2 * n]), net(right[:n])
    loss = nn.TripletMarginLoss(margin=1.0)(anchor, positive, negative)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    if step % 3 == 2:
        print(f"  step {step}  loss {loss.item():.4f}  lr {scheduler.get_last_lr()[0]:g}")

print("contrastive")
net = seed_weights(EmbeddingNet(), 1)
optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
pairs = (torch.cat([left[:n], left[:n]]), torch.cat([left[n:2 * n], right[:n]]))
target = torch.cat([torch.ones(n), torch.zeros(n)])
for step in range(12):
    loss = ContrastiveLoss(1.0)(net(pairs[0]), net(pairs[1]), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 3 == 2:
        apart = F.pairwise_distance(net(left[:n]), net(right[:n])).mean()
        print(f"  step {step}  loss {loss.item():.4f}  left to right {apart.item():.3f}")
