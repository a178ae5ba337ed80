"""Uses a client that openapi-python-client generated, over the unix socket: python client.py SOCKET POLICY."""

import sys

import httpx
from detector_client import Client
from detector_client.api.default import apply, check, confirm, explain, rollback, rules, sources, status, version
from detector_client.models import (
    Applied,
    Apply,
    ApplySourceFiles,
    Check,
    Checked,
    Explanation,
    Failure,
    Rules,
    Sources,
    State,
    Status,
    TrialEnd,
    Version,
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
assert expect(confirm.sync(client=client), TrialEnd).confirmed
assert expect(rollback.sync(client=client), Failure).exit_code == 1
assert expect(status.sync(client=client), Status).policy.file == "generated.toml"
invalid = expect(apply.sync(client=client, body=Apply(text="version = 9")), Failure)
assert invalid.diagnostics[0].expected, invalid
print("done")
