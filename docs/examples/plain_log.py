"""Each check of a fit as a line of JSON, for anything that reads lines."""

import json

import zoo
from zoo.checks import Check

data = zoo.load_data("iris")


def log(check: Check) -> None:
    """The step, the seconds, and the validation ELBO of each seed."""
    told = dict(zip(map(str, check.seeds), check.validation_elbo.tolist(), strict=True))
    print(json.dumps({"step": check.step, "seconds": round(check.seconds, 2), "validation_elbo": told}))


zoo.fit(zoo.create("gaussian-constrained", data), data, seeds=2, steps=200, progress=False, on_check=log)
