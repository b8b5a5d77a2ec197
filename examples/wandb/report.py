"""Creates a W&B report of spine's runs: curves, results, costs, masks, and worst samples.

    pip install wandb-workspaces
    python examples/wandb/report.py <entity> [project] [metric]

It needs an account. The report is saved as a draft, and its address is printed.
"""

import sys

import wandb_workspaces.reports.v2 as reports

STEP, EPOCH = "trainer/global_step", "epoch"


def make_report(entity: str, project: str = "spine", metric: str = "val/top1") -> reports.Report:
    """Returns the report. `metric`: the metric that selects the best checkpoint. Sends no request."""
    best = reports.SummaryMetric(f"best/{metric}")
    split, name = metric.split("/")
    curves = [
        reports.LinePlot(title=name, x=EPOCH, y=[metric]),
        reports.LinePlot(title="loss", x=STEP, y=["train/loss", f"{split}/loss"]),
        reports.LinePlot(title="learning rate", x=STEP, y=["train/lr"]),
        reports.LinePlot(title="time waited for data", x=STEP, y=["train/data_wait"]),
    ]
    results = [
        reports.BarPlot(title=f"best {metric}", metrics=[best]),
        reports.ScatterPlot(title="against multiply-adds", x=reports.SummaryMetric("costs/multiply_adds"), y=best),
        reports.ParallelCoordinatesPlot(
            columns=[reports.ParallelCoordinatesPlotColumn(metric=value) for value in (reports.Config("optimizer.lr"), best)]
        ),
    ]
    samples = [
        reports.MediaBrowser(title="samples", media_keys=[f"{split}_samples", f"{split}_predictions"]),
        reports.WeavePanelSummaryTable(table_name=f"{split}_worst_samples"),
    ]
    runs = reports.Runset(entity=entity, project=project, name="runs")
    blocks = []
    for title, panels in {"Curves": curves, "Results": results, "Samples": samples}.items():
        blocks += [reports.H2(title), reports.PanelGrid(runsets=[runs], panels=panels)]
    return reports.Report(entity=entity, project=project, title=f"{project}: {metric}", blocks=blocks)


if __name__ == "__main__":
    report = make_report(*sys.argv[1:])
    report.save(draft=True)
    print(report.url)
