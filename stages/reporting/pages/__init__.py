"""The layout that every page shares, its style, and the report's own template."""
