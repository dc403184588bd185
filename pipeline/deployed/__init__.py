"""What a deployment adds to the pipeline: a clone for every run, and branches that hold what runs leave."""
