"""Random draws over random geometries on this backend, over the protocol: none outside its bound."""

from doconv_conformance.maintenance.no_false_alarm import alarms
from doconv_conformance.running.runner import python_backend


def test_no_honest_draw_is_outside_its_bound() -> None:
    tallies = alarms(python_backend("keras", "doconv_conformance.adapters.keras"), geometries=12, draws=30)
    assert {types: tally.wrong for types, tally in tallies.items() if tally.wrong} == {}
    assert tallies["float32/float32"].draws == 360
