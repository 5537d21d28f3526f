"""``sglang-dflash check`` reads every family: no mistakes are seen where none are, and its estimates hold."""

import pytest
from checkpoints import build_pair
from table import FAMILIES

from sglang_dflash.checks.case import Plan
from sglang_dflash.checks.findings import NOTE
from sglang_dflash.doctor.check import check
from sglang_dflash.doctor.machine import Machine
from sglang_dflash.doctor.weights import estimated_bytes

# Vision towers, of a size with these tiny language models, and Gemma's small gates are not estimated.
WITH_MORE = ("gemma", "kimi-k25")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_read(family, tmp_path):
    report = check(*map(str, build_pair(family, tmp_path)), Plan(context_length=512), Machine("CPU", 0, 8 << 30))
    assert [str(finding) for finding in report.findings if finding.severity != NOTE] == []
    assert report.exit_code == 0
    estimate, real = estimated_bytes(report.reading.case.target), report.reading.target_bytes
    assert estimate == pytest.approx(real, rel=0.2 if family.name.startswith(WITH_MORE) else 0.03)
