"""Mutants of the readers, in this process: the same modules with one string literal altered."""

import ast
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Any, Final

PACKAGE: Final = "service.normalize"


@dataclass(frozen=True)
class Literal:
    """A string literal of a module; `number` counts the module's string literals."""

    module: str
    number: int
    line: int
    value: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.value!r}"


def _strings(tree: ast.Module) -> list[ast.Constant]:
    """The string literals of the code: no docstrings, no annotations, no parts of messages."""
    passed_over: set[int] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant()) | ast.JoinedStr():
                passed_over |= {id(below) for below in ast.walk(node)}
            case ast.arg(annotation=ast.expr() as annotation) | ast.AnnAssign(annotation=annotation):
                passed_over |= {id(below) for below in ast.walk(annotation)}
            case _:
                pass
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed_over
    ]


def literals(path: Path, module: str) -> list[Literal]:
    """The literals of a module that are names of fields: lower-case words."""
    found = _strings(ast.parse(path.read_text()))
    return [
        Literal(module, number, node.lineno, node.value)
        for number, node in enumerate(found)
        if isinstance(node.value, str) and node.value.replace("_", "").isalnum() and node.value.islower()
    ]


def altered(path: Path, literal: Literal) -> CodeType:
    """The module's code with the literal altered."""
    tree = ast.parse(path.read_text())
    _strings(tree)[literal.number].value = f"{literal.value}_altered"
    return compile(tree, str(path), "exec")


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 -- the loader's own signature
        return self._code


class _Finder(MetaPathFinder):
    """Finds the package's modules afresh, the code of each given."""

    def __init__(self, codes: Mapping[str, tuple[Path, CodeType]]) -> None:
        self._codes = codes

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name not in self._codes:
            return None
        file, code = self._codes[name]
        return spec_from_file_location(
            name,
            file,
            loader=_Loader(name, str(file), code),
            submodule_search_locations=[str(file.parent)] if file.name == "__init__.py" else None,
        )


class Readers:
    """The package's modules, compiled once; `mutant` runs them with one literal altered."""

    def __init__(self) -> None:
        package = importlib.import_module(PACKAGE)
        names = [PACKAGE, *(name for name in sys.modules if name.startswith(f"{PACKAGE}."))]
        files = {name: Path(str(sys.modules[name].__file__)) for name in names}
        self._folder = Path(str(package.__file__)).parent
        self._codes = {name: (file, compile(file.read_text(), str(file), "exec")) for name, file in files.items()}

    def literals(self, but: frozenset[str]) -> list[Literal]:
        """The field names of all the modules `but` some, which are named without the package."""
        return [
            literal
            for name, (file, _) in sorted(self._codes.items())
            if name.removeprefix(f"{PACKAGE}.") not in but
            for literal in literals(file, name)
        ]

    @contextmanager
    def mutant(self, literal: Literal) -> Iterator[Callable[..., Any]]:
        """`normalize`, as it is with the literal altered. Afterwards every module is the one it was."""
        file, _ = self._codes[literal.module]
        finder = _Finder({**self._codes, literal.module: (file, altered(file, literal))})
        service = sys.modules["service"]
        kept = {name: sys.modules.pop(name) for name in self._codes if name in sys.modules}
        sys.meta_path.insert(0, finder)
        try:
            yield importlib.import_module(PACKAGE).normalize
        finally:
            sys.meta_path.remove(finder)
            for name in self._codes:
                sys.modules.pop(name, None)
            sys.modules.update(kept)
            setattr(service, PACKAGE.rpartition(".")[2], kept[PACKAGE])
