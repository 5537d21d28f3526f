"""``sglang-dflash check`` reads every family: no mistakes are seen where none are, and its estimates hold."""

import pytest
from checkpoints import build_pair
from table import FAMILIES

from sglang_dflash.checkpoints.checks.case import Plan
from sglang_dflash.checkpoints.checks.findings import NOTE
from sglang_dflash.tools.doctor.check import check
from sglang_dflash.tools.doctor.machine import Machine
from sglang_dflash.tools.doctor.weights import estimated_bytes


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_read(family, tmp_path):
    report = check(*map(str, build_pair(family, tmp_path)), Plan(context_length=512), Machine("CPU", 0, 8 << 30))
    assert [str(finding) for finding in report.findings if finding.severity != NOTE] == []
    assert report.exit_code == 0
    target, real = report.reading.case.target, report.reading.target_bytes
    # Vision towers are not estimated: beside these tiny language models they weigh as much.
    least = 0.5 if target.get("vision_config") or family.name.startswith("gemma") else 0.97
    assert least * real <= estimated_bytes(target) <= 1.03 * real
