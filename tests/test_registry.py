"""Tables of named kinds: entering, looking up, and what a wrong name is told."""

import pytest
import qrs
from qrs.registry import Registered, unknown


class Colour(Registered, kind="colour"):
    pass


class Red(Colour, id="red"):
    pass


class Green(Colour, id="green"):
    pass


class Shade(Red):
    """A subclass without an id stands outside of the table."""


def test_a_class_enters_its_own_table_by_being_defined():
    assert Colour.ids() == ["green", "red"]
    assert Colour.by_id("red") is Red
    assert (Red.id, Red.kind) == ("red", "colour")
    assert Shade.id == ""
    assert "red" not in qrs.Granularity.ids()


def test_a_taken_id_is_refused_and_names_both():
    with pytest.raises(qrs.QrsValueError, match=r"colour id 'red' of .*Other is taken by .*Red"):

        class Other(Colour, id="red"):
            pass

    assert Colour.by_id("red") is Red
    with pytest.raises(qrs.QrsValueError, match="id of Empty is empty"):

        class Empty(Colour, id=""):
            pass


@pytest.mark.parametrize("wrong", ["gren", "", None, 3, ["red"]])
def test_an_unknown_id_lists_the_known_ones(wrong):
    with pytest.raises(ValueError, match="known: green, red"):
        Colour.by_id(wrong)


def test_the_nearest_name_is_offered_only_where_one_is_near():
    assert str(unknown("colour", "gren", Colour.ids())) == (
        "unknown colour 'gren'; did you mean 'green'? known: green, red"
    )
    assert str(unknown("colour", "xyz", Colour.ids())) == "unknown colour 'xyz'; known: green, red"
    assert str(unknown("colour", "xyz", [])).endswith("known: none")
