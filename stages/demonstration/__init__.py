"""The demonstration: public and private record sets, and the small backbone pre-trained on the public one."""
