"""Uses a client that openapi-python-client generated, over the unix socket: python client.py SOCKET POLICY."""

import sys

import httpx
from detector_client import Client
from detector_client.api.default import (
    add_hints,
    apply,
    audit_log,
    check,
    confirm,
    difference,
    effect,
    explain,
    fleet_orders,
    hints,
    hurt,
    incidents,
    order_fleets,
    planned,
    resume_fleets,
    rollback,
    rules,
    sources,
    status,
    stop_fleets,
    take_back_hint,
    undo,
    version,
    version_text,
    versions,
)
from detector_client.models import (
    AddHints,
    AddIncident,
    Applied,
    Apply,
    ApplySourceFiles,
    AuditLog,
    Check,
    Checked,
    Confirmed,
    Effective,
    Explanation,
    Failure,
    FleetOrderKind,
    FleetOrders,
    FleetsSwitch,
    HintLabel,
    Hints,
    HintsKept,
    HintTakenBack,
    IncidentChange,
    IncidentKind,
    OrderFleets,
    Plan,
    ResumeFleets,
    Rollback,
    Rules,
    Sources,
    State,
    Status,
    StopFleets,
    Undo,
    Version,
    VersionDifference,
    Versions,
    VersionText,
    Victims,
)

socket, path = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    policy = file.read()
client = Client(base_url="http://detector", httpx_args={"transport": httpx.HTTPTransport(uds=socket)})


def expect(answer, kind):
    """The answer, which is of a kind."""
    assert isinstance(answer, kind), f"{kind.__name__} expected: {answer}"
    return answer


def policy_with_a_rule():
    """The policy and a rule whose sources are in a file."""
    rule = '\n[[rule]]\nname = "partner"\nsource_file = "partner.txt"\naction = "allow"\n'
    files = ApplySourceFiles.from_dict({"partner.txt": "203.0.113.0/24\n"})
    return Apply(text=policy + rule, source_files=files, name="generated.toml", confirm_s=600, reason="a test")


assert expect(version.sync(client=client), Version).abi > 0
before = expect(status.sync(client=client), Status)
assert before.state == State.ENFORCING and before.policy.epoch == 1, before
assert expect(rules.sync(client=client), Rules).rules == []
assert expect(sources.sync(client=client, rows=5), Sources).sources == 0
explained = expect(explain.sync("198.51.100.7", client=client), Explanation)
assert explained.services[0].budgets[0].budget == "packets", explained

assert expect(check.sync(client=client, body=Check(text=policy)), Checked).valid
wrong = expect(check.sync(client=client, body=Check(text="version = 9")), Checked)
assert not wrong.valid and wrong.errors[0].line == 1, wrong

applied = expect(apply.sync(client=client, body=policy_with_a_rule()), Applied)
assert applied.epoch == 2 and applied.confirm_in_s == 600 and applied.source_prefixes == 1, applied
refused = expect(apply.sync(client=client, body=policy_with_a_rule()), Failure)
assert "waits to be confirmed" in refused.error, refused
assert [rule.name for rule in expect(rules.sync(client=client), Rules).rules] == ["partner"]
assert expect(confirm.sync(client=client), Confirmed).confirmed
again = expect(rollback.sync(client=client, body=Rollback(version=1, reason="as before")), Applied)
assert (again.version, again.again) == (3, 1), again
back = expect(rollback.sync(client=client, body=Rollback(version=2)), Applied)
assert (back.version, back.again) == (4, 2), back

throttle = AddIncident(action=IncidentKind.THROTTLE, targets=["198.51.100.0/24"], for_s=600, rate="10/s", reason="a wave")
added = expect(incidents.sync(client=client, body=throttle), IncidentChange).added[0]
assert added.action == "throttle packets 10/s burst 10" and added.ends_in_s > 0, added
assert [rule.id for rule in expect(rules.sync(client=client), Rules).incidents] == [added.id]
explained = expect(explain.sync("198.51.100.7", client=client), Explanation)
assert explained.services[0].rule == f"incident {added.id}", explained
assert expect(effect.sync(client=client), Effective).incidents[0].id == added.id
endless = AddIncident(action=IncidentKind.BLOCK, targets=["198.51.100.7"], reason="a wave")
assert "permanent" in expect(incidents.sync(client=client, body=endless), Failure).error
assert expect(undo.sync(client=client, body=Undo(ids=[added.id])), IncidentChange).undone[0].id == added.id
assert expect(undo.sync(client=client, body=Undo(ids=[added.id])), Failure).exit_code == 2

listed = expect(versions.sync(client=client), Versions).versions
assert [entry.version for entry in listed] == [4, 3, 2, 1], listed
assert expect(version_text.sync(1, client=client), VersionText).text == policy
changed = expect(difference.sync(2, client=client), VersionDifference)
assert "partner" in changed.diff, changed
assert expect(version_text.sync(99, client=client), Failure).exit_code
actions = [entry.action for entry in expect(audit_log.sync(client=client), AuditLog).entries]
assert actions[:2] == ["undo", "undo"] and {"throttle", "rollback", "confirm", "apply"} <= set(actions), actions
plan = expect(planned.sync(client=client, body=Check(text=policy)), Plan)
assert plan.impact.starts == 0, plan
assert expect(hurt.sync(client=client), Victims).sources == 0
assert expect(status.sync(client=client), Status).policy.file == "generated.toml"

customers = AddHints(label=HintLabel.CUSTOMER, sources=["198.51.100.7", "2001:db8:1:2::/64"], for_s=600, by="billing")
kept = expect(add_hints.sync(client=client, body=customers), HintsKept)
listed = expect(hints.sync(client=client, source="198.51.100.7"), Hints)
assert listed.count == 2 and [hint.id for hint in listed.hints] == kept.ids[:1], listed
assert listed.hints[0].label == HintLabel.CUSTOMER and listed.hints[0].by == "billing", listed
assert expect(take_back_hint.sync(kept.ids[0], client=client), HintTakenBack).hint.prefix == "198.51.100.7/32"
assert expect(take_back_hint.sync(kept.ids[0], client=client), Failure).exit_code == 2
assert expect(stop_fleets.sync(client=client, body=StopFleets(reason="a test")), FleetsSwitch).stopped
assert expect(fleet_orders.sync(client=client), FleetOrders).stopped.reason == "a test"
assert not expect(resume_fleets.sync(client=client, body=ResumeFleets()), FleetsSwitch).stopped
nobody = OrderFleets(action=FleetOrderKind.THROTTLE, fleets=[7], for_s=600, reason="a wave")
assert "there is no fleet" in expect(order_fleets.sync(client=client, body=nobody), Failure).error
invalid = expect(apply.sync(client=client, body=Apply(text="version = 9")), Failure)
assert invalid.diagnostics[0].expected, invalid
print("done")
