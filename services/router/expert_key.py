"""What an expert is called within its model. Apart from who serves it, so that a planner needs no torch."""

ExpertKey = tuple[int, int]  # layer, expert
