"""Measurements that anybody can rerun: side by side in one run, quoted as ratios with their spread."""
