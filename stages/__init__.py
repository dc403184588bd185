"""The stages of the pipeline: a file is a stage, a folder is a library."""
