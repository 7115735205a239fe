"""What Hypothesis runs when it is imported, so that `st.from_type` knows LNSTensor and LNSFormat.

This file stands outside the package because importing the package takes longer than importing Hypothesis. It leaves a
function in Hypothesis's table of resolvers, which is called once lnsnum is imported, for each type that is looked up;
`lnsnum.strategies` is imported when it is one of ours. `st.register_type_strategy` overrides it.
"""

from typing import Any


def resolve(thing: Any) -> Any:
    """The strategy for a type of ours, None for any other."""
    from lnsnum import LNSFormat, LNSTensor

    if thing is LNSTensor:
        from lnsnum import strategies

        return strategies.tensors()
    if thing is LNSFormat:
        from lnsnum import strategies

        return strategies.formats(bases=strategies.bases())
    return None


def register() -> None:
    """Make our types known to Hypothesis."""
    from hypothesis.strategies._internal import types

    resolvers = getattr(types, "_global_extra_lookup", None)
    if isinstance(resolvers, dict):
        resolvers["lnsnum"] = resolve
        return
    # A Hypothesis without that table: by its public function, which needs the types themselves.
    from hypothesis.strategies import register_type_strategy

    from lnsnum import LNSFormat, LNSTensor

    for ours in (LNSFormat, LNSTensor):
        register_type_strategy(ours, resolve)
