"""Objectives: value and gradient against Pyro's own and against formulas by hand, and what is recorded of them."""

import math
from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import nn

import zoo
from zoo.context import pyro_context, seeded
from zoo.errors import OptionError
from zoo.evaluation.weighing import Asked, Weigher
from zoo.inference import LogWeights
from zoo.objectives import ELBO, IWAE, BetaELBO, BetaNLL, Faithful, FreeBits, Renyi, TwoStage, held, terms, traces
from zoo.parts import OBJECTIVES, Parts
from zoo.scoring import RowWeights
from zoo.testing import check_engine, make_subject

BOUNDS = ["elbo", "elbo[kl=analytic]", "elbo[gradient=path]", "beta-vae", "tempered",
          "free-bits", "iwae", "iwae[gradient=dreg]",
          "miwae", "renyi"]  # fmt: skip
PAIRS = [
    "gaussian-constrained",
    "gaussian-constrained:full-rank",
    "linear-shared:linear",
    "gmm-constrained",
    "gaussian-two-stage",
]


@pytest.fixture(scope="module", params=PAIRS)
def subject(request):
    """A pair in double precision whose guide is far from the posterior."""
    made = make_subject(request.param)
    with torch.no_grad(), seeded(4):
        for parameter in made.parameters().values():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def losses(objective, subject, **given):
    with seeded(0), pyro_context(validate=True):
        return objective(subject.pair.model, subject.pair.guide, subject.x, **given)


def gradients(value, subject):
    found = torch.autograd.grad(value, list(subject.parameters().values()), allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


def pyros(kind, subject, **given):
    given = {"max_plate_nesting": 1} | given
    with seeded(0), pyro_context(validate=True):
        loss = kind(**given).differentiable_loss(subject.pair.model, subject.pair.guide, subject.x)
    return loss / len(subject.x)


def agree(ours, theirs, subject):
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-10)
    torch.testing.assert_close(gradients(ours, subject), gradients(theirs, subject), rtol=1e-8, atol=1e-10)


def summed_out(subject):
    return "gmm" in subject.pair.name


def test_the_elbo_is_pyros(subject):
    kind = TraceEnum_ELBO if summed_out(subject) else Trace_ELBO
    agree(losses(ELBO(), subject).value, pyros(kind, subject), subject)


def test_the_elbo_with_a_closed_kl_is_pyros(subject):
    ours = losses(ELBO(kl="analytic"), subject)
    if subject.pair.name in ("gmm-constrained", "gaussian-two-stage"):  # of latents that depend on others
        return agree(ours.value, losses(ELBO(), subject).value, subject)
    assert ours.value.item() != losses(ELBO(), subject).value.item()
    if subject.pair.name == "gaussian-constrained" and subject.pair.guide_name == "mean-field":
        return agree(ours.value, pyros(TraceMeanField_ELBO, subject), subject)
    with seeded(0), pyro_context():  # of a full covariance Pyro has none
        q = poutine.trace(subject.pair.guide).get_trace(subject.x).nodes["z"]["fn"]
    spread = q.covariance_matrix
    by_hand = (spread.diagonal(dim1=-2, dim2=-1) + q.mean.square() - 1).sum(-1) / 2 - spread.logdet() / 2
    return agree(ours.value, by_hand.mean() - likelihood(subject), subject)


def likelihood(subject):
    """The mean log likelihood at the draws that a loss has."""
    with seeded(0), pyro_context():
        q = poutine.trace(subject.pair.guide).get_trace(subject.x)
        p = poutine.trace(poutine.replay(subject.pair.model, trace=q)).get_trace(subject.x)
    return p.nodes["x"]["fn"].log_prob(subject.x).mean()


def by_hand(subject, alpha, samples):
    """The Rényi bound from the sites' densities, a datum at a time, with the number of draws in the middle."""
    with seeded(0), pyro_context(), pyro.plate("samples", samples, dim=-2):
        q = poutine.trace(subject.pair.guide).get_trace(subject.x)
        p = poutine.trace(poutine.replay(subject.pair.model, trace=q)).get_trace(subject.x)
    p.compute_log_prob(), q.compute_log_prob()
    latents = [name for name in ("z", "u") if name in q.nodes]
    weights = sum(p.nodes[name]["log_prob"] for name in ["x", *latents]) - sum(q.nodes[n]["log_prob"] for n in latents)
    powers = (1 - alpha) * weights
    largest = powers.max(0).values.detach()
    of_data = [(powers[:, i] - largest[i]).exp().mean().log() for i in range(len(subject.x))]
    return -(torch.stack(of_data) + largest).mean() / (1 - alpha)


@pytest.mark.parametrize("samples", [1, 2, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 3.0, -1.0])
def test_the_renyi_bound_is_pyros_and_that_by_hand(subject, samples, alpha):
    ours = losses(Renyi(alpha, samples), subject).value
    if summed_out(subject):  # there is nothing to draw
        return agree(ours, pyros(TraceEnum_ELBO, subject), subject)
    given = {"alpha": alpha, "num_particles": samples, "vectorize_particles": True, "max_plate_nesting": 1}
    with seeded(0), pyro_context():
        pyros_own = RenyiELBO(**given).loss(subject.pair.model, subject.pair.guide, subject.x) / len(subject.x)
    assert ours.item() == pytest.approx(pyros_own, rel=1e-10)
    agree(ours, by_hand(subject, alpha, samples), subject)
    if alpha == 0:
        agree(losses(IWAE(samples), subject).value, by_hand(subject, 0.0, samples), subject)
    return None


def test_one_draw_is_the_elbos_whatever_the_weights(subject):
    plain = losses(ELBO(), subject).value
    for objective in (IWAE(1), Renyi(0.3, 1), OBJECTIVES.make("miwae[samples=1]")):
        assert losses(objective, subject).value.item() == pytest.approx(plain.item(), rel=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_kl_term_is_weighed(subject, share):
    weight = torch.tensor(share, dtype=torch.float64)
    at, of = losses(ELBO(), subject, kl_weight=weight), losses(ELBO(), subject).diagnostics
    assert at.value.item() == pytest.approx((share * of["kl"] - of["log_likelihood"]).item(), rel=1e-9)
    weighed = losses(BetaELBO(3.0), subject, kl_weight=weight)
    assert weighed.value.item() == pytest.approx((3 * share * of["kl"] - of["log_likelihood"]).item(), rel=1e-9)
    assert weighed.diagnostics["objective"].item() == pytest.approx(
        (of["log_likelihood"] - 3 * of["kl"]).item(), rel=1e-9
    )


@pytest.mark.parametrize("objective", BOUNDS)
def test_what_is_recorded_is_without_a_warm_up_and_moves_nothing(subject, objective):
    made = OBJECTIVES.make(objective)
    plain, warming = losses(made, subject), losses(made, subject, kl_weight=torch.tensor(0.2))
    for name in ("elbo", "log_likelihood", "kl", "min_scale", "objective"):
        assert not plain.diagnostics[name].requires_grad
        torch.testing.assert_close(plain.diagnostics[name], warming.diagnostics[name], equal_nan=True)
    assert plain.diagnostics["objective"].item() == pytest.approx(-plain.value.item(), rel=1e-9)


@pytest.mark.parametrize("objective", BOUNDS)
def test_a_recorded_step_is_the_step(objective):
    assert check_engine(make_subject("gaussian-two-stage", latent_dim=2), objective=objective) == "capture"


@pytest.mark.slow
@pytest.mark.parametrize("objective", BOUNDS)
def test_a_compiled_step_is_the_step(subject, objective):
    assert check_engine(subject, mode="inductor", objective=objective) == "inductor"


def centred(made):
    """Put the means of a linear guide where the posterior's are, and tell the Cholesky factor of its covariance."""
    guide = made.pair.guide
    with torch.no_grad():
        mean, scale_tril = made.pair.model.posterior(made.x)
        fitted = np.linalg.lstsq(np.column_stack([made.x, np.ones(len(made.x))]), mean, rcond=None)[0]
        guide.mean.weight.copy_(torch.as_tensor(fitted[:-1].T))
        guide.mean.bias.copy_(torch.as_tensor(fitted[-1]))
        torch.testing.assert_close(guide.mean(made.x), mean)
    return scale_tril


def test_a_path_gradient_has_the_mean_of_the_total_one_and_no_noise_at_the_posterior():
    made = make_subject("linear-shared:linear")
    guide, scale_tril = made.pair.guide, centred(made)
    with torch.no_grad():
        diagonal = scale_tril.diagonal()
        guide.log_diagonal.copy_(diagonal.log())
        guide.below.copy_((scale_tril / diagonal[:, None]).tril(-1))

    def of_guide(objective, seed):
        with seeded(seed), pyro_context():
            value = objective(made.pair.model, made.pair.guide, made.x).value
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(guide.parameters()))])

    path = torch.stack([of_guide(ELBO(gradient="path"), seed) for seed in range(3)])
    total = torch.stack([of_guide(ELBO(), seed) for seed in range(3)])
    assert path.abs().max() < 1e-9 < 0.1 < total.std(0).max()


def of_guide_and_model(objective, made, draws):
    """Gradients of both programs over many draws, (draws, P) each."""
    found = []
    with pyro_context():
        for seed in range(draws):
            with seeded(seed):
                value = objective(made.pair.model, made.pair.guide, made.x).value
            of = [torch.autograd.grad(value, list(p.parameters()), retain_graph=True, allow_unused=True,
                                      materialize_grads=True) for p in (made.pair.guide, made.pair.model)]  # fmt: skip
            found.append([torch.cat([g.flatten() for g in part]) for part in of])
    return [torch.stack(part) for part in zip(*found, strict=True)]


def test_dreg_of_a_warm_up_has_the_mean_of_the_total_gradient():
    made = make_subject("gaussian-constrained", latent_dim=1, hidden=(3,))
    half = torch.tensor(0.4, dtype=torch.float64)
    plain, dreg = (
        of_guide_and_model(lambda *of, how=how: IWAE(5, gradient=how)(*of, kl_weight=half), made, 300)[0]
        for how in ("total", "dreg")
    )
    error = ((dreg.var(0) + plain.var(0)) / 300).sqrt()
    assert (((dreg.mean(0) - plain.mean(0)) / error.clamp(min=1e-12)).abs() < 4.5).all()


@pytest.fixture(scope="module")
def linear():
    """Probabilistic PCA under a guide that is too wide, whose evidence is known."""
    made = make_subject("linear-shared:linear", latent_dim=2)
    scale_tril = centred(made)
    with torch.no_grad():
        made.pair.guide.log_diagonal.copy_((1.4 * scale_tril.diagonal()).log())
    return made


def test_the_iwaes_bound_rises_to_the_evidence(linear):
    exact = linear.pair.model.log_evidence(linear.x).mean().item()
    found = {}
    with pyro_context(), torch.no_grad():
        for samples, repeats in ((1, 400), (5, 400), (50, 200), (5000, 20)):
            values = []
            for seed in range(repeats):
                with seeded(seed):
                    values.append(-IWAE(samples)(linear.pair.model, linear.pair.guide, linear.x).value.item())
            found[samples] = np.mean(values), np.std(values) / math.sqrt(repeats)
    means = [mean for mean, _ in found.values()]
    assert means[0] < means[1] < means[2] < means[3] + found[5000][1]
    assert means[1] - means[0] > 6 * found[1][1]
    mean, error = found[5000]
    assert abs(mean - exact) < 3 * error < 0.01


def test_dreg_has_the_mean_of_the_iwaes_gradient_and_less_variance(linear):
    """Over 500 draws, parameter by parameter: the difference of means beside its standard error."""
    plain, dreg = (of_guide_and_model(IWAE(20, gradient=how), linear, 500) for how in ("total", "dreg"))
    for ours, theirs in zip(dreg, plain, strict=True):
        error = (ours - theirs).std(0) / 500**0.5
        off = ((ours.mean(0) - theirs.mean(0)) / error.clamp(min=1e-12)).abs()
        assert off.max() < 4.5
    assert (dreg[0].var(0) <= plain[0].var(0)).all()
    assert dreg[0].var(0).sum() < 0.01 * plain[0].var(0).sum()
    torch.testing.assert_close(dreg[1], plain[1], rtol=1e-7, atol=1e-9)  # the decoder's is the very same


def test_free_bits_are_felt_beyond_so_many_nats_of_each_latent():
    made = make_subject("gaussian-constrained", latent_dim=3, hidden=(4,))
    with seeded(0), pyro_context():
        q = poutine.trace(made.pair.guide).get_trace(made.x).nodes["z"]
    z, fn = q["value"], q["fn"].base_dist
    of_each = (fn.log_prob(z) - torch.distributions.Normal(0.0, 1.0).log_prob(z)).mean(0)
    middle = of_each.sort().values[1].item() + 1e-3
    felt = losses(FreeBits(max(middle, 1e-3)), made)
    expected = of_each.clamp(min=max(middle, 1e-3)).sum()
    assert felt.value.item() == pytest.approx((expected - felt.diagnostics["log_likelihood"]).item(), rel=1e-9)
    plain = losses(FreeBits(1e-9), make_subject("gaussian-constrained:full-rank"))
    assert plain.value.item() == pytest.approx(-plain.diagnostics["elbo"].item(), rel=1e-9)


def test_a_held_program_passes_no_gradient_to_its_parameters():
    made = make_subject("gaussian-constrained:full-rank", latent_dim=2)
    z = torch.zeros(len(made.x), 2, dtype=torch.float64, requires_grad=True)
    with pyro_context():
        trace = poutine.trace(poutine.condition(held(made.pair.guide), data={"z": z})).get_trace(made.x)
        trace.compute_log_prob()
    density = trace.nodes["z"]["log_prob"].sum()
    (slope,) = torch.autograd.grad(density, z, retain_graph=True)
    assert slope.abs().min() > 0
    of_guide = torch.autograd.grad(density, list(made.pair.guide.parameters()), allow_unused=True)
    assert of_guide == (None,) * len(of_guide)


# -- what is recorded --------------------------------------------------------------------------------------------------


def test_a_diagnostic_that_is_not_finite_freezes_nothing(catalogue, iris):
    @zoo.register_objective("own-told", summary="The ELBO, and numbers that are none.")
    @dataclass(frozen=True)
    class Told:
        def __call__(self, model, guide, x, kl_weight=1.0):
            of = terms(*traces(model, guide, x), len(x))
            return of.loss_of(of.weighted_likelihood, kl_weight, ratio=of.kl / 0, broken=of.kl * math.nan)

    runs = [
        zoo.fit(zoo.create("gaussian-constrained", iris), iris, seeds=2, steps=30, objective=objective, progress=False)
        for objective in ("own-told", "elbo")
    ]
    told, plain = (run.tree["optimization"].to_dataset() for run in runs)
    assert np.isinf(told["ratio"]).all() and np.isnan(told["broken"]).all()
    assert (told["frozen_at"] == -1).all()
    np.testing.assert_array_equal(told["elbo"], plain["elbo"])
    assert runs[0].tree.attrs["objective"] == "own-told"


def test_an_objective_that_records_too_little_is_told_what_it_lacks(catalogue, iris):
    @zoo.register_objective("own-silent", summary="")
    @dataclass(frozen=True)
    class Silent:
        def __call__(self, model, guide, x, kl_weight=1.0):
            return zoo.objectives.Loss(ELBO()(model, guide, x, kl_weight).value, {})

    with pytest.raises(OptionError, match="diagnostics lack elbo, kl, log_likelihood, min_scale, objective: return"):
        zoo.fit(zoo.create("gaussian-constrained", iris), iris, seeds=1, steps=3, objective="own-silent")


def test_the_weights_effective_size_is_recorded(iris):
    pair = zoo.create("gaussian-constrained", iris)
    run = zoo.fit(pair, iris, seeds=2, steps=20, objective=IWAE(samples=7, gradient="dreg"), progress=False)
    size = run.tree["optimization"]["ess"]
    assert ((size >= 1) & (size <= 7)).all()
    assert run.tree.attrs["objective"] == "iwae[samples=7, gradient=dreg]"
    assert "iwae[samples=7, gradient=dreg]" in run.tree.attrs["repeat"]


# -- by name -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", list(OBJECTIVES), ids=lambda part: part.name)
def test_every_objective_is_named_and_read_back(part):
    made = OBJECTIVES.make(part.name)
    assert OBJECTIVES.spelled(made) == OBJECTIVES.spelled(part.name) == part.name
    assert part.summary.endswith(".")
    with seeded(0), pyro_context():
        assert made(*_tiny(part.name)).value.isfinite()


def _tiny(objective):
    needs = {"penalized": "gmm-map", "two-stage": "gaussian-two-stage", "variational-variance": "gaussian-v3ae"}
    needs |= {"split": "gaussian-split"}
    made = make_subject(needs.get(objective, "gaussian-learned"))
    return made.pair.model, made.pair.guide, made.x


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("iwea", "objective='iwea'; did you mean 'iwae'? choose from elbo,"),
        ("iwae[samples=0]", "objective iwae: samples=0: input should be greater than or equal to 1."),
        ("iwae[particles=3]", "no option is called 'particles'. Options: samples=5, gradient='total'."),
        ("renyi[alpha=1]", "alpha=1: in the limit of 1 the bound is the ELBO: choose that."),
        ("elbo[kl=analytic, gradient=path]", 'kl="analytic" has no draws, so gradient="path" does not apply'),
        ("elbo:full-rank", "is not a name: write NAME or NAME[OPTION=VALUE, ...]."),
        ("iwae[3]", "'3' is not OPTION=VALUE; write iwae[OPTION=VALUE, ...]."),
        (3, "objective=3: give a name, or an instance registered with zoo.register_objective; there are elbo,"),
        (math.sqrt, "give a name, or an instance registered"),
    ],
)
def test_what_names_no_objective_is_told_so(iris, told, said):
    with pytest.raises(OptionError) as error:
        zoo.fit(zoo.create("gaussian-constrained", iris), iris, steps=3, objective=told)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "objective", "said"),
    [
        ("gaussian-learned", "penalized", "has no log_prior() of its parameters; gaussian-map and gmm-map have one"),
        ("gaussian-learned", "two-stage", "has no second stage u; gaussian-two-stage has one"),
        ("laplace", "quantile", "objective quantile: it needs independent normals given z, and this pair has Laplace."),
        ("gaussian-low-rank", "beta-nll", "given z, and this pair has LowRankMultivariateNormal."),
        ("gaussian-learned", "variational-variance", "as in gaussian-v3ae, and these are Normal."),
    ],
)
def test_an_objective_that_does_not_suit_says_what_does(iris, name, objective, said):
    with pytest.raises(OptionError) as error:
        zoo.fit(zoo.create(name, iris), iris, steps=3, objective=objective, progress=False)
    assert said in str(error.value)


def test_a_part_is_a_frozen_dataclass_with_a_name_of_its_own():
    parts = Parts("objective", "zoo.objectives")

    @dataclass(frozen=True)
    class Sound:
        share: float = 0.5

    parts.register("sound", summary="S.")(Sound)
    parts.register("sound", summary="S.")(Sound)  # a cell that is run twice
    assert parts.spelled("sound[share=0.5]") == "sound"
    assert parts.spelled(Sound(0.25)) == "sound[share=0.25]"
    with pytest.raises(OptionError, match=r"the objective 'sound' is already .*Sound: choose another name"):
        parts.register("sound", summary="S.")(dataclass(frozen=True)(type("Other", (), {})))
    with pytest.raises(OptionError, match="use lower-case words"):
        parts.register("Not Sound", summary="S.")(Sound)
    with pytest.raises(OptionError, match=r"make Loose a dataclass: @dataclass\(frozen=True\)"):
        parts.register("loose", summary="S.")(dataclass(type("Loose", (), {})))

    @dataclass(frozen=True)
    class Without:
        share: float

    with pytest.raises(OptionError, match="give every option a default"):
        parts.register("without", summary="S.")(Without)


@pytest.mark.parametrize("objective", ["iwae", "iwae[gradient=dreg]", "miwae", "renyi", "free-bits"])
def test_an_objective_of_plain_densities_refuses_weights(objective, iris):
    pair = zoo.create("gaussian-constrained", iris)
    x = torch.as_tensor(iris.scaled("train"), dtype=torch.float32)[:8]
    with pyro_context(), seeded(0), pytest.raises(OptionError, match=r"poutine\.scale weights site '[xz]'"):
        OBJECTIVES.make(objective)(poutine.scale(pair.model, 2.0), poutine.scale(pair.guide, 2.0), x)


def test_a_tempered_bound_asks_for_the_steps_it_is_tempered_over(iris):
    pair = zoo.create("gaussian-constrained", iris)
    with pytest.raises(OptionError, match="objective='tempered' without warm-up is the ELBO: give warmup=STEPS"):
        zoo.fit(pair, iris, objective="tempered")
    run = zoo.fit(pair, iris, objective="tempered[beta=9]", warmup=5, seeds=1, steps=10, progress=False)
    assert run.tree.attrs["objective"] == "tempered[beta=9.0]"


def test_an_attached_diagnostic_loses_nothing(catalogue, iris):
    @zoo.register_objective("own-attached", summary="The ELBO, with a diagnostic that still has its graph.")
    @dataclass(frozen=True)
    class Attached:
        def __call__(self, model, guide, x, kl_weight=1.0):
            value, told = ELBO()(model, guide, x, kl_weight)
            return zoo.objectives.Loss(value, {**told, "twice": 2 * value})

    pair = zoo.create("gaussian-constrained", iris)
    run = zoo.fit(pair, iris, objective="own-attached", seeds=1, steps=4, compile="off", progress=False)
    assert np.isfinite(run.tree["optimization/twice"]).all()


# -- masks -------------------------------------------------------------------------------------------------------------


class Masked(nn.Module):
    """A linear model, or as a guide a normal, of whose rows those with a first entry above 0 do not count."""

    def __init__(self, guide):
        super().__init__()
        self.guide = guide
        self.weight = nn.Parameter(torch.tensor([[1.0, -0.5, 0.3]]))

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1), poutine.mask(mask=x[:, 0] <= 0):
            mean = 0.3 * x[:, :1] if self.guide else torch.zeros(len(x), 1)
            z = pyro.sample("z", dist.Normal(mean, 0.8 if self.guide else 1.0).to_event(1))
            if not self.guide:
                pyro.sample("x", dist.Normal(z @ self.weight, 0.5).to_event(1), obs=x)


@pytest.mark.parametrize(
    "objective",
    [ELBO(), ELBO(kl="analytic"), BetaNLL(0.0), Faithful(), IWAE(3), Renyi(0.5, 3), FreeBits(0.01)],
    ids=str,
)
def test_what_a_masked_row_holds_changes_nothing(objective):
    rows = torch.tensor([[-1.0, 0.3, 0.2], [1.0, 2.0, -3.0], [-0.2, 0.9, 0.1]])
    others = torch.tensor([[-1.0, 0.3, 0.2], [3.0, -7.0, 0.0], [-0.2, 0.9, 0.1]])
    found = []
    for x in (rows, others):
        with pyro_context(), torch.no_grad(), seeded(0):
            found.append(objective(Masked(guide=False), Masked(guide=True), x).value)
    torch.testing.assert_close(*found)
    assert found[0] != 0


def test_masked_rows_count_for_nothing_in_either_stage(iris):
    pair = zoo.create("gaussian-two-stage", iris, latent_dim=2)
    x, found = torch.as_tensor(iris.scaled("train")[:8], dtype=torch.float32), []
    programs = [poutine.mask(program, mask=torch.arange(8) < 4) for program in (pair.model, pair.guide)]
    for others in (x[4:], 3 * x[4:] + 1):
        with pyro_context(), torch.no_grad(), seeded(0):
            found.append(TwoStage()(*programs, torch.cat([x[:4], others])).value)
    torch.testing.assert_close(*found)


def test_scores_of_a_masked_row_are_of_nothing():
    """A row that counts for nothing has the evidence 0, in some columns too, and no column costs anything."""
    model, guide = Masked(guide=False), Masked(guide=True)
    x = torch.tensor([[-1.0, 0.3, 0.2], [1.0, 2.0, -3.0]])
    asked = Asked(2000, columns=torch.tensor([0, 1]), features=2)
    with torch.no_grad(), pyro_context(), seeded(0):
        of_all, of_some = LogWeights(2000, columns=torch.tensor([0, 1]))(model, guide, x)
        (weights, predicted), *_ = Weigher(asked, model, guide, x)(model, guide, x, x)
        whole, others = RowWeights(2000, torch.zeros(3), by_column=True)(model, guide, x)
    for found in (of_all[:, 1], of_some[:, 1], weights.density[:, 1], weights.columns[:, 1]):
        assert found.abs().max() == 0
    assert predicted.of.log_density[1].abs().max() < 1e-5 < predicted.of.log_density[0].abs().min()
    torch.testing.assert_close(others[1] - whole[1], torch.zeros(3).double())
