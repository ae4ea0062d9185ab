"""From user code to a captured graph: torch.export, and Dynamo graphs re-exported."""
