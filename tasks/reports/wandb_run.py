"""One Weights & Biases run per training run: the lines of `metrics.jsonl`, forwarded while the trainer writes them.

The trainer does not know W&B: it writes a file, and whoever drives it wraps the call in `forwarded`, which follows that file
from a thread. So no fault of W&B (no network, no key, a broken service) ever reaches the training. The run's id is ours
and `resume` is "allow", so that all attempts land in one run. `wandb.json` beside the metrics remembers what was sent, so that
steps that are trained again after a kill are not sent twice.
"""

import base64
import contextlib
import json
import logging
import netrc
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from tasks.errors import InputError
from tasks.records import ledger
from tasks.records.layout import METRICS, RunFolder, run_id
from tasks.records.metrics import read_metrics
from tasks.spec import Experiment
from tasks.store.artifact import write_atomic
from tasks.store.root import Root
from tasks.store.settings import load_settings

log = logging.getLogger(__name__)
Mode = Literal["online", "offline", "disabled"]
Wanted = Mode | Literal["auto"]
PROJECT = "fabrating"
SENT = "wandb.json"
POLL_SECONDS = 2.0
ASK_SECONDS = 10.0
ANSWERS: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
"""What WANDB_MODE may say, with its older names."""
OF_OTHERS = (
    "WANDB_RUN_ID",
    "WANDB_NAME",
    "WANDB_RUN_GROUP",
    "WANDB_RESUME",
    "WANDB_SWEEP_ID",
    "WANDB_SWEEP_PARAM_PATH",
    "WANDB_LAUNCH",
)
"""Variables that make each run of a process one and the same run of W&B, or one of a sweep."""
NEW_KEY = "run `wandb login --relogin`, or put a new WANDB_API_KEY into .env"
FINISH_SECONDS = 60.0
"""How long the end of a training waits for W&B to take the last lines."""


@contextlib.contextmanager
def forwarded(
    root: Root, experiment: Experiment, pool_id: str, arm_id: str, label: str | None = None
) -> Iterator[None]:
    """Forward the run's metrics to W&B while the block runs, by `training.wandb`; the runs of a pool are a group.

    `label`: what W&B shows instead of the run's id.

    Never raises for a fault of W&B: it is logged once, and the block goes on.
    """
    mode = available_mode(experiment.training.wandb)
    if mode == "disabled":
        yield
        return
    forwarder = Forwarder(root, experiment, run_id(experiment, arm_id), pool_id, arm_id, mode, label)
    forwarder.start()
    try:
        yield
    finally:
        forwarder.stop(FINISH_SECONDS)


def start(name: str, group: str, mode: Mode, folder: Path, label: str | None = None, **more: Any) -> Any:
    """A W&B run with the id `name`, so that all attempts land in one, shown as `label`. Offline files lie in `folder`; `more` goes to W&B."""
    if given := [name for name in OF_OTHERS if os.environ.pop(name, None)]:
        log.warning("%s in the environment: not used, each run has its own name in W&B.", ", ".join(given))
    import wandb  # slow to import, and broken installations must not matter

    return wandb.init(
        project=PROJECT,
        id=name,
        name=label or name,
        group=group,
        resume="allow",
        mode=mode,
        dir=str(folder),
        settings=wandb.Settings(console="off", silent=True, reinit="create_new"),
        **more,
    )


def available_mode(wanted: Wanted) -> Mode:
    """`wanted`, but offline where W&B would not let us in, with a warning unless it is auto and there is no key.

    With auto, WANDB_MODE and WANDB_DISABLED decide if they are set. W&B itself cannot go offline after it was refused, because the
    run's id would be in use.
    """
    asked = _asked()
    if wanted != "auto" and asked not in (None, wanted):
        log.warning("The environment says that W&B is %s, the run that it is %s: the run's word counts.", asked, wanted)
    mode = (asked or "auto") if wanted == "auto" else wanted
    if mode == "offline" or mode == "disabled":
        return mode
    key = api_key()
    if key is None:
        if wanted == "online":
            log.warning(
                "wandb is online, but there is no WANDB_API_KEY: the run is kept offline; send it with `wandb sync`."
            )
        return "offline"
    if is_refused(key):
        log.warning("W&B refuses the key: the run is kept offline; %s, then send the run with `wandb sync`.", NEW_KEY)
        return "offline"
    return "online"


class Forwarder:
    """Follows one metrics file from a thread."""

    def __init__(
        self, root: Root, experiment: Experiment, run: str, group: str, arm_id: str, mode: Mode, label: str | None
    ):
        self._root, self._run, self._mode, self._label = root, run, mode, label
        self._folder = root.path(RunFolder(run).folder)
        self._group = group
        self._config = {"arm_id": arm_id, **experiment.model_dump(mode="json")}
        self._tags = [experiment.arm.name, experiment.training.engine]
        self._sent: dict[str, int] = _read_sent(self._folder / SENT)
        self._size = -1
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Send what is left, for at most `seconds`."""
        self._ended.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            log.warning(
                "W&B did not take the last metrics of %s within %.0f s; they are in metrics.jsonl.", self._run, seconds
            )

    def _work(self) -> None:
        try:
            self._forward()
        except Exception as error:  # whatever W&B does, the training goes on
            log.warning(
                "W&B is out of order (%s: %s); training goes on.", type(error).__name__, str(error).split("\n")[0]
            )

    def _forward(self) -> None:
        run = start(self._run, self._group, self._mode, self._folder, self._label, config=self._config, tags=self._tags)
        try:
            run.define_metric("step", hidden=True)
            run.define_metric("*", step_metric="step")
            self._note(run)
            while not self._ended.wait(POLL_SECONDS):
                self._send_new(run)
            self._send_new(run)
        finally:
            run.finish()

    def _note(self, run: Any) -> None:
        """Say in the ledger where the run is."""
        where = run.url if self._mode == "online" else Path(run.dir).parent.as_posix()
        with contextlib.suppress(InputError):  # driven by somebody without a ledger
            ledger.note_wandb(self._root, self._run, where)

    def _send_new(self, run: Any) -> None:
        """Send the lines that are new."""
        path = self._folder / METRICS
        size = path.stat().st_size if path.is_file() else 0
        if size == self._size:
            return
        self._size = size
        for line in read_metrics(path):
            kind, step = line.get("kind"), line.get("step", 0)
            if kind not in ("train", "eval") or step <= self._sent.get(kind, 0):
                continue
            run.log(as_logged(line))
            self._sent[kind] = step
        write_atomic(self._folder / SENT, json.dumps(self._sent))


def as_logged(line: Mapping[str, Any]) -> dict[str, Any]:
    """A metrics line as W&B shows it: `train/loss`, `eval/bpb`, `eval/decile_0` ..., over `step`."""
    kind = line["kind"]
    values = {key: value for key, value in line.items() if isinstance(value, int | float) and key != "step"}
    logged = {"step": line["step"]} | {f"{kind}/{key}": value for key, value in values.items() if key != "time"}
    deciles = line.get("bpb_by_decile") or ()
    return logged | {f"eval/decile_{i}": value for i, value in enumerate(deciles) if value is not None}


def _asked() -> Mode | None:
    """What the environment says of W&B, if anything."""
    load_settings()
    if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on"):
        return "disabled"
    return ANSWERS.get(os.environ.get("WANDB_MODE", "").lower())


def api_key() -> str | None:
    """The key that W&B would find: WANDB_API_KEY, or that in the netrc file ($NETRC) which `wandb login` writes."""
    load_settings()
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(_service()).hostname or "")
    except (OSError, netrc.NetrcParseError):
        return None
    return found[2] if found else None


def is_refused(key: str) -> bool:
    """Ask W&B whose key it is. False when it is somebody's, and when W&B does not answer: then nobody knows."""
    request = urllib.request.Request(
        f"{_service()}/graphql",
        data=json.dumps({"query": "query Viewer { viewer { id } }"}).encode(),
        headers={
            "Content-Type": "application/json",
            "Authorization": f"Basic {base64.b64encode(f'api:{key}'.encode()).decode()}",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=ASK_SECONDS) as reply:
            data = json.load(reply).get("data")
            return bool(data) and data.get("viewer") is None
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
    except (OSError, ValueError, AttributeError):
        return False


def _service() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rstrip("/")


def _read_sent(path: Path) -> dict[str, int]:
    try:
        return {str(kind): int(step) for kind, step in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, AttributeError):
        return {}
