"""Find the first-party files that a module runs: its import closure.

DVC does not follow Python imports (treeverse/dvc#9195), so ``dvc.yaml`` lists these files as dependencies of
each stage.
"""

import ast
from functools import cache
from pathlib import Path

FIRST_PARTY = ("stages", "pipeline")


def import_closure(module: str, root: Path) -> tuple[Path, ...]:
    """Return the files, relative to ``root``, that importing first-party ``module`` can run, sorted.

    Imports inside functions count. A package's ``__init__.py`` counts for every module in it, unless it is
    empty of code. Templates (``*.j2``) count for every module of their folder.
    """
    seen: dict[str, Path] = {}
    waiting = [module, *_first_party(module, root)]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        path = _file_of(name, root)
        if path is None:
            raise ValueError(f"{name} is not a module under {root}")
        seen[name] = path
        waiting += [found for found in _imports(root / path, name, root) if found not in seen]
    code = {path for path in seen.values() if _has_code(root / path)}
    templates = {found.relative_to(root) for path in code for found in (root / path).parent.glob("*.j2")}
    return tuple(sorted(code | templates))


def _file_of(module: str, root: Path) -> Path | None:
    base = Path(*module.split("."))
    for candidate in (base / "__init__.py", base.with_suffix(".py")):
        if (root / candidate).is_file():
            return candidate
    return None


@cache
def _parse(path: Path, stamp: int) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def _tree(path: Path) -> ast.Module:
    return _parse(path, path.stat().st_mtime_ns)


def _imports(path: Path, module: str, root: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                top = module.partition(".")[0]
                raise ValueError(f"{path}: relative imports are not followed; import from '{top}'")
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module or ""]
        else:
            continue
        for name in names:
            found |= _first_party(name, root)
    return found


def _first_party(name: str, root: Path) -> set[str]:
    parts = name.split(".")
    if parts[0] not in FIRST_PARTY:
        return set()
    prefixes = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return {prefix for prefix in prefixes if _file_of(prefix, root) is not None}


def _has_code(path: Path) -> bool:
    body = _tree(path).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)
