"""What no line of the product may do, read from its syntax tree: nothing is run for it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worlds import ROOT

SOURCES = sorted(
    path
    for folder in ("gift_core", "tasks", "flows", "deployments")
    for path in (ROOT / folder).rglob("*.py")
)
PICKLES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "_pickle"}
ARCHIVES = {"zipfile", "tarfile", "gzip", "bz2", "lzma"}
ALLOWED = {
    ROOT / "tasks" / "data" / "web_dataset.py": ["imports tarfile"],
    ROOT / "tasks" / "models" / "weights.py": ["imports zipfile"],
}
"""One looks at members and reads their bytes at an offset, the other looks at names alone; nothing
may be unpacked anywhere."""


def problems(tree: ast.Module) -> Iterator[str]:
    """What is forbidden in a module, with its line."""
    for node in ast.walk(tree):
        for problem in (*_imports(node), *_calls(node), *_decorators(node)):
            yield f"line {getattr(node, 'lineno', 0)}: {problem}"


def _imports(node: ast.AST) -> Iterator[str]:
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    for name in names:
        if set(name.split(".")) & (PICKLES | ARCHIVES):
            yield f"imports {name}"


def _calls(node: ast.AST) -> Iterator[str]:
    if not isinstance(node, ast.Call):
        return
    name = ast.unparse(node.func)
    given = {key.arg: ast.unparse(key.value) for key in node.keywords if key.arg}
    needed = {
        "np.load": ("allow_pickle", "False"),
        "numpy.load": ("allow_pickle", "False"),
        "torch.load": ("weights_only", "True"),
    }
    if name in needed and given.get(needed[name][0]) != needed[name][1]:
        yield f"{name} without {'='.join(needed[name])}"
    if name in {
        "eval",
        "exec",
        "compile",
        "__import__",
        "torch.save",
        "torch.jit.load",
        "os.system",
    }:
        yield f"calls {name}"
    if name in {"yaml.load", "yaml.load_all"} and "_BoundedLoader" not in ast.unparse(node):
        yield f"{name} without a bounded SafeLoader"
    if name in {"yaml.unsafe_load", "yaml.full_load", "yaml.dump"}:
        yield f"calls {name}"
    if given.get("shell", "False") != "False":
        yield "a shell"
    if given.get("trust_remote_code", "False") != "False":
        yield "runs code of a model's repository"
    is_pipeline = name.endswith(".from_pretrained") and "AutoPipeline" in name
    if is_pipeline and given.get("use_safetensors") != "True":
        yield "a pipeline without use_safetensors=True"
    is_method = isinstance(node.func, ast.Attribute)
    if is_method and node.func.attr in {"extract", "extractall", "extractfile", "unpack_archive"}:
        yield f"{name}: unpacks an archive"
    if is_method and node.func.attr == "format" and not isinstance(node.func.value, ast.Constant):
        yield f"{name}: a text that is not written here as a format"


def _decorators(node: ast.AST) -> Iterator[str]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for decorator in node.decorator_list:
        text = ast.unparse(decorator)
        if text.split("(")[0] in {"flow", "task", "prefect.flow", "prefect.task"}:
            if "persist_result=False" not in text:
                yield f"{node.name} may persist its result"
            if text.split("(")[0].endswith("task") and "cache_policy=NO_CACHE" not in text:
                yield f"{node.name} may be cached by Prefect"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source(path: Path) -> None:
    allowed = ALLOWED.get(path, [])
    found = list(problems(ast.parse(path.read_text())))
    assert [problem.split(": ", 1)[1] for problem in found] == allowed, found


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "archive.extractall(folder)",
        "from joblib import load",
        "import zipfile",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, yaml.Loader)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "template.format(name)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoPipelineForText2Image.from_pretrained(name)",
        "@flow(name='x')\ndef f(): pass",
        "@prefect.task(persist_result=False)\ndef f(): pass",
    ],
)
def test_what_is_forbidden_is_found(line: str) -> None:
    assert list(problems(ast.parse(line)))
