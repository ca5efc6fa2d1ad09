"""What to do with each layer of a model, as data: ordered rules from name patterns to schemes.

A rule's ``weight`` says how the weight is stored, its ``input`` how the layer's input is quantized:
``Static`` with ranges from calibration, ``Dynamic`` at run time, ``None`` not at all (weight-only). The first
rule whose pattern matches a layer's name decides, so special cases stand first and ``"*"`` last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from .container import parse_json
from .errors import FormatError, QrsError, QrsTypeError, QrsValueError, expect, expect_all, quote
from .nn.linear import input_from_dict, input_to_dict
from .observers import MSE, MinMax, Observer
from .ops import Dynamic, Static
from .registry import unknown
from .scheme import Scheme, per_channel, per_group, per_token

__all__ = ["Recipe", "Rule"]

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do with the layers whose name matches a pattern.

    Parameters
    ----------
    pattern : str
        Shell style, case-sensitive: ``*`` matches any run of characters, ``/`` included, ``?`` one, ``[ab]``
        a choice.
    weight : Scheme, str or None
        Scheme of the weight; a plain ``"int8"`` stands for ``Scheme("int8")``. None leaves the layer in
        float32.
    input : Dynamic, Static or None
        How the input of a product is quantized; None leaves it in float32. Needs a ``weight``.

    Raises
    ------
    QrsTypeError, QrsValueError
        When a field is of the wrong type, or ``input`` is given without ``weight``.

    Examples
    --------
    >>> import qrs
    >>> qrs.Rule("head*", weight=None)
    Rule(pattern='head*', weight=None, input=None)
    """

    pattern: str
    weight: Scheme | None = None
    input: Dynamic | Static | None = None

    def __init__(
        self, pattern: str, weight: Scheme | str | None = None, input: Dynamic | Static | None = None
    ) -> None:
        if type(pattern) is not str or not pattern:
            raise QrsTypeError(f"pattern is {quote(pattern)}, expected a string that is not empty")
        rule = quote(pattern)
        if input is not None and not isinstance(input, Dynamic | Static):
            raise QrsTypeError(f"input of rule {rule} is {quote(input)}, expected Dynamic, Static or None")
        if isinstance(input, Static) and input.observer is not None:
            expect(input.observer, Observer, f"observer of rule {rule}")
        if input is not None and weight is None:
            raise QrsValueError(f"rule {rule} quantizes the input but not the weight; give weight= as well")
        object.__setattr__(self, "pattern", pattern)
        scheme = None if weight is None else Scheme.of(weight, f"weight of rule {rule}")
        object.__setattr__(self, "weight", scheme)
        object.__setattr__(self, "input", input)

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON values; `from_dict` reads them.

        Returns
        -------
        dict

        Raises
        ------
        QrsValueError
            When the class of its observer has no id.

        Examples
        --------
        >>> import qrs
        >>> qrs.Rule("head*").to_dict()
        {'pattern': 'head*', 'weight': None, 'input': None}
        """
        return {
            "pattern": self.pattern,
            "weight": None if self.weight is None else self.weight.to_dict(),
            "input": _input_to_dict(self.input),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Rule:
        """Rebuild a rule from ``to_dict``.

        Parameters
        ----------
        data : mapping

        Returns
        -------
        Rule

        Raises
        ------
        QrsTypeError, QrsValueError, FormatError
            When a field is missing, unknown or not valid.

        Examples
        --------
        >>> import qrs
        >>> qrs.Rule.from_dict({"pattern": "head*", "weight": None, "input": None})
        Rule(pattern='head*', weight=None, input=None)
        """
        _expect(data, {"pattern", "weight", "input"}, "rule")
        scheme = data["weight"]
        weight = None if scheme is None else Scheme.from_dict(scheme)
        return cls(data["pattern"], weight, _input_from_dict(data["input"]))


@dataclass(frozen=True, slots=True)
class Recipe:
    """Ordered rules for a whole model.

    Parameters
    ----------
    rules : sequence of Rule
        The first that matches a layer decides.
    steps : sequence
        Algorithms to run before rounding, in order. None exist in this version: anything but an empty
        sequence is refused.

    Examples
    --------
    >>> import qrs
    >>> recipe = qrs.Recipe([qrs.Rule("head", weight=None), qrs.Rule("*", weight="int8")])
    >>> qrs.Recipe.from_json(recipe.to_json()) == recipe
    True
    >>> qrs.Recipe.presets()
    ['w8a8-dynamic', 'w8a8-static', 'w8a8-static-mse', 'w8a16', 'w4a16-g128', 'w4a16-g32', 'w4a8-g128',
     'w4a8-g32']
    """

    rules: tuple[Rule, ...]
    steps: tuple[()]

    def __init__(self, rules: Sequence[Rule], steps: Sequence[Any] = ()) -> None:
        rules = expect_all(rules, Rule, "rules")
        if not rules:
            raise QrsValueError("a recipe needs at least one rule")
        expect(steps, Sequence, "steps", "; leave it out")
        if len(steps):
            raise QrsValueError(f"steps is {quote(steps)}, expected (): this version has no algorithms")
        object.__setattr__(self, "rules", rules)
        object.__setattr__(self, "steps", ())

    @staticmethod
    def presets() -> list[str]:
        """Return the names that ``preset`` knows.

        Returns
        -------
        list of str

        Examples
        --------
        >>> import qrs
        >>> qrs.Recipe.presets()[0]
        'w8a8-dynamic'
        """
        return list(_PRESETS)

    @classmethod
    def preset(cls, name: str) -> Recipe:
        """Return a ready recipe.

        =================== ======================= ====================================
        name                weights                 input of products
        =================== ======================= ====================================
        ``w8a8-dynamic``    int8 per channel        uint8 per token, dynamic
        ``w8a8-static``     int8 per channel        uint8 per tensor, static, `MinMax`
        ``w8a8-static-mse`` int8 per channel        uint8 per tensor, static, `MSE`
        ``w8a16``           int8 per channel        float32
        ``w4a16-gN``        uint4, one scale per N  float32
        ``w4a8-gN``         uint4, one scale per N  uint8 per token, dynamic
        =================== ======================= ====================================

        N is 128 or 32. The ``a16`` names follow common usage; qrs computes those products in float32.
        Four-bit weights are ``uint4`` with a zero point and a float16 scale for each group, of the range that
        loses least (``fit="mse"``). ``int4`` with a
        zero point would have the same levels, bit for bit (its codes are 8 lower); the unsigned form unpacks
        with a mask alone and is the one that other formats (AWQ, GPTQ, ONNX) store. Embedding tables are
        quantized like the other weights.

        Parameters
        ----------
        name : str

        Returns
        -------
        Recipe

        Raises
        ------
        QrsValueError
            When the name is unknown; the message lists the known ones.

        Examples
        --------
        >>> import qrs
        >>> qrs.Recipe.preset("w4a16-g32").rules[0].weight
        Scheme('uint4', per_group(32), fit='mse', scale_dtype='float16')
        """
        given: object = name
        if not isinstance(given, str) or given not in _PRESETS:
            raise unknown("preset", given, _PRESETS)
        return _PRESETS[name]()

    def assign(self, names: Iterable[str]) -> dict[str, Rule]:
        """Say which rule decides for each layer; layers that no rule matches are left out.

        Parameters
        ----------
        names : iterable of str
            Names of layers, such as ``model.layers``.

        Returns
        -------
        dict of str to Rule
            In the order of ``names``.

        Raises
        ------
        QrsTypeError
            When ``names`` are no strings.
        QrsValueError
            When a rule decides for no layer, because its pattern matches none or earlier rules take them all.

        Examples
        --------
        >>> import qrs
        >>> recipe = qrs.Recipe([qrs.Rule("a*", weight="int4"), qrs.Rule("*", weight="int8")])
        >>> {name: rule.weight.dtype for name, rule in recipe.assign(["ab", "b"]).items()}
        {'ab': 'int4', 'b': 'int8'}
        """
        names = expect_all(names, str, "names")
        found: dict[str, Rule] = {}
        for rule in self.rules:
            matched = [name for name in names if fnmatchcase(name, rule.pattern)]
            free = [name for name in matched if name not in found]
            if not matched:
                known = quote(list(names))
                raise QrsValueError(f"rule {quote(rule.pattern)} matches no layer; the model has {known}")
            if not free:
                raise QrsValueError(
                    f"rule {quote(rule.pattern)} never decides: earlier rules match {quote(matched)} first"
                )
            found.update(dict.fromkeys(free, rule))
        return {name: found[name] for name in names if name in found}

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON values; `from_dict` reads them.

        Returns
        -------
        dict

        Raises
        ------
        QrsValueError
            When the class of an observer has no id.

        Examples
        --------
        >>> import qrs
        >>> sorted(qrs.Recipe.preset("w8a16").to_dict())
        ['rules', 'steps', 'version']
        """
        return {"version": _VERSION, "rules": [rule.to_dict() for rule in self.rules], "steps": []}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Rebuild a recipe from ``to_dict``.

        Parameters
        ----------
        data : mapping

        Returns
        -------
        Recipe

        Raises
        ------
        FormatError
            When a field is missing, unknown or not valid, or the version is newer.

        Examples
        --------
        >>> import qrs
        >>> recipe = qrs.Recipe.preset("w8a16")
        >>> qrs.Recipe.from_dict(recipe.to_dict()) == recipe
        True
        """
        _expect(data, {"version", "rules", "steps"}, "recipe")
        if data["version"] != _VERSION:
            found = quote(data["version"])
            raise FormatError(
                f"recipe: version {found}, supported {_VERSION}; upgrade qrs to read a newer one"
            )
        if not isinstance(data["rules"], list) or data["steps"] != []:
            raise FormatError("recipe: rules must be a list, and steps an empty one")
        try:
            return cls([Rule.from_dict(rule) for rule in data["rules"]])
        except FormatError:
            raise
        except (QrsError, TypeError) as error:
            raise FormatError(f"recipe: {error}") from error

    def to_json(self) -> str:
        """Return the recipe as indented JSON text; `from_json` reads it.

        Returns
        -------
        str

        Raises
        ------
        QrsValueError
            When the class of an observer has no id.

        Examples
        --------
        >>> import qrs
        >>> print(qrs.Recipe([qrs.Rule("head")]).to_json())
        {
          "version": 1,
          "rules": [
            {
              "pattern": "head",
              "weight": null,
              "input": null
            }
          ],
          "steps": []
        }
        """
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> Recipe:
        """Rebuild a recipe from ``to_json``.

        Parameters
        ----------
        text : str or bytes

        Returns
        -------
        Recipe

        Raises
        ------
        QrsTypeError
            When ``text`` is neither.
        FormatError
            When it is not JSON, a field is missing, unknown or not valid, or the version is newer.

        Examples
        --------
        >>> import qrs
        >>> text = '{"version": 1, "rules": [{"pattern": "*", "weight": null, "input": null}], "steps": []}'
        >>> qrs.Recipe.from_json(text)
        Recipe(rules=(Rule(pattern='*', weight=None, input=None),), steps=())
        """
        given: object = text
        if not isinstance(given, str | bytes):
            raise QrsTypeError(f"text is {quote(text)}, expected a str or bytes")
        return cls.from_dict(parse_json(text, "recipe"))


def _expect(data: object, fields: set[str], what: str) -> None:
    if not isinstance(data, Mapping) or set(data) != fields:
        got = quote(sorted(map(str, data))) if isinstance(data, Mapping) else type(data).__name__
        raise FormatError(f"{what}: fields {got}, expected {sorted(fields)}")


def _input_to_dict(input: Dynamic | Static | None) -> dict[str, Any] | None:
    data = input_to_dict(input)
    if data is not None and isinstance(input, Static):
        seen_by, described = input.observer, None
        if isinstance(seen_by, Observer):
            described = {"id": seen_by.written_id(), "settings": seen_by.settings()}
        data["observer"] = described
    return data


def _input_from_dict(data: object) -> Dynamic | Static | None:
    if not isinstance(data, Mapping) or "observer" not in data:
        return input_from_dict(data)
    input = input_from_dict({key: value for key, value in data.items() if key != "observer"})
    if not isinstance(input, Static):
        raise FormatError(f"input of kind {quote(data['kind'])} takes no observer")
    if data["observer"] is None:
        return input
    _expect(data["observer"], {"id", "settings"}, "observer")
    kind = Observer.by_id(data["observer"]["id"])
    try:
        return replace(input, observer=kind(**data["observer"]["settings"]))
    except TypeError as error:
        raise FormatError(f"settings of observer {kind.id!r}: {error}") from error


def _every(weight: Scheme, input: Dynamic | Static | None = None) -> Callable[[], Recipe]:
    return lambda: Recipe([Rule("*", weight, input)])


def _four_bits(size: int) -> Scheme:
    return Scheme("uint4", per_group(size), fit="mse", scale_dtype="float16")


_CHANNELS = Scheme("int8", per_channel(0))
# Asymmetric: what follows a GELU lies almost wholly above zero. On all-MiniLM-L6-v2 (200 sentences, int8
# weights) uint8 gave a mean cosine to float32 of 0.9983 and 0.992 at worst, symmetric int8 0.9958 and 0.984.
_TOKENS = Dynamic(Scheme("uint8", per_token))

_PRESETS: dict[str, Callable[[], Recipe]] = {
    "w8a8-dynamic": _every(_CHANNELS, _TOKENS),
    "w8a8-static": _every(_CHANNELS, Static(Scheme("uint8"), observer=MinMax())),
    # On all-MiniLM-L6-v2 (192 sentences seen, 256 others measured) 1 - cosine to float32 was 0.0082 in the
    # mean and 0.037 at worst, with MinMax 0.0093 and 0.036.
    "w8a8-static-mse": _every(_CHANNELS, Static(Scheme("uint8"), observer=MSE())),
    "w8a16": _every(_CHANNELS),
    "w4a16-g128": _every(_four_bits(128)),
    "w4a16-g32": _every(_four_bits(32)),
    "w4a8-g128": _every(_four_bits(128), _TOKENS),
    "w4a8-g32": _every(_four_bits(32), _TOKENS),
}
