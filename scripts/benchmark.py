"""What one step of SVI costs: by hand in torch, in Pyro as it comes, in the zoo, and in peers that are installed.

python scripts/benchmark.py 64-128-8 784-400-20 --out benchmark --threads 1
python scripts/benchmark.py 784-400-20 --device cuda --seeds 64

Every contestant trains the same Gaussian VAE with learned diagonal variance (one hidden ReLU layer, D-H-L) with Adam
on the same data at batch 128; pythae, which has no such decoder, the one of squared error, with half the outputs.
Rounds are interleaved, so that what the machine does meanwhile falls on all alike. Times are milliseconds per step and
seed, the smallest and the median over rounds; compiling is counted apart. The share of a step that is spent in matrix
products is taken from torch's profiler, apart from the times. NumPyro and pythae run where they are installed.
"""

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor, nn

import zoo
from zoo.engine import Engine, Mode, Precision
from zoo.objectives import ELBO

BATCH, RATE, ROWS = 128, 1e-3, 4096
Run = Callable[[int], Any]  # takes so many steps and waits until they are done


@dataclass(frozen=True)
class Contestant:
    """A way to take steps, for so many seeds at once."""

    name: str
    seeds: int
    build: Callable[["Problem"], Run]


@dataclass(frozen=True)
class Problem:
    """The data and the sizes: D features, H hidden units, L latents."""

    x: Tensor
    features: int
    hidden: int
    latent_dim: int

    def batch(self, step: int) -> Tensor:
        """Rows of a step, the data in order."""
        start = step * BATCH % (len(self.x) - BATCH)
        return self.x[start : start + BATCH]


def network(inputs: int, hidden: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 2 * outputs), nn.Unflatten(-1, (2, outputs))
    )


def networks(problem: Problem) -> tuple[nn.Module, nn.Module]:
    """The encoder and the decoder, where the data are."""
    encoder = network(problem.features, problem.hidden, problem.latent_dim)
    decoder = network(problem.latent_dim, problem.hidden, problem.features)
    return encoder.to(problem.x.device), decoder.to(problem.x.device)


def torch_by_hand(problem: Problem, *, compiled: bool = False) -> Run:
    """The loop a good engineer writes: closed-form KL, fused Adam."""
    encoder, decoder = networks(problem)
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=RATE, fused=True)

    def loss(x: Tensor) -> Tensor:
        m, log_s2 = encoder(x).unbind(-2)
        mu, log_sigma2 = decoder(m + (log_s2 / 2).exp() * torch.randn_like(m)).unbind(-2)
        nll = ((x - mu).square() * (-log_sigma2).exp() + log_sigma2).sum() / 2 + 0.9189385332 * x.numel()
        kl = (m.square() + log_s2.exp() - 1 - log_s2).sum() / 2
        total: Tensor = (nll + kl) / len(x)
        return total

    objective = torch.compile(loss) if compiled else loss

    def run(steps: int) -> None:
        for step in range(steps):
            adam.zero_grad()
            objective(problem.batch(step)).backward()
            adam.step()

    return run


def stock_pyro(problem: Problem) -> Run:
    """``pyro.infer.SVI`` as in Pyro's own VAE tutorial, its validation off."""
    import pyro
    import pyro.distributions as dist

    encoder, decoder = networks(problem)

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), problem.latent_dim), 1.0).to_event(1))
            mean, log_variance = decoder(z).unbind(-2)
            pyro.sample("x", dist.Normal(mean, (log_variance / 2).exp()).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            mean, log_variance = encoder(x).unbind(-2)
            pyro.sample("z", dist.Normal(mean, (log_variance / 2).exp()).to_event(1))

    pyro.clear_param_store()
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": RATE}), pyro.infer.Trace_ELBO())

    def run(steps: int) -> None:
        with pyro.validation_enabled(False):
            for step in range(steps):
                svi.step(problem.batch(step))

    return run


def in_the_zoo(problem: Problem, *, seeds: int, mode: Mode, precision: Precision = "float32") -> Run:
    """The zoo's engine on ``gaussian-learned``."""
    data = zoo.Data.from_array(problem.x.cpu().numpy(), name="benchmark", support="real")
    pair = zoo.create(
        "gaussian-learned", data, latent_dim=problem.latent_dim, hidden=(problem.hidden,), activation="relu"
    )
    engine = Engine(
        pair,
        range(seeds),
        problem.x,
        objective=ELBO(),
        schedule=lambda _: (RATE, 1.0),
        batch_size=BATCH,
        mode=mode,
        precision=precision,
    )
    if engine.mode != mode:
        raise RuntimeError(f"{mode} fell back to {engine.mode}: {engine.note}")
    if engine.note:
        typer.echo(f"  {engine.note}", err=True)
    taken = 0

    def run(steps: int) -> None:
        nonlocal taken
        for _ in range(steps):
            engine.step(taken)
            taken += 1

    return run


def in_numpyro(problem: Problem, *, seeds: int) -> Run:
    """NumPyro's SVI, jit-compiled, the steps in ``lax.scan``, several seeds by ``vmap``."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    d, h, latent = problem.features, problem.hidden, problem.latent_dim
    x_all = jnp.asarray(problem.x.cpu().numpy())

    def layers(name: str, inputs: int, outputs: int) -> dict[str, Any]:
        def init(fan_in: int, *shape: int) -> Callable[[Any], Any]:
            return lambda key: jax.random.uniform(key, shape, minval=-1, maxval=1) / np.sqrt(fan_in)

        return {
            "w1": numpyro.param(f"{name}.w1", init(inputs, inputs, h)),
            "b1": numpyro.param(f"{name}.b1", init(inputs, h)),
            "w2": numpyro.param(f"{name}.w2", init(h, h, 2 * outputs)),
            "b2": numpyro.param(f"{name}.b2", init(h, 2 * outputs)),
        }

    def apply(p: dict[str, Any], v: Any) -> Any:
        return jnp.split(jax.nn.relu(v @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"], 2, axis=-1)

    def model(x: Any) -> None:
        p = layers("decoder", latent, d)
        with numpyro.plate("data", BATCH):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(latent), 1.0).to_event(1))
            mean, log_variance = apply(p, z)
            numpyro.sample("x", dist.Normal(mean, jnp.exp(log_variance / 2)).to_event(1), obs=x)

    def guide(x: Any) -> None:
        p = layers("encoder", d, latent)
        with numpyro.plate("data", BATCH):
            mean, log_variance = apply(p, x)
            numpyro.sample("z", dist.Normal(mean, jnp.exp(log_variance / 2)).to_event(1))

    svi = numpyro.infer.SVI(model, guide, numpyro.optim.Adam(RATE), numpyro.infer.Trace_ELBO())

    def chunk(state: Any, starts: Any) -> Any:
        def one(state: Any, start: Any) -> Any:
            return svi.update(state, jax.lax.dynamic_slice_in_dim(x_all, start, BATCH))

        return jax.lax.scan(one, state, starts)

    keys = jax.random.split(jax.random.PRNGKey(0), seeds)
    states = jax.vmap(lambda key: svi.init(key, x_all[:BATCH]))(keys)
    advance = jax.jit(jax.vmap(chunk, in_axes=(0, None)))
    if seeds == 1:
        states, advance = jax.tree.map(lambda leaf: leaf[0], states), jax.jit(chunk)

    def run(steps: int) -> None:
        nonlocal states
        starts = np.arange(steps) * BATCH % (ROWS - BATCH)
        states, losses = advance(states, starts)
        jax.block_until_ready(losses)

    return run


def pythae_model(problem: Problem) -> Any:
    """Pythae's VAE of the same layers, of squared error."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    d, h, latent = problem.features, problem.hidden, problem.latent_dim

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = network(d, h, latent)

        def forward(self, x: Tensor) -> Any:
            m, log_s2 = self.layers(x).unbind(-2)
            return ModelOutput(embedding=m, log_covariance=log_s2)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(latent, h), nn.ReLU(), nn.Linear(h, d))

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.layers(z))

    return VAE(VAEConfig(input_dim=(d,), latent_dim=latent), Encoder(), Decoder())


def in_pythae(problem: Problem) -> Run:
    """Pythae's trainer on its VAE, an epoch of so many batches at a time."""
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    model = pythae_model(problem)
    trainers: dict[int, BaseTrainer] = {}

    def run(steps: int) -> None:
        if steps not in trainers:
            rows = torch.cat([problem.batch(step) for step in range(steps)]).cpu()
            trainers[steps] = BaseTrainer(
                model,
                BaseDataset(rows, torch.zeros(len(rows))),
                training_config=BaseTrainerConfig(
                    output_dir=tempfile.gettempdir(),
                    per_device_train_batch_size=BATCH,
                    learning_rate=RATE,
                    no_cuda=problem.x.device.type != "cuda",
                ),
            )
            trainers[steps].prepare_training()
        trainers[steps].train_step(epoch=1)

    return run


def products_alone(problem: Problem) -> Run:
    """The floor: nothing of a step but its matrix products, forwards and backwards, by torch's own library."""
    d, h, latent = problem.features, problem.hidden, problem.latent_dim
    pairs = []
    for layer, (inputs, outputs) in enumerate([(d, h), (h, 2 * latent), (latent, h), (h, 2 * d)]):
        x, w, y = (
            torch.randn(*shape, device=problem.x.device)
            for shape in ((BATCH, inputs), (outputs, inputs), (BATCH, outputs))
        )
        pairs += [(x, w.T), (y.T, x)] + [(y, w)] * (layer > 0)  # nobody asks for the gradient of the data

    def run(steps: int) -> None:
        for _ in range(steps):
            for left, right in pairs:
                torch.mm(left, right)

    return run


PRODUCTS = ("aoti_torch_cpu_bmm_out", "aten::bmm", "mkldnn::_linear_pointwise")


def share_of_products(contestant: Contestant, problem: Problem, steps: int) -> float:
    """The share of the time of a compiled step on the CPU that torch's profiler sees in matrix products."""
    with torch._inductor.config.patch({"cpp.enable_kernel_profile": True}):  # else it sees one call
        run = contestant.build(problem)
    run(steps)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run(steps)
    spent = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    return float(sum(spent.get(name, 0.0) for name in PRODUCTS) / sum(spent.values()))


def contestants(seeds: int) -> Iterator[Contestant]:
    yield Contestant("torch by hand", 1, torch_by_hand)
    yield Contestant("matrix products alone", 1, products_alone)
    yield Contestant("torch by hand, torch.compile", 1, partial(torch_by_hand, compiled=True))
    yield Contestant("stock Pyro SVI", 1, stock_pyro)
    if find_spec("pythae"):
        yield Contestant("pythae (squared error)", 1, in_pythae)
    yield Contestant("zoo, off", 1, partial(in_the_zoo, seeds=1, mode="off"))
    for count in (1, seeds):
        yield Contestant("zoo, capture", count, partial(in_the_zoo, seeds=count, mode="capture"))
        yield Contestant("zoo, inductor", count, partial(in_the_zoo, seeds=count, mode="inductor"))
        bf16 = partial(in_the_zoo, seeds=count, mode="inductor", precision="bfloat16")
        yield Contestant("zoo, inductor, bfloat16", count, bf16)
        if find_spec("numpyro"):
            yield Contestant(f"NumPyro, {'scan' if count == 1 else 'vmap'}", count, partial(in_numpyro, seeds=count))


def measure(problem: Problem, seeds: int, steps: int, rounds: int) -> list[dict[str, Any]]:
    """Build and warm up everyone, then time them in turn, round after round."""
    ready: list[tuple[Contestant, Run, float, list[float]]] = []
    on_cpu = problem.x.device.type == "cpu"
    wait: Callable[[], None] = (lambda: None) if on_cpu else torch.cuda.synchronize
    for contestant in contestants(seeds):
        started = time.perf_counter()
        run = contestant.build(problem)
        run(steps)
        wait()
        ready.append((contestant, run, time.perf_counter() - started, []))
        typer.echo(f"  {contestant.name}, {contestant.seeds} seed(s): ready after {ready[-1][2]:.1f} s", err=True)
    for _ in range(rounds):
        for contestant, run, _, times in ready:
            started = time.perf_counter()
            run(steps)
            wait()
            times.append((time.perf_counter() - started) / steps / contestant.seeds * 1e3)
    return [
        {
            "name": contestant.name,
            "seeds": contestant.seeds,
            "min_ms": min(times),
            "median_ms": statistics.median(times),
            "ready_s": ready_s,
            "products": share_of_products(contestant, problem, steps)
            if on_cpu and "zoo, inductor" in contestant.name
            else None,
        }
        for contestant, _, ready_s, times in ready
    ]


def picture(results: dict[str, dict[str, float]], unit: str, path: Path) -> None:
    """Bars by name, in one panel for each title; those of the zoo in colour."""
    counts = [len(times) for times in results.values()]
    figure = Figure(figsize=(8, 0.5 + 0.36 * (sum(counts) + len(counts))), layout="constrained")
    panels = figure.subplots(len(results), squeeze=False, height_ratios=counts)[:, 0]
    for ax, (title, times) in zip(panels, results.items(), strict=True):
        colours = ["#0072b2" if name.startswith("zoo") else "#999999" for name in times]
        bars = ax.barh([*times], [*times.values()], color=colours)
        ax.bar_label(bars, fmt=" %.2f", fontsize=8)
        ax.invert_yaxis()
        ax.set_title(title, loc="left", fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
        ax.set_xlabel(f"{unit}; smaller is better", fontsize=8)
    figure.savefig(path, dpi=150)


def main(
    sizes: list[str],
    out: Path = Path("benchmark"),
    threads: int = 1,
    seeds: int = 8,
    steps: int = 100,
    rounds: int = 9,
    device: str = "cpu",
) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])  # what sets its own threads is held to as many
    torch.set_num_threads(threads)
    results = {}
    for size in sizes:
        d, h, latent = map(int, size.split("-"))
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(ROWS, d, generator=generator).to(device)
        typer.echo(f"{size}, batch {BATCH}, {threads} thread(s)", err=True)
        fewer = max(10, steps * 64 // d)
        results[size] = measure(Problem(x, d, h, latent), seeds, fewer, rounds)
        by_hand = results[size][0]["median_ms"]
        for row in results[size]:
            row["against_torch_by_hand"] = row["median_ms"] / by_hand
            times = f"min {row['min_ms']:7.3f}  median {row['median_ms']:7.3f} ms"
            ratio = f"{row['against_torch_by_hand']:5.2f} of torch by hand"
            who = f"{size:12s} {row['name']:30s} {row['seeds']:2d}"
            products = f"  products {row['products']:.0%}" if row["products"] else ""
            typer.echo(f"{who}  {times}  {ratio}  ready {row['ready_s']:5.1f} s{products}")
    out.mkdir(parents=True, exist_ok=True)
    packages = [
        name for name in ("torch", "pyro-ppl", "numpyro", "jax", "pythae") if find_spec(name.removesuffix("-ppl"))
    ]
    about = {
        "machine": f"{processor()}, {threads} thread(s)"
        + (f", {torch.cuda.get_device_name()}" if device.startswith("cuda") else ""),
        "versions": {name: version(name) for name in packages},
        "batch": BATCH,
        "results": results,
    }
    (out / "benchmark.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    medians = {
        f"D-H-L = {size}": {
            f"{row['name']}, {row['seeds']} seed{'s' * (row['seeds'] > 1)}": row["median_ms"] for row in rows
        }
        for size, rows in results.items()
    }
    picture(medians, "ms per step and seed, median", out / "benchmark.png")
    typer.echo(out / "benchmark.json")


def processor() -> str:
    """The processor's name where the system tells it, and its family, which tells what vectors it has."""
    info = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in info.read_text().splitlines()] if info.exists() else []
    told = {name.strip(): value.strip() for name, _, value in lines}
    name = told.get("model name") or platform.processor() or platform.machine()
    return f"{name}, family {told['cpu family']}" if "cpu family" in told else name


if __name__ == "__main__":
    typer.run(main)
