"""`lnsnum.laws`: tests for pytest, one for each law, of an implementation of your own.

    @lnsnum.laws("lns8f3", operations=["add"])
    def test_adder():                           test_adder[add-range], test_adder[add-determinism], ...
        return my_adder

The suite runs once, for the first of the tests, and the others look into its report. No plugin is registered: what
comes back is a function with pytest's own marks.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any

from lnsnum.format import LNSFormat
from lnsnum.testing.arguments import check_names, choose
from lnsnum.testing.calling import ImplementationError
from lnsnum.testing.kinds import check_laws, find_kind
from lnsnum.testing.report import LawReport, LawViolation


def laws(fmt: LNSFormat | str | None = None, *, kind: str = "arithmetic", **options: Any) -> Callable[[Any], Any]:
    """Make a test for pytest of each law of a kind; a law that is broken fails with its smallest example.

    Over a function `test_...` that returns the implementation and may ask for fixtures; over a class `Test...` that is
    the implementation, which gets tests `test_laws`; or called with the implementation itself: `test_adder =
    lnsnum.laws("lns8f3")(adder)`, where a plain function must be returned by a `lambda`.

    Where `operations` says which are tried, each law is a test for each of them; else one for all that there are. A law
    that does not hold by the options, or speaks of no input of an operation, is skipped with the reason.

    Args:
        fmt: the format, or its name; kinds that need none take None.
        kind: what is tried, as for `check_laws`.
        options: those of that kind, such as `rounding`, `max_ulp`, `laws`.

    Raises:
        ImportError: where there is no pytest.
        TypeError, ValueError: when the module of the tests is imported, for a kind, a law or an option that is not
            known, for no law and no operation at all, and for functions and classes whose name pytest does not look
            for. What else `check_laws` refuses fails in each test.

    >>> import numpy as np
    >>> @laws("lns4f1", operations=["multiply"], laws=["zero", "nan"])
    ... def test_negating():
    ...     return lambda a, b: np.where(a & 7, a ^ 8, a).astype(np.uint8)
    >>> [case.id for case in test_negating.pytestmark[0].args[1]]
    ['multiply-zero', 'multiply-nan']
    """
    try:
        import pytest
    except ImportError as missing:
        raise ImportError("lnsnum.laws makes tests for pytest, which is not there: pip install pytest") from missing
    chosen = find_kind(kind, fmt, options)
    names, operations = options.get("laws"), options.get("operations")
    tried = choose("laws", names, chosen.laws)
    if operations is not None:
        check_names("operations", operations)
        if not operations:
            raise ValueError("operations is empty: name at least one, or leave it out")
    cases = [
        pytest.param(operation, law, id=law if operation is None else f"{operation}-{law}")
        for operation in ((None,) if operations is None else tuple(operations))
        for law in tried
    ]
    mark = pytest.mark.parametrize(("operation", "law"), cases)

    def decorate(thing: Any) -> Any:
        reports = _Reports(fmt, kind, options)
        if inspect.isclass(thing):
            if not thing.__name__.startswith("Test"):
                raise TypeError(f"class {thing.__name__} is not found by pytest: call it Test...")
            if thing.__init__ is not object.__init__:
                raise TypeError(
                    f"class {thing.__name__} has an __init__, which pytest does not call: write a function test_... "
                    "that returns an instance"
                )
            setattr(thing, "test_laws", mark(_test(lambda self: self, reports)))  # noqa: B010  (mypy knows no such name)
            return thing
        if inspect.isfunction(thing):
            if not thing.__name__.startswith(("test", "<lambda>")):
                raise TypeError(f"function {thing.__name__} is not found by pytest: call it test_...")
            return mark(_test(thing, reports))
        return mark(_test(lambda: thing, reports))

    return decorate


class _Reports:
    """What came of the suite, once for each operation and implementation."""

    def __init__(self, fmt: LNSFormat | str | None, kind: str, options: dict[str, Any]) -> None:
        self.fmt, self.kind, self.options = fmt, kind, options
        self.kept: dict[Hashable, LawReport | ImplementationError] = {}

    def report(self, operation: str | None, key: Hashable, make: Callable[[], object]) -> LawReport:
        """The report on one operation, or on all; `key` tells implementations apart."""
        if (operation, key) not in self.kept:
            asked = self.options | ({} if operation is None else {"operations": [operation]})
            try:
                came: LawReport | ImplementationError = check_laws(make(), self.fmt, kind=self.kind, **asked)
            except LawViolation as violation:
                came = violation.report
            except ImplementationError as error:  # kept too: it may have taken long to hang
                came = error
            self.kept[operation, key] = came
        kept = self.kept[operation, key]
        if isinstance(kept, ImplementationError):
            raise kept
        return kept


_OWN = ("operation", "law")
"""The parameters of a test that are not the implementation's."""


def _test(make: Callable[..., object], reports: _Reports) -> Any:
    """The test of one law, whose arguments beside ours are those of the function that makes the implementation."""
    import pytest

    signature = inspect.signature(make)
    for name in _OWN:
        if name in signature.parameters:
            raise TypeError(f"{make.__name__} has a parameter {name!r}, which the tests of laws have too: rename it")

    @functools.wraps(make)
    def test(*instance: Any, operation: str | None, law: str, **fixtures: Any) -> None:
        __tracebackhide__ = True
        request = fixtures["request"]
        given = fixtures if "request" in signature.parameters else {k: v for k, v in fixtures.items() if k != "request"}
        # other parameters than ours, of marks or of fixtures, are other implementations; pytest keeps them, so they are
        # told apart as objects: they need not be hashable
        parameters = request.node.callspec.params.items()
        key = tuple(sorted((name, id(value)) for name, value in parameters if name not in _OWN))
        report = reports.report(operation, key, lambda: make(*instance, **given))
        results = [result for result in report.results if result.law == law]
        who = ", ".join(report.operations)
        if broken := [result.violation.line for result in results if result.violation is not None]:
            pytest.fail("\n".join(broken), pytrace=False)
        if not results:
            pytest.skip(f"{law} does not hold by these options, or is no law of {who}")
        if not any(result.inputs for result in results):
            pytest.skip(f"{law} speaks of no input of {who}")

    if test.__name__ == "<lambda>":
        test.__name__ = "test_laws"  # to pytest's marks a lambda is no test, but an argument
    ours = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in (*_OWN, "request")]
    theirs = [each for name, each in signature.parameters.items() if name != "request"]
    test.__signature__ = inspect.Signature([*theirs, *ours])  # type: ignore[attr-defined]
    return test
