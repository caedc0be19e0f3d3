"""How good an expansion is: the rubric."""
