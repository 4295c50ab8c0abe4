"""Every page in docs: its Python runs, what it names is there, its reading path is short."""

import ast
import re
from pathlib import Path

import pytest
from fixtures.paths import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
PROSE = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]
SOURCE = "".join(file.read_text() for file in (ROOT / "wwopt").rglob("*.py"))
# Frameworks take five seconds each to import; Lightning 2.6 with torch 2.13 warns of itself, and
# of the pages' small data.
SLOW = {"fine-tuning", "lightning", "observe", "transformers"}
BLOCKS = [
    pytest.param(
        block,
        id=f"{page.stem}-{number}",
        marks=[pytest.mark.slow] if page.stem in SLOW else [],
    )
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*:FutureWarning",
    "ignore:The .* does not have many workers",
    "ignore:The number of training batches",
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",  # transformers 5.24, of peft
)
def test_the_python_of_a_page_runs(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs", "exec"), {"__name__": "page"})


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_links_to_files_and_their_sections_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(((?!https?:)[^)]+)\)", page.read_text()):
        file, _, section = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), f"{page.name}: {link}"
        if section:
            heads = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
            assert section in {slug(head) for head in heads}, f"{page.name}: {link}"


@pytest.mark.parametrize("page", [*PROSE, ROOT / "README.md"], ids=lambda page: page.name)
def test_dotted_names_and_paths_of_files_are_there(page: Path) -> None:
    """In CHANGELOG the table of moved names has old ones on its left."""
    text = re.sub(r"^\| `\w+` \|", "", page.read_text(), flags=re.MULTILINE)
    for path in re.findall(r"`((?:wwopt|studies|benchmarks|tests|docs)/[\w/.-]+\.\w+)`", text):
        if page.name != "CHANGELOG.md":
            assert (ROOT / path).exists(), f"{page.name}: {path}"
    for name in re.findall(r"\bwwopt\.([a-z_]+(?:\.\w+)*)", text):
        key = f'"wwopt.{name}"' in SOURCE  # of a tag in MLflow or an attribute in Optuna
        assert key or find_name(name.split(".")), f"{page.name}: wwopt.{name}"


def test_the_reading_path_is_as_short_as_it_says() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    _, _, path = page.partition("## A reading path")
    rows = re.findall(r"^\| `([\w/.]+)`(?:: ([^|]*))? \|", path.partition("\n## ")[0], re.MULTILINE)
    assert len(rows) >= 8
    lengths = {f: count_lines(ROOT / f, re.findall(r"`(\w+)`", names)) for f, names in rows}
    assert 400 < sum(lengths.values()) <= 600, lengths


def slug(head: str) -> str:
    """A heading's name in a link, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-")


def find_name(parts: list[str]) -> bool:
    """Whether `wwopt.PARTS` is a folder, a module, a public name, or defined in its module."""
    place = ROOT / "wwopt"
    for index, part in enumerate(parts):
        if (place / part).is_dir():
            place = place / part
            continue
        rest = parts[index:]
        module = place / f"{part}.py"
        if module.exists():
            return len(rest) == 1 or rest[1] in module.read_text()
        return bool(re.search(rf" as {part}$", (place / "__init__.pyi").read_text(), re.MULTILINE))
    return True


def count_lines(path: Path, names: list[str]) -> int:
    """Lines of a file, or of the classes and functions named in it."""
    text = path.read_text()
    if not names:
        return len(text.splitlines())
    found = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    return sum(found[name] for name in names)
