"""Any Pyro model and guide after SVI, converted for ArviZ, which has such a converter for NumPyro but not for Pyro."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyro
import torch
import xarray
from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from zoo.context import seeded
from zoo.errors import OptionError
from zoo.options import MAX_SEED, count
from zoo.tree import finish

__all__ = ["to_arviz"]


def to_arviz(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *data: Any,
    draws: int = 1000,
    log_likelihood: bool = False,
    seed: int = 0,
    name: str | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    keywords: Mapping[str, Any] | None = None,
) -> xarray.DataTree:
    r"""Draws of a Pyro model and a guide fitted to it by SVI, as the ``DataTree`` that ArviZ's functions take.

    Groups: ``posterior``, draws of the guide; ``sample_stats`` with lp = log p(x, z) and lq = log q(z), whose
    difference is the log importance weight; ``posterior_predictive``; ``prior`` and ``prior_predictive``;
    ``log_prior``; ``observed_data``; ``log_likelihood`` on request. Values of ``pyro.deterministic`` are stored with
    the latents. Parameters come from the modules and from Pyro's parameter store, which is not changed. The programs
    are called four times per draw; with plates that subsample, each draw sees different data.

    Dimensions have the names of plates, and event dimensions are ``NAME_dim_0`` as in ArviZ unless ``dims`` names them.
    Draws are (chain, draw) with one chain, not ``sample`` as in ``arviz.from_numpyro_svi``: ``loo`` and ``rhat`` do not
    accept a single dimension ``sample``, and ArviZ does not read its name back from netCDF.

    Args:
        model: p(x, z), as given to ``pyro.infer.SVI``.
        guide: q(z), or q(z | x), an ``AutoGuide`` or any other program.
        *data: positional arguments of both programs.
        draws: K, from the guide and from the prior.
        log_likelihood: whether to store log p(x_i | z) of each datum, in nats, for ``loo`` and ``psense``. PSIS-LOO
            applies to latents that all data share; latents of single data give a warning.
        seed: seed of the draws.
        name: the model's name in legends.
        coords: labels by dimension, as for ``arviz.from_dict``.
        dims: names of the dimensions of a site, without chain and draw, as for ``arviz.from_dict``.
        keywords: keyword arguments of both programs.

    Raises:
        OptionError: an invalid number of draws or seed, or a latent that the guide does not draw, such as one that is
            summed out.

    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("x", dist.Normal(mean, 1.0), obs=x)
    >>> guide = pyro.infer.autoguide.AutoNormal(model)
    >>> tree = to_arviz(model, guide, torch.tensor([1.0, 2.0, 3.0]), draws=50)
    >>> tree["posterior_predictive/x"].sizes
    Frozen({'chain': 1, 'draw': 50, 'data': 3})
    """
    for argument, program in (("model", model), ("guide", guide)):
        if not callable(program):
            raise OptionError(f"to_arviz: {argument} is of type {type(program).__name__}; give a Pyro program.")
    draws, seed = count("draws", draws), count("seed", seed, least=0, most=MAX_SEED)
    called = dict(keywords or {})
    store = pyro.get_param_store()
    with seeded(seed), torch.no_grad(), store.scope(store.get_state()):
        sites = _sites(model, guide, data, called)
        if log_likelihood and (local := sorted({name for name in sites.latent if sites.is_local(name)})):
            warnings.warn(
                f"{', '.join(local)}: these latents belong to single data. loo would weight draws of a datum's latents "
                "by that same datum, which is unreliable; zoo.evaluate scores amortised guides.",
                UserWarning,
                stacklevel=2,
            )
        each = [sites.draw(model, guide, data, called) for _ in range(draws)]
    found = {
        group: {site: torch.stack([one[group][site] for one in each])[None].numpy() for site in each[0][group]}
        for group in each[0]
    }
    if not log_likelihood:
        del found["log_likelihood"]
    return sites.tree(found, name, coords, dict(sites.dims()) | dict(dims or {}))


class _Sites(NamedTuple):
    """The sites of a model, from a trace: latents, what they determine, and data."""

    latent: dict[str, Any]
    determined: dict[str, Any]
    observed: dict[str, Any]

    def is_local(self, name: str) -> bool:
        """Whether a latent has a value for each datum, being in a plate of an observed site."""
        own = {frame.name for frame in self.latent[name]["cond_indep_stack"]}
        return any(own & {frame.name for frame in node["cond_indep_stack"]} for node in self.observed.values())

    def dims(self) -> Iterator[tuple[str, list[str]]]:
        """The dimensions of every site: its plates by name, then its event dimensions."""
        for name, node in (self.latent | self.determined | self.observed).items():
            events = len(node["fn"].event_shape)
            plates = {frame.dim: frame.name for frame in node["cond_indep_stack"] if frame.vectorized}
            batch = [plates.get(at, f"{name}_batch{at}") for at in range(events - node["value"].dim(), 0)]
            yield name, batch + [f"{name}_dim_{at}" for at in range(events)]

    def draw(self, model: Any, guide: Any, data: Any, called: Any) -> dict[str, dict[str, Tensor]]:
        """One draw of every group by site."""
        q = poutine.trace(guide).get_trace(*data, **called)
        p = poutine.trace(poutine.replay(model, trace=q)).get_trace(*data, **called)
        new = poutine.trace(poutine.uncondition(poutine.replay(model, trace=q))).get_trace(*data, **called)
        prior = poutine.trace(poutine.uncondition(model)).get_trace(*data, **called)
        for trace in (p, q):
            trace.compute_log_prob()
        kept = [*self.latent, *self.determined]
        return {
            "posterior": {name: p.nodes[name]["value"] for name in kept},
            "posterior_predictive": {name: new.nodes[name]["value"] for name in self.observed},
            "prior": {name: prior.nodes[name]["value"] for name in kept},
            "prior_predictive": {name: prior.nodes[name]["value"] for name in self.observed},
            "log_likelihood": {name: p.nodes[name]["unscaled_log_prob"] for name in self.observed},
            "log_prior": {name: p.nodes[name]["unscaled_log_prob"] for name in self.latent},
            "sample_stats": {"lp": p.log_prob_sum(), "lq": q.log_prob_sum()},
        }

    def tree(self, found: Any, name: str | None, coords: Any, dims: dict[str, Any]) -> xarray.DataTree:
        """The groups, made by ArviZ."""
        from arviz_base import from_dict

        found["observed_data"] = {site: node["value"].numpy() for site, node in self.observed.items()}
        of_densities = {group: found.pop(group) for group in ("log_prior", "log_likelihood") if group in found}
        batch = {
            site: dims[site][: node["value"].dim() - len(node["fn"].event_shape)]
            for site, node in (self.latent | self.observed).items()
        }
        tree: xarray.DataTree = from_dict(found, name=name, coords=coords, dims=dims)
        for group, of in from_dict(of_densities, coords=coords, dims=batch).children.items():
            tree[group] = of.copy()
        if name is not None:
            tree.attrs["name"] = name
        for made in tree.children.values():  # otherwise ArviZ would be named as their creator
            del made.attrs["creation_library"], made.attrs["creation_library_version"]
        return finish(tree)


def _sites(model: Any, guide: Any, data: Any, called: Any) -> _Sites:
    """The sites of a model that a guide serves.

    Raises:
        OptionError: the guide has no value for one.
    """
    q = poutine.trace(guide).get_trace(*data, **called)
    p = poutine.trace(poutine.replay(model, trace=q)).get_trace(*data, **called)
    nodes = {
        name: node
        for name, node in p.nodes.items()
        if node["type"] == "sample" and not site_is_subsample(node) and not isinstance(node["fn"], Unit)
    }
    determined = {name: node for name, node in nodes.items() if node["infer"].get("_deterministic")}
    observed = {name: node for name, node in nodes.items() if node["is_observed"] and name not in determined}
    latent = {name: node for name, node in nodes.items() if not node["is_observed"] and name not in determined}
    if lacking := [name for name in latent if name not in q.nodes]:
        raise OptionError(
            f"to_arviz: the guide has no value for {', '.join(lacking)}, so the model would draw it from its prior: "
            "give a guide that draws it, or sum it out of the model."
        )
    return _Sites(latent, determined, observed)
