"""What provisioning found and did, as markdown for people."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.escaping import markdown
from tasks.hosts.facts import Facts
from tasks.hosts.provision import Outcome, Setup
from tasks.hosts.route import Route
from tasks.hosts.transfer import Moved
from tasks.spec import Host


@dataclass(frozen=True)
class Cost:
    """What one run takes on the host: `hours` and `dollars` are None where nothing alike was ever measured."""

    label: str
    hours: float | None
    dollars: float | None
    source: str


def outcomes_table(outcomes: Sequence[Outcome]) -> list[str]:
    """One row a step."""
    lines = ["| step | | what | seconds |", "| --- | --- | --- | ---: |"]
    for outcome in outcomes:
        state = "changed" if outcome.changed else "as it was"
        lines.append(f"| {markdown(outcome.step)} | {state} | {markdown(outcome.text)} | {outcome.seconds:.1f} |")
    return lines


def provisioned(setup: Setup, outcomes: Sequence[Outcome], notes: Sequence[str], costs: Sequence[Cost]) -> str:
    """The report of a provisioned host: found, installed, versions, disk left, what a run will take there."""
    host, facts = setup.host, setup.facts
    changed = sum(outcome.changed for outcome in outcomes)
    lines = [
        f"## {markdown(host.name)} is a worker of the pool {markdown(host.work_pool)}",
        "",
        f"{changed} of {len(outcomes)} steps changed something; {sum(o.seconds for o in outcomes):.1f} s.",
        "",
        *(f"- {markdown(note)}" for note in notes),
        "",
        *_found(setup.remote.route, facts),
        "",
        *outcomes_table(outcomes),
        "",
        "| installed | version |",
        "| --- | --- |",
        *(f"| {markdown(name)} | {markdown(version)} |" for name, version in setup.probed.get("versions", {}).items()),
        "",
        *_costs(costs),
    ]
    if facts.services == "supervised":
        lines += [
            "",
            f"{markdown(host.name)} has no systemd, or none that starts units of {markdown(facts.user)} at boot (an administrator "
            f"allows that by loginctl enable-linger {markdown(facts.user)}): after a reboot the worker is away until this is run again.",
        ]
    return "\n".join(lines) + "\n"


def removed(host: Host, outcomes: Sequence[Outcome]) -> str:
    """The report of a host that was a worker."""
    return "\n".join([f"## {markdown(host.name)} is no worker any more", "", *outcomes_table(outcomes)]) + "\n"


def _found(route: Route, facts: Facts) -> list[str]:
    gpus = ", ".join(f"{gpu.name} ({gpu.memory_mib / 1024:.0f} GiB, driver {gpu.driver})" for gpu in facts.gpus)
    rows = {
        "Address": f"{route.place}:{route.port}",
        "System": f"{facts.system}, {facts.architecture}",
        "GPUs": gpus or "none",
        "CPU and memory": f"{facts.cores} cores, {facts.memory_bytes / 2**30:.0f} GiB",
        "Disk left": f"{facts.disk_free_bytes / 1e9:.1f} GB for {facts.folder}",
        "Clock": f"{facts.skew_seconds:+.0f} s against ours",
        "Rights": {"root": "root", "sudo": "sudo", "none": "no root: system packages are not touched"}[facts.privilege],
    }
    return ["| found | |", "| --- | --- |", *(f"| {name} | {markdown(value)} |" for name, value in rows.items())]


def _costs(costs: Sequence[Cost]) -> list[str]:
    if not costs:
        return []
    lines = ["| one run | hours | dollars | from |", "| --- | ---: | ---: | --- |"]
    for cost in costs:
        hours = f"{cost.hours:.2f}" if cost.hours is not None else "not known yet"
        dollars = f"{cost.dollars:.2f}" if cost.dollars is not None else "not known yet"
        lines.append(f"| {markdown(cost.label)} | {hours} | {dollars} | {markdown(cost.source)} |")
    return lines


def moved(transfers: Sequence[Moved]) -> str:
    """The report of transfers: what there was, what was missing, how fast and how it travelled."""
    lines = [
        "| artifact | files | MB | sent, MB | MB/s | sent again | way |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for one in transfers:
        rate = one.sent / one.seconds / 1e6 if one.seconds else 0.0
        cells = (
            one.files or "",
            f"{one.bytes / 1e6:,.1f}",
            f"{one.sent / 1e6:,.1f}",
            f"{rate:,.1f}",
            one.again,
            one.way,
        )
        lines.append(f"| {markdown(one.name)} | " + " | ".join(map(markdown, cells)) + " |")
    return "\n".join(lines) + "\n"
