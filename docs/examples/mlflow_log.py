"""Each check of a fit as metrics in MLflow, and the run as its artifact: `pip install mlflow`, then `mlflow ui`."""

import mlflow

import zoo
from zoo.checks import Check

data = zoo.load_data("iris")
pair = zoo.create("gaussian-constrained", data)


def log(check: Check) -> None:
    """A metric a seed."""
    told = zip(check.seeds, check.validation_elbo, strict=True)
    mlflow.log_metrics({f"validation_elbo_{seed}": float(elbo) for seed, elbo in told}, step=check.step)


with mlflow.start_run(run_name=pair.name):
    mlflow.log_params(pair.choices)
    run = zoo.fit(pair, data, seeds=2, steps=200, on_check=log)
    mlflow.log_artifacts(str(run.save("iris-run")))
