"""When things run: the graph, dvc.yaml, the runner, the flow and the command line; no machine learning."""
