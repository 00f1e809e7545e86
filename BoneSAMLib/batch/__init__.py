"""Many volumes in one go: which ones, with which prompts, by how many processes, and nothing lost.

>>> from BoneSAMLib.batch import find_cases, run_batch
>>> cases = find_cases("scans", "bones", BatchPrompts(everything=True))
>>> run_batch(cases, "bones", workers=2, resume=True).exit_code
0
"""

from BoneSAMLib.batch.batch_run import BatchOutcome, run_batch
from BoneSAMLib.batch.case import BatchPrompts, Case
from BoneSAMLib.batch.case_run import CaseOutcome, CaseSettings
from BoneSAMLib.batch.case_search import find_cases
from BoneSAMLib.batch.shard import Shard, parse_shard

__all__ = [
    "BatchOutcome",
    "BatchPrompts",
    "Case",
    "CaseOutcome",
    "CaseSettings",
    "Shard",
    "find_cases",
    "parse_shard",
    "run_batch",
]
