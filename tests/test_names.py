"""A pair's name with its guide and options, and what is made of it."""

import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo.errors import OptionError, UnknownPair
from zoo.names import Name, alternatives, literal

PAIRS, OPTIONS = (
    st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True),
    st.from_regex(r"[a-z_]\w{0,9}", fullmatch=True),
)
WORDS = st.from_regex(r"[a-z]+(-[a-z]+)*", fullmatch=True).filter(lambda word: literal(word) == word)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = NUMBERS | st.booleans() | st.none() | WORDS | st.lists(NUMBERS, min_size=1, max_size=4).map(tuple)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gmm", ("gmm", "", {})),
        ("  gmm ", ("gmm", "", {})),
        ("gmm[]", ("gmm", "", {})),
        ("gaussian-learned:full-rank", ("gaussian-learned", "full-rank", {})),
        ("gmm[components=3]", ("gmm", "", {"components": 3})),
        ("gmm [ components = 3 , covariance = full ]", ("gmm", "", {"components": 3, "covariance": "full"})),
        ("mixed:full-rank[hidden=(64, 32), floor=1e-3]", ("mixed", "full-rank", {"hidden": (64, 32), "floor": 1e-3})),
        ("mixed[floor=0.5,hidden=(64,)]", ("mixed", "", {"floor": 0.5, "hidden": (64,)})),
        ("mixed[real='student-t', count=poisson]", ("mixed", "", {"real": "student-t", "count": "poisson"})),
        ("mixed[floor=None, real=True]", ("mixed", "", {"floor": None, "real": True})),
        ("gaussian-shared[soft_clip=-6]", ("gaussian-shared", "", {"soft_clip": -6})),
        ("mixed[real=constrained|student-t]", ("mixed", "", {"real": "constrained|student-t"})),
        ("a[x=__import__('os').getcwd()]", ("a", "", {"x": "__import__('os').getcwd()"})),  # nothing is run
    ],
)  # fmt: skip
def test_a_name_has_a_pair_a_guide_and_options(text, name):
    assert Name.parse(text) == name


@settings(max_examples=50)
@given(
    pair=PAIRS,
    guide=st.just("") | WORDS,
    options=st.dictionaries(OPTIONS, VALUES, max_size=4),
    between=st.sampled_from([",", ", ", "  ,\n "]),
)
def test_what_was_written_down_is_read_back(pair, guide, options, between):
    told = between.join(f"{name}={value if isinstance(value, str) else repr(value)}" for name, value in options.items())
    text = f"{pair}{f':{guide}' if guide else ''}{f'[{told}]' if told else ''}"
    assert Name.parse(text) == (pair, guide, options)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *((text, "is not the name of a pair: write PAIR, PAIR:GUIDE or PAIR[OPTION=VALUE, ...].") for text in
          ("gmm[components=3] too", "gmm:", "gmm[x=1]:guide")),
        *((text, "'[' is not closed.") for text in ("gmm[", "gmm[components=3", "gmm[a=(1, 2)")),
        *((text, f"{text[-1]!r} closes no bracket.") for text in ("gmm]", "gmm[a=(1]", "gmm[components=3]]")),
        ("gmm[components]", "'gmm[components]': 'components' is not OPTION=VALUE; write gmm["),
        ("gmm[3]", "'3' is not OPTION=VALUE"),
        ("gmm[components=3, components=4]", "components is given twice."),
        (3, "a pair's name is text such as 'gmm' or "),
        (None, "not a NoneType."),
        (["gmm"], "not a list."),
    ],
)  # fmt: skip
def test_what_is_no_name_is_told_what_is_one(text, said):
    with pytest.raises(UnknownPair, match=re.escape(said)):
        Name.parse(text)
    with pytest.raises(UnknownPair, match=re.escape(said)):
        zoo.card(text)


@pytest.mark.parametrize("told", ["2|", "|2", "2||3", ""])
def test_a_value_that_is_empty_among_others_is_named(told):
    with pytest.raises(UnknownPair, match="a value of components is empty; write components=VALUE"):
        alternatives(f"gmm[components={told}]")


@pytest.mark.parametrize("name", ["iaf", "vamp", "miwae[samples=5]"])
def test_a_part_is_no_pair_and_where_parts_are_listed_is_told(name):
    with pytest.raises(UnknownPair, match=r"not a pair but an? (guide|prior|objective): see `zoo parts` for"):
        zoo.card(name)


def test_a_guide_in_the_name_and_another_beside_it_are_refused(iris):
    with pytest.raises(OptionError, match="its guide is full-rank, and guide='diagonal' is another: leave one out"):
        zoo.create("gaussian-learned:full-rank", iris, guide="diagonal")
    assert zoo.create("gaussian-learned:full-rank", iris, guide="full-rank").guide_name == "full-rank"


@pytest.mark.parametrize("text", ["(" * 500, "{[]: 1}", "1" * 9, "-" * 5000 + "1"], ids=len)
def test_what_python_cannot_read_is_text(text):
    assert literal(text) in (text, 111111111)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("gmm", ["gmm"]),
        ("gaussian-learned:full-rank", ["gaussian-learned:full-rank"]),
        ("mixed[real=student-t]", ["mixed[real=student-t]"]),
        ("mixed[real=constrained|student-t]", ["mixed[real=constrained]", "mixed[real=student-t]"]),
        (
            "mixed:full-rank[hidden=(8, 4)|(8,), real=shared | learned]",
            [
                "mixed:full-rank[hidden=(8, 4), real=shared]", "mixed:full-rank[hidden=(8, 4), real=learned]",
                "mixed:full-rank[hidden=(8,), real=shared]", "mixed:full-rank[hidden=(8,), real=learned]",
            ],
        ),
    ],
)  # fmt: skip
def test_alternatives_are_a_name_each(text, names):
    assert alternatives(text) == names


@settings(max_examples=50)
@given(
    pair=PAIRS,
    guide=st.just("") | WORDS,
    options=st.dictionaries(OPTIONS, st.lists(VALUES, min_size=1, max_size=3), min_size=1, max_size=3),
)
def test_alternatives_are_all_choices_of_values_in_the_order_they_were_written(pair, guide, options):
    told = {name: "|".join(v if isinstance(v, str) else repr(v) for v in values) for name, values in options.items()}
    text = f"{pair}{f':{guide}' if guide else ''}[{', '.join(f'{n}={v}' for n, v in told.items())}]"
    expected = [Name(pair, guide, dict(zip(options, chosen, strict=True))) for chosen in product(*options.values())]
    assert [Name.parse(name) for name in alternatives(text)] == expected


# -- pairs by name -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def penguins():
    return zoo.load_data("penguins")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mixed[real=constrained, latent_dim=3]", {"real": "constrained", "latent_dim": 3}),
        ("mixed[hidden=(8, 4)]", {"hidden": (8, 4)}),
        ("mixed[ count=poisson,ordinal=cumulative ]", {"count": "poisson", "ordinal": "cumulative"}),
        ("mixed:full-rank[floor=1e-2]", {"guide": "full-rank", "floor": 0.01}),
        ("mixed:mean-field", {}),
        ("mixed[]", {}),
    ],
)
def test_options_in_a_name_are_those_beside_it(penguins, name, options):
    by_name, beside = zoo.create(name, penguins), zoo.create("mixed", penguins, **options)
    assert by_name.options == beside.options
    assert by_name.name == beside.name == "mixed" and by_name.guide_name == beside.guide_name
    weights, others = by_name.model.state_dict(), beside.model.state_dict()
    assert weights.keys() == others.keys() and all(weights[key].equal(others[key]) for key in weights)
    assert zoo.card(name) is zoo.card("mixed")


def test_options_may_stand_in_the_name_and_beside_it_but_each_once(penguins):
    pair = zoo.create("mixed[real=constrained]", penguins, latent_dim=3)
    assert (pair.options.real, pair.options.latent_dim) == ("constrained", 3)
    with pytest.raises(OptionError, match=r"latent_dim is given twice, in the name and as an argument"):
        zoo.create("mixed[real=constrained, latent_dim=3]", penguins, latent_dim=3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mixed[reel=constrained]", "no option is called 'reel'; did you mean 'real'?"),
        ("mixed[network=conv]", "no option is called 'network'."),
        (
            "mixed[real=gaussian]",
            "real='gaussian': input should be 'learned', 'constrained', 'shared', 'student-t' or 'laplace'",
        ),
        ("mixed[real=constrained|student-t]", "real='constrained|student-t': input should be 'learned', 'constrained'"),
        ("mixed[hidden=8]", "hidden=8: input should be a valid tuple"),
        ("mixed[floor=0]", "floor=0: input should be greater than 0"),
        ("mixed[latent_dim=2.5]", "latent_dim=2.5: input should be a valid integer"),
    ],
)
def test_a_wrong_option_in_a_name_is_answered_with_the_option_list(penguins, name, said):
    with pytest.raises(OptionError, match=f"^mixed: {re.escape(said)}.* Options: real='learned', .*floor=0.01"):
        zoo.create(name, penguins)


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("mixt[real=constrained]", UnknownPair, "no pair is called 'mixt'. Nearest: mixed"),
        ("mixed:flow[real=constrained]", OptionError, "guide='flow'; choose from mean-field, full-rank, low-rank"),
    ],
)
def test_the_rest_of_a_name_does_not_hide_what_is_wrong_in_it(penguins, name, error, said):
    with pytest.raises(error, match=re.escape(said)):
        zoo.create(name, penguins)


def test_options_of_the_guide_in_the_name_may_stand_beside_it(iris):
    assert zoo.create("gaussian-learned:iaf", iris, layers=2, latent_dim=3).guide_name == "iaf[layers=2]"
    said = "did you mean 'layers'? gaussian-learned has activation, hidden, latent_dim, network, and its guide iaf"
    with pytest.raises(OptionError, match=re.escape(said) + " hidden, layers"):
        zoo.create("gaussian-learned:iaf[layer=3]", iris)
