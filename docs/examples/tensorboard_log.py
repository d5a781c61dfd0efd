"""Each check of a fit as curves in TensorBoard: `pip install tensorboard`, then `tensorboard --logdir runs`."""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

import zoo
from zoo.checks import Check

data = zoo.load_data("iris")

with SummaryWriter(str(Path("runs") / "iris")) as writer:

    def log(check: Check) -> None:
        """A curve a seed."""
        for seed, training, validation in zip(check.seeds, check.elbo, check.validation_elbo, strict=True):
            writer.add_scalar(f"elbo/seed {seed}", training, check.step)
            writer.add_scalar(f"validation elbo/seed {seed}", validation, check.step)

    zoo.fit(zoo.create("gaussian-constrained", data), data, seeds=2, steps=200, on_check=log)
