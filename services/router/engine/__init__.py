"""What a step is: which tokens it computes, how it runs, and what it draws."""
