"""Templates of the commands' pages, in the layout of the report."""
