"""Where the pipeline's results lie in a checkout."""

from pathlib import Path

STATEMENT = Path("data/account/statement.json")
METRICS = Path("data/evaluate/metrics.json")
REPORT = Path("data/report/report.html")
