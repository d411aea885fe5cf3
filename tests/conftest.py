"""One thread for every test: tiny tensors gain nothing from more, and bits stay comparable."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
