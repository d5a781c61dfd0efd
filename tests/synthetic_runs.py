"""Small DataTrees of the shape that training and evaluation leave behind, drawn with NumPy alone."""

import json
from collections.abc import Collection
from typing import Any

import numpy as np
import xarray as xr

SIDE, TRAIN, VALIDATION = 8, 1149, 288
EXTRAS = ("wellposedness", "spread", "reference_posterior", "calibration")


def strokes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 64) rings and bars on 8 x 8 pixels with values 0..16, the left border always 0."""
    y, x = np.mgrid[:SIDE, :SIDE]
    centre, radius = 3.5 + rng.normal(0, 0.3, (2, count, 1, 1)), 1.6 + rng.uniform(0, 1.4, (2, count, 1, 1))
    ring = np.hypot((x - centre[0]) / radius[0], (y - centre[1]) / radius[1])
    bar = np.abs(x - centre[0] + rng.normal(0, 0.4, (count, 1, 1)) * (y - 3.5)) / 1.2
    shape = np.where(rng.random((count, 1, 1)) < 0.6, np.abs(ring - 1), bar)
    pixels = np.clip(np.round(17 * np.exp(-2 * shape**2)), 0, 16)
    pixels[:, :, 0] = 0
    return pixels.reshape(count, -1)


def synthetic_run(
    pair: str = "gaussian-identity",
    *,
    title: str | None = None,
    level: float = -100.0,
    evidence: np.ndarray | None = None,
    varying: np.ndarray | None = None,
    share_constant: float = -3.0,
    seeds: int = 4,
    steps: int = 400,
    obs: int = 60,
    latents: int = 4,
    images: bool = True,
    columns: list[str] | None = None,
    constant: list[int] | None = None,
    data: str = "digits",
    base_measure: str = "density",
    bound: float = float("nan"),
    ran_away: bool = False,
    frozen: tuple[int, ...] = (),
    components: int = 0,
    evaluated: bool = True,
    extras: Collection[str] = EXTRAS,
    options: dict[str, Any] | None = None,
    **attrs: Any,
) -> xr.DataTree:
    """One run; ``level`` is the height of its evidence, ``evidence`` and ``varying`` fix the values.

    ``extras`` are the groups it has beyond those of every evaluation.
    """
    rng = np.random.default_rng(abs(hash_of(pair + json.dumps(options))))
    mass = base_measure == "mass"
    name = f"{data} (binarized by threshold)" if mass else data
    features = SIDE * SIDE if images else len(columns or "x" * 13)
    names = columns or (
        [f"pixel_{i // 8}_{i % 8}" for i in range(64)] if images else [f"column {i}" for i in range(13)]
    )
    constant = ([0, 8, 16, 24, 32, 40, 48, 56] if images else []) if constant is None else constant
    flat = np.isin(np.arange(features), constant)
    data_rng = np.random.default_rng(1)
    x = strokes(data_rng, obs) if images else data_rng.gamma(3, 1.5, (obs, features)) * np.arange(1, features + 1)
    x = np.where(flat, 0.0, (x > 8) if mass else x).astype(float)
    unit = x.std() if images else np.where(x.std(0) > 0, x.std(0), 1.0)
    chain, step = np.arange(seeds), np.arange(steps)

    rise = 1 - np.exp(-step / (steps / 12)) + 0.08 * np.log1p(step / 30)
    offset = rng.normal(0, 0.6, (seeds, 1))
    elbo = level - 80 + 58 * rise + offset + rng.normal(0, 2.0, (seeds, steps))
    elbo[:, :3] -= 4000.0 / (1 + step[:3])
    min_scale = np.clip(np.exp(-step / steps * 1.5) * np.exp(rng.normal(0, 0.04, (seeds, steps))), 0.1, None)
    checks = np.linspace(0, steps - 1, 21).astype(int)[1:]
    column_scale = np.exp(rng.normal(-1, 0.3, (seeds, len(checks), features))) * np.where(flat, 0.4, 1.0)
    ran_away_at, frozen_at = np.full(seeds, -1), np.full(seeds, -1)
    if ran_away:
        fall = np.exp(-np.clip(step - steps * 0.3, 0, None) / steps * 22)
        min_scale *= fall
        elbo += np.clip(step - steps * 0.3, 0, None) ** 1.3 / 4
        column_scale *= np.where(flat, fall[checks][:, None], 1.0)
        ran_away_at[:] = int(steps * 0.55)
    # it rises until the check whose weights are scored, and is worse at the end: nobody is told to train longer
    settled = level - 22 + offset - 58 * np.exp(-25 * checks / steps) - 1.0 * (checks > checks[-5])
    validation_elbo = elbo[:, checks] - 3 if ran_away else settled
    for seed in frozen:
        frozen_at[seed] = steps // 2
        for series, at in (
            (elbo, steps // 2),
            (min_scale, steps // 2),
            (validation_elbo, 10),
            (column_scale, 10),
        ):
            series[seed, at:] = np.nan
    if mass:
        min_scale[:], column_scale[:] = np.nan, np.nan

    groups: dict[str, xr.Dataset] = {
        "optimization": xr.Dataset(
            {
                "elbo": (("chain", "step"), elbo),
                "log_likelihood": (("chain", "step"), elbo + 12),
                "kl": (("chain", "step"), np.full_like(elbo, 12.0)),
                "grad_norm": (("chain", "step"), np.abs(rng.normal(3, 1, elbo.shape))),
                "min_scale": (("chain", "step"), min_scale),
                "kl_weight": ("step", np.ones(steps)),
                "frozen_at": ("chain", frozen_at),
                "ran_away_at": ("chain", ran_away_at),
                "best_step": ("chain", np.full(seeds, checks[-5] + 1)),
            },
            {"chain": chain, "step": step + 1},
        ),
        "validation": xr.Dataset(
            {
                "elbo": (("chain", "check"), validation_elbo),
                "column_scale": (("chain", "check", "feature"), column_scale),
            },
            {"chain": chain, "step": ("check", checks + 1), "feature": names},
        ),
        "constant_data": xr.Dataset(
            {
                "center": ("feature", x.mean(0)),
                "scale": ("feature", np.broadcast_to(unit, features)),
                "train_std": ("feature", x.std(0)),
                "constant_in_training": ("feature", flat.astype(int)),
            },
            attrs={"image_shape": json.dumps([SIDE, SIDE])} if images else {},
        ),
    }
    bounded = bool(np.isfinite(bound)) or mass or "identity" in pair or "constrained" in pair
    if evaluated:
        groups |= _evaluation(
            rng, x, unit, flat, chain, latents, components, mass, level, evidence, varying, share_constant
        )
        made = {
            "wellposedness": _wellposedness(rng, chain, not bounded, 0.0 if mass else bound, mass),
            "spread": _spread(rng, chain, latents, components, obs),
            "calibration": _calibration(rng, x, flat, chain),
        }
        if not components:
            made["reference_posterior"] = _reference(rng, chain, latents)
        groups |= {name: group for name, group in made.items() if name in extras}
    summary = {
        "name": name, "train": TRAIN, "validation": VALIDATION, "test": obs, "features": features,
        "support": "binary" if mass else "ordinal" if images else "real", "levels": None,
        "image_shape": [SIDE, SIDE] if images else None,
        "scaling": "none" if mass else "scalar" if images else "column",
        "columns": names, "constant_columns": [names[i] for i in constant], "varying_in_test": [],
        "noise": "binarize" if mass else None,
        "notes": ["Grey values above 8 became 1, all others 0."] if mass else [],
    }  # fmt: skip
    card = {
        "name": pair, "title": title or pair, "bounded": bounded,
        "summary": "The decoder gives a mean and a scale for every column.",
        "formula": "p(x|z) = Π_d N(x_d; μ_d(z), s_d²(z)),  z ~ N(0, I)", "link": "https://arxiv.org/abs/1312.6114",
        "reference": "Kingma & Welling (2014), Auto-Encoding Variational Bayes, appendix C.2",
        "bound": "-(D/2) log(2π ξ)" if np.isfinite(bound) else "", "support": summary["support"],
        "base_measure": base_measure, "guide": "mean-field", "objective": "elbo",
        "bounded_if": "", "bounds": "likelihood",
        "remedies": [] if bounded else ["gaussian-constrained", "gaussian-binned"],
    }  # fmt: skip
    root = {
        "pair": pair, "guide": "mean-field", "title": card["title"], "card": json.dumps(card),
        "options": json.dumps({"latent_dim": latents, "hidden": [128]} if options is None else options),
        "objective": "elbo",
        "base_measure": base_measure, "bound": bound, "data": name, "data_summary": json.dumps(summary),
        "data_fingerprint": f"{abs(hash_of(data + base_measure + str(features))):016x}",
        "data_call": f'load_data("{data}")', "seeds": json.dumps(chain.tolist()), "steps": steps,
        "batch_size": 128, "learning_rate": 1e-3, "schedule": "cosine", "warmup_steps": 0, "patience": "null",
        "compile": "capture", "compile_note": "captured", "compile_seconds": 0.8, "train_seconds": 14.2,
        "parameters": 18_640, "versions": json.dumps({"zoo": "0.1.0", "torch": "2.13.0", "pyro": "1.9.2"}),
        "machine": "2 cores, x86_64, Linux", "created": "2026-11-22T13:00:00+00:00",
        "repeat": f'import zoo\n\ndata = zoo.load_data("{data}")\npair = zoo.create("{pair}", data)\n'
        f"run = zoo.fit(pair, data, seeds={seeds}, steps={steps}, batch_size=128)\nzoo.evaluate(run, data)",
    } | attrs  # fmt: skip
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(root)
    return tree


def replace(tree: xr.DataTree, group: str, name: str, values: np.ndarray) -> None:
    """Other values for a variable of a run."""
    dataset = tree[group].to_dataset()
    tree[group] = dataset.drop_vars(name).assign({name: (dataset[name].dims, values)})


def hash_of(text: str) -> int:
    """A hash that is the same in every process."""
    return int.from_bytes(text.encode()[-64:], "little") % (2**61 - 1)


def _evaluation(
    rng: np.random.Generator, x: np.ndarray, unit: Any, flat: np.ndarray, chain: np.ndarray, latents: int,
    components: int, mass: bool, level: float, evidence: np.ndarray | None, varying: np.ndarray | None,
    share_constant: float,
) -> dict[str, xr.Dataset]:  # fmt: skip
    (obs, features), seeds, draws = x.shape, len(chain), 20
    if evidence is None:
        difficulty = np.random.default_rng(2).gumbel(0, 6, obs)
        evidence = level + rng.normal(0, 0.5, (seeds, 1)) - difficulty + rng.normal(0, 2, (seeds, obs))
    heldout = {
        "log_evidence": (("chain", "obs"), evidence),
        "log_evidence_se": (("chain", "obs"), np.full_like(evidence, 0.05)),
        "pareto_k": (
            ("chain", "obs"),
            np.full_like(evidence, -np.inf) if components else rng.normal(0.4, 0.12, evidence.shape),
        ),
        "ess": (("chain", "obs"), np.full_like(evidence, 900.0)),
    }
    if varying is None and flat.any():
        varying = evidence - share_constant + rng.normal(0, 0.01, evidence.shape)
    if varying is not None:
        heldout["log_evidence_varying"] = (("chain", "obs"), varying)
    if components:
        weights = rng.dirichlet(np.full(components, 4.0), seeds)
        responsibility = np.stack([rng.dirichlet(w * 3 + 0.01, obs) for w in weights])
        component = np.stack([[[rng.choice(components, p=p) for p in r] for _ in range(3)] for r in responsibility])
        posterior = {
            "component_index": (("chain", "draw", "obs"), component),
            "responsibility": (("chain", "obs", "component"), responsibility),
        }
    else:
        spread = np.stack([rng.permutation(np.linspace(0.05, 1.0, latents) ** 0.7) for _ in chain])[:, None, None, :]
        spread = np.clip(spread * np.exp(rng.normal(0, 0.15, (seeds, 1, obs, latents))), 0, 1)
        centre = rng.normal(0, 1, (seeds, 1, obs, latents)) * np.sqrt(1 - spread**2)
        posterior = {
            "z": (
                ("chain", "draw", "obs", "latent"),
                centre + spread * rng.normal(0, 1, (seeds, draws, obs, latents)),
            )
        }
    shown = x[: min(obs, 16)]
    smooth = 0.75 * shown + 0.25 * x.mean(0)
    scale = 0.25 * np.broadcast_to(unit, features) * np.exp(rng.normal(0, 0.2, (seeds, *shown.shape)))
    draw_x = smooth + scale[:, None] * rng.normal(0, 1, (seeds, 4, *shown.shape))
    prior_x = x[rng.integers(0, obs, (seeds, 4, len(shown)))] * 0.9 + np.broadcast_to(
        unit, features
    ) * 0.3 * rng.normal(0, 1, (seeds, 4, *shown.shape))
    if mass:
        smooth, scale = smooth.clip(0.02, 0.98), np.sqrt(np.broadcast_to(smooth * (1 - smooth), scale.shape))
        draw_x, prior_x = (draw_x > 0.5).astype(float), (prior_x > 0.5).astype(float)
    note = {"note": f"4 draws for each of the first {len(shown)} test rows"}
    predictive = ("chain", "draw", "obs", "feature")
    return {
        "heldout": xr.Dataset(
            heldout, {"chain": chain}, {"samples": 5000, "exact": int(bool(components)), "part": "test"}
        ),
        "posterior": xr.Dataset(posterior, {"chain": chain}),
        "posterior_predictive": xr.Dataset({"x": (predictive, draw_x)}, {"chain": chain}, note),
        "prior_predictive": xr.Dataset({"x": (predictive, prior_x)}, {"chain": chain}, note),
        "reconstruction": xr.Dataset(
            {
                "mean": (("chain", "obs", "feature"), np.broadcast_to(smooth, scale.shape)),
                "scale": (("chain", "obs", "feature"), scale),
            },
            {"chain": chain},
        ),
        "observed_data": xr.Dataset({"x": (("obs", "feature"), x)}),
    }


def _wellposedness(rng: np.random.Generator, chain: np.ndarray, grows: bool, bound: float, mass: bool) -> xr.Dataset:
    sharpness, rows = np.array([2.0, 5.0, 10.0, 20.0, 40.0, 80.0]), 50
    settled = bound * rows - 180 if np.isfinite(bound) else -900.0
    rise = 11.5 * sharpness - 700 if grows else settled - 400 * np.exp(-sharpness / 6)
    curves = {"log_likelihood": rise} | ({} if mass else {"elbo": rise - 60 - 20 * np.log(sharpness)})
    group = xr.Dataset(
        {name: ("sharpness", values) for name, values in curves.items()},
        {"sharpness": sharpness},
        {
            "rows": rows,
            "path": "one datum becomes certain" if mass else "half of the prior's mass is given to one datum",
            "needs": "",
            "grows": int(grows),
            "bound": bound * rows,
        },
    )
    if np.isfinite(bound) and not mass:
        ceiling = bound * 200 - 300
        evidence = ceiling - 4000 + rng.normal(0, 50, len(chain))
        group = group.assign(train_evidence=("chain", evidence), parsimony_gap=("chain", (ceiling - evidence) / 200))
        group = group.assign_coords(chain=chain)
        group.attrs |= {"ceiling_rows": 200, "ceiling": ceiling, "ceiling_reached": ceiling - 1.5, "atoms": 143}
    return group


def _spread(rng: np.random.Generator, chain: np.ndarray, latents: int, components: int, obs: int) -> xr.Dataset:
    seeds, rows = len(chain), min(obs, 64)
    if components:
        found = {
            "certainty": ("chain", rng.uniform(0.7, 0.95, seeds)),
            "component_weight": (("chain", "component"), rng.dirichlet(np.full(components, 4.0), seeds)),
        }
        return xr.Dataset(found, {"chain": chain})
    contraction = np.clip(rng.beta(4, 1, (seeds, latents)), 0, 1)
    contraction[:, -1] = 0.001
    elbo, gaps = -110 + rng.normal(0, 5, (seeds, rows)), rng.gamma(2, 0.4, (2, seeds, rows))
    found = {
        "contraction": (("chain", "latent"), contraction),
        "mean_variance": (("chain", "latent"), contraction),
        "aggregate_mmd": ("chain", rng.gamma(2, 2e-3, seeds)),
        "aggregate_mmd_null": ("chain", np.full(seeds, 2.1e-3)),
        "elbo": (("chain", "obs"), elbo),
        "elbo_optimal": (("chain", "obs"), elbo + gaps[0]),
        "approximation_gap": (("chain", "obs"), gaps[1]),
        "amortization_gap": (("chain", "obs"), gaps[0]),
    }
    return xr.Dataset(found, {"chain": chain})


def _reference(rng: np.random.Generator, chain: np.ndarray, latents: int) -> xr.Dataset:
    shape = len(chain), 8, latents
    dims = ("seed", "obs", "latent")
    found = {
        "z": (("seed", "chain", "draw", "obs", "latent"), rng.normal(size=(shape[0], 4, 10, *shape[1:]))),
        "r_hat": (dims, 1 + rng.gamma(1, 0.003, shape)),
        "ess": (dims, rng.uniform(700, 1600, shape)),
        "scale_ratio": (dims, np.exp(rng.normal(-0.2, 0.2, shape))),
        "shift": (dims, rng.normal(0, 0.3, shape)),
        "distance": (("seed", "obs"), rng.gamma(3, 0.05, shape[:2])),
        "divergences": (("seed", "chain"), np.eye(shape[0], 4, dtype=int)),
    }
    return xr.Dataset(found, {"seed": chain, "chain": np.arange(4)})


def _calibration(rng: np.random.Generator, x: np.ndarray, flat: np.ndarray, chain: np.ndarray) -> xr.Dataset:
    (obs, features), seeds = x.shape, len(chain)
    levels, kinds = np.array([0.5, 0.8, 0.9, 0.95]), ["leave-one-out", "prior"]
    sure = rng.uniform(0.5, 1.1, features)  # below 1 the tails of the PIT are heavy
    pit = rng.beta(sure, sure, (seeds, 2, obs, features))
    pit[..., flat] = np.nan
    inside = np.abs(2 * pit[:, :, None] - 1) <= levels[:, None, None]
    coverage = np.where(flat, np.nan, inside.mean(3))
    distance = np.abs(np.sort(pit, axis=2) - (np.arange(obs) + 0.5)[:, None] / obs).max(2) * obs**0.5
    per_column = ("chain", "kind", "feature")
    statistics = [
        "mean bias", "mean RMSE", "variance bias", "variance RMSE", "sample bias", "sample RMSE", "90 % coverage",
    ]  # fmt: skip
    found = {
        "pit": (("chain", "kind", "obs", "feature"), pit),
        "coverage": (("chain", "kind", "level", "feature"), coverage),
        "p_value": (per_column, np.where(flat, np.nan, np.minimum(2 * np.exp(-2 * distance**2), 1))),
        "outside": (per_column, np.where(flat, np.nan, distance > 1.36)),
        "beyond_chance": (per_column, np.where(flat, np.nan, distance > 1.6)),
        "ece": (per_column, np.abs(coverage - levels[:, None]).mean(2)),
        "crps": (per_column, np.where(flat, np.nan, rng.uniform(0.4, 0.8, (seeds, 2, features)) * x.std(0))),
        "crps_reference": ("feature", x.std(0)),
        "log_score": (per_column, np.where(flat, np.nan, rng.normal(-1.5, 0.3, (seeds, 2, features)))),
        "row_log_score": (("chain", "obs", "feature"), -rng.gamma(3, 0.5, (seeds, obs, features)) + 0 * pit[:, 0]),
        "bad_k": (("chain", "feature"), np.where(flat, np.nan, rng.uniform(0, 0.08, (seeds, features)))),
        "reconstruction_check": (("chain", "source", "statistic"), rng.uniform(0, 0.95, (seeds, 2, 7))),
    }
    point = np.linspace(0, 1, 21)
    reach = 1.36 * np.sqrt(4 * point * (1 - point) / obs)
    found |= {"band_low": ("point", -reach), "band_high": ("point", reach)}
    coords = {
        "point": point,
        "chain": chain,
        "kind": kinds,
        "level": levels,
        "source": ["data", "simulated"],
        "statistic": statistics,
    }
    return xr.Dataset(found, coords, {"note": "the first rows of the test part"})


def digits_runs(**sizes: Any) -> list[xr.DataTree]:
    """Five pairs on pictures: one that ran away, one mass in a table of its own, one mixture."""
    about: dict[str, dict[str, Any]] = {
        "gaussian-learned": {"title": "Gaussian, learned variance", "level": -80, "share_constant": 95.0},
        "gaussian-constrained": {"title": "Gaussian, constrained variance", "level": -108, "bound": -62.0},
        "gaussian-identity": {"title": "Gaussian, fixed variance", "level": -140, "share_constant": -7.4},
        "bernoulli": {
            "title": "Bernoulli",
            "level": -18,
            "share_constant": -0.1,
            "base_measure": "mass",
            "bound": 0.0,
        },
        "gmm": {"title": "Gaussian mixture", "level": -109, "components": 8},
    }
    return [synthetic_run(name, ran_away="learned" in name, **one, **sizes) for name, one in about.items()]


def table_runs(**sizes: Any) -> list[xr.DataTree]:
    """Three pairs on a table of 13 columns, one of them with a seed that was frozen."""
    columns = [
        "alcohol", "malic acid", "ash", "alkalinity of ash", "magnesium", "total phenols", "flavanoids",
        "nonflavanoid phenols", "proanthocyanins", "colour intensity", "hue", "od280/od315 of diluted wines",
        "proline",
    ]  # fmt: skip
    about: dict[str, dict[str, Any]] = {
        "gaussian-constrained": {"title": "Gaussian, constrained variance", "level": -20.5, "bound": 12.0},
        "gaussian-learned": {"title": "Gaussian, learned variance", "level": -20, "frozen": (2,)},
        "gmm": {"title": "Gaussian mixture", "level": -24, "components": 3},
    }
    common = {"images": False, "columns": columns, "data": "wine", "obs": 36} | sizes
    return [synthetic_run(name, **one, **common) for name, one in about.items()]
