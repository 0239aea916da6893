"""A model of real size: how near a cluster comes to what its machine's memory and files allow."""
