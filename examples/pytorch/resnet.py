"""A small residual network with data augmentation, SGD with momentum and a OneCycle schedule."""

import random

import torch
import torch.nn as nn
import torch.nn.functional as F
from seeds import images, seed_weights
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Dataset


class Blobs(Dataset):
    """Images labelled by the quarter in which their bright blob lies."""

    def __init__(self, count, transform=None):
        self.data = images(0, count, size=12)
        flat = self.data.flatten(1).argmax(1)
        row = torch.div(flat, 12, rounding_mode="floor")
        self.targets = (row >= 6).long() * 2 + (flat % 12 >= 6).long()
        self.transform = transform

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        image = self.data[index]
        return (image if self.transform is None else self.transform(image)), self.targets[index]


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, in_planes, planes, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(in_planes, planes, 1, stride, bias=False),
                                          nn.BatchNorm2d(planes))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    def __init__(self, num_classes=4):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.layers = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 16, 2), BasicBlock(16, 32, 2))
        self.linear = nn.Linear(32, num_classes)

    def forward(self, x):
        out = self.layers(self.stem(x))
        out = F.adaptive_avg_pool2d(out, 1).flatten(1)
        return self.linear(out)


device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
random.seed(0)


def jitter(image):
    shift = random.randint(-1, 1)
    return torch.roll(image, shifts=shift, dims=-1) + 0.1 * random.random()


loader = DataLoader(Blobs(128, jitter), batch_size=32, shuffle=False, drop_last=True)
net = seed_weights(ResNet()).to(device)
criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4,
                            nesterov=True)
scheduler = OneCycleLR(optimizer, max_lr=0.05, epochs=4, steps_per_epoch=len(loader))

for epoch in range(4):
    net.train()
    train_loss, correct, total = 0, 0, 0
    for batch_idx, (inputs, targets) in enumerate(loader):
        inputs, targets = inputs.to(device, non_blocking=True), targets.to(device)
        optimizer.zero_grad()
        outputs = net(inputs)
        loss = criterion(outputs, targets)
        loss.backward()
        optimizer.step()
        scheduler.step()
        train_loss += loss.item()
        _, predicted = outputs.max(1)
        total += targets.size(0)
        correct += predicted.eq(targets).sum().item()
    print(f"Epoch {epoch}: Loss: {train_loss / (batch_idx + 1):.3f} | Acc: "
          f"{100.0 * correct / total:.1f}% ({correct}/{total}) lr {scheduler.get_last_lr()[0]:.5f}")

net.eval()
with torch.no_grad():
    x, y = next(iter(DataLoader(Blobs(64), batch_size=64)))
    print(f"evaluated {criterion(net(x.to(device)), y.to(device)).item():.3f}")
