"""What a run tells while it works: stages, work begun and done, and every step of storing.

Each line that is told is a moment at which the run can be killed. The product is wrapped in the
process that is to be killed, after the fork, so that nobody else's copy of it is touched.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from flows.dispatch import Stages
from tasks import (
    estimate_fisher,
    evaluate,
    finetune,
    learning_run,
    pretrained,
    report,
    scoring,
    synthesize,
)
from tasks.learning import Event
from tasks.manifests import Manifest
from tasks.store import local_files, outputs
from tasks.store.objects import FolderStore, ObjectStore
from tasks.store.outputs import Produced
from tasks.store.s3 import S3Store
from tests.soak.forks import Teller

STAGES = (
    "pretrained", "synthesize", "finetune", "estimate_fisher", "evaluate", "promote", "report",
)  # fmt: skip
OPERATIONS = ("check", "put_if_absent", "replace_bytes", "compare_and_swap", "upload", "delete")
WRITING = ("write_flushed", "flush_folder")
"""Within an operation on a folder: after the one, the file is there under its temporary name."""


def tell_all(tell: Teller) -> None:
    """Wrap stages, work, steps and the operations of both kinds of store."""
    for stage in STAGES:
        setattr(Stages, stage, _entered(tell, stage, getattr(Stages, stage)))
    stages = (pretrained, synthesize, finetune, estimate_fisher, scoring, evaluate, report)
    for module in stages:
        _tell_work(tell, module)
    _tell_steps(tell)
    for store in (FolderStore, S3Store):
        for name in OPERATIONS:
            setattr(store, name, _around(tell, name, getattr(store, name)))
    for name in WRITING:
        setattr(local_files, name, _around(tell, name, getattr(local_files, name)))


def _entered(tell: Teller, stage: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def told(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        tell("stage", stage.replace("_", "-"))
        return method(*arguments, **named)

    return told


def _around(tell: Teller, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def told(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        tell("before", name)
        result = function(*arguments, **named)
        tell("after", name)
        return result

    return told


def _tell_work(tell: Teller, module: Any) -> None:  # noqa: ANN401 - a module of a stage
    make_output = outputs.make_output

    @wraps(make_output)
    def told(
        store: ObjectStore,
        manifest: Manifest,
        make: Callable[[Path], Manifest | None],
        **named: Any,  # noqa: ANN401
    ) -> Callable[[], Produced[Manifest]]:
        output = f"{manifest.stage}/{manifest.key}"

        def telling_make(folder: Path) -> Manifest | None:
            tell("begin", output)
            return make(folder)

        commit = make_output(store, manifest, telling_make, **named)

        def telling_commit() -> Produced[Manifest]:
            produced = commit()
            tell("found" if produced.reused else "made", output)
            return produced

        return telling_commit

    def told_at_once(*given: Any, **named: Any) -> Produced[Manifest]:  # noqa: ANN401
        return told(*given, **named)()

    module.run_output = told_at_once
    if hasattr(module, "make_output"):
        module.make_output = told


def _tell_steps(tell: Teller) -> None:
    follow = learning_run._Run.follow

    @wraps(follow)
    def told(self: learning_run._Run, event: Event) -> None:
        if event["kind"] == "step":
            tell("step", self._checkpoints.directory.removeprefix("checkpoints/"), event["step"])
        follow(self, event)

    learning_run._Run.follow = told  # type: ignore[method-assign]
