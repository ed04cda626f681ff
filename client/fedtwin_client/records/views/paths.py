"""FHIRPath expressions of a view: parsed strictly, checked, and evaluated by fhirpathpy.

fhirpathpy's own reading of an expression stops at the first thing that it cannot read and forgets
the rest, and notices an unknown function only where a resource leads to it. Both are found here
before the first resource is read.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any, NoReturn

from antlr4 import CommonTokenStream, InputStream, Token
from antlr4.error.ErrorListener import ErrorListener
from antlr4.tree.Tree import ParseTreeWalker
from fhirpathpy.engine import do_eval
from fhirpathpy.engine.invocations import invocation_registry
from fhirpathpy.engine.nodes import FP_Quantity, FP_TimeBase, ResourceNode, TypeInfo
from fhirpathpy.models import models
from fhirpathpy.parser.ASTPathListener import ASTPathListener
from fhirpathpy.parser.generated.FHIRPathLexer import FHIRPathLexer
from fhirpathpy.parser.generated.FHIRPathParser import FHIRPathParser

from fedtwin_client.records.views.functions import EvaluationError, Table
from fedtwin_protocol.errors import RecordError

MODEL = models["r4"]
# The engine keeps its model in a global that some functions set and others only read.
TypeInfo.model = MODEL
OWN_VARIABLES = frozenset(
    {"context", "resource", "rootResource", "ucum", "rowIndex", "sct", "loinc"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Path:
    """A parsed expression.

    Attributes:
        text: as it was written.
        where: its key in the view, such as `select[0].column[1].path`.
        tree: as fhirpathpy's engine evaluates it.
    """

    text: str
    where: str
    tree: dict[str, Any]

    def nodes(self, focus: list[Any], variables: dict[str, Any], table: Table) -> list[Any]:
        """What the expression leads to.

        Args:
            focus: where it starts: one node, or none.
            variables: what `%name` stands for.
            table: functions beside fhirpathpy's own.

        Raises:
            EvaluationError: it cannot be evaluated there.
        """
        context = {
            "dataRoot": focus,
            "$this": focus,
            "vars": variables,
            "model": MODEL,
            "userInvocationTable": table,
        }
        try:
            found = do_eval(context, focus, self.tree)
        except EvaluationError:
            raise
        except RecursionError as error:
            raise EvaluationError("it is nested too deeply") from error
        except Exception as error:
            # The engine raises bare Exceptions, and Python's own where a resource is odd; their
            # texts may hold values of the patient.
            raise EvaluationError(_plain(error)) from error
        return [item for item in found if not _only_extensions(item)]


def parse_path(text: str, where: str, variables: Collection[str], table: Table, view: str) -> Path:
    """Parse an expression, and check its functions and constants.

    Args:
        text: the expression.
        where: its key in the view.
        variables: names of the view's constants.
        table: functions beside fhirpathpy's own.
        view: what errors call the view.

    Raises:
        RecordError: it is no FHIRPath, or names a function or a constant that is not there.
    """
    try:
        tree = _tree(text)
    except _SyntaxError as error:
        raise RecordError(
            f"{where} in the view {view} is not FHIRPath: at character {error.at + 1} of "
            f"'{text}', {error}"
        ) from error
    except RecursionError as error:
        raise RecordError(f"{where} in the view {view} is nested too deeply") from error
    for kind, name in _names(tree):
        if kind == "function" and name not in invocation_registry and name not in table:
            raise RecordError(
                f"{where} in the view {view} calls the function '{name}()', which is not known"
            )
        if kind == "variable" and name not in OWN_VARIABLES and name not in variables:
            raise RecordError(
                f"{where} in the view {view} uses %{name}, and 'constant' has no '{name}'"
            )
    return Path(text=text, where=where, tree=tree)


def plain_value(item: Any) -> Any:
    """What a node stands for, as JSON would carry it; numbers are int or float."""
    value = item.data if isinstance(item, ResourceNode) else item
    if isinstance(value, FP_TimeBase):
        return str(value.asStr)
    if isinstance(value, FP_Quantity):
        return str(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and _whole(value) else float(value)
    return value


def _whole(value: Decimal) -> bool:
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= 0


class _SyntaxError(ValueError):
    def __init__(self, text: str, at: int) -> None:
        super().__init__(text)
        self.at = at


class _Listener(ErrorListener):  # type: ignore[misc]
    def syntaxError(  # noqa: N802 - antlr's own name and arguments
        self, recognizer: Any, symbol: Any, line: int, column: int, message: str, error: Any
    ) -> NoReturn:
        raise _SyntaxError(message.replace("\n", " "), column)


@cache
def _tree(text: str) -> dict[str, Any]:
    lexer = FHIRPathLexer(InputStream(text))
    lexer.removeErrorListeners()
    lexer.addErrorListener(_Listener())
    parser = FHIRPathParser(CommonTokenStream(lexer))
    parser.removeErrorListeners()
    parser.addErrorListener(_Listener())
    read = parser.expression()
    left = parser.getCurrentToken()
    if left.type != Token.EOF:
        raise _SyntaxError(f"did not expect '{left.text}'", left.column)
    listener = ASTPathListener()
    ParseTreeWalker().walk(listener, read)
    tree: dict[str, Any] = listener.parentStack[0]["children"][0]
    return tree


def _names(tree: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The functions that an expression calls and the variables that it uses."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        children = node.get("children", [])
        waiting += children
        if node["type"] == "Functn":
            yield "function", str(children[0]["text"]).strip("`")
        elif node["type"] == "ExternalConstantTerm":
            name = children[0]["children"][0]["text"]
            yield "variable", str(name).strip("`'")


def _only_extensions(item: Any) -> bool:
    """Whether a node is the `_name` beside a primitive, which holds its extensions and no value."""
    if not isinstance(item, ResourceNode) or not isinstance(item.data, dict):
        return False
    return item.path != "Extension" and set(item.data) <= {"extension", "id"} and bool(item.data)


def _plain(error: Exception) -> str:
    text = str(error).partition("\n")[0]
    known = ("Expected", "Not implemented", "Unary", "Unexpected collection")
    for start in known:
        if text.startswith(start):
            return text.partition("[")[0].partition(", got")[0].rstrip(" :")
    if "wrong arity" in text or "expects no params" in text:
        return text.partition(":")[0]
    return "its parts do not fit the values that they meet"
