"""The house keeps its walls: who imports whom, the README's tree, sizes, and the strings of the pages."""

import ast
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("reviews", "huatuo", "training")
SOURCES = sorted([ROOT / "app.py", *(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))])
HEAVY = {"torch", "transformers", "trl", "deepspeed", "peft", "accelerate", "bitsandbytes"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, *, top_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names} & {*ROOMS, "app", "tests"}


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_a_room_imports_only_the_rooms_below_it(path: Path) -> None:
    room = module_of(path).split(".")[0]
    allowed = {
        "reviews": {"reviews"},
        "huatuo": {"huatuo", "reviews"},
        "training": {"training", "huatuo", "reviews"},
        "app": {"huatuo", "reviews"},
    }[room]
    assert rooms(imports_of(path)) <= allowed


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_gradio_and_the_heavy_libraries_stay_in_their_rooms(path: Path) -> None:
    module = module_of(path)
    names = {name.split(".")[0] for name in imports_of(path)}
    if "gradio" in names:
        assert module.startswith("huatuo.ui") or module in ("huatuo.web", "app")
    heavy = {name.split(".")[0] for name in imports_of(path, top_only=True)} & HEAVY
    if heavy:
        engines = ("huatuo.engines.local", "huatuo.engines.decoding")
        assert module.startswith(("huatuo.models", "training")) or module in engines


def test_the_school_never_touches_the_web() -> None:
    for path in (ROOT / "training").rglob("*.py"):
        for name in imports_of(path):
            assert not re.match(r"huatuo\.(ui|web|accounts|arena|chat|guard)\b", name), (path, name)


def test_no_module_imports_itself_in_a_circle() -> None:
    modules = {module_of(path): path for path in SOURCES}
    graph = {
        name: {found for found in imports_of(path, top_only=True) if found in modules} - {name}
        for name, path in modules.items()
    }

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        for found in graph[name]:
            walk(found, (*trail, name))

    for name in graph:
        walk(name, ())


@pytest.mark.parametrize("room", ["reviews", "huatuo"])
def test_importing_a_room_is_light(room: str) -> None:
    code = f"import {room}, sys; print(sorted({sorted(HEAVY | {'gradio'})!r} & sys.modules.keys()))"
    code = code.replace("sorted([", "sorted(set([").replace("] &", "]) &")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_a_file_holds_one_idea_and_says_it_first(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    limit = 800 if path.name == "text.py" else 400  # the strings are a table, not a program
    assert len(text.splitlines()) <= limit
    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


def test_the_readme_tree_is_the_tree() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in SOURCES:
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if path.name == "__init__.py":
            continue
        line = doc.splitlines()[0]
        name = path.relative_to(ROOT).as_posix()
        shown = re.search(rf"^{re.escape(name)}\s{{2,}}(.+)$", readme, re.M)
        assert shown, f"README.md: the tree lacks {name}"
        assert shown[1].strip() == line, (
            f"README.md says of {name}: {shown[1]!r}, the file: {line!r}"
        )
    for name in re.findall(r"^((?:huatuo|reviews|training)/\S+\.py)\s{2,}", readme, re.M):
        assert (ROOT / name).exists(), f"README.md names {name}, which is not there"


def test_every_string_is_there_in_both_languages_with_the_same_blanks() -> None:
    from huatuo.ui.text import EXAMPLES, TEXT

    def blanks(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    for key, words in TEXT.items():
        assert set(words) == {"zh", "en"} and all(words.values()), key
        assert blanks(words["zh"]) == blanks(words["en"]), key
    assert len(EXAMPLES["zh"]) == len(EXAMPLES["en"]) == 6


def test_every_string_that_the_pages_name_exists() -> None:
    from huatuo.ui.text import TEXT

    for path in (ROOT / "huatuo").rglob("*.py"):
        for key in re.findall(r'\bsay\(\s*"([^"]+)"\s*,', path.read_text(encoding="utf-8")):
            assert key in TEXT, f"{path.name}: say({key!r}) names no string"


def test_chinese_stands_in_the_data_and_in_the_strings_only() -> None:
    allowed = {"huatuo/prompts.py", "huatuo/privacy.py", "huatuo/safety.py", "huatuo/names.py"}
    allowed |= {"huatuo/render.py", "huatuo/templates.py"}
    allowed |= {
        f"huatuo/{name}.py"
        for name in ("codes", "dates", "foreign_names", "institutions", "numbers", "plain_copy")
    }
    for path in (ROOT / "huatuo").rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        if name in allowed or name.startswith("huatuo/ui/text/"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in docs
            ):
                han = re.findall("[\u4e00-\u9fff]{6,}", node.value)
                assert not han, f"{name}:{node.lineno}: {han}"
