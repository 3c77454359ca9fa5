"""The table covers what it says: every pair of options, every structural triple, sizes, twins, forms of low precision.

What is possible is searched for here, by the declared rules alone, without the program that made the rows.
"""

from collections import defaultdict
from itertools import combinations, pairwise, product

import pytest

from doconv_conformance.cases.covering import FACTORS, IMPOSSIBLE, STRUCTURAL, levels
from doconv_conformance.cases.draws import CATCHES
from doconv_conformance.cases.table import PRECISION, TWINS, Case, cases
from doconv_conformance.port import OPERATIONS

EXACT = [case for case in cases() if case.numbers in ("integers", "wide")]


def forbidden(chosen: dict[str, str]) -> bool:
    return any(all(name in chosen and chosen[name] in bad for name, bad in rule.items()) for rule in IMPOSSIBLE)


def possible(chosen: dict[str, str]) -> bool:
    """Whether some choice of the other factors goes with the chosen levels: only factors that share a rule can matter."""
    if forbidden(chosen):
        return False
    rest = [name for name in FACTORS if name not in chosen and any(name in rule for rule in IMPOSSIBLE)]
    return not rest or any(possible(chosen | {rest[0]: level}) for level in FACTORS[rest[0]])


def uncovered(factors: dict[str, tuple[str, ...]], strength: int, table: list[Case]) -> list[dict[str, str]]:
    covered = defaultdict(set)
    for case in table:
        found = levels(case)
        for names in combinations(factors, strength):
            if found["delta"] != "zero" or "delta" in names:  # with D_delta zero most of the layer is out of sight
                covered[names].add(tuple(found[name] for name in names))
    missing = []
    for names in combinations(factors, strength):
        for chosen in product(*(factors[name] for name in names)):
            assignment = dict(zip(names, chosen, strict=True))
            if chosen not in covered[names] and possible(assignment):
                missing.append(assignment)
    return missing


def test_every_pair_is_in_an_exact_case_of_the_first_part() -> None:
    assert uncovered(FACTORS, 2, [case for case in EXACT if not case.extended]) == []


def test_every_structural_triple_is_in_an_exact_case() -> None:
    assert uncovered(STRUCTURAL, 3, EXACT) == []


def test_the_count_finds_what_is_missing() -> None:
    """Without the 3-D rows, every pair and triple with three axes is uncovered, and nothing else of these factors."""
    flat = [case for case in EXACT if case.geometry.spatial_rank < 3]
    missing = uncovered({name: FACTORS[name] for name in ("rank", "groups", "transposed")}, 2, flat)
    assert missing == [{"rank": "3", name: level} for name in ("groups", "transposed") for level in FACTORS[name]]


def test_every_operation_is_asked_with_every_level() -> None:
    asked = defaultdict(set)
    for case in EXACT:
        for name, level in levels(case).items():
            asked[name, level] |= set(case.operations)
    assert {(name, level) for name in FACTORS for level in FACTORS[name]} == set(asked)
    assert [key for key, operations in asked.items() if operations != set(OPERATIONS)] == []


def test_no_case_has_what_is_declared_impossible() -> None:
    wrong = [case.id for case in EXACT if case.covering and forbidden(levels(case))]
    assert wrong == []


@pytest.mark.parametrize("channels", [16, 17, 64, 130])
def test_channels_beyond_a_vector(channels: int) -> None:
    assert [case for case in EXACT if case.geometry.in_channels == channels]
    assert [case for case in EXACT if case.geometry.out_channels == channels]


@pytest.mark.parametrize("positions", [18, 33])
def test_positions_beyond_a_vector(positions: int) -> None:
    plain = [case for case in EXACT if not case.geometry.transposed]
    assert [case for case in plain if positions in case.input_size]
    assert [case for case in EXACT if positions <= max(case.geometry.output_size(case.input_size))]


def test_taps_batches_and_large_weights() -> None:
    assert {case.geometry.taps for case in EXACT} >= {25, 49}
    assert {case.batch for case in EXACT} >= {1, 2, 3, 5}
    sizes = {case.tensors["W"].size for case in EXACT if case.large}
    assert {size > 2**23 for size in sizes} == {False, True}
    assert {case.geometry.transposed for case in EXACT if case.large} == {False, True}
    assert max(case.tensors["x"].size + case.tensors["grad_y"].size for case in EXACT if case.large) < 2**17


def test_every_kind_of_low_precision_numbers_meets_every_form_of_layer() -> None:
    for numbers in set(CATCHES) - {"sums", "gradients-of-bias"}:  # "totals" are larger; a bias needs no other forms
        found = {case.name.split(f"-{numbers}-")[0] for case in cases() if case.numbers == numbers}
        assert found >= {row.name for row in PRECISION}, numbers
    forms = {(row.options.get("transposed", False), len(row.input_size)) for row in PRECISION}
    assert forms == set(product((False, True), (1, 2, 3)))


def test_twins_follow_each_other_and_differ_in_one_way() -> None:
    """The same number of elements in `x` and in `W`, one after the other, in every operation."""
    table = [case for case in cases() if case.name.startswith("twin")]
    assert len(table) == len(TWINS)
    for first, second in pairwise(table):
        for name in ("x", "W", "D_delta"):
            assert first.tensors[name].size == second.tensors[name].size, second.id
        different = {
            name for name, value in first.geometry.to_json().items() if second.geometry.to_json()[name] != value
        }
        assert different or first.bias != second.bias
    again = [case for case in table if case.name.startswith("twin-high")]
    assert again[0].geometry == again[1].geometry
    places = [cases().index(case) for case in table]
    assert places == list(range(places[0], places[0] + len(places)))
