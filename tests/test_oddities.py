"""Where a pair fits worst: the rows and columns that the report names."""

import numpy as np
import pytest
from pictures import only, titles
from synthetic_runs import replace, synthetic_run

from zoo.reporting import oddities

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # as the page does: means of nothing
SMALL = {"steps": 60, "obs": 20}
BLUE = "#0067a5"


def odd_run(**about):
    """Row 7 is the worst, and its third column is to blame, which has the category 'newt'."""
    tree = synthetic_run(images=False, columns=["a", "b", "beast", "d"], **SMALL, **about)
    evidence = np.tile(-20.0 - np.arange(20) % 5, (4, 1))
    evidence[:, 7] = -90
    replace(tree, "heldout", "log_evidence", evidence)
    scores = np.full((4, 20, 4), -1.0)
    scores[:, 7] = [-1.5, -0.5, -61, -2]
    replace(tree, "calibration", "row_log_score", scores)
    x = tree["observed_data"]["x"].values.copy()
    x[7] = [0.25, 3, 1, 1e-9]
    replace(tree, "observed_data", "x", x)
    tree["observed_data"] = tree["observed_data"].to_dataset().assign_coords(obs=np.arange(20))
    categories = ("feature", ["null", "null", '["owl", "newt"]', "null"])
    tree["constant_data"] = tree["constant_data"].to_dataset().assign(categories=categories)
    return tree


def test_the_hardest_row_stands_first_with_the_columns_that_cost_it_most():
    table = oddities.hardest(only(odd_run()))
    assert len(table.rows) == oddities.HARDEST
    label, (score, below, why) = table.rows[0]
    assert (label, score[0], below[0]) == ("row 7", "−90.0", "68.0")
    assert why[0] == "beast newt (60.0 nats), d 1e-09 (1.00 nats), a 0.25 (0.50 nats)"
    assert [row[1][0][0] for row in table.rows[1:]] == ["−24.0"] * 4 + ["−23.0"] * 3


def test_seeds_that_are_not_scored_blame_no_column():
    tree = odd_run(frozen=(2,))
    scores = tree["calibration"]["row_log_score"].values.copy()
    scores[2, 7] = [-1e9, -1, -1, -1]
    replace(tree, "calibration", "row_log_score", scores)
    assert oddities.hardest(only(tree)).rows[0][1][2][0].startswith("beast newt (60.0 nats)")


def test_a_run_of_before_names_the_column_that_is_farthest():
    tree = odd_run()
    tree["calibration"] = tree["calibration"].to_dataset().drop_vars("row_log_score")
    assert oddities.hardest(only(tree)).rows[0][1][2] == ("–", "")
    farthest = {"farthest_column": ("obs", np.full(20, 1)), "farthest": ("obs", np.full(20, 7.5))}
    tree["heldout"] = tree["heldout"].to_dataset().assign(farthest)
    assert oddities.hardest(only(tree)).rows[0][1][2] == ("b", "7.50 sd from the training mean")


def test_hardest_rows_are_less_than_all():
    assert len(oddities.hardest(only(synthetic_run(steps=60, obs=6))).rows) == 3
    assert oddities.hardest(only(synthetic_run(steps=60, obs=1))) is None
    assert oddities.hardest(only(synthetic_run(evaluated=False, **SMALL))) is None


def test_columns_of_a_table_are_held_against_their_training_values(tmp_path):
    tree = odd_run()
    reference = tree["calibration"]["crps_reference"].values
    share = np.array([0.5, 1.25, 0.1, 1.0])
    replace(tree, "calibration", "crps", np.broadcast_to(share * reference, (4, 2, 4)).copy())
    figure, note = oddities.by_column(only(tree), BLUE)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["b", "d", "a", "beast"]
    np.testing.assert_allclose(figure.axes[0].collections[-1].get_offsets()[:, 0], [1.25, 1.0, 0.5, 0.1])
    assert note.startswith("2 of 4 columns lie on or beyond the dashed line")
    assert "b: 125\xa0% of the CRPS of its training values" in titles(figure, tmp_path)


def test_pixels_cost_nats(tmp_path):
    tree = synthetic_run(**SMALL)
    cost = np.arange(64.0) + 0 * tree["calibration"]["log_score"].values
    replace(tree, "calibration", "log_score", -cost)
    figure, note = oddities.by_column(only(tree), BLUE)
    said = titles(figure, tmp_path)
    assert "pixel_2_3: 19.0 nats" in said
    about = "nats that each pixel costs, given all others; a dash: constant in training, or not known, 8 of 64 pixels."
    assert note.lower() == about
    assert oddities.by_column(only(synthetic_run(extras=(), **SMALL)), BLUE) is None
