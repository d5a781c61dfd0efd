"""The evidence lower bound of two Pyro programs on a batch, and the conditions for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import is_identically_one, scale_and_mask
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.func import functional_call

from zoo.answers import ask, name_of, of_values
from zoo.densities import smallest_scale
from zoo.errors import OptionError, Unknown
from zoo.lenses import Gapped

__all__ = [
    "Loss",
    "Program",
    "Terms",
    "Weight",
    "at_latents",
    "held",
    "latent_sites",
    "masked_columns",
    "observed_sites",
    "plain_log_prob",
    "refuse_coupled_rows",
    "refuse_other_data",
    "refuse_other_latents",
    "refuse_other_sites",
    "refuse_scaled",
    "reward",
    "terms",
    "traces",
    "weighted_sites",
]

Program = Callable[[Tensor], Any]
Weight = Tensor | float  # weight of the KL term at a step: 1 except in a warm-up


class Loss(NamedTuple):
    """What a step minimises, and what it records.

    ``value`` is a scalar; only its gradient moves parameters. ``diagnostics`` are named scalars without gradient:
    ``elbo``, ``log_likelihood``, ``kl``, ``min_scale``, ``objective`` (what is maximised, at the full weight of the KL
    term), and any others. A diagnostic that is not finite stops nothing.
    """

    value: Tensor
    diagnostics: dict[str, Tensor]


class Terms(NamedTuple):
    """The terms of the ELBO, each a mean over a batch in nats, in scaled units.

    ``log_likelihood`` and ``kl`` use the unweighted densities, and are recorded. If a program weights some of them by
    ``poutine.scale``, it is trained on the weighted ones: a weighted ELBO is not a bound on the evidence, cannot be
    compared with another pair's, and is recorded as ``objective``. ``min_scale`` is the smallest decoder standard
    deviation in the batch.
    """

    log_likelihood: Tensor
    kl: Tensor
    min_scale: Tensor
    weighted_likelihood: Tensor
    weighted_kl: Tensor

    @property
    def elbo(self) -> Tensor:
        """The evidence lower bound."""
        return self.log_likelihood - self.kl

    def loss(self, value: Tensor, objective: Tensor, **others: Tensor) -> Loss:
        """A loss that records these terms, and others by name."""
        told = {"elbo": self.elbo, "log_likelihood": self.log_likelihood, "kl": self.kl, "min_scale": self.min_scale}
        return Loss(value, {name: of.detach() for name, of in {**told, "objective": objective, **others}.items()})

    def loss_of(self, reward: Tensor, kl_weight: Weight = 1.0, **others: Tensor) -> Loss:
        """The loss of a reward minus the KL term at its weight in this step."""
        return self.loss(kl_weight * self.weighted_kl - reward, reward - self.weighted_kl, **others)


def plain_log_prob(node: Any) -> Tensor:
    """The log density of a site of a trace, masked where it is masked, without the weight of a ``poutine.scale``."""
    log_prob: Tensor = scale_and_mask(node["unscaled_log_prob"], 1.0, node["mask"])
    return log_prob


def masked_columns(log_p: Tensor, mask: Any) -> Tensor:
    """Log densities of each column, (..., B, D), masked by rows as their site is."""
    each: Tensor = scale_and_mask(log_p, 1.0, mask[..., None] if isinstance(mask, Tensor) else mask)
    return each


def traces(model: Program, guide: Program, x: Tensor, plates: int = 1) -> tuple[Any, Any]:
    """The guide's trace on x and the model's at the same latents, enumerated sites in dimensions left of the plates."""
    with poutine.enum(first_available_dim=-1 - plates):
        guide_trace = poutine.trace(guide).get_trace(x)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)
    refuse_other_latents(model_trace, guide_trace)
    guide_trace.compute_log_prob()
    model_trace.compute_log_prob()
    return model_trace, guide_trace


def refuse_other_latents(model_trace: Any, guide_trace: Any) -> None:
    """Raise OptionError if only one program has a latent, since its density would be silently left out."""
    of_model, of_guide = (dict.fromkeys(latent_sites(trace)) for trace in (model_trace, guide_trace))
    for names, alone, other in (
        ([*(of_model.keys() - of_guide)], "model", "guide"),
        ([*(of_guide.keys() - of_model)], "guide", "model"),
    ):
        if names:
            sites = ", ".join(map(repr, sorted(names)))
            raise OptionError(
                f"the {alone} has the latent {sites} and the {other} has none: give both programs the same latents. "
                'One that the model sums out needs a site in the guide too, with infer={"enumerate": "parallel"}.'
            )


def refuse_other_sites(model_trace: Any, guide_trace: Any, rows: int) -> None:
    """Raise OptionError for what a loss would leave out, or count for each row more than once.

    That is a term besides those of the datum and the latents, a parameter outside the modules, and a site that is not
    in a single plate over the rows of a batch.
    """
    for who, trace in (("model", model_trace), ("guide", guide_trace)):
        others = [name for name in observed_sites(trace) if (who, name) != ("model", "x")]
        if others:
            raise OptionError(
                f"the {who} has the observed site {others[0]!r} (pyro.factor makes one, too), which the ELBO of a pair "
                "leaves out: a pair observes x alone, so put such a term into a prior or into the density of x."
            )
        for name in trace.param_nodes:
            if name in pyro.get_param_store() and "$$$" not in name:  # those of pyro.module are of a module after all
                raise OptionError(
                    f"the {who} has pyro.param({name!r}), which is in no module and would not be trained: make it an "
                    "nn.Parameter."
                )
        for name in [*latent_sites(trace), *observed_sites(trace)]:
            node = trace.nodes[name]
            plates = [frame for frame in node["cond_indep_stack"] if frame.vectorized]
            if len(plates) != 1 or plates[0].dim != -1 or node["unscaled_log_prob"].shape[-1:] != (rows,):
                told = " and ".join(repr(frame.name) for frame in plates) or "none"
                raise OptionError(
                    f"site {name!r} of the {who} should be in one plate, over the {rows} rows of a batch, dim=-1, and "
                    f"its plate is {told}, with log densities of shape {tuple(node['unscaled_log_prob'].shape)}: every "
                    "latent belongs to one row, and the columns of a row are an event, .to_event(1)."
                )


def refuse_coupled_rows(model: Program, guide: Program, x: Tensor) -> None:
    """Raise OptionError if the first row's densities depend on the others (B, D): scores are of single rows.

    It is looked at beside two pairs of other rows. Not judged are programs whose densities are random, or unknown at
    latents that they did not draw.
    """
    if len(x) < 5:
        return
    q = poutine.trace(guide).get_trace(x[:5])
    drawn = {name: (-1 - q.nodes[name]["fn"].event_dim, q.nodes[name]["value"]) for name in latent_sites(q)}

    def beside(program: Program, *others: int) -> Any:
        rows = torch.tensor([0, *others], device=x.device)
        return at_latents(
            program, x[rows], {name: value.index_select(dim, rows) for name, (dim, value) in drawn.items()}
        )

    for program in (guide, model):
        try:
            once, again, changed = beside(program, 1, 2), beside(program, 1, 2), beside(program, 3, 4)
        except Exception:  # whatever cannot be asked at given latents
            continue
        for name in (*drawn, "x") if program is model else drawn:
            first, repeated, elsewhere = (of.nodes[name]["unscaled_log_prob"][..., 0] for of in (once, again, changed))
            if torch.equal(first, repeated) and not torch.allclose(first, elsewhere, 1e-3, 1e-3):
                raise OptionError(
                    f"the density of site {name!r} for a row depends on the rows beside it (a mean over the batch, or "
                    "batch normalisation?), and scores are of single rows: use layer normalisation, or constants."
                )


def observed_sites(trace: Any) -> list[str]:
    """Names of the observed sites of a trace, without what ``pyro.deterministic`` notes."""
    return [
        name
        for name in trace.observation_nodes
        if not (site_is_subsample(trace.nodes[name]) or trace.nodes[name]["infer"].get("_deterministic"))
    ]


def weighted_sites(model_trace: Any, guide_trace: Any) -> list[Any]:
    """The sites whose densities an objective weighs: the datum's, and every latent's in both traces."""
    p, q = model_trace, guide_trace
    return [p.nodes["x"], *(trace.nodes[name] for trace in (p, q) for name in latent_sites(q))]


def refuse_scaled(sites: Iterable[Any]) -> None:
    """Raise OptionError if ``poutine.scale`` weights one of the sites, for objectives of plain densities."""
    for site in sites:
        if not is_identically_one(site["scale"]):
            raise OptionError(
                f"the objective uses plain densities, and poutine.scale weights site {site['name']!r}: choose another, "
                "such as elbo, or take the scale away."
            )


def refuse_other_data(likelihood: Any, x: Tensor, base_measure: str) -> None:
    """Raise OptionError if a likelihood does not fit the data, or the measure on its card.

    Args:
        likelihood: p(x | z), the model's distribution at site ``x``.
        x: data in the model's units, shape (B, D).
        base_measure: "density" or "mass", as on the card.
    """
    likelihood = likelihood.base if isinstance(likelihood, Gapped) else likelihood
    if not callable(likelihood):
        raise OptionError(
            f"site 'x' has a {name_of(likelihood)} of torch.distributions, which Pyro cannot draw from: take the one "
            "of pyro.distributions."
        )
    try:
        support = ask(likelihood, "support")
    except Unknown:
        return
    if support.is_discrete and base_measure == "density":
        raise OptionError(
            f"{name_of(likelihood)} gives values a probability mass, and the card says density: register the pair with "
            'base_measure="mass" and bounded=True.'
        )
    values = of_values(support)
    outside = ~(values.check(x) | x.isnan())  # missing entries are never outside
    if outside.any():
        raise OptionError(
            f"{name_of(likelihood)} is defined only for {str(values).splitlines()[0]}, and the data hold "
            f"{x[outside].flatten()[0]:.4g} in the model's units: choose another likelihood, or register the pair with "
            "the support that it has."
        )


def latent_sites(trace: Any, *, enumerated: bool | None = None) -> list[str]:
    """Names of the latent sites of a trace: all, only those enumerated, or only those drawn."""
    return [
        name
        for name in trace.stochastic_nodes
        if not site_is_subsample(trace.nodes[name])
        and (enumerated is None or ("_enumerate_dim" in trace.nodes[name]["infer"]) == enumerated)
    ]


def terms(model_trace: Any, guide_trace: Any, size: int) -> Terms:
    """The ELBO's terms from a pair of :func:`traces` on a batch of a given size.

    Raises:
        OptionError: a latent is drawn, not enumerated, from a distribution without a reparametrisation.
    """
    p, q = model_trace, guide_trace
    for name in latent_sites(q, enumerated=False):
        if not q.nodes[name]["fn"].has_rsample:  # its gradient would be silently wrong
            raise OptionError(
                f"the guide draws site {name!r} from a distribution that cannot be reparametrised: sum it out, with "
                'infer={"enumerate": "parallel"} on the guide\'s site, or draw from another.'
            )
    value, kl = _likelihood_and_kl(p, q, plain_log_prob, size)
    scale = smallest_scale(p.nodes["x"]["fn"], p.nodes["x"]["value"]).detach().to(value)
    if all(is_identically_one(site["scale"]) for site in weighted_sites(p, q)):
        return Terms(value, kl, scale, value, kl)
    return Terms(value, kl, scale, *_likelihood_and_kl(p, q, lambda node: node["log_prob"], size))


def _likelihood_and_kl(p: Any, q: Any, log_prob: Callable[[Any], Tensor], size: int) -> tuple[Tensor, Tensor]:
    """The two terms of the ELBO, with densities by ``log_prob(site)``; enumerated latents are summed exactly."""
    weight = _weight(q)
    gaps = (log_prob(q.nodes[name]) - log_prob(p.nodes[name]) for name in latent_sites(q))
    value, kl = torch.broadcast_tensors(weight * log_prob(p.nodes["x"]), sum(weight * gap for gap in gaps))
    return value.sum() / size, kl.sum() / size


def reward(model_trace: Any, guide_trace: Any, values: Tensor) -> Tensor:
    """The mean over a batch of what stands in place of log p(x | z), (..., B), for each row.

    Like that density, it is weighted by q(c | x) over the values c of enumerated latents, and masked and scaled as site
    x is.
    """
    site = model_trace.nodes["x"]
    each: Tensor = _weight(guide_trace) * scale_and_mask(values, site["scale"], site["mask"])
    return each.sum() / values.shape[-1]


def _weight(guide_trace: Any) -> Tensor | float:
    """q(c | x) of the values of all enumerated latents together, in dimensions left of the plate; 1 without any."""
    of_each = [plain_log_prob(guide_trace.nodes[name]) for name in latent_sites(guide_trace, enumerated=True)]
    return torch.stack(torch.broadcast_tensors(*of_each)).sum(0).exp() if of_each else 1.0


def held(program: Any) -> Program:
    """A program whose parameters get no gradient.

    Its densities still have gradients with respect to the latents.
    """
    fixed = {name: parameter.detach() for name, parameter in program.named_parameters()}
    return lambda x: functional_call(program, fixed, (x,))


def at_latents(program: Program, x: Tensor, latents: dict[str, Tensor], plates: int = 1) -> Any:
    """The trace of a program on x with some latents given, enumerated ones in dimensions left of the plates."""
    with poutine.enum(first_available_dim=-1 - plates):
        trace = poutine.trace(poutine.condition(program, data=latents)).get_trace(x)
    trace.compute_log_prob()
    return trace
