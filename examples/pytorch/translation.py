"""An encoder and decoder that translates numbers into their reversed words, with nn.Transformer."""

import math

import numpy as np
import torch
import torch.nn as nn
from seeds import seed_weights
from torch.nn.utils.rnn import pad_sequence

PAD, BOS, EOS = 0, 1, 2
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class PositionalEncoding(nn.Module):
    def __init__(self, emb_size, maxlen=50):
        super().__init__()
        den = torch.exp(-torch.arange(0, emb_size, 2) * math.log(10000) / emb_size)
        pos = torch.arange(0, maxlen).reshape(maxlen, 1)
        table = torch.zeros((maxlen, emb_size))
        table[:, 0::2] = torch.sin(pos * den)
        table[:, 1::2] = torch.cos(pos * den)
        self.register_buffer("pos_embedding", table.unsqueeze(-2))

    def forward(self, token_embedding):
        return token_embedding + self.pos_embedding[:token_embedding.size(0), :]


class Seq2SeqTransformer(nn.Module):
    def __init__(self, emb=32, heads=2, src_vocab=13, tgt_vocab=13):
        super().__init__()
        self.transformer = nn.Transformer(d_model=emb, nhead=heads, num_encoder_layers=1,
                                          num_decoder_layers=1, dim_feedforward=64, dropout=0.0)
        self.generator = nn.Linear(emb, tgt_vocab)
        self.src_emb, self.tgt_emb = nn.Embedding(src_vocab, emb), nn.Embedding(tgt_vocab, emb)
        self.positional, self.scale = PositionalEncoding(emb), math.sqrt(emb)

    def forward(self, src, trg, src_mask, tgt_mask, src_padding, tgt_padding, memory_padding):
        outs = self.transformer(self.positional(self.src_emb(src) * self.scale),
                                self.positional(self.tgt_emb(trg) * self.scale),
                                src_mask, tgt_mask, None, src_padding, tgt_padding, memory_padding)
        return self.generator(outs)


def create_mask(src, tgt):
    n = tgt.shape[0]
    tgt_mask = torch.triu(torch.ones((n, n), device=device) == 1, diagonal=1)
    src_mask = torch.zeros((src.shape[0], src.shape[0]), device=device).type(torch.bool)
    return src_mask, tgt_mask, (src == PAD).transpose(0, 1), (tgt == PAD).transpose(0, 1)


rng = np.random.default_rng(0)


def batch(size=16):
    src, tgt = [], []
    for _ in range(size):
        digits = rng.integers(3, 13, rng.integers(3, 7))
        src.append(torch.tensor(digits.tolist()))
        tgt.append(torch.tensor([BOS, *digits[::-1].tolist(), EOS]))
    return (pad_sequence(src, padding_value=PAD).to(device),
            pad_sequence(tgt, padding_value=PAD).to(device))


model = seed_weights(Seq2SeqTransformer()).to(device)
loss_fn = nn.CrossEntropyLoss(ignore_index=PAD)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.98), eps=1e-9)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 10))
for step in range(40):
    src, tgt = batch()
    tgt_input, tgt_out = tgt[:-1, :], tgt[1:, :]
    src_mask, tgt_mask, src_padding, tgt_padding = create_mask(src, tgt_input)
    logits = model(src, tgt_input, src_mask, tgt_mask, src_padding, tgt_padding, src_padding)
    optimizer.zero_grad()
    loss = loss_fn(logits.reshape(-1, logits.shape[-1]), tgt_out.reshape(-1))
    loss.backward()
    optimizer.step()
    schedule.step()
    if step % 8 == 7:
        print(f"step {step}: loss {loss.item():.4f}")
