"""Products written as Einsum: what its equation says about queries and keys, or about probabilities and values."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

_ELLIPSIS = "."  # stands for one letter: the axes that all terms share


@dataclass(frozen=True)
class Equation:
    """An Einsum of two inputs.

    Parameters
    ----------
    first, second, output : str
        A letter for each axis.
    """

    first: str
    second: str
    output: str

    @property
    def contracted(self) -> set[str]:
        """Axes that are summed over."""
        return (set(self.first) | set(self.second)) - set(self.output)


def equation_of(node: gs.Node) -> Equation | None:
    """The equation of an Einsum node of two inputs, each axis named once in a term; None for anything else.

    Examples
    --------
    >>> inputs = [gs.Variable("q"), gs.Variable("k")]
    >>> equation_of(gs.Node("Einsum", attrs={"equation": "bhid, bhjd -> bhij"}, inputs=inputs))
    Equation(first='bhid', second='bhjd', output='bhij')
    """
    if node.op != "Einsum" or len(node.inputs) != 2:
        return None
    terms, arrow, output = (
        str(node.attrs.get("equation", "")).replace(" ", "").replace("...", _ELLIPSIS).partition("->")
    )
    parts = terms.split(",")
    if not arrow or len(parts) != 2 or any(len(set(term)) != len(term) for term in (*parts, output)):
        return None
    return Equation(parts[0], parts[1], output)


def is_query_key(equation: Equation) -> bool:
    """Whether rows along the last axis of the output are products of one query with every key.

    The last axis belongs to the keys, the one before to the queries, and one axis that both have is summed over.
    """
    if len(equation.output) < 2 or len(equation.contracted) != 1:
        return False
    key, query = equation.output[-1], equation.output[-2]
    first, second = (set(equation.first), set(equation.second))
    return equation.contracted <= first & second and key in first ^ second and query in first ^ second


def sums_values(equation: Equation, position: int, axis: int = -1) -> bool:
    """Whether the input at `position` weighs what the other one holds, summed over its own `axis`."""
    weights, values = (equation.first, equation.second)[:: 1 if position == 0 else -1]
    return len(weights) >= -axis and {weights[axis]} == equation.contracted and weights[axis] in values
