"""One Python file out of the definitions that some functions of ours need, as they stand in their modules.

Whoever receives an exported model has no module of this project. What loads it is not written a second time:
its definitions are cut from the modules that trained it, module after module in the order in which they
import each other, with the imports that are not ours in front.
"""

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

FIRST_PARTY = "stages"
_Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass(frozen=True)
class _Module:
    """The top level of one module: what it defines, and where it has other names from."""

    name: str
    text: str
    body: list[ast.stmt]
    defined: dict[str, ast.stmt] = field(default_factory=dict)
    imported: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """By local name: a module, and the name in it; None: the module itself."""
    before: list[str] = field(default_factory=list)
    """First-party modules that it runs before itself."""

    @classmethod
    def read(cls, name: str, root: Path) -> "_Module":
        text = root.joinpath(*name.split(".")).with_suffix(".py").read_text()
        found = cls(name, text, ast.parse(text).body)
        for statement in found.body:
            found._take(statement, is_run=True)
        return found

    def _take(self, statement: ast.stmt, *, is_run: bool) -> None:
        if isinstance(statement, _Definition):
            self.defined.update(dict.fromkeys(_bound(statement), statement))
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                self.imported[alias.asname or alias.name] = (alias.name, None)
        elif isinstance(statement, ast.ImportFrom):
            source = statement.module or ""
            for alias in statement.names:
                self.imported[alias.asname or alias.name] = (source, alias.name)
            if is_run and _is_ours(source):
                self.before.append(source)
        elif isinstance(statement, ast.If):  # TYPE_CHECKING: only for annotations
            for inner in statement.body:
                self._take(inner, is_run=False)


@dataclass
class _Bundle:
    root: Path
    given: Collection[str]
    modules: dict[str, _Module] = field(default_factory=dict)
    wanted: dict[str, set[str]] = field(default_factory=dict)
    """By module, the names of it that are needed."""
    imports: set[tuple[str, str | None, str]] = field(default_factory=set)
    """What is not ours: module, name in it, local name."""

    def module(self, name: str) -> _Module:
        if name not in self.modules:
            self.modules[name] = _Module.read(name, self.root)
        return self.modules[name]

    def want(self, name: str, wanted: str) -> None:
        """Take in a definition and all that it uses."""
        taken = self.wanted.setdefault(name, set())
        if wanted in taken:
            return
        module = self.module(name)
        statement = module.defined[wanted]
        taken |= set(_bound(statement))
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and node.id not in self.given:
                self._follow(module, node.id)

    def _follow(self, module: _Module, used: str) -> None:
        source, name = module.imported.get(used, ("", None))
        if used in module.defined:
            self.want(module.name, used)
        elif _is_ours(source):
            assert name is not None, f"{module.name} uses the module {source} as a whole"
            self.want(source, name)
        elif source:
            self.imports.add((source, name, used))

    def in_order(self) -> Iterator[_Module]:
        """Yield the modules of which something is wanted, each after those that it imports."""
        done: set[str] = set()

        def walk(name: str) -> Iterator[_Module]:
            if name not in done and name in self.wanted:
                done.add(name)
                for source in self.module(name).before:
                    yield from walk(source)
                yield self.module(name)

        for name in sorted(self.wanted):
            yield from walk(name)


def bundled(module: str, function: str, root: Path, given: Collection[str]) -> tuple[str, str]:
    """Return the import lines and the definitions of one first-party function and of all that it needs.

    Names in ``given`` are not looked for: whoever puts the file together defines them, and begins it with
    ``from __future__ import annotations``, for modules may name each other in theirs.

    Guarantee: every definition is, byte for byte, that of its module. Two of the same name, and a first-party
    module that is used as a whole, are an AssertionError.
    """
    bundle = _Bundle(root, given)
    bundle.want(module, function)
    names = [name for wanted in bundle.wanted.values() for name in wanted]
    assert len(names) == len(set(names)), (
        f"two modules define {sorted({n for n in names if names.count(n) > 1})}"
    )
    parts = [_cut(found, bundle.wanted[found.name]) for found in bundle.in_order()]
    return _import_lines(bundle.imports), "\n\n\n".join(parts)


def _cut(module: _Module, wanted: Collection[str]) -> str:
    """Return the wanted definitions of a module in their order, a line of text that explains one with it."""
    lines, parts = module.text.splitlines(), []
    for statement, following in zip(module.body, [*module.body[1:], None], strict=True):
        if isinstance(statement, _Definition) and set(_bound(statement)) & set(wanted):
            decorators = getattr(statement, "decorator_list", [])
            start = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
            last = following if _is_text(following) else statement
            assert last is not None and last.end_lineno is not None
            parts.append("\n".join(lines[start - 1 : last.end_lineno]))
    path = module.name.replace(".", "/") + ".py"
    return "\n\n\n".join([f"# --- from {path} of dualpriv\n\n{parts[0]}", *parts[1:]])


def _import_lines(imports: Collection[tuple[str, str | None, str]]) -> str:
    lines = set()
    for source, name, used in imports:
        what = f"import {source}" if name is None else f"from {source} import {name}"
        lines.add(what if used in (source, name) else f"{what} as {used}")
    return "\n".join(sorted(lines))


def _bound(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def _is_text(statement: ast.stmt | None) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == FIRST_PARTY
