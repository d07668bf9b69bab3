"""Names that nothing has yet."""

from __future__ import annotations

from nervecord.compiler.graph.names import Names, fresh, unused


def test_a_name_that_nothing_has_stays() -> None:
    names = {"b"}
    assert (unused("a", names), fresh("a", names)) == ("a", "a")
    assert names == {"a", "b"}


def test_signs_follow_until_nothing_has_it() -> None:
    names = {"a", "a'"}
    assert unused("a", names) == "a''"
    assert fresh("a", names, "%") == "a%"
    assert fresh("a", names, "%") == "a%%"


def test_numbers_follow_from_two_on_and_pass_over_what_is_taken() -> None:
    names = Names(["a", "a_3"], sign="_")
    names.take("b")
    expected = {"a": ["a_2", "a_4"], "b": ["b_2"], "c": ["c", "c_2"], "a_2": ["a_2_2"]}
    assert {name: [names.fresh(name) for _ in series] for name, series in expected.items()} == expected
